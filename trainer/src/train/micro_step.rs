//! Forward and backward passes of a few samples: all blocks at once, or block by block with activations
//! computed twice.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::data::Batch;
use crate::model::context::{BatchCounts, Context, Pass};
use crate::model::moe::MoeRecord;
use crate::model::record::Named;
use crate::model::{Input, Model, parameters};
use crate::objective::{CrossEntropy, Targets, cross_entropy};
use crate::ops::linear::cast_f32;

/// A few samples of a batch on the device.
pub(super) struct Micro<'a> {
    batch: &'a Batch,
    samples: Range<usize>,
    input: Input,
    ctx: Context,
}

/// What a micro-batch returns in addition to its gradients.
pub(super) struct Part {
    /// Loss of each token, `[tokens]`.
    pub(super) losses: Tensor<1>,
    /// Values of each router, with its layer.
    pub(super) routers: Vec<RouterPart>,
}

/// Values of a router.
pub(super) struct RouterPart {
    pub(super) layer: usize,
    /// Tokens sent to each expert, `[experts]`.
    pub(super) load: Tensor<1>,
    /// Statistic for the balancer that sets the selection bias, `[experts]`.
    pub(super) statistic: Option<Tensor<1>>,
    /// What the metrics report.
    pub(super) values: Vec<Named>,
}

impl RouterPart {
    fn new(layer: usize, record: MoeRecord) -> Self {
        let statistic = record.statistic.map(Tensor::without_autodiff);
        Self { layer, load: record.load.without_autodiff(), statistic, values: record.values }
    }
}

impl<'a> Micro<'a> {
    /// These samples of a batch whose counts are known.
    pub(super) fn new(
        model: &Model,
        batch: &'a Batch,
        samples: Range<usize>,
        pass: Pass,
        counts: &BatchCounts,
    ) -> Self {
        let input = batch.input(samples.clone(), &model.device());
        let ctx = model.context(&input, pass, counts.clone());
        Self { batch, samples, input, ctx }
    }

    fn loss(&self, model: &Model, hidden: Tensor<2>) -> CrossEntropy {
        let tokens = self.batch.token_range(self.samples.clone());
        let targets =
            Targets { ids: &self.batch.targets[tokens.clone()], mask: &self.batch.loss_mask[tokens] };
        cross_entropy(hidden, model.head(), targets, 1.0 / self.batch.n_targets().max(1) as f64)
    }
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

/// Adds the choices of some samples, and other sums that balancers request, to the sums of their batch,
/// without a gradient.
pub(super) fn count_choices(model: &Model, micro: &Micro, counts: &mut BatchCounts) {
    for (layer, record) in model.valid().forward(&micro.input, &micro.ctx).records {
        add(&mut counts.choices, layer, record.choices);
        for (name, new) in record.sums {
            add(&mut counts.sums, (layer, name), new);
        }
    }
}

fn add<K: Ord>(sums: &mut BTreeMap<K, Tensor<1>>, key: K, new: Tensor<1>) {
    let new = new.without_autodiff();
    let sum = match sums.remove(&key) {
        Some(sum) => sum + new,
        None => new,
    };
    sums.insert(key, sum);
}

/// Adds the gradients of some samples of a batch, normalized by the counts of the whole batch.
pub(super) fn micro_step(model: &Model, micro: &Micro, gradients: &mut Gradients) -> Part {
    let output = model.forward(&micro.input, &micro.ctx);
    let ce = micro.loss(model, output.hidden);
    let mut objective = ce.surrogate;
    let mut routers = Vec::new();
    for (layer, mut record) in output.records {
        if let Some(auxiliary) = record.auxiliary.take() {
            objective = objective + auxiliary;
        }
        routers.push(RouterPart::new(layer, record));
    }
    gradients.add(parameters::take_gradients(model, &mut objective.backward()));
    Part { losses: ce.losses, routers }
}

/// The same, keeping only the input of each block: the forward pass makes no graph, and the backward pass
/// computes each block again with one. A third more work, but the memory does not grow with what a block
/// keeps (Chen et al. 2016, arXiv 1604.06174, section 4). The gradients are the same.
pub(super) fn recomputed_micro_step(model: &Model, micro: &Micro, gradients: &mut Gradients) -> Part {
    let plain = model.valid();
    let embedded = model.embed(&micro.input);
    let mut inputs = vec![embedded.clone().without_autodiff()];
    let mut routers = Vec::new();
    for layer in 0..model.n_layers() {
        let (y, record) = plain.block(layer, inputs[layer].clone(), &micro.ctx);
        inputs.push(y);
        routers.extend(record.map(|record| RouterPart::new(layer, record)));
    }

    let leaf = |x: Option<Tensor<2>>| {
        // Cannot fail: there is an input for each block, and the output of the last.
        Tensor::from_inner(x.expect("one input for each block").without_autodiff()).require_grad()
    };
    let last = leaf(inputs.pop());
    let ce = micro.loss(model, model.last_norm(last.clone()));
    let mut found = ce.surrogate.backward();
    let mut slope = gradient_of(&last, &mut found);
    // Summed separately first, in the order of the pass that keeps everything.
    let mut own = Gradients::default();
    own.add(parameters::take_gradients(model, &mut found));
    for layer in (0..model.n_layers()).rev() {
        let x = leaf(inputs.pop());
        let (y, record) = model.block(layer, x.clone(), &micro.ctx);
        // The derivative of sum(y * slope) with respect to y is the slope.
        let mut objective = cast_f32((y * Tensor::from_inner(slope)).sum());
        if let Some(auxiliary) = record.and_then(|record| record.auxiliary) {
            objective = objective + auxiliary;
        }
        let mut found = objective.backward();
        slope = gradient_of(&x, &mut found);
        own.add(parameters::take_gradients(model, &mut found));
    }
    let mut found = (embedded * Tensor::from_inner(slope)).sum().backward();
    own.add(parameters::take_gradients(model, &mut found));
    gradients.add(own.into_inner());
    Part { losses: ce.losses, routers }
}

/// The gradient of a leaf, which is zero if nothing depends on it.
fn gradient_of(leaf: &Tensor<2>, found: &mut burn::tensor::Gradients) -> Tensor<2> {
    leaf.grad_remove(found).unwrap_or_else(|| leaf.clone().without_autodiff().zeros_like())
}
