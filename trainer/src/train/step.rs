//! One training step: forward and backward for each micro-batch, then one update. No file is
//! touched here.

use burn::tensor::{FloatDType, Tensor};

use super::micro_step::{Gradients, Micro, Part, count_choices, micro_step, recomputed_micro_step};
use super::state::TrainState;
use super::{Average, AverageConfig, Limits, SkipConfig};
use crate::data::Batch;
use crate::error::Error;
use crate::model::Model;
use crate::model::context::{BatchCounts, Mode, Pass};
use crate::model::moe::RouterStats;
use crate::model::parameters::BALANCE_BIAS;
use crate::model::record::Values;
use crate::model::transfer::Multipliers;
use crate::ops::global_norm::within;
use crate::ops::{read, reads};
use crate::optim::{Clipping, Optimizer, Schedule, Update};

/// What a step needs in addition to state and data.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// Samples of one forward pass; the update does not depend on it except for rounding.
    pub micro_batch: usize,
    /// Maximum norm of the gradient.
    pub clip: f64,
    /// When an update is skipped; absent: never.
    pub skip: Option<SkipConfig>,
    /// How weights are averaged; absent: not at all.
    pub average: Option<AverageConfig>,
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
    /// The norm of each group before clipping; none if there is only one group.
    pub group_norms: Vec<f64>,
    /// Clipping factor of groups without their own maximum norm; 1 if they were not clipped.
    pub clip_factor: f64,
    /// Whether loss or norm were above their limits and nothing was learned.
    pub is_skipped: bool,
    /// The limits, if there were any.
    pub limits: Option<Limits>,
    /// Learning rate.
    pub rate: f64,
    /// How often the step waited for values from the device.
    pub n_reads: u64,
}

/// Why a step did not happen.
#[derive(Debug)]
pub enum StepError {
    /// Its loss or gradient is not finite; the state is untouched.
    NotFinite(Box<StepReport>),
    /// The device failed; the state must no longer be used.
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
/// from values on it, and one transfer fetches the report.
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
    let norms = state.optimizer.norms(&state.model, &gradients);
    let limits = config.skip.and_then(|skip| state.spikes.limits(&skip));
    let loss = match limits {
        Some(Limits { loss, norm }) => {
            let sum = loss * batch.n_targets().max(1) as f64;
            within(losses.clone().sum(), sum, norms.all.clone(), norm)
        }
        None => losses.clone().sum(),
    };
    let clipping = state.optimizer.clip(norms, loss, config.clip);
    // A factor that is not finite leaves everything as it is.
    let update = Update {
        number: state.updates() + 1,
        rate,
        factor: &clipping.factor,
        multipliers: Multipliers::default(),
    };
    let model = state.optimizer.step(state.model.clone(), gradients, &update, &clipping.own);

    let report = StepReport::read(&clipping, losses, &parts, batch)?;
    let report = StepReport {
        clip_factor: state.optimizer.clip_factor(report.grad_norm, &report.group_norms, config.clip),
        rate,
        limits,
        n_reads: reads() - reads_before,
        ..report
    };
    if !(report.cross_entropy.is_finite() && report.grad_norm.is_finite()) {
        return Err(StepError::NotFinite(Box::new(report)));
    }
    state.spikes.push(config.skip.as_ref(), report.cross_entropy, report.grad_norm);
    if !report.is_skipped {
        let model = with_next_biases(model, &state.optimizer, &parts);
        if let Some(AverageConfig { decay, .. }) = config.average.filter(|average| state.step >= average.from)
        {
            let old = state.average.take().unwrap_or_else(|| Average::of(&state.model));
            state.average = Some(old.then(&model, &state.optimizer, decay));
        }
        state.model = model;
    }
    state.advance(batch, report.is_skipped);
    Ok(report)
}

/// The gradients of a batch, and the other results of its micro-batches.
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

/// Updates every router's bias once, by the loads of all micro-batches.
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
    /// All results in one transfer: norms, the clipping factor, losses, the routers' values.
    fn read(clipping: &Clipping, losses: Tensor<1>, parts: &[Part], batch: &Batch) -> Result<Self, Error> {
        let numbers = [&clipping.norm, &clipping.factor].into_iter().chain(&clipping.of_groups);
        let mut all: Vec<Tensor<1>> = numbers.map(|number| number.clone().cast(FloatDType::F32)).collect();
        let n_numbers = all.len();
        all.push(losses);
        all.extend(parts.iter().flat_map(|p| &p.routers).flat_map(|r| &r.values).map(|v| v.value.clone()));
        let values = read(Tensor::cat(all, 0))?;
        let (numbers, rest) = values.split_at(n_numbers);
        let (losses, mut rest) = rest.split_at(batch.tokens.len());
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
            grad_norm: f64::from(numbers[0]),
            group_norms: numbers[2..].iter().copied().map(f64::from).collect(),
            clip_factor: 1.0,
            is_skipped: !numbers[1].is_finite(),
            limits: None,
            rate: 0.0,
            n_reads: 0,
        })
    }
}
