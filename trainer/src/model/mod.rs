//! The model: embedding -> blocks -> norm, and the projection to the vocabulary.
//!
//! It knows nothing about data, files or training: it maps an [`Input`] to hidden states, and returns a
//! record of each router. The loss multiplies by [`Model::head`] itself, chunk by chunk.

pub mod attention;
mod block;
pub mod config;
pub mod context;
pub mod cost;
pub mod facts;
pub mod feed_forward;
pub mod init;
mod input;
pub mod memory;
pub mod moe;
pub mod norm;
mod parameter;
pub mod parameters;
pub mod record;
pub mod rope;
mod settings;
pub mod size;
pub mod transfer;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

pub use block::{Block, BlockCost};
pub use config::ModelConfig;
pub use input::{Input, PADDING, ValidMask};
pub use settings::{ModelSettings, PrecisionSettings};

use crate::ops::embedding::embed;
use attention::AttentionCache;
use config::Compute;
use context::{BatchCounts, Context, Pass};
use cost::Cost;
use init::Init;
use moe::{CapacitySettings, MoeLayer, MoeRecord};
use norm::RmsNorm;
use rope::Ropes;
use transfer::Transfer;

/// A decoder-only transformer with mixture-of-experts feed-forwards.
#[derive(Module, Debug)]
pub struct Model {
    embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// `[d_model, vocab]`; absent when the embedding serves as head.
    head: Option<Param<Tensor<2>>>,
    #[module(skip)]
    ropes: Ropes,
    #[module(skip)]
    compute: Compute,
    #[module(skip)]
    transfer: Transfer,
}

/// The result of a forward pass.
#[derive(Debug)]
pub struct Output {
    /// `[batch * seq, d_model]`, after the last normalization.
    pub hidden: Tensor<2>,
    /// One record for each mixture-of-experts block, with its layer number.
    pub records: Vec<(usize, MoeRecord)>,
}

