//! One file for each verb; each returns the program's exit code.

mod begin;
mod bench;
mod config;
mod eval;
mod export;
mod fork;
mod from;
mod import;
mod inspect;
mod logits;
mod memory;
mod per_token;
mod plan;
mod report;
mod resume;
mod sample;
mod source;
mod tasks;
mod train;
mod upcycle;
mod verify_resume;
mod watch;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::CommandFactory;
use moe_cli::lock;
use moe_cli::signals::{self, INTERRUPTED};
use serde_json::json;

use crate::cli::{Cli, EndArgs, Verb};
use crate::config::RunConfig;
use crate::data::Corpus;
use crate::error::{Error, Result};
use crate::metrics::Interval;
use crate::printer::{Printer, describe_validation};
use crate::run::{AlarmKind, Run, Summary, Validator};
use crate::tasks::question::Changes;
use crate::tasks::{Reader, Suite};
use crate::train::TrainState;

/// Exit code of a run that diverged or was stopped by an alarm.
const ALARMED: u8 = 6;
/// How often to retry a lock that another process holds: `watch` takes it for a moment.
const LOCK_TRIES: u32 = 10;

/// Runs a command line.
///
/// # Errors
/// If the verb fails.
pub fn run(cli: Cli, printer: &mut Printer) -> Result<u8> {
    if let (Some(_), Some(flag)) = (&cli.verb, cli.train.first_given()) {
        return Err(Error::Usage(format!(
            "{flag} comes before the verb; put it after the verb, if the verb has it"
        )));
    }
    match cli.verb {
        None => train::run(cli.train, printer),
        Some(Verb::Train(args)) => train::run(args, printer),
        Some(Verb::Resume(args)) => resume::run(args, printer),
        Some(Verb::Eval(args)) => eval::run(args, printer),
        Some(Verb::Export(args)) => export::run(args, printer),
        Some(Verb::Import(args)) => import::run(args, printer),
        Some(Verb::Upcycle(args)) => upcycle::run(args, printer),
        Some(Verb::Sample(args)) => sample::run(args, printer),
        Some(Verb::Inspect(args)) => inspect::run(args, printer),
        Some(Verb::Config(args)) => config::run(args, printer),
        Some(Verb::Bench(args)) => bench::run(args, printer),
        Some(Verb::Plan(args)) => plan::run(args, printer),
        Some(Verb::Report(args)) => report::run(args, printer),
        Some(Verb::Watch(args)) => watch::run(args, printer),
        Some(Verb::Completions(args)) => printer.data(args.script(Cli::command())).map(|()| 0),
        Some(Verb::Man(args)) => printer.data(args.page(Cli::command()).map_err(Error::Usage)?).map(|()| 0),
        Some(Verb::VerifyResume(args)) => verify_resume::run(args, printer),
    }
}

/// Keeps a second process out of a run's folder while it is alive; the system releases it when the process
/// ends, however it ends.
fn lock_run(dir: &Path) -> Result<File> {
    for _ in 0..LOCK_TRIES {
        match lock::acquire(dir).map_err(Error::io(&dir.join(lock::FILE), "lock"))? {
            Some(file) => return Ok(file),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(Error::Usage(format!(
        "{}: another process is training this run; wait for it, or train into another --run folder",
        dir.display()
    )))
}

/// A flag that SIGINT and SIGTERM set; the second of them ends the process at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    signals::stop_flag().map_err(|error| Error::Usage(error.to_string()))
}

/// The validation set of a run; none if the plan holds nothing out, with a message.
fn validator(config: &RunConfig, corpus: &Corpus, printer: &Printer) -> Result<Option<Validator>> {
    let validator = Validator::new(corpus, config.data.validation_samples, config.data.samples_per_pass())?;
    if validator.is_none() {
        printer.say(
            "the plan holds out no documents: training without validation (`holdout` of `moe-data mix`)",
        );
    }
    Ok(validator)
}

/// The tasks to evaluate during a run, if any.
fn suite(config: &RunConfig, corpus: &Corpus) -> Result<Option<Suite>> {
    let reader = Reader {
        tokenizer: &corpus.tokenizer,
        eod: corpus.eod,
        longest: corpus.samples.seq_len(),
        asked_by: "run.eval_tasks",
    };
    let tasks = config.run.eval_tasks.as_ref().filter(|tasks| !tasks.is_empty());
    tasks.map(|tasks| Suite::open(tasks, Changes::default(), reader)).transpose()
}

/// A run whose folder has been created and locked.
struct Begun<'a> {
    dir: &'a Path,
    config: &'a RunConfig,
    corpus: &'a Corpus,
    validator: Option<&'a Validator>,
    suite: Option<&'a Suite>,
}

/// Trains, and reports how it ended.
fn train_and_report(
    state: TrainState,
    begun: Begun,
    interval: Interval,
    end: EndArgs,
    printer: &mut Printer,
) -> Result<u8> {
    let Begun { dir, config, corpus, validator, suite } = begun;
    let stop = stop_flag()?;
    let ui = if end.ui { printer.ui(dir, &stop) } else { None };
    printer.start_steps(state.step, config.run.steps.unwrap_or_default(), ui);
    let (stop_after, fail_on) = (end.stop_after, end.fail_on.as_slice());
    let run = Run { dir, config, corpus, validator, suite, interval, stop: &stop, stop_after, fail_on };
    let summary = crate::run::run(state, run, printer)?;
    printer.finish_steps();
    report(&summary, dir, printer);
    if end.json {
        let validation = summary.validation.as_ref();
        let record = json!({
            "run": dir,
            "checkpoint": summary.checkpoint,
            "step": summary.step,
            "interrupted": summary.interrupted,
            "alarm": summary.alarm.map(AlarmKind::name),
            "parameter_hash": summary.parameter_hash,
            "data_hash": summary.data_hash,
            "validation_ce": validation.and_then(|v| v.losses.all.nats()),
            "validation_bpb": validation.and_then(|v| v.losses.all.bits_per_byte()),
            "validation_unigram_ce": validation.map(|v| v.unigram),
        });
        printer.data(format!("{record:#}"))?;
    }
    if let Some(kind) = summary.alarm {
        printer.error(format!("the alarm `{}` ended the run, as --fail-on asks", kind.name()));
        return Ok(ALARMED);
    }
    // A requested stop is not an interruption.
    let is_as_asked = end.stop_after.is_some_and(|last| summary.step >= last);
    Ok(if summary.interrupted && !is_as_asked { INTERRUPTED } else { 0 })
}

fn report(summary: &Summary, dir: &Path, printer: &Printer) {
    if summary.interrupted {
        printer.say(format!("stopped after step {}; saved {}", summary.step, summary.checkpoint.display()));
        printer.say(format!("continue with: moe-train resume {}", dir.display()));
        return;
    }
    let validation = summary.validation.as_ref().map(|v| format!(": {}", describe_validation(v)));
    printer.say(format!("trained {} steps{}", summary.step, validation.unwrap_or_default()));
    printer.say(format!("checkpoint {}", summary.checkpoint.display()));
    printer.say(format!("metrics    {}", dir.join("metrics.jsonl").display()));
    printer.say(format!(
        "parameters blake3 {}, data blake3 {}",
        summary.parameter_hash.short(),
        summary.data_hash.short()
    ));
    printer.say(format!("next: moe-train sample {}", dir.display()));
}
