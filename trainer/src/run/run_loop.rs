//! The order of events: read, step, measure, validate, save.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Tensor;
use moe_shards::Hash;
use serde_json::{Map, Value};

use super::alarms::Alarms;
use super::validate::{Validation, Validator};
use crate::checkpoint::{self, Circumstances, parameter_hash};
use crate::config::RunConfig;
use crate::data::{Batch, Corpus, Loader};
use crate::error::{Error, Result};
use crate::metrics::{Facts, Interval, MetricsFile, Took, validation_record, write_crash};
use crate::model::parameters::{Parameter, parameters};
use crate::model::{Model, ModelConfig, size};
use crate::ops::global_norm::global_norm;
use crate::optim;
use crate::train::{StepError, StepReport, TrainState, train_step};

/// Where and with what to train.
#[derive(Debug)]
pub struct Run<'a> {
    /// The run's folder.
    pub dir: &'a Path,
    /// Its configuration, steps included.
    pub config: &'a RunConfig,
    /// Its data.
    pub corpus: &'a Corpus,
    /// Its validation set; none where the plan holds nothing out.
    pub validator: Option<&'a Validator>,
    /// What was measured since the last line of its metrics; empty at its start.
    pub interval: Interval,
    /// Set by a signal: finish the step, save, stop.
    pub stop: &'a AtomicBool,
    /// Step after which the same happens.
    pub stop_after: Option<u64>,
}

/// Told about what happens, as it happens.
pub trait Observer {
    /// After each step.
    fn step(&mut self, progress: &Progress);
    /// After each validation.
    fn validation(&mut self, step: u64, validation: &Validation);
    /// When something is wrong that can still be helped.
    fn alarm(&mut self, step: u64, message: &str);
    /// After each checkpoint.
    fn saved(&mut self, path: &Path);
}

/// Where a run stands after a step.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub n_steps: u64,
    /// Loss of this step in nats.
    pub cross_entropy: f64,
    /// Learning rate of this step.
    pub rate: f64,
    /// Tokens per second of this step.
    pub tokens_per_second: f64,
    /// Largest MaxVio of any router.
    pub worst_max_violation: f64,
    /// Whether a line of the metrics was written.
    pub logged: bool,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Steps done.
    pub step: u64,
    /// Whether a signal or the step to stop after ended it before its last step.
    pub interrupted: bool,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The validation of these parameters; absent when interrupted before it.
    pub validation: Option<Validation>,
    /// Hash of all parameters.
    pub parameter_hash: Hash,
    /// Hash of all samples read.
    pub data_hash: Hash,
}

/// Trains from `state` to the last step, or until a signal.
///
/// # Errors
/// [`Error::Diverged`] when loss or gradient is not finite; anything that reading samples or
/// writing files refuses.
pub fn run(mut state: TrainState, run: Run, observer: &mut dyn Observer) -> Result<Summary> {
    let Run { dir, config, corpus, validator, stop, stop_after, interval } = run;
    // Set by `RunConfig::with_plan_len` before any run.
    let n_steps = config.run.steps.unwrap_or(state.step);
    let step_config = config.step_config(n_steps);
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    let last_t = state.t + (n_steps - state.step.min(n_steps)) * config.data.batch as u64;
    let mut loader = Loader::new(corpus.samples.clone(), state.t..last_t, config.data.prefetch, state.digest);
    let mut metrics = Metrics::open(dir, state.step, interval, geometry, config.run.peak_tflops)?;
    let mut validation = None;
    let mut alarms = Alarms::default();
    let save = |state: &TrainState, metrics: &Metrics| {
        let interval = metrics.interval.to_json();
        checkpoint::save(
            dir,
            state,
            Circumstances { config: &config.values, corpus, interval, keep: config.run.keep },
        )
    };

    if !checkpoint::checkpoints_dir(dir).join(checkpoint::checkpoint_name(state.step)).is_dir() {
        // With this, a run that begins here can be resumed after a kill at any moment.
        observer.saved(&save(&state, &metrics)?);
    }
    let mut interrupted = stop_after.is_some_and(|last| state.step >= last);
    while state.step < n_steps && !interrupted {
        let start = Instant::now();
        let batch = loader.next_batch(config.data.batch)?;
        let waited = start.elapsed().as_secs_f64();
        let due = |step: u64, every: u64| step.is_multiple_of(every) || step == n_steps;
        let logged = due(state.step + 1, config.run.log_every);
        let before = logged.then(|| optim::trained(&state.model));
        let report = match train_step(&mut state, &batch, &step_config) {
            Ok(report) => report,
            Err(StepError::Device(error)) => return Err(error),
            Err(StepError::NotFinite(report)) => {
                return Err(diverged(dir, &state, &batch, &report, metrics.last.as_ref()));
            }
        };
        state.digest = loader.digest();
        let seconds = start.elapsed().as_secs_f64();
        metrics.interval.add(&report, &batch, corpus, Took { seconds, waited });

        interrupted = stop.load(Ordering::SeqCst) || stop_after.is_some_and(|last| state.step >= last);
        validation = None;
        let said = alarms.step(report.cross_entropy, &report.routers, [seconds, waited]);
        for message in said.into_iter().chain(alarms.memory(moe_shards::memory::held_bytes)) {
            observer.alarm(state.step, &message);
        }
        observer.step(&progress(&state, n_steps, &report, &batch, seconds, logged));
        if let Some(before) = before {
            let is_due = state.step.is_multiple_of(config.run.log_every);
            metrics.write(&state, corpus, update_rms(before, &state.model), is_due)?;
        }
        if let Some(validator) = validator.filter(|_| due(state.step, config.run.eval_every)) {
            let result = validator.run(&state.model, corpus)?;
            let Validation { losses, unigram, routers } = &result;
            let line = validation_record(state.step, losses, *unigram, routers, corpus);
            metrics.file.append(line)?;
            observer.validation(state.step, &result);
            validation = Some(result);
        }
        if due(state.step, config.run.save_every) || interrupted {
            metrics.file.sync()?;
            observer.saved(&save(&state, &metrics)?);
        }
    }
    Ok(Summary {
        step: state.step,
        interrupted: state.step < n_steps,
        checkpoint: checkpoint::checkpoints_dir(dir).join(checkpoint::checkpoint_name(state.step)),
        validation,
        parameter_hash: parameter_hash(&parameters(&state.model)),
        data_hash: state.digest.hash(),
    })
}

