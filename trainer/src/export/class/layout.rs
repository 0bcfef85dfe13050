//! The tensors of a decoder, by the names of each class.

use super::super::mapping::{Mapped, interleaved};
use super::Facts;

/// What differs between the names of classes.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The mixture of experts of a block.
    pub mixture: &'static str,
    /// Gate, up and down of an expert.
    pub expert: [&'static str; 3],
    /// The selection bias, if the class has one.
    pub bias: Option<&'static str>,
    /// The shared experts.
    pub shared: Option<&'static str>,
    /// The gate of shared experts.
    pub shared_gate: Option<&'static str>,
}

/// The names of most classes.
pub const PLAIN: Names =
    Names { mixture: "mlp", expert: PROJECTIONS, bias: None, shared: None, shared_gate: None };

const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// The matrices of our feed-forward: gate, up, down.
const MATRICES: [&str; 3] = ["w_gate", "w_up", "w_down"];

/// Collects the tensors of a model.
struct Layout<'a> {
    facts: Facts<'a>,
    names: &'a Names,
    scale: f32,
    all: Vec<Mapped>,
}

/// All tensors of a model; the experts' down matrices are multiplied by `scale`.
pub fn tensors(names: &Names, scale: f32, facts: Facts) -> Vec<Mapped> {
    let mut layout = Layout { facts, names, scale, all: Vec::new() };
    let (vocab, d) = (facts.model.vocab_size, facts.model.d_model);
    layout.all.push(Mapped::same("model.embed_tokens.weight".into(), "embedding".into(), vec![vocab, d]));
    for layer in 0..facts.model.n_layers {
        layout.block(layer);
    }
    layout.vector("model.norm.weight", "norm.weight", d);
    if !facts.model.tie_embeddings {
        layout.matrix("lm_head.weight", "head", d, (0..vocab).collect());
    }
    layout.all
}

