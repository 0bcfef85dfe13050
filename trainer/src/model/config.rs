//! The geometry of a model: what is needed to build it, and nothing about training.

pub use crate::ops::Compute;
pub use crate::ops::routing::Score as ScoreFunction;

/// A decoder-only language model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Entries of the vocabulary; token ids are below it.
    pub vocab_size: usize,
    /// Longest sequence, in tokens; rotary tables are built for this many positions.
    pub seq_len: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// The first so many blocks have a dense feed-forward, the rest a mixture of experts.
    pub n_dense_layers: usize,
    /// Hidden width of a dense feed-forward.
    pub dense_ffn: usize,
    /// Added to the mean square in each normalisation.
    pub norm_eps: f64,
    /// Whether the output projection is the transposed embedding.
    pub tie_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
    /// Type of activations and products.
    pub compute: Compute,
    /// Attention of every block.
    pub attention: AttentionConfig,
    /// Mixture of experts of the blocks after the dense ones.
    pub moe: MoeConfig,
}

/// Grouped-query attention with rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Query heads; the width of a head is `d_model / n_heads`.
    pub n_heads: usize,
    /// Key and value heads; each serves `n_heads / n_kv_heads` query heads.
    pub n_kv_heads: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

/// A mixture-of-experts feed-forward.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeConfig {
    /// Routed experts, `E`.
    pub n_experts: usize,
    /// Experts that each token visits, `k`.
    pub top_k: usize,
    /// Shared experts, visited by every token; they are one SwiGLU of `n_shared * expert_ffn`.
    pub n_shared: usize,
    /// Hidden width of one expert.
    pub expert_ffn: usize,
    /// How scores become choices and weights.
    pub router: RouterConfig,
    /// What keeps the experts evenly loaded.
    pub balance: BalanceConfig,
}

/// How a router turns logits into choices and weights.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// Function from logits to scores.
    pub score: ScoreFunction,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm_weights: bool,
    /// Factor of the weights, after the division.
    pub route_scale: f64,
}

/// Strengths of the balancing terms; zero switches one off.
#[derive(Debug, Clone, PartialEq)]
pub struct BalanceConfig {
    /// Step of the loss-free bias, in units of the score.
    pub bias_rate: f64,
    /// Coefficient of the Switch auxiliary loss.
    pub switch: f64,
    /// Coefficient of the same loss taken over each sequence.
    pub sequence: f64,
    /// Coefficient of the router z-loss.
    pub z: f64,
}

impl ModelConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.attention.n_heads
    }

    /// Whether block `layer` (from 0) holds a mixture of experts.
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.n_dense_layers
    }
}
