//! The order of events: read, step, measure, validate, save.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moe_shards::Hash;
use serde_json::{Map, Value};

use super::alarms::{ALARMS, Alarm, AlarmKind, Alarms, skipped};
use super::motion::motion;
use super::validate::{Validation, Validator};
use crate::checkpoint::{self, Circumstances, parameter_hash};
use crate::config::RunConfig;
use crate::data::{Batch, Corpus, Loader};
use crate::error::{Error, Result};
use crate::metrics::{
    Facts, GroupFacts, Interval, MetricsFile, Took, tasks_record, validation_record, write_crash,
};
use crate::model::parameters::parameters;
use crate::model::{ModelConfig, size};
use crate::optim;
use crate::tasks::{Suite, TaskResult};
use crate::train::{StepError, StepReport, TrainState, train_step};

/// What to train, and where.
#[derive(Debug)]
pub struct Run<'a> {
    /// The run's folder.
    pub dir: &'a Path,
    /// Its configuration, steps included.
    pub config: &'a RunConfig,
    /// Its data.
    pub corpus: &'a Corpus,
    /// Its validation set; none if the plan holds nothing out.
    pub validator: Option<&'a Validator>,
    /// Tasks to evaluate during the run.
    pub suite: Option<&'a Suite>,
    /// Measurements since the last line of its metrics; empty at its start.
    pub interval: Interval,
    /// Set by a signal: finish the step, save, stop.
    pub stop: &'a AtomicBool,
    /// Step after which to do the same.
    pub stop_after: Option<u64>,
    /// Kinds of alarms at which to do the same.
    pub fail_on: &'a [AlarmKind],
}

/// Receives events as they happen.
pub trait Observer {
    /// After each step.
    fn step(&mut self, progress: &Progress);
    /// After each validation.
    fn validation(&mut self, step: u64, validation: &Validation);
    /// After each evaluation of tasks.
    fn tasks(&mut self, step: u64, results: &[TaskResult]);
    /// At each alarm.
    fn alarm(&mut self, step: u64, alarm: &Alarm);
    /// After each checkpoint.
    fn saved(&mut self, path: &Path);
}

