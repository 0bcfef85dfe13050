//! The result of a router, and the counts that follow from it.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::model::context::Context;
use crate::ops::routing::count;
use crate::ops::row_functions::shares;

/// The experts of each token.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The chosen experts, `[tokens, k]`, -1 on padding.
    pub choices: Tensor<2, Int>,
    /// The same without selection bias, for the losses.
    pub unbiased: Tensor<2, Int>,
    /// Mean number of these per token.
    pub n_counted: usize,
    /// The weight of each choice, `[tokens, k]`, f32, zero on padding.
    pub weights: Tensor<2>,
    /// `[tokens, experts]`, f32
    pub logits: Tensor<2>,
    /// `[tokens, experts]`, f32
    pub scores: Tensor<2>,
    /// Whether the scores of a token add up to 1.
    pub is_distribution: bool,
    /// The probability that each expert is chosen if the noise is drawn again, `[tokens, experts]`, f32; only
    /// for noisy routers.
    pub likelihood: Option<Tensor<2>>,
}

/// `[tokens, n]` choices with -1 wherever `flags`, `[tokens, n]` or `[tokens, 1]`, is 0.
pub fn only(choices: Tensor<2, Int>, flags: Tensor<2, Int>) -> Tensor<2, Int> {
    choices * flags.clone() + (flags - 1)
}

/// A router's result with its counts: what balancers see.
#[derive(Debug, Clone)]
pub struct Routed<'a> {
    /// The routing.
    pub routing: Routing,
    /// How often each expert would be chosen without bias, `[samples, experts]`, f32.
    pub counts: Tensor<2>,
    /// The same over all samples of the optimizer step, `[1, experts]`.
    pub batch_counts: Tensor<2>,
    /// Other sums over the batch.
    pub ctx: &'a Context,
    layer: usize,
    matrix: Option<Tensor<2>>,
}

impl Routing {
    /// The scores of each token divided by their sum, `[tokens, experts]`.
    pub fn shares(&self) -> Tensor<2> {
        match self.is_distribution {
            true => self.scores.clone(),
            false => shares(self.scores.clone()),
        }
    }
}

impl<'a> Routed<'a> {
    /// The counts of a routing by the router of block `layer`.
    pub fn new(routing: Routing, layer: usize, ctx: &'a Context) -> Self {
        let [_, n_experts] = routing.logits.dims();
        let counts = count(routing.unbiased.clone(), ctx.valid.n_samples(), n_experts);
        let batch_counts = match ctx.counts.choices.get(&layer) {
            Some(counts) => counts.clone().reshape([1, n_experts]),
            // The whole batch, or a part of it if no loss depends on the rest.
            None => {
                let (batch, part) = (ctx.counts.n_tokens, ctx.valid.n_valid());
                let counts = counts.clone().sum_dim(0);
                if batch == part { counts } else { counts * (batch as f64 / part.max(1) as f64) }
            }
        };
        Self { routing, counts, batch_counts, ctx, layer, matrix: None }
    }

    /// The same with the router's matrix.
    pub fn with_matrix(self, matrix: Option<Tensor<2>>) -> Self {
        Self { matrix, ..self }
    }

    /// The router's matrix from hidden states to logits, `[d_model, experts]`, with gradient; none for a
    /// router without one.
    pub fn matrix(&self) -> Option<Tensor<2>> {
        self.matrix.clone()
    }

    /// The sum over the whole batch that a balancer requested under this name, `[experts]`; `otherwise` if it
    /// was not counted.
    pub fn batch_sum(&self, name: &str, otherwise: impl FnOnce() -> Tensor<1>) -> Tensor<1> {
        let found = self.ctx.counts.sums.iter().find(|((layer, of), _)| (*layer, *of) == (self.layer, name));
        match found {
            Some((_, sum)) if self.routing.logits.is_autodiff() => Tensor::from_inner(sum.clone()),
            Some((_, sum)) => sum.clone(),
            None => otherwise(),
        }
    }

    /// The same without a gradient.
    pub fn detached(&self) -> Self {
        let mut routing = self.routing.clone();
        routing.logits = routing.logits.detach();
        routing.scores = routing.scores.detach();
        routing.weights = routing.weights.detach();
        routing.likelihood = routing.likelihood.map(Tensor::detach);
        let matrix = self.matrix.clone().map(Tensor::detach);
        Self { routing, matrix, ..self.clone() }
    }

    /// Routed experts.
    pub fn n_experts(&self) -> usize {
        self.routing.logits.dims()[1]
    }

    /// Choices of each token that count in losses.
    pub fn n_counted(&self) -> usize {
        self.routing.n_counted
    }

    /// The sum of the weights of each expert, `[experts]`, with gradient: its importance.
    pub fn importance(&self) -> Tensor<1> {
        let Routing { choices, weights, logits, .. } = &self.routing;
        let [tokens, n_experts] = logits.dims();
        // Choices that were not made have zero weight.
        let at = choices.clone().clamp_min(0);
        let none = Tensor::zeros([tokens, n_experts], &logits.device());
        none.scatter(1, at, weights.clone(), IndexingUpdateOp::Add).sum_dim(0).reshape([n_experts])
    }
}
