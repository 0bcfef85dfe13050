//! The model: embedding -> blocks -> norm, and the projection to the vocabulary.
//!
//! It knows neither data, nor files, nor training: it maps an [`Input`] to hidden states, and
//! leaves a record of each router. The loss multiplies by [`Model::head`] itself, chunk by chunk.

pub mod attention;
mod block;
pub mod config;
pub mod feed_forward;
pub mod init;
mod input;
pub mod moe;
pub mod norm;
pub mod parameters;
pub mod rope;
pub mod size;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

pub use block::Block;
pub use config::ModelConfig;
pub use input::{Input, PADDING, ValidMask};

use attention::DocumentMask;
use config::BalanceConfig;
use init::Init;
use moe::MoeRecord;
use norm::RmsNorm;
use rope::Rope;

/// A decoder-only transformer with mixture-of-experts feed-forwards.
#[derive(Module, Debug)]
pub struct Model {
    embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// `[d_model, vocab]`; absent when the embedding serves as head.
    head: Option<Param<Tensor<2>>>,
    #[module(skip)]
    rope: Rope,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    balance: BalanceConfig,
}

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Output {
    /// `[batch * seq, d_model]`, after the last normalisation.
    pub hidden: Tensor<2>,
    /// One record for each mixture-of-experts block, with its layer number.
    pub records: Vec<(usize, MoeRecord)>,
}

impl Model {
    /// A model with initial values from `seed`, on `device`.
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let init = Init::new(seed, config.init_std, device);
        let (vocab, width) = (config.vocab_size, config.d_model);
        Self {
            embedding: init.normal("embedding", [vocab, width], 1.0),
            blocks: (0..config.n_layers).map(|layer| Block::new(config, layer, &init)).collect(),
            norm: RmsNorm::new(width, config.norm_eps, device),
            head: (!config.tie_embeddings).then(|| init.normal("head", [width, vocab], 1.0)),
            rope: Rope::new(config.seq_len, config.head_dim(), config.attention.rope_theta),
            n_heads: config.attention.n_heads,
            balance: config.moe.balance.clone(),
        }
    }

    /// Hidden states of a batch.
    pub fn forward(&self, input: &Input) -> Output {
        let shape @ [batch, seq] = input.tokens.dims();
        let device = input.tokens.device();
        let tokens = input.tokens.clone().reshape([batch * seq]);
        let rotation = self.rope.rotation(&input.positions, &device);
        let mask = DocumentMask::new(&input.segments, shape, self.n_heads, &device);

        let mut x = self.embedding.val().select(0, tokens);
        let mut records = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let (y, record) = block.forward(x, &rotation, &mask, &input.valid, &self.balance);
            x = y;
            records.extend(record.map(|record| (layer, record)));
        }
        Output { hidden: self.norm.forward(x), records }
    }

    /// The projection to the vocabulary, `[d_model, vocab]`.
    pub fn head(&self) -> Tensor<2> {
        match &self.head {
            Some(head) => head.val(),
            None => self.embedding.val().transpose(),
        }
    }

    /// The selection bias of each router, by layer number.
    pub fn balance_biases(&self) -> Vec<(usize, Tensor<1>)> {
        let bias = |block: &Block| block.moe().map(|moe| moe.balance_bias().val());
        self.blocks.iter().enumerate().filter_map(|(layer, block)| Some((layer, bias(block)?))).collect()
    }

    /// The same model with another selection bias in the router of `layer`.
    pub fn with_balance_bias(mut self, layer: usize, bias: &[f32]) -> Self {
        self.blocks = self
            .blocks
            .into_iter()
            .enumerate()
            .map(|(index, block)| if index == layer { block.with_balance_bias(bias) } else { block })
            .collect();
        self
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.norm.weight.val().device()
    }
}