/// The progress of a run after a step.
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
    /// Whether a signal or a requested stop ended it before its last step.
    pub interrupted: bool,
    /// The alarm that ended it, one of [`Run::fail_on`].
    pub alarm: Option<AlarmKind>,
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
/// [`Error::Diverged`] when loss or gradient is not finite; any error in reading samples or writing files.
pub fn run(mut state: TrainState, run: Run, observer: &mut dyn Observer) -> Result<Summary> {
    let Run { dir, config, corpus, validator, suite, stop, stop_after, fail_on, interval } = run;
    // Set by `RunConfig::with_plan_len` before any run.
    let n_steps = config.run.steps.unwrap_or(state.step);
    let step_config = config.step_config(n_steps);
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    let last_t = state.t + config.batches.between(state.step, n_steps);
    let mut loader = Loader::new(corpus.samples.clone(), state.t..last_t, config.data.prefetch, state.digest);
    let mut metrics = Metrics::open(dir, state.step, interval, geometry)?;
    let mut validation = None;
    let (mut alarms, mut failed) = (Alarms::default(), None);
    let save = |state: &TrainState, metrics: &Metrics| {
        let interval = metrics.interval.to_json();
        checkpoint::save(
            dir,
            state,
            Circumstances { config: &config.values, corpus, interval, keep: config.run.keep },
        )
    };

    if !checkpoint::checkpoints_dir(dir).join(checkpoint::checkpoint_name(state.step)).is_dir() {
        // This lets a run that begins here be resumed after a kill at any moment.
        observer.saved(&save(&state, &metrics)?);
    }
    let mut interrupted = stop_after.is_some_and(|last| state.step >= last);
    while state.step < n_steps && !interrupted {
        let start = Instant::now();
        let batch = loader.next_batch(config.batches.size(state.step))?;
        let waited = start.elapsed().as_secs_f64();
        let due = |step: u64, every: u64| step.is_multiple_of(every) || step == n_steps;
        let logged = due(state.step + 1, config.run.log_every);
        let before = logged.then(|| optim::trained(&state.model));
        let report = match train_step(&mut state, &batch, &step_config) {
            Ok(report) => report,
            Err(StepError::Device(error)) => return Err(error),
            Err(StepError::NotFinite(report)) => {
                let error = diverged(dir, &state, &batch, &report, metrics.last.as_ref());
                metrics.alarm(state.step + 1, &Alarm::new(AlarmKind::NonFinite, error.to_string()))?;
                return Err(error);
            }
        };
        state.digest = loader.digest();
        let seconds = start.elapsed().as_secs_f64();
        metrics.interval.add(&report, &batch, corpus, Took { seconds, waited });

        validation = None;
        let said = alarms.step(report.cross_entropy, &report.routers, [seconds, waited]);
        let said = said.into_iter().chain(alarms.memory(moe_shards::memory::held_bytes));
        for alarm in said.chain(report.is_skipped.then(|| skipped(&report))) {
            metrics.alarm(state.step, &alarm)?;
            observer.alarm(state.step, &alarm);
            failed = failed.or(fail_on.contains(&alarm.kind).then_some(alarm.kind));
        }
        interrupted = stop.load(Ordering::SeqCst)
            || stop_after.is_some_and(|last| state.step >= last)
            || failed.is_some();
        observer.step(&progress(&state, n_steps, &report, &batch, seconds, logged));
        if let Some(before) = before {
            let is_due = state.step.is_multiple_of(config.run.log_every);
            let (all, of_groups) = motion(before, &state.model, state.optimizer.groups());
            let norms = report.group_norms.iter();
            let facts = Facts {
                state: &state,
                corpus,
                balance: &metrics.geometry.moe.balance,
                update_rms: all.update_rms,
                weight_rms: all.weight_rms,
                groups: of_groups
                    .iter()
                    .zip(norms)
                    .map(|(motion, norm)| GroupFacts {
                        update_rms: motion.update_rms,
                        weight_rms: motion.weight_rms,
                        grad_norm: *norm,
                    })
                    .collect(),
                batch: config.batches.is_ramp().then_some(batch.len()),
                can_skip: step_config.skip.is_some(),
                flops_per_token: size::size(&metrics.geometry).flops_per_token,
                peak_tflops: config.run.peak_tflops,
            };
            let line = metrics.interval.record(&facts);
            metrics.write(line, is_due)?;
        }
        if let Some(validator) = validator.filter(|_| due(state.step, config.run.eval_every)) {
            let mut result = validator.run(&state.model, corpus)?;
            if let Some(average) = &state.average {
                result.average = Some(validator.run(&average.model(&state.model), corpus)?.losses.all);
            }
            let Validation { losses, unigram, routers, average } = &result;
            let line = validation_record(state.step, losses, average.as_ref(), *unigram, routers, corpus);
            metrics.file.append(line)?;
            observer.validation(state.step, &result);
            validation = Some(result);
        }
        let every = config.run.eval_tasks_every.unwrap_or(config.run.eval_every);
        if let Some(suite) = suite.filter(|_| due(state.step, every)) {
            let results = suite.run(&state.model, config.tokens_per_pass(&metrics.geometry))?;
            metrics.file.append(tasks_record(state.step, &results))?;
            observer.tasks(state.step, &results);
        }
        if due(state.step, config.run.save_every) || interrupted {
            metrics.file.sync()?;
            observer.saved(&save(&state, &metrics)?);
        }
    }
    Ok(Summary {
        step: state.step,
        interrupted: state.step < n_steps,
        alarm: failed,
        checkpoint: checkpoint::checkpoints_dir(dir).join(checkpoint::checkpoint_name(state.step)),
        validation,
        parameter_hash: parameter_hash(&parameters(&state.model)),
        data_hash: state.digest.hash(),
    })
}

/// The metrics file and what waits to be written to it.
struct Metrics {
    file: MetricsFile,
    alarms: AlarmsFile,
    interval: Interval,
    geometry: ModelConfig,
    last: Option<Map<String, Value>>,
}

impl Metrics {
    fn open(dir: &Path, step: u64, interval: Interval, geometry: ModelConfig) -> Result<Self> {
        let file = MetricsFile::open(&dir.join("metrics.jsonl"), step)?;
        let alarms = AlarmsFile::open(dir.join(ALARMS), step)?;
        Ok(Self { file, alarms, interval, geometry, last: None })
    }

    /// Records an alarm.
    fn alarm(&mut self, step: u64, alarm: &Alarm) -> Result<()> {
        self.alarms.file()?.append(alarm.record(step))
    }

    /// Writes a line. If it is due, the interval ends with it; if the last line of a run is not due, the
    /// interval is kept for a run that is made longer.
    fn write(&mut self, line: Map<String, Value>, is_due: bool) -> Result<()> {
        if is_due {
            self.interval = Interval::default();
        }
        self.last = Some(line.clone());
        self.file.append(line)
    }
}

/// The file of alarms, which is created with the first one.
struct AlarmsFile {
    path: PathBuf,
    step: u64,
    file: Option<MetricsFile>,
}

impl AlarmsFile {
    /// Removes lines after `step` from an existing file.
    fn open(path: PathBuf, step: u64) -> Result<Self> {
        let file = if path.exists() { Some(MetricsFile::open(&path, step)?) } else { None };
        Ok(Self { path, step, file })
    }

    fn file(&mut self) -> Result<&mut MetricsFile> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => Ok(none.insert(MetricsFile::open(&self.path, self.step)?)),
        }
    }
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
