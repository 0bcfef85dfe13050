//! What every layer knows in addition to its input: the step and purpose of the pass, where documents begin,
//! which tokens are real, and the counts of the whole batch, of which its input may be a part.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use super::input::{Input, ValidMask};
use super::rope::{Ropes, Rotary};
use crate::random::Stream;

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A step of training: noise and dropout are on.
    Train,
    /// Validation or generation: every layer computes what it has learned, without noise.
    Eval,
}

/// Step and purpose of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Optimizer steps made before it.
    pub step: u64,
    /// Its purpose.
    pub mode: Mode,
    /// Seed of the run.
    pub seed: u64,
}

/// Counts of all samples of an optimizer step, however many micro-batches they come in.
#[derive(Debug, Clone)]
pub struct BatchCounts {
    /// Tokens that are not padding.
    pub n_tokens: usize,
    /// Samples with such a token.
    pub n_samples: usize,
    /// How often each expert would be chosen without bias, `[experts]`, by layer; empty when this input
    /// is the whole batch, and when no balancer asks for it.
    pub choices: BTreeMap<usize, Tensor<1>>,
    /// Other sums that balancers requested, `[experts]`, by layer and name.
    pub sums: BTreeMap<(usize, &'static str), Tensor<1>>,
}

/// What a layer knows in addition to its input.
#[derive(Debug, Clone)]
pub struct Context {
    /// Step and purpose.
    pub pass: Pass,
    /// Number of the first sample in the plan.
    pub first_sample: u64,
    /// Which tokens are real.
    pub valid: ValidMask,
    /// Counts of the whole batch.
    pub counts: BatchCounts,
    /// Position in its sample of the first token that each token may see, `[tokens]`.
    pub first: Tensor<1, Int>,
    /// The same on the host.
    pub starts: Vec<usize>,
    rotary: Vec<Rotary>,
}

impl Pass {
    /// A pass that trains nothing.
    pub const EVAL: Self = Self { step: 0, mode: Mode::Eval, seed: 0 };
}

impl BatchCounts {
    /// The counts of a batch of these tokens.
    pub fn of(valid: &ValidMask) -> Self {
        let n_samples = valid.tokens_of_samples().into_iter().filter(|&n| n > 0).count();
        Self { n_tokens: valid.n_valid(), n_samples, choices: BTreeMap::new(), sums: BTreeMap::new() }
    }
}

impl Context {
    /// The context of an input, with tables for the rotary positions of `ropes`.
    pub fn new(input: &Input, pass: Pass, counts: BatchCounts, ropes: &Ropes) -> Self {
        let starts = input.starts();
        let first: Vec<i32> = starts.iter().map(|&start| start as i32).collect();
        Self {
            pass,
            first_sample: input.first_sample,
            valid: input.valid.clone(),
            counts,
            first: Tensor::from_data(TensorData::new(first, [starts.len()]), &input.tokens.device()),
            starts,
            rotary: ropes.tables(&input.positions, &input.tokens.device()),
        }
    }

    /// Whether this is a step of training.
    pub fn is_training(&self) -> bool {
        self.pass.mode == Mode::Train
    }

    /// Samples, and tokens of each.
    pub fn dims(&self) -> [usize; 2] {
        [self.valid.n_samples(), self.valid.n_tokens() / self.valid.n_samples()]
    }

    /// Random numbers for a layer of this name: the same in every run with this seed, different in every
    /// step. Address them by [`Context::index`], so that they do not depend on the micro-batch.
    pub fn random(&self, name: &str) -> Stream {
        Stream::new(self.pass.seed, &format!("{name}/{}", self.pass.step))
    }

    /// Numbers in [0, 1) for a layer of this name, `[tokens, width]`, as [`Context::random`].
    pub fn uniform(&self, name: &str, width: usize) -> Tensor<2> {
        let stream = self.random(name);
        self.draws(width, |index| stream.uniform(index))
    }

    /// Normal numbers of mean 0 and variance 1 for a layer of this name, `[tokens, width]`, as
    /// [`Context::random`].
    pub fn normal(&self, name: &str, width: usize) -> Tensor<2> {
        let stream = self.random(name);
        self.draws(width, |index| stream.normal(index))
    }

    fn draws(&self, width: usize, draw: impl Fn(u64) -> f64 + Sync) -> Tensor<2> {
        let tokens = self.valid.n_tokens();
        let number = |i: usize| draw(self.index(i / width) * width as u64 + (i % width) as u64) as f32;
        let values: Vec<f32> = (0..tokens * width).into_par_iter().map(number).collect();
        Tensor::from_data(TensorData::new(values, [tokens, width]), &self.valid.column().device())
    }

    /// Number of a token of this input in the plan.
    pub fn index(&self, token: usize) -> u64 {
        let [_, seq] = self.dims();
        self.first_sample * seq as u64 + token as u64
    }

    /// The tables of a rotation.
    ///
    /// # Panics
    /// When the model was built without them.
    pub fn rotary(&self, head_dim: usize, theta: f64) -> &Rotary {
        let found = self.rotary.iter().find(|rotary| rotary.is_of(head_dim, theta));
        found.expect("a model makes the tables of all its layers")
    }
}