/// The metrics file and what waits to be written to it.
struct Metrics {
    file: MetricsFile,
    interval: Interval,
    geometry: ModelConfig,
    peak_tflops: Option<f64>,
    last: Option<Map<String, Value>>,
}

impl Metrics {
    fn open(
        dir: &Path,
        step: u64,
        interval: Interval,
        geometry: ModelConfig,
        peak_tflops: Option<f64>,
    ) -> Result<Self> {
        let file = MetricsFile::open(&dir.join("metrics.jsonl"), step)?;
        Ok(Self { file, interval, geometry, peak_tflops, last: None })
    }

    /// Writes a line. Where it is due, the interval ends with it; the last line of a run that is not
    /// due leaves the interval for a run that is made longer.
    fn write(&mut self, state: &TrainState, corpus: &Corpus, update_rms: f64, is_due: bool) -> Result<()> {
        let line = self.interval.record(&Facts {
            state,
            corpus,
            balance: &self.geometry.moe.balance,
            update_rms,
            flops_per_token: size::size(&self.geometry).flops_per_token,
            peak_tflops: self.peak_tflops,
        });
        if is_due {
            self.interval = Interval::default();
        }
        self.last = Some(line.clone());
        self.file.append(line)
    }
}

/// Root of the mean square by which the trained parameters moved.
fn update_rms(before: Vec<Parameter>, model: &Model) -> f64 {
    let n: usize = before.iter().map(Parameter::len).sum();
    // One difference at a time: together they would be another copy of the model.
    let moved = before.into_iter().zip(optim::trained(model));
    let norms: Vec<Tensor<1>> =
        moved.filter_map(|(before, after)| global_norm([&(after.value - before.value)])).collect();
    if norms.is_empty() {
        return 0.0;
    }
    let squares: f64 = Tensor::cat(norms, 0).into_data().iter::<f64>().map(|norm| norm * norm).sum();
    (squares / n.max(1) as f64).sqrt()
}

fn progress(
    state: &TrainState,
    n_steps: u64,
    report: &StepReport,
    batch: &Batch,
    seconds: f64,
    logged: bool,
) -> Progress {
    let violations = report.routers.iter().map(|(_, stats)| stats.summary().max_violation);
    Progress {
        step: state.step,
        n_steps,
        cross_entropy: report.cross_entropy,
        rate: report.rate,
        tokens_per_second: batch.tokens.len() as f64 / seconds.max(1e-9),
        worst_max_violation: violations.fold(0.0, f64::max),
        logged,
    }
}

fn diverged(
    dir: &Path,
    state: &TrainState,
    batch: &Batch,
    report: &StepReport,
    last: Option<&Map<String, Value>>,
) -> Error {
    let step = state.step + 1;
    let what = format!(
        "step {step} (samples {}..{}): loss {} and gradient norm {} must be finite",
        batch.first_t,
        batch.first_t + batch.len() as u64,
        report.cross_entropy,
        report.grad_norm
    );
    match write_crash(dir, step, batch, report, last) {
        Ok(path) => Error::Diverged(format!(
            "{what}; details are in {}; resume from an earlier checkpoint, or train with a lower optim.lr",
            path.display()
        )),
        Err(error) => Error::Diverged(format!("{what}; and the details could not be written: {error}")),
    }
}