impl Layout<'_> {
    fn vector(&mut self, theirs: &str, ours: &str, n: usize) {
        self.all.push(Mapped::same(theirs.into(), ours.into(), vec![n]));
    }

    fn matrix(&mut self, theirs: &str, ours: &str, rows: usize, columns: Vec<usize>) {
        self.all.push(Mapped::transposed(theirs.into(), ours.into(), rows, columns));
    }

    fn block(&mut self, layer: usize) {
        let (theirs, ours) = (format!("model.layers.{layer}"), format!("blocks.{layer}"));
        let d = self.facts.model.d_model;
        self.vector(&format!("{theirs}.input_layernorm.weight"), &format!("{ours}.attention_norm.weight"), d);
        match self.facts.text("attention.kind") == "mla" {
            true => self.latent(&format!("{theirs}.self_attn"), &format!("{ours}.attention")),
            false => self.heads(&format!("{theirs}.self_attn"), &format!("{ours}.attention")),
        }
        let norm = format!("{ours}.feed_forward_norm.weight");
        self.vector(&format!("{theirs}.post_attention_layernorm.weight"), &norm, d);
        let ours = format!("{ours}.feed_forward");
        match self.facts.mixtures().contains(&layer) {
            true => self.mixture(&format!("{theirs}.{}", self.names.mixture), &ours),
            false => self.dense(&format!("{theirs}.mlp"), &ours, self.facts.model.dense_ffn),
        }
    }

    /// Queries, keys and values of heads, one after the other in ours.
    fn heads(&mut self, theirs: &str, ours: &str) {
        let d = self.facts.model.d_model;
        let (heads, kv_heads) =
            (self.facts.number("attention.heads"), self.facts.number("attention.kv_heads"));
        let dim = self.facts.model.attention(0).head_dim(d);
        let (queries, keys) = (heads * dim, kv_heads * dim);
        let mut from = 0;
        for (name, width) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
            let columns = (from..from + width).collect();
            self.matrix(&format!("{theirs}.{name}.weight"), &format!("{ours}.w_qkv"), d, columns);
            from += width;
        }
        self.matrix(&format!("{theirs}.o_proj.weight"), &format!("{ours}.w_out"), queries, (0..d).collect());
        if self.facts.text("attention.qk_norm") == "true" {
            self.vector(&format!("{theirs}.q_norm.weight"), &format!("{ours}.q_norm.weight"), dim);
            self.vector(&format!("{theirs}.k_norm.weight"), &format!("{ours}.k_norm.weight"), dim);
        }
    }

    /// Latent attention, whose rotary pairs are neighbors in theirs.
    fn latent(&mut self, theirs: &str, ours: &str) {
        let of = |name: &str| self.facts.number(&format!("attention.mla.{name}"));
        let [heads, rank, q_rank, nope, rope, value] =
            ["heads", "kv_rank", "q_rank", "nope_dim", "rope_dim", "value_dim"].map(of);
        let d = self.facts.model.d_model;
        let queries = interleaved(0..heads, nope + rope, rope);
        let w_q = format!("{ours}.w_q");
        match q_rank {
            0 => self.matrix(&format!("{theirs}.q_proj.weight"), &w_q, d, queries),
            rank => {
                let (down, norm) = (format!("{ours}.w_q_latent"), format!("{ours}.q_norm.weight"));
                self.matrix(&format!("{theirs}.q_a_proj.weight"), &down, d, (0..rank).collect());
                self.vector(&format!("{theirs}.q_a_layernorm.weight"), &norm, rank);
                self.matrix(&format!("{theirs}.q_b_proj.weight"), &w_q, rank, queries);
            }
        }
        let latent = format!("{ours}.w_latent");
        let columns = interleaved(0..1, rank + rope, rope);
        self.matrix(&format!("{theirs}.kv_a_proj_with_mqa.weight"), &latent, d, columns);
        self.vector(&format!("{theirs}.kv_a_layernorm.weight"), &format!("{ours}.kv_norm.weight"), rank);
        let columns = (0..heads * (nope + value)).collect();
        self.matrix(&format!("{theirs}.kv_b_proj.weight"), &format!("{ours}.w_kv"), rank, columns);
        let columns = (0..d).collect();
        self.matrix(&format!("{theirs}.o_proj.weight"), &format!("{ours}.w_out"), heads * value, columns);
    }

    fn dense(&mut self, theirs: &str, ours: &str, hidden: usize) {
        let d = self.facts.model.d_model;
        for ((theirs_of, ours_of), (rows, columns)) in
            PROJECTIONS.into_iter().zip(MATRICES).zip([(d, hidden), (d, hidden), (hidden, d)])
        {
            let theirs = format!("{theirs}.{theirs_of}.weight");
            self.matrix(&theirs, &format!("{ours}.{ours_of}"), rows, (0..columns).collect());
        }
    }

    fn mixture(&mut self, theirs: &str, ours: &str) {
        let model = self.facts.model;
        let (d, moe) = (model.d_model, &model.moe);
        let router = format!("{ours}.router");
        let logits = Mapped::transposed(
            format!("{theirs}.gate.weight"),
            format!("{router}.weight"),
            d,
            (0..moe.n_experts).collect(),
        );
        self.all.push(Mapped { stays_f32: true, ..logits });
        if let Some(bias) = self.names.bias {
            let bias = Mapped::same(
                format!("{theirs}.{bias}"),
                format!("{router}.balance_bias"),
                vec![moe.n_experts],
            );
            self.all.push(Mapped { stays_f32: true, ..bias });
        }
        let f = moe.expert_ffn;
        let shapes = [(d, f, 1.0), (d, f, 1.0), (f, d, self.scale)];
        for ((theirs_of, ours_of), (rows, columns, scale)) in
            self.names.expert.into_iter().zip(MATRICES).zip(shapes)
        {
            for expert in 0..moe.n_experts {
                let name = format!("{theirs}.experts.{expert}.{theirs_of}.weight");
                let stack = format!("{ours}.experts.{ours_of}");
                let mapped = Mapped::transposed(name, stack, rows, (0..columns).collect());
                self.all.push(Mapped { scale, ..mapped.of(expert) });
            }
        }
        if let Some(shared) = self.names.shared.filter(|_| moe.n_shared > 0) {
            self.dense(&format!("{theirs}.{shared}"), &format!("{ours}.shared"), moe.n_shared * f);
        }
        if let Some(gate) = self.names.shared_gate.filter(|_| moe.n_shared > 0 && moe.shared_gate) {
            self.matrix(&format!("{theirs}.{gate}.weight"), &format!("{ours}.shared_gate"), d, vec![0]);
        }
    }
}
