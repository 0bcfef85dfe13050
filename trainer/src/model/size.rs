//! How large a model is, and what a token costs.

use super::ModelConfig;

/// Parameter counts and floating-point operations of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// All trained parameters.
    pub total: u64,
    /// Parameters that one token uses: all but the experts it does not visit.
    pub active: u64,
    /// Floating-point operations of the matrix products for one token, forward and backward:
    /// `6 * (active - embedding) + 12 * layers * seq * d_model / 2` (causal attention).
    pub flops_per_token: u64,
}

/// Size of a model.
pub fn size(config: &ModelConfig) -> Size {
    let (width, vocab) = (config.d_model as u64, config.vocab_size as u64);
    let head_dim = config.head_dim() as u64;
    let heads = config.attention.n_heads as u64;
    let kv_heads = config.attention.n_kv_heads as u64;
    let layers = config.n_layers as u64;
    let moe = &config.moe;
    let expert = 3 * width * moe.expert_ffn as u64;

    let attention = width * (heads + 2 * kv_heads) * head_dim + heads * head_dim * width;
    let embedding = vocab * width;
    let head = if config.tie_embeddings { 0 } else { embedding };
    let mut total = embedding + head + width;
    let mut active = total;
    for layer in 0..config.n_layers {
        let common = attention + 2 * width;
        let (all, used) = if config.is_moe(layer) {
            let always = width * moe.n_experts as u64 + moe.n_shared as u64 * expert;
            (always + moe.n_experts as u64 * expert, always + moe.top_k as u64 * expert)
        } else {
            let dense = 3 * width * config.dense_ffn as u64;
            (dense, dense)
        };
        total += common + all;
        active += common + used;
    }
    let products = active - if config.tie_embeddings { 0 } else { embedding };
    let scores = layers * config.seq_len as u64 * heads * head_dim;
    Size { total, active, flops_per_token: 6 * products + 6 * scores }
}
