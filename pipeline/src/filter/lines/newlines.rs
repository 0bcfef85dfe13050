//! Consecutive line ends, limited as in DCLM and Dolma 3 before their other rules.

use serde::{Deserialize, Serialize};

use super::super::{Action, Limit, Reason, Rewrite, Rewriting, Text};
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// Settings of `newlines`.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Newlines {
        /// Most consecutive line ends; longer runs are shortened.
        pub max_consecutive: u64,
    }
}

impl Default for Newlines {
    fn default() -> Newlines {
        Newlines { max_consecutive: 2 }
    }
}

impl Section for Newlines {
    fn docs() -> Docs {
        Newlines::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.max_consecutive {
            0 => vec![("max_consecutive", "is 0, which would join all lines; expected 1 or more".into())],
            _ => Vec::new(),
        }
    }
}

impl Rewrite for Newlines {
    fn methods(&self) -> Vec<Reason> {
        vec![Reason::Borrowed("newlines")]
    }

    fn limits(&self, _action: Action) -> Vec<Limit> {
        Vec::new()
    }

    fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting) {
        let text = text.as_str();
        let (mut from, mut in_a_row) = (0, 0);
        for at in memchr::memchr_iter(b'\n', text.as_bytes()) {
            in_a_row = if at > 0 && text.as_bytes()[at - 1] == b'\n' { in_a_row + 1 } else { 1 };
            if in_a_row > self.max_consecutive {
                out.keep(&text[from..at]);
                out.take(0, "\n");
                from = at + 1;
            }
        }
        out.keep(&text[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::rewritten;

    #[test]
    fn newlines_in_a_row() {
        let new = |text: &str| rewritten(&Newlines { max_consecutive: 2 }, text).0;
        assert_eq!(new("\n\n\na\n\n\n\nb\n\nc\n"), "\n\na\n\nb\n\nc\n");
        assert_eq!(new("abc"), "abc");
    }
}
