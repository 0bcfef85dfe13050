//! Forward and backward of a few samples: at once, or block by block with activations computed twice.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::data::Batch;
use crate::loss::{CrossEntropy, Losses, Targets, cross_entropy};
use crate::model::linear::cast_f32;
use crate::model::moe::Stats;
use crate::model::{Input, Model, parameters};

/// What a micro-batch leaves besides its gradients.
pub(super) struct Part {
    /// Of each token.
    pub(super) losses: Losses,
    /// Of each router, with its layer.
    pub(super) routers: Vec<(usize, Stats)>,
}

/// Sums of gradients over micro-batches.
#[derive(Default)]
pub(super) struct Gradients(Vec<Option<Tensor<1>>>);

impl Gradients {
    fn add(&mut self, other: Vec<Option<Tensor<1>>>) {
        if self.0.is_empty() {
            self.0 = other;
            return;
        }
        let sums = std::mem::take(&mut self.0).into_iter().zip(other).map(|(sum, new)| match (sum, new) {
            (Some(sum), Some(new)) => Some(sum + new),
            (sum, new) => sum.or(new),
        });
        self.0 = sums.collect();
    }

    pub(super) fn into_inner(self) -> Vec<Option<Tensor<1>>> {
        self.0
    }
}

/// Adds the gradients of some samples of a batch, normalised by the counts `[targets, tokens]` of
/// the whole batch.
pub(super) fn micro_step(
    model: &Model,
    batch: &Batch,
    samples: Range<usize>,
    input: &Input,
    counts: [usize; 2],
    gradients: &mut Gradients,
) -> Part {
    let output = model.forward(input);
    let ce = loss(model, output.hidden, batch, samples, input, counts);
    let mut objective = ce.surrogate;
    let mut routers = Vec::new();
    for (layer, record) in output.records {
        if let Some(auxiliary) = record.auxiliary {
            objective = objective + auxiliary * share(input, counts);
        }
        routers.push((layer, record.stats));
    }
    gradients.add(parameters::take_gradients(model, &mut objective.backward()));
    Part { losses: ce.losses, routers }
}

/// The same, keeping only the input of each block: the forward pass makes no graph, and the backward
/// pass computes each block again with one. A third more work for a memory that does not grow with
/// what a block keeps (Chen et al. 2016, arXiv 1604.06174, section 4). The gradients are the same.
pub(super) fn recomputed_micro_step(
    model: &Model,
    batch: &Batch,
    samples: Range<usize>,
    input: &Input,
    counts: [usize; 2],
    gradients: &mut Gradients,
) -> Part {
    let plain = model.valid();
    let placement = model.placement(input);
    let embedded = model.embed(input);
    let mut inputs = vec![embedded.clone().without_autodiff()];
    let mut routers = Vec::new();
    for layer in 0..model.n_layers() {
        let (y, record) = plain.block(layer, inputs[layer].clone(), &placement, input);
        inputs.push(y);
        routers.extend(record.map(|record| (layer, record.stats)));
    }

    let leaf = |x: Option<Tensor<2>>| {
        // Cannot fail: there is an input for each block, and the output of the last.
        Tensor::from_inner(x.expect("one input for each block")).require_grad()
    };
    let last = leaf(inputs.pop());
    let ce = loss(model, model.last_norm(last.clone()), batch, samples, input, counts);
    let mut found = ce.surrogate.backward();
    let mut slope = gradient_of(&last, &mut found);
    gradients.add(parameters::take_gradients(model, &mut found));
    for layer in (0..model.n_layers()).rev() {
        let x = leaf(inputs.pop());
        let (y, record) = model.block(layer, x.clone(), &placement, input);
        // The derivative of sum(y * slope) by y is the slope.
        let mut objective = cast_f32((y * Tensor::from_inner(slope)).sum());
        if let Some(auxiliary) = record.and_then(|record| record.auxiliary) {
            objective = objective + auxiliary * share(input, counts);
        }
        let mut found = objective.backward();
        slope = gradient_of(&x, &mut found);
        gradients.add(parameters::take_gradients(model, &mut found));
    }
    let mut found = (embedded * Tensor::from_inner(slope)).sum().backward();
    gradients.add(parameters::take_gradients(model, &mut found));
    Part { losses: ce.losses, routers }
}

fn loss(
    model: &Model,
    hidden: Tensor<2>,
    batch: &Batch,
    samples: Range<usize>,
    input: &Input,
    [n_targets, _]: [usize; 2],
) -> CrossEntropy {
    let tokens = batch.token_range(samples);
    let targets = Targets { ids: &batch.targets[tokens.clone()], mask: &batch.loss_mask[tokens] };
    cross_entropy(hidden, model.head(), targets, 1.0 / n_targets.max(1) as f64, input.kernels)
}

/// The weight of this micro-batch in means over the tokens of the batch.
fn share(input: &Input, [_, n_valid]: [usize; 2]) -> f64 {
    input.valid.n_valid() as f64 / n_valid as f64
}

/// The gradient of a leaf, which is zero where nothing depends on it.
fn gradient_of(leaf: &Tensor<2>, found: &mut burn::tensor::Gradients) -> Tensor<2> {
    leaf.grad_remove(found).unwrap_or_else(|| leaf.clone().without_autodiff().zeros_like())
}
