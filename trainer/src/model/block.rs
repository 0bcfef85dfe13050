//! One block: normalize, attend, add; normalize, feed forward, add.

use burn::module::Module;
use burn::tensor::Tensor;

use super::attention::{Attention, AttentionCache};
use super::config::ModelConfig;
use super::context::Context;
use super::cost::Cost;
use super::feed_forward::SwiGlu;
use super::init::Init;
use super::moe::{MoeLayer, MoeRecord};
use super::norm::RmsNorm;
use super::scaled;

/// A pre-norm transformer block.
#[derive(Module, Debug)]
pub struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
    /// Factor of both outputs.
    branches: f64,
}

/// The part after the attention.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a model has a few dozen blocks, and `Module` is not made for `Box`"
)]
enum FeedForward {
    /// Every token through the same weights.
    Dense(SwiGlu),
    /// Every token through the experts that the router chooses.
    Moe(MoeLayer),
}

/// What the parts of a block cost; one of its two feed-forwards costs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockCost {
    /// Both normalizations.
    pub norms: Cost,
    /// Attention.
    pub attention: Cost,
    /// Dense feed-forward.
    pub dense: Cost,
    /// Mixture of experts.
    pub mixture: Cost,
}

impl Block {
    /// Block `layer` (from 0) of a model.
    pub fn new(config: &ModelConfig, layer: usize, init: &Init) -> Self {
        let name = format!("blocks.{layer}");
        // The residual stream adds two outputs per block; scaling them keeps its variance from growing with
        // depth.
        let transfer = config.transfer();
        let out_scale = transfer.residual_init(config.n_layers);
        let ffn = format!("{name}.feed_forward");
        let feed_forward = if config.is_moe(layer) {
            FeedForward::Moe(MoeLayer::new(config, layer, out_scale, &ffn, init))
        } else {
            FeedForward::Dense(SwiGlu::new(config.d_model, config.dense_ffn, out_scale, &ffn, init))
        };
        Self {
            attention_norm: RmsNorm::new(config.d_model, config.norm_eps, init.device()),
            attention: config.attention(layer).build(
                config.place(out_scale),
                &format!("{name}.attention"),
                init,
            ),
            feed_forward_norm: RmsNorm::new(config.d_model, config.norm_eps, init.device()),
            feed_forward,
            branches: transfer.branches(),
        }
    }

    /// What block `layer` (from 0) of a model costs.
    pub fn cost(config: &ModelConfig, layer: usize) -> Cost {
        let BlockCost { norms, attention, dense, mixture } = Self::costs(config, layer);
        norms + attention + dense + mixture
    }

    /// The same by part.
    pub fn costs(config: &ModelConfig, layer: usize) -> BlockCost {
        let norm = RmsNorm::cost(config.d_model);
        let (dense, mixture) = match config.is_moe(layer) {
            true => (Cost::default(), MoeLayer::cost(config)),
            false => (SwiGlu::cost(config.d_model, config.dense_ffn), Cost::default()),
        };
        let attention = config.attention.cost(layer, config.n_layers, config.d_model, config.seq_len);
        BlockCost { norms: norm + norm, attention, dense, mixture }
    }

    /// # Shapes
    /// - x: `[batch * seq, d_model]`, and so is the result
    pub fn forward(&self, x: Tensor<2>, ctx: &Context) -> (Tensor<2>, Option<MoeRecord>) {
        let attended = self.attention.forward(self.attention_norm.forward(x.clone()), ctx);
        let x = x + scaled(attended, self.branches);
        self.feed_forward(x, ctx)
    }

    /// [`Block::forward`] for the next tokens of one document, whose tokens so far are in the cache.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    pub fn extend(&self, x: Tensor<2>, ctx: &Context, cache: &mut AttentionCache) -> Tensor<2> {
        let attended = self.attention.extend(self.attention_norm.forward(x.clone()), ctx, cache);
        self.feed_forward(x + scaled(attended, self.branches), ctx).0
    }

    /// An empty cache for its attention.
    pub fn cache(&self) -> AttentionCache {
        self.attention.cache()
    }

    fn feed_forward(&self, x: Tensor<2>, ctx: &Context) -> (Tensor<2>, Option<MoeRecord>) {
        let normed = self.feed_forward_norm.forward(x.clone());
        match &self.feed_forward {
            FeedForward::Dense(dense) => (x + scaled(dense.forward(normed), self.branches), None),
            FeedForward::Moe(moe) => {
                let (y, record) = moe.forward(normed, ctx);
                (x + scaled(y, self.branches), Some(record))
            }
        }
    }

    /// The attention.
    pub(super) fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The mixture of experts, if the block has one.
    pub fn moe(&self) -> Option<&MoeLayer> {
        match &self.feed_forward {
            FeedForward::Dense(_) => None,
            FeedForward::Moe(moe) => Some(moe),
        }
    }

    /// The same block with its mixture of experts changed; unchanged if it has none.
    pub fn map_moe(self, change: impl FnOnce(MoeLayer) -> MoeLayer) -> Self {
        let feed_forward = match self.feed_forward {
            FeedForward::Moe(moe) => FeedForward::Moe(change(moe)),
            dense @ FeedForward::Dense(_) => dense,
        };
        Self { feed_forward, ..self }
    }
}