impl Model {
    /// A model with initial values from `seed`, on `device`.
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let init = Init::new(seed, config.init_std, device);
        Self::with(config, &init.under(config.transfer()))
    }

    /// A model whose values are to be replaced, on `device`.
    pub fn zeros(config: &ModelConfig, device: &Device) -> Self {
        Self::with(config, &Init::zeros(device))
    }

    /// A model with names and shapes, but without memory for values; it cannot compute anything.
    fn outline(config: &ModelConfig) -> Self {
        Self::with(config, &Init::outline(&Device::flex()))
    }

    fn with(config: &ModelConfig, init: &Init) -> Self {
        let (vocab, width) = (config.vocab_size, config.d_model);
        Self {
            embedding: init.normal("embedding", [vocab, width], 1.0),
            blocks: (0..config.n_layers).map(|layer| Block::new(config, layer, init)).collect(),
            norm: RmsNorm::new(width, config.norm_eps, init.device()),
            head: (!config.tie_embeddings).then(|| init.normal("head", [width, vocab], 1.0)),
            ropes: config.ropes(),
            compute: config.compute,
            transfer: config.transfer(),
        }
    }

    /// What a model costs.
    pub fn cost(config: &ModelConfig) -> Cost {
        Self::costs(config).into_iter().map(|(_, cost)| cost).sum()
    }

    /// What its parts cost, over all blocks: the embedding, attention, dense feed-forwards, mixtures of
    /// experts, normalizations, and the head.
    pub fn costs(config: &ModelConfig) -> [(&'static str, Cost); 6] {
        let table = (config.vocab_size * config.d_model) as u64;
        let embedding = Cost { flops: 0, ..Cost::of_weights(table) };
        let head = match config.tie_embeddings {
            true => Cost { parameters: 0, active: 0, ..Cost::of_weights(table) },
            false => Cost::of_weights(table),
        };
        let mut of_blocks = BlockCost::default();
        for layer in 0..config.n_layers {
            let BlockCost { norms, attention, dense, mixture } = Block::costs(config, layer);
            of_blocks.norms = of_blocks.norms + norms;
            of_blocks.attention = of_blocks.attention + attention;
            of_blocks.dense = of_blocks.dense + dense;
            of_blocks.mixture = of_blocks.mixture + mixture;
        }
        [
            ("embedding", embedding),
            ("attention", of_blocks.attention),
            ("dense feed-forward", of_blocks.dense),
            ("mixture of experts", of_blocks.mixture),
            ("normalisation", of_blocks.norms + Cost::of_weights(config.d_model as u64)),
            ("head", head),
        ]
    }

    /// Hidden states of a batch, in the type of computation.
    pub fn forward(&self, input: &Input, ctx: &Context) -> Output {
        let mut x = self.embed(input);
        let mut records = Vec::new();
        for layer in 0..self.blocks.len() {
            let (y, record) = self.block(layer, x, ctx);
            x = y;
            records.extend(record.map(|record| (layer, record)));
        }
        Output { hidden: self.last_norm(x), records }
    }

    /// Empty caches, one for each block.
    pub fn caches(&self) -> Vec<AttentionCache> {
        self.blocks.iter().map(Block::cache).collect()
    }

    /// Hidden states of the next tokens of one document, whose tokens so far are in the caches: the same as
    /// from [`Model::forward`] on the whole document, unless a router looks at other tokens. The input is one
    /// sample whose positions follow those of the caches.
    ///
    /// # Shapes
    /// - result: `[tokens, d_model]`, after the last normalization
    pub fn extend(&self, input: &Input, caches: &mut [AttentionCache]) -> Tensor<2> {
        let (mut x, ctx) = (self.embed(input), self.eval_context(input));
        for (block, cache) in self.blocks.iter().zip(caches) {
            x = block.extend(x, &ctx, cache);
        }
        self.last_norm(x)
    }

    /// What all layers need to know about an input, which is a part of the batch of these counts.
    pub fn context(&self, input: &Input, pass: Pass, counts: BatchCounts) -> Context {
        Context::new(input, pass, counts, &self.ropes)
    }

    /// The context of an input in evaluation.
    pub fn eval_context(&self, input: &Input) -> Context {
        self.context(input, Pass::EVAL, BatchCounts::of(&input.valid))
    }

    /// The embedding of each token, `[batch * seq, d_model]`, in the type of computation.
    pub fn embed(&self, input: &Input) -> Tensor<2> {
        let [batch, seq] = input.tokens.dims();
        let tokens = input.tokens.clone().reshape([batch * seq]);
        embed(self.embedding.val(), tokens, &input.ids, self.compute)
    }

    /// One block.
    ///
    /// # Shapes
    /// - x: `[batch * seq, d_model]`, and so is the result
    pub fn block(&self, layer: usize, x: Tensor<2>, ctx: &Context) -> (Tensor<2>, Option<MoeRecord>) {
        self.blocks[layer].forward(x, ctx)
    }

    /// The normalization after the last block, with the parametrization's factor of logits.
    pub fn last_norm(&self, x: Tensor<2>) -> Tensor<2> {
        scaled(self.norm.forward(x), self.transfer.logits())
    }

    /// What the parametrization multiplies.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// Columns of the matrices that a parameter of this name has side by side; none if it is one matrix.
    pub(crate) fn side_by_side(&self, name: &str) -> Vec<usize> {
        let parts = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
        let block = parts.and_then(|(layer, field)| {
            let layer: usize = layer.parse().ok()?;
            Some((self.blocks.get(layer)?, field.strip_prefix("attention.")?))
        });
        block.map_or_else(Vec::new, |(block, field)| block.attention().side_by_side(field))
    }

    /// Number of blocks.
    pub fn n_layers(&self) -> usize {
        self.blocks.len()
    }

    /// The projection to the vocabulary, `[d_model, vocab]`.
    pub fn head(&self) -> Tensor<2> {
        match &self.head {
            Some(head) => head.val(),
            None => self.embedding.val().transpose(),
        }
    }

    /// The mixtures of experts, by layer number.
    pub fn mixtures(&self) -> impl Iterator<Item = (usize, &MoeLayer)> {
        self.blocks.iter().enumerate().filter_map(|(layer, block)| Some((layer, block.moe()?)))
    }

    /// The same model with another expert capacity.
    pub fn with_capacity(mut self, capacity: &CapacitySettings) -> Self {
        let change = |block: Block| block.map_moe(|moe| moe.with_capacity(capacity.clone()));
        self.blocks = self.blocks.into_iter().map(change).collect();
        self
    }

    /// The same model with another selection bias in the router of `layer`, outside of any graph.
    pub fn with_bias(mut self, layer: usize, bias: Tensor<1>) -> Self {
        let change = |(index, block): (usize, Block)| match index == layer {
            true => block.map_moe(|moe| moe.with_bias(bias.clone())),
            false => block,
        };
        self.blocks = self.blocks.into_iter().enumerate().map(change).collect();
        self
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.norm.weight.val().device()
    }
}

/// A product with a factor that is usually 1.
fn scaled<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    if factor == 1.0 { x } else { x * factor }
}
