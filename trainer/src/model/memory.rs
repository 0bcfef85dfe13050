//! How much memory a training step needs, before it starts.
//!
//! Per parameter: 4 bytes each for itself and its gradient, what its optimizer rule keeps, and with bf16 a
//! copy of 2 bytes that products keep for the backward pass. Per token and block: what the gradients of its
//! operations need, as each part declares in its [`Cost`](super::cost::Cost). On a CPU latent attention also
//! keeps the scores of samples that are shorter than `attention.tile_from`, sequence length squared per head.
//! The allocator's overhead is not included.

use super::config::Compute;
use super::size::size;
use super::{Block, ModelConfig};
use crate::ops::Form;
use crate::ops::cross_entropy::chunk_tokens;

/// Bytes on the device, by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    /// Parameters, f32.
    pub parameters: u64,
    /// Their copies in the type of products; 0 in f32.
    pub casts: u64,
    /// Gradients, f32.
    pub gradients: u64,
    /// What the optimizer rules keep.
    pub moments: u64,
    /// A moving average of the weights, f32; 0 without one.
    pub average: u64,
    /// What the backward pass needs of the forward pass.
    pub activations: u64,
    /// Attention scores that the backward pass needs, and those being computed; 0 on a GPU if a kernel
    /// computes the attention, which never keeps any.
    pub scores: u64,
    /// Logits of one chunk of the loss and their gradient.
    pub logits: u64,
    /// On the CPU, copies of matrices in the order in which products read them: of the head, as is and
    /// transposed, and of the largest block. 0 on a GPU.
    pub packed: u64,
}

impl MemoryPlan {
    /// The plan for micro-batches of `samples` samples, computed by these forms of operations, with
    /// `of_rules` bytes that the optimizer rules keep, and no moving average of weights.
    pub fn new(config: &ModelConfig, of_rules: u64, samples: usize, form: Form, recompute: bool) -> Self {
        let parameters = 4 * size(config).total;
        let bytes = config.compute.bytes();
        let tokens = samples.saturating_mul(config.seq_len);
        let block = |layer| {
            let cost = Block::cost(config, layer);
            cost.values * bytes + cost.f32_values * 4
        };
        let layers = 0..config.n_layers;
        let kept = if recompute {
            // The input of every block, and everything of the block that is being computed again.
            let inputs = config.n_layers as u64 * config.d_model as u64 * bytes;
            inputs + layers.map(block).max().unwrap_or(0)
        } else {
            layers.map(block).sum()
        };
        // Softmax of each block that is kept and, for one block, the scores before it and both gradients.
        let scores = (0..config.n_layers).map(|layer| match form {
            Form::Gpu => Block::cost(config, layer).gpu_scores,
            Form::Cpu | Form::Plain => Block::cost(config, layer).scores,
        });
        let largest = scores.clone().max().unwrap_or(0);
        let scores = if recompute { largest } else { scores.sum() } + 2 * largest;
        let of_block = |layer| Block::cost(config, layer).parameters;
        let of_head = product(&[2, config.vocab_size as u64, config.d_model as u64]);
        let packed = match form {
            Form::Cpu => of_head.saturating_add((0..config.n_layers).map(of_block).max().unwrap_or(0)),
            Form::Gpu | Form::Plain => 0,
        };
        let chunk = chunk_tokens(config.vocab_size, form).min(tokens) as u64;
        Self {
            parameters,
            casts: if config.compute == Compute::Bf16 { parameters / 2 } else { 0 },
            gradients: parameters,
            moments: of_rules,
            average: 0,
            activations: product(&[tokens as u64, kept]),
            scores: product(&[tokens as u64, scores, 4]),
            // Logits, and the gradient that replaces them.
            logits: product(&[2, chunk, config.vocab_size as u64, bytes]),
            packed: product(&[packed, 4]),
        }
    }

    /// The total.
    pub fn total(&self) -> u64 {
        let Self { activations, scores, logits, packed, .. } = *self;
        [self.of_model(), activations, scores, logits, packed].into_iter().fold(0, u64::saturating_add)
    }

    /// The part that depends only on the size of the model.
    pub fn of_model(&self) -> u64 {
        let Self { parameters, casts, gradients, moments, average, .. } = *self;
        [parameters, casts, gradients, moments, average].into_iter().fold(0, u64::saturating_add)
    }
}

