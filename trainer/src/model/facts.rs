//! What the documentation says about each kind of router or balancer. It is next to the kind's definition,
//! and the tables in docs/models.md are made from it.

/// Which form of its operations computes a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Tensor operations.
    Plain,
    /// The choice of experts is fast, the rest is not.
    Partly,
    /// CPU loops, or GPU kernels.
    Fast,
}

/// Facts of a kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// What it does.
    pub what: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Whether a token's result depends only on the tokens before it.
    pub is_causal: bool,
    /// Whether the CPU computes the same bits with any number of threads.
    pub is_exact: bool,
    /// How the CPU computes it.
    pub cpu: Written,
    /// How GPUs compute it.
    pub gpu: Written,
    /// The classes of `transformers` that compute the same.
    pub elsewhere: &'static str,
}

impl Facts {
    /// A causal, exact kind in plain form that no other program has.
    pub const fn plain(what: &'static str, source: &'static str) -> Self {
        let (cpu, gpu) = (Written::Plain, Written::Plain);
        Self { what, source, is_causal: true, is_exact: true, cpu, gpu, elsewhere: "none" }
    }

    /// The same, with a fast choice of experts.
    pub const fn with_fast_choice(self) -> Self {
        Self { cpu: Written::Partly, gpu: Written::Partly, ..self }
    }

    /// Its row in a table.
    fn row(&self, kind: &str) -> String {
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        let form = |written: Written| match written {
            Written::Plain => "plain",
            Written::Partly => "partly",
            Written::Fast => "fast",
        };
        format!(
            "| `{kind}` | {} | {} | {} | {} | {} | {} | {} |",
            self.what,
            self.source,
            yes(self.is_causal),
            yes(self.is_exact),
            form(self.cpu),
            form(self.gpu),
            self.elsewhere
        )
    }
}

/// A table in Markdown; `title` is the heading of the first column.
pub fn table(title: &str, kinds: &[(&str, Facts)]) -> String {
    let head = format!(
        "| {title} | what it does | source | causal | exact on the CPU | CPU | GPU | `transformers` |"
    );
    let mut lines = vec![head, "| --- | --- | --- | --- | --- | --- | --- | --- |".to_string()];
    lines.extend(kinds.iter().map(|(kind, facts)| facts.row(kind)));
    lines.join("\n")
}
