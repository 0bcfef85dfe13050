//! One training step: forward and backward for each micro-batch, then one update. No file is
//! touched here.

use burn::tensor::Tensor;

use super::micro_step::{Gradients, Part, micro_step, recomputed_micro_step};
use super::state::TrainState;
use crate::data::Batch;
use crate::error::Error;
use crate::kernel::{Kernels, read, reads};
use crate::loss::Losses;
use crate::model::moe::{DeviceStats, RouterStats, Stats, bias_step, bias_step_on_device};
use crate::optim::{
    Factor, Schedule, clip_factor, clip_factor_on_device, global_norm, global_norm_on_device,
};

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
    /// Which kernels compute.
    pub kernels: Kernels,
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

impl From<Box<StepReport>> for StepError {
    fn from(report: Box<StepReport>) -> Self {
        Self::NotFinite(report)
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

/// Runs one step. The state is untouched if the loss or the gradient is not finite.
///
/// On a GPU nothing is read back before the end of the step: clipping, the update and the bias
/// follow from values on the device, and one transfer brings the report.
///
/// # Errors
/// [`StepError`].
pub fn train_step(
    state: &mut TrainState,
    batch: &Batch,
    config: &StepConfig,
) -> Result<StepReport, StepError> {
    let reads_before = reads();
    let mut gradients = Gradients::default();
    let mut parts = Vec::new();
    let counts = [batch.n_targets(), batch.n_valid().max(1)];
    let run = if config.recompute { recomputed_micro_step } else { micro_step };
    for start in (0..batch.len()).step_by(config.micro_batch.max(1)) {
        let samples = start..(start + config.micro_batch.max(1)).min(batch.len());
        let input = batch.input(samples.clone(), &state.model.device()).with_kernels(config.kernels);
        parts.push(run(&state.model, batch, samples, &input, counts, &mut gradients));
    }
    let mut result = match config.kernels {
        Kernels::Host => finish_on_host(state, batch, config, gradients, parts),
        Kernels::Gpu => finish_on_gpu(state, batch, config, gradients, parts),
    };
    let n_reads = reads() - reads_before;
    match &mut result {
        Ok(report) => report.n_reads = n_reads,
        Err(StepError::NotFinite(report)) => report.n_reads = n_reads,
        Err(StepError::Device(_)) => {}
    }
    result
}

fn finish_on_host(
    state: &mut TrainState,
    batch: &Batch,
    config: &StepConfig,
    gradients: Gradients,
    parts: Vec<Part>,
) -> Result<StepReport, StepError> {
    let gradients = gradients.into_inner();
    let grad_norm = global_norm(&gradients);
    let mut report = StepReport::new(config.schedule.rate(state.step), grad_norm, config.clip);
    for part in parts {
        report.losses.extend(part.losses.read()?);
        let routers = part.routers.into_iter().map(|(layer, stats)| Ok((layer, stats.read()?)));
        report.add_routers(routers.collect::<Result<Vec<_>, Error>>()?.into_iter());
    }
    let mut report = report.finish(batch)?;

    let number = state.step + 1;
    let factor = Factor::Host(report.clip_factor);
    let model = state.model.clone();
    let mut model = state.optimizer.step(model, gradients, number, report.rate, &factor);
    if config.bias_rate > 0.0 {
        for (layer, stats) in &mut report.routers {
            let bias = bias_step(&stats.bias, &stats.load, config.bias_rate);
            model = model.with_balance_bias(*layer, &bias);
        }
    }
    state.model = model;
    state.advance(batch);
    Ok(report)
}

fn finish_on_gpu(
    state: &mut TrainState,
    batch: &Batch,
    config: &StepConfig,
    gradients: Gradients,
    parts: Vec<Part>,
) -> Result<StepReport, StepError> {
    let gradients = gradients.into_inner();
    let (losses, routers) = split(parts);
    let rate = config.schedule.rate(state.step);
    let norm = global_norm_on_device(&gradients);
    let factor = clip_factor_on_device(norm.clone(), losses.clone().sum(), config.clip);
    let number = state.step + 1;
    let model = state.model.clone();
    state.model = state.optimizer.step(model, gradients, number, rate, &Factor::Gpu(Box::new(factor)));

    // Everything that is to be known, in one transfer: the norm, the losses, the routers.
    let mut all = vec![norm, losses];
    all.extend(routers.iter().flatten().map(|(_, stats)| stats.flat()));
    let values = read(Tensor::cat(all, 0))?;
    let (losses, mut rest) = values[1..].split_at(batch.tokens.len());
    let mut report = StepReport::new(rate, f64::from(values[0]), config.clip);
    report.losses.extend(losses);
    for part in &routers {
        let mut decoded = Vec::new();
        for (layer, stats) in part {
            let (own, others) = rest.split_at(stats.len());
            decoded.push((*layer, stats.decode(own)));
            rest = others;
        }
        report.add_routers(decoded.into_iter());
    }
    let report = report.finish(batch)?;
    if config.bias_rate > 0.0 {
        step_biases(state, &routers, config.bias_rate);
    }
    state.advance(batch);
    Ok(report)
}

/// The losses of all tokens, and the router records of each micro-batch.
fn split(parts: Vec<Part>) -> (Tensor<1>, Vec<Vec<(usize, DeviceStats)>>) {
    let (mut losses, mut routers) = (Vec::new(), Vec::new());
    for part in parts {
        let Losses::Gpu(of_part) = part.losses else { unreachable!("losses of a GPU are on it") };
        losses.push(*of_part);
        let on_device = part.routers.into_iter().map(|(layer, stats)| match stats {
            Stats::Gpu(stats) => (layer, *stats),
            Stats::Host(_) => unreachable!("records of a GPU's router are on it"),
        });
        routers.push(on_device.collect());
    }
    (Tensor::cat(losses, 0), routers)
}

/// Moves every router's bias once, by the loads of all micro-batches.
fn step_biases(state: &mut TrainState, routers: &[Vec<(usize, DeviceStats)>], rate: f64) {
    let Some(first) = routers.first() else { return };
    let mut model = state.model.clone();
    for (index, (layer, stats)) in first.iter().enumerate() {
        let others = routers[1..].iter().map(|part| part[index].1.load.clone());
        let load = others.fold(stats.load.clone(), |sum, load| sum + load);
        model = model.with_bias_tensor(*layer, bias_step_on_device(stats.bias.clone(), load, rate));
    }
    state.model = model;
}

impl StepReport {
    fn new(rate: f64, grad_norm: f64, clip: f64) -> Self {
        Self {
            losses: Vec::new(),
            cross_entropy: 0.0,
            routers: Vec::new(),
            grad_norm,
            clip_factor: clip_factor(grad_norm, clip),
            rate,
            n_reads: 0,
        }
    }

    /// Adds the router records of one micro-batch.
    fn add_routers(&mut self, routers: impl Iterator<Item = (usize, RouterStats)>) {
        for (index, (layer, stats)) in routers.enumerate() {
            match self.routers.get_mut(index) {
                Some((_, sum)) => sum.merge(&stats),
                None => self.routers.push((layer, stats)),
            }
        }
    }

    /// The mean loss; the report is an error when loss or gradient are not finite.
    fn finish(mut self, batch: &Batch) -> Result<Self, Box<Self>> {
        let losses: f64 = self.losses.iter().copied().map(f64::from).sum();
        self.cross_entropy = losses / batch.n_targets().max(1) as f64;
        let is_finite = self.cross_entropy.is_finite() && self.grad_norm.is_finite();
        if is_finite { Ok(self) } else { Err(Box::new(self)) }
    }
}