/// A product that saturates instead of overflowing.
fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Preset, RunConfig, Values};

    fn preset(name: &str) -> ModelConfig {
        preset_with(name, &[])
    }

    fn preset_with(name: &str, assignments: &[&str]) -> ModelConfig {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        values.read_toml(Preset::find(name).expect("a preset").toml, name, &mut problems);
        assignments.iter().for_each(|assignment| values.read_assignment(assignment, &mut problems));
        RunConfig::new(values, problems).expect("valid").model(32_768, 2048)
    }

    #[test]
    fn mini_1b_by_hand() {
        let config = preset("mini-1b");
        let plan = MemoryPlan::new(&config, 8 * 1_239_114_752, 16, Form::Gpu, false);
        assert_eq!(plan.scores, 0);
        // 1,239,114,752 parameters at 4 bytes; two moments; half of it again in bf16.
        assert_eq!(plan.parameters, 4_956_459_008);
        assert_eq!((plan.casts, plan.moments), (2_478_229_504, 9_912_918_016));
        // Attention: 2 * 1024 + 48 * 64 + 1024; norms 2 * 1024; dense 3 * 4096; experts
        // 2 * 6 * 1024 + 3 * 6 * 512 + 3 * 2 * 512.
        let kept = |layer| (Block::cost(&config, layer).values, Block::cost(&config, layer).f32_values);
        assert_eq!(kept(0), (6144 + 2048 + 12_288, 34));
        assert_eq!(kept(1), (6144 + 2048 + 24_576, 34 + 1024 + 256 + 18));
        let per_token = 20_480 * 2 + 34 * 4 + 11 * (32_768 * 2 + 1332 * 4);
        assert_eq!(plan.activations, 32_768 * per_token);
        // A chunk of 2^27 logits in bf16, and its gradient.
        assert_eq!(plan.logits, 1 << 29);
        let again = MemoryPlan::new(&config, 8 * 1_239_114_752, 16, Form::Gpu, true);
        assert_eq!(again.activations, 32_768 * (12 * 1024 * 2 + 32_768 * 2 + 1332 * 4));
    }

    #[test]
    fn a_cpu_keeps_the_scores_of_latent_attention() {
        // 3 blocks, 4 heads, 8 samples of 512 tokens: 100 MB kept, plus as much as two more blocks.
        let latent = preset_with("tiny", &["attention.kind=mla", "attention.mla.heads=4"]);
        let config = ModelConfig { seq_len: 512, ..latent.clone() };
        let of_block = 8 * 4 * 512 * 512 * 4;
        assert_eq!(MemoryPlan::new(&config, 0, 8, Form::Cpu, false).scores, 5 * of_block);
        assert_eq!(MemoryPlan::new(&config, 0, 8, Form::Cpu, true).scores, 3 * of_block);
        assert_eq!(MemoryPlan::new(&config, 0, usize::MAX, Form::Cpu, false).total(), u64::MAX);
        // Long samples are computed tile by tile.
        assert_eq!(MemoryPlan::new(&latent, 0, 8, Form::Cpu, false).scores, 0);
        // Grouped-query attention never keeps any, with or without a window.
        for kind in ["attention.kind=gqa", "attention.kind=swa"] {
            let config = ModelConfig { seq_len: 512, ..preset_with("tiny", &[kind]) };
            assert_eq!(MemoryPlan::new(&config, 0, 8, Form::Cpu, false).scores, 0);
        }
    }

    #[test]
    fn a_cpu_has_copies_of_the_head_and_of_a_block() {
        let config = preset("tiny");
        let largest = (0..config.n_layers).map(|layer| Block::cost(&config, layer).parameters).max();
        let of_head = 2 * 32_768 * config.d_model as u64;
        let plan = MemoryPlan::new(&config, 0, 8, Form::Cpu, false);
        assert_eq!(plan.packed, 4 * (of_head + largest.expect("blocks")));
        assert_eq!(MemoryPlan::new(&config, 0, 8, Form::Gpu, false).packed, 0);
        assert!(plan.total() > plan.of_model() + plan.activations + plan.logits);
    }
}
