//! One training step: forward and backward for each micro-batch, then one update. No file is
//! touched here.

use burn::tensor::Tensor;

use super::state::TrainState;
use crate::data::Batch;
use crate::loss::cross_entropy;
use crate::model::moe::{RouterStats, bias_step};
use crate::model::{Model, parameters};
use crate::optim::{Schedule, clip_factor, global_norm};

/// What a step needs besides state and data.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// Samples of one forward pass; the update does not depend on it but for rounding, and for
    /// the group over which the Switch loss counts.
    pub micro_batch: usize,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Learning rate of each step.
    pub schedule: Schedule,
    /// Step of the selection bias; 0 switches it off.
    pub bias_rate: f64,
}

/// What happened in a step.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Loss of each token of the batch in nats, 0 where the target does not count.
    pub losses: Vec<f32>,
    /// Mean over the targets.
    pub cross_entropy: f64,
    /// Counts and values of each router, by layer.
    pub routers: Vec<(usize, RouterStats)>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Factor by which it was clipped; 1 if it was not.
    pub clip_factor: f64,
    /// Learning rate.
    pub rate: f64,
}

/// Runs one step. The state is untouched if the loss or the gradient is not finite.
///
/// # Errors
/// The report of the step, when its loss or gradient is not finite.
pub fn train_step(
    state: &mut TrainState,
    batch: &Batch,
    config: &StepConfig,
) -> Result<StepReport, Box<StepReport>> {
    let rate = config.schedule.rate(state.step);
    let mut gradients = Gradients::default();
    let mut report = StepReport {
        losses: Vec::with_capacity(batch.tokens.len()),
        cross_entropy: 0.0,
        routers: Vec::new(),
        grad_norm: 0.0,
        clip_factor: 1.0,
        rate,
    };
    let n_targets = batch.n_targets();
    let n_valid = batch.n_valid().max(1);
    for start in (0..batch.len()).step_by(config.micro_batch.max(1)) {
        let samples = start..(start + config.micro_batch.max(1)).min(batch.len());
        gradients.add(micro_step(&state.model, batch, samples, [n_targets, n_valid], &mut report));
    }
    let losses: f64 = report.losses.iter().copied().map(f64::from).sum();
    report.cross_entropy = losses / n_targets.max(1) as f64;
    report.grad_norm = global_norm(&gradients.0);
    if !report.cross_entropy.is_finite() || !report.grad_norm.is_finite() {
        return Err(Box::new(report));
    }

    report.clip_factor = clip_factor(report.grad_norm, config.clip);
    let number = state.step + 1;
    let mut model = state.optimizer.step(state.model.clone(), gradients.0, number, rate, report.clip_factor);
    if config.bias_rate > 0.0 {
        for (layer, stats) in &report.routers {
            let bias = bias_step(&stats.bias, &stats.load, config.bias_rate);
            model = model.with_balance_bias(*layer, &bias);
        }
    }
    state.model = model;
    state.step = number;
    state.t = batch.first_t + batch.len() as u64;
    state.tokens_seen += n_targets as u64;
    Ok(report)
}

/// Gradients of some samples of a batch, normalised by the counts of the whole batch.
fn micro_step(
    model: &Model,
    batch: &Batch,
    samples: std::ops::Range<usize>,
    [n_targets, n_valid]: [usize; 2],
    report: &mut StepReport,
) -> Vec<Option<Tensor<1>>> {
    let tokens = batch.token_range(samples.clone());
    let input = batch.input(samples, &model.device());
    let output = model.forward(&input);
    let scale = 1.0 / n_targets.max(1) as f64;
    let ce = cross_entropy(
        output.hidden,
        model.head(),
        &batch.targets[tokens.clone()],
        &batch.loss_mask[tokens],
        scale,
    );
    report.losses.extend(&ce.losses);
    let share = input.valid.n_valid() as f64 / n_valid as f64;
    let mut objective = ce.surrogate;
    for (index, (layer, record)) in output.records.into_iter().enumerate() {
        if let Some(auxiliary) = record.auxiliary {
            objective = objective + auxiliary * share;
        }
        match report.routers.get_mut(index) {
            Some((_, stats)) => stats.merge(&record.stats),
            None => report.routers.push((layer, record.stats)),
        }
    }
    parameters::take_gradients(model, &mut objective.backward())
}

/// Sums of gradients over micro-batches.
#[derive(Default)]
struct Gradients(Vec<Option<Tensor<1>>>);

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
}
