//! One training step: forward and backward for each micro-batch, then one update. No file is
//! touched here.

use burn::tensor::{FloatDType, Tensor};

use super::micro_step::{Gradients, Micro, Part, count_choices, micro_step, recomputed_micro_step};
use super::state::TrainState;
use crate::data::Batch;
use crate::error::Error;
use crate::model::Model;
use crate::model::context::{BatchCounts, Mode, Pass};
use crate::model::moe::RouterStats;
use crate::model::parameters::BALANCE_BIAS;
use crate::model::record::Values;
use crate::ops::{global_norm, read, reads};
use crate::optim::{Optimizer, Schedule, Update};

/// What a step needs besides state and data.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// Samples of one forward pass; the update does not depend on it but for rounding.
    pub micro_batch: usize,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Learning rate of each step.
    pub schedule: Schedule,
    /// Seed of the run.
    pub seed: u64,
    /// Whether a block's activations are computed again in the backward pass instead of kept.
    pub recompute: bool,
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
    /// How often the step waited for values of the device.
    pub n_reads: u64,
}

/// Why a step did not happen.
#[derive(Debug)]
pub enum StepError {
    /// Its loss or gradient is not finite; the state is untouched.
    NotFinite(Box<StepReport>),
    /// The device failed; the state must not be used any more.
    Device(Error),
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

/// Runs one step. The state is untouched if the loss or the gradient is not finite.
///
/// Nothing is read from the device before the end of the step: clipping, the update and the biases follow
/// from values on it, and one transfer brings the report.
///
/// # Errors
/// [`StepError`].
pub fn train_step(
    state: &mut TrainState,
    batch: &Batch,
    config: &StepConfig,
) -> Result<StepReport, StepError> {
    let reads_before = reads();
    let (parts, gradients) = gradients(&state.model, batch, config, state.step);
    let gradients = state.optimizer.unfrozen(&state.model, gradients);
    let losses = Tensor::cat(parts.iter().map(|part| part.losses.clone()).collect(), 0);
    let rate = config.schedule.rate(state.step);
    let norm = global_norm::global_norm(gradients.iter().flatten())
        .unwrap_or_else(|| losses.clone().zeros_like().sum());
    let factor = global_norm::clip_factor(norm.clone(), losses.clone().sum(), config.clip);
    // A factor that is not finite leaves everything as it is.
    let update = Update { number: state.step + 1, rate, factor: &factor };
    let model = state.optimizer.step(state.model.clone(), gradients, &update);

    let report = StepReport::read(norm, losses, &parts, batch)?;
    let report = StepReport {
        clip_factor: clip_factor(report.grad_norm, config.clip),
        rate,
        n_reads: reads() - reads_before,
        ..report
    };
    if !(report.cross_entropy.is_finite() && report.grad_norm.is_finite()) {
        return Err(StepError::NotFinite(Box::new(report)));
    }
    state.model = with_next_biases(model, &state.optimizer, &parts);
    state.advance(batch);
    Ok(report)
}

/// The factor that brings a gradient of this norm to at most `max_norm`.
fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if norm > max_norm { max_norm / norm } else { 1.0 }
}

/// The gradients of a batch, and what its micro-batches have left.
fn gradients(
    model: &Model,
    batch: &Batch,
    config: &StepConfig,
    step: u64,
) -> (Vec<Part>, Vec<Option<Tensor<1>>>) {
    let pass = Pass { step, mode: Mode::Train, seed: config.seed };
    let size = config.micro_batch.max(1);
    let samples = || (0..batch.len()).step_by(size).map(|start| start..(start + size).min(batch.len()));
    let mut counts = BatchCounts {
        n_tokens: batch.n_valid(),
        n_samples: batch.n_samples_with_tokens(),
        choices: Default::default(),
        sums: Default::default(),
    };
    if size < batch.len() && model.mixtures().any(|(_, moe)| moe.counts_batch()) {
        let mut sums = counts.clone();
        for samples in samples() {
            count_choices(model, &Micro::new(model, batch, samples, pass, &counts), &mut sums);
        }
        counts = sums;
    }
    let run = if config.recompute { recomputed_micro_step } else { micro_step };
    let mut gradients = Gradients::default();
    let parts = samples()
        .map(|samples| run(model, &Micro::new(model, batch, samples, pass, &counts), &mut gradients));
    (parts.collect(), gradients.into_inner())
}

/// Moves every router's bias once, by the loads of all micro-batches.
fn with_next_biases(mut model: Model, optimizer: &Optimizer, parts: &[Part]) -> Model {
    let layers = parts.first().map_or(0, |part| part.routers.len());
    for index in 0..layers {
        let loads = parts.iter().map(|part| part.routers[index].load.clone());
        let Some(load) = loads.reduce(|a, b| a + b) else { continue };
        let statistics = parts.iter().filter_map(|part| part.routers[index].statistic.clone());
        let statistic = statistics.reduce(|a, b| a + b);
        let layer = parts[0].routers[index].layer;
        if optimizer.is_frozen(&format!("blocks.{layer}.feed_forward.router.{BALANCE_BIAS}")) {
            continue;
        }
        let next = model.mixtures().find(|(found, _)| *found == layer);
        if let Some(bias) = next.and_then(|(_, moe)| moe.next_bias(&load, statistic.as_ref())) {
            model = model.with_bias(layer, bias);
        }
    }
    model
}

impl StepReport {
    /// Everything that is to be known, in one transfer: the norm, the losses, the routers' values.
    fn read(norm: Tensor<1>, losses: Tensor<1>, parts: &[Part], batch: &Batch) -> Result<Self, Error> {
        let mut all = vec![norm.cast(FloatDType::F32), losses];
        all.extend(parts.iter().flat_map(|p| &p.routers).flat_map(|r| &r.values).map(|v| v.value.clone()));
        let values = read(Tensor::cat(all, 0))?;
        let (losses, mut rest) = values[1..].split_at(batch.tokens.len());
        let mut routers: Vec<(usize, Values)> = Vec::new();
        for part in parts {
            for (index, router) in part.routers.iter().enumerate() {
                if index == routers.len() {
                    routers.push((router.layer, Values::default()));
                }
                rest = routers[index].1.merge(&router.values, rest);
            }
        }
        let n_tokens = batch.n_valid() as u64;
        let sum: f64 = losses.iter().copied().map(f64::from).sum();
        Ok(Self {
            losses: losses.to_vec(),
            cross_entropy: sum / batch.n_targets().max(1) as f64,
            routers: routers
                .iter()
                .map(|(layer, values)| (*layer, RouterStats::new(values, n_tokens)))
                .collect(),
            grad_norm: f64::from(values[0]),
            clip_factor: 1.0,
            rate: 0.0,
            n_reads: 0,
        })
    }
}
