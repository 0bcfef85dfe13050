//! The geometry of a model: what is needed to build it, and nothing about training.

pub use super::attention::{AttentionConfig, AttentionPattern};
pub use super::moe::{BalanceConfig, CapacitySettings, RouterConfig};
pub use super::transfer::Parametrization;
pub use crate::ops::Compute;

use super::attention::Place;
use super::moe::{Activation, MoeSettings};
use super::rope::Ropes;
use super::settings::ModelSettings;
use super::transfer::{Shape, Transfer};

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
    /// The first blocks that have a dense feed-forward; the rest have a mixture of experts.
    pub n_dense_layers: usize,
    /// Hidden width of a dense feed-forward.
    pub dense_ffn: usize,
    /// Added to the mean square in each normalization.
    pub norm_eps: f64,
    /// Whether the output projection is the transposed embedding.
    pub tie_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
    /// What follows from the shape, and the shape that settings were tuned for.
    pub parametrization: Parametrization,
    /// Type of activations and products.
    pub compute: Compute,
    /// Attention of each block.
    pub attention: AttentionPattern,
    /// Mixture of experts of the blocks after the dense ones.
    pub moe: MoeConfig,
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
    /// Width on which routed experts work; 0: that of the residual stream.
    pub latent: usize,
    /// What routed experts compute between their matrices.
    pub expert_activation: Activation,
    /// Whether the shared experts have a gate.
    pub shared_gate: bool,
    /// Fraction of the hidden values of routed experts that are dropped in training.
    pub expert_dropout: f64,
    /// How scores become choices and weights.
    pub router: RouterConfig,
    /// What keeps the experts evenly loaded.
    pub balance: BalanceConfig,
    /// What happens if they are not.
    pub capacity: CapacitySettings,
}

impl MoeConfig {
    /// The mixture of experts of these settings.
    pub fn new(
        settings: MoeSettings,
        router: RouterConfig,
        balance: BalanceConfig,
        capacity: CapacitySettings,
    ) -> Self {
        let MoeSettings {
            experts: n_experts,
            top_k,
            shared: n_shared,
            expert_ffn,
            latent,
            expert_activation,
            shared_gate,
            expert_dropout,
        } = settings;
        Self {
            n_experts,
            top_k,
            n_shared,
            expert_ffn,
            latent,
            expert_activation,
            shared_gate,
            expert_dropout,
            router,
            balance,
            capacity,
        }
    }
}

impl ModelConfig {
    /// The model of these settings, with vocabulary and sequence length, which are the data's, still 0.
    pub fn new(
        settings: ModelSettings,
        parametrization: Parametrization,
        compute: Compute,
        attention: AttentionPattern,
        moe: MoeConfig,
    ) -> Self {
        let ModelSettings {
            d_model,
            layers: n_layers,
            dense_layers: n_dense_layers,
            dense_ffn,
            norm_eps,
            tie_embeddings,
            init_std,
        } = settings;
        Self {
            vocab_size: 0,
            seq_len: 0,
            d_model,
            n_layers,
            n_dense_layers,
            dense_ffn,
            norm_eps,
            tie_embeddings,
            init_std,
            parametrization,
            compute,
            attention,
            moe,
        }
    }

    /// The attention of block `layer` (from 0).
    pub fn attention(&self, layer: usize) -> &AttentionConfig {
        self.attention.of(layer, self.n_layers)
    }

    /// What the attention of a block must know to be built; `out_scale` is the factor of the initial standard
    /// deviation of its projection back into the residual stream.
    pub fn place(&self, out_scale: f64) -> Place {
        Place {
            tile_from: self.attention.tile_from(),
            stretch: self.attention.stretch(),
            ..Place::new(self.d_model, self.norm_eps, out_scale)
        }
    }

    /// The rotary tables of its blocks.
    pub fn ropes(&self) -> Ropes {
        let of_layer = |layer| self.attention(layer).rotary(self.d_model);
        Ropes::new(self.seq_len, (0..self.n_layers).filter_map(of_layer), self.attention.stretch())
    }

    /// The multipliers of its parametrization.
    pub fn transfer(&self) -> Transfer {
        let MoeConfig { top_k, n_shared, expert_ffn, .. } = self.moe;
        let shape = Shape {
            d_model: self.d_model,
            n_layers: self.n_layers,
            dense_ffn: self.dense_ffn,
            active_ffn: (top_k + n_shared).saturating_mul(expert_ffn),
            top_k,
        };
        Transfer::new(&self.parametrization, shape)
    }

    /// Why a token's output depends on later tokens, or on how many there are; none if it does not.
    pub fn sees_later_tokens(&self) -> Option<&'static str> {
        if self.n_dense_layers >= self.n_layers {
            None
        } else if self.moe.router.sees_the_pass() {
            Some("its router compares tokens of a forward pass with each other")
        } else if self.moe.capacity.eval_factor > 0.0 {
            Some("moe.capacity.eval_factor counts the tokens of a forward pass")
        } else {
            None
        }
    }

    /// Width of the widest attention head for GPU kernels.
    pub fn head_dim(&self) -> usize {
        (0..self.n_layers).map(|layer| self.attention(layer).head_dim(self.d_model)).max().unwrap_or(0)
    }

    /// Width on which routed experts work.
    pub fn expert_width(&self) -> usize {
        if self.moe.latent == 0 { self.d_model } else { self.moe.latent }
    }

    /// Whether block `layer` (from 0) has a mixture of experts.
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.n_dense_layers
    }
}
