//! `moe-train resume`: continues a run, as it was or with a changed future.

use burn::tensor::Device;
use moe_shards::PlanLock;

use super::fork::{self, Fork};
use super::{Begun, lock_run, memory, source, suite, train_and_report, validator};
use crate::checkpoint::{self, Loaded};
use crate::cli::ResumeArgs;
use crate::config::value::Value;
use crate::config::{Change, RunConfig, keys};
use crate::data::Corpus;
use crate::device;
use crate::error::{Error, Result};
use crate::metrics::Interval;
use crate::ops;
use crate::optim::ScheduleSettings;
use crate::printer::Printer;
use crate::train::Position;

pub(super) fn run(args: ResumeArgs, printer: &mut Printer) -> Result<u8> {
    if !args.run.is_dir() {
        return Err(Error::checkpoint(&args.run, "no such run; start one with `moe-train --shards DIR`"));
    }
    let of_checkpoint = checkpoint::run_of(&args.run);
    if let (Some(run), None) = (of_checkpoint, &args.fork) {
        let problem = format!(
            "is a checkpoint: `moe-train resume {} --from {}` continues from it, and with --fork DIR as a separate run",
            run.display(),
            args.run.file_name().unwrap_or_default().display()
        );
        return Err(Error::checkpoint(&args.run, problem));
    }
    let parent = of_checkpoint.unwrap_or(&args.run);
    // The parent of a fork stays as it is.
    let _lock = match &args.fork {
        Some(dir) => {
            fork::refuse(dir, parent)?;
            None
        }
        None => Some(lock_run(&args.run)?),
    };
    if args.fork.is_none() {
        checkpoint::tidy(&args.run)?;
    }
    let path = checkpoint::resolve(&args.run, args.from.as_deref())?;
    let loaded = checkpoint::load(&path)?;
    let config = changed(&args, &loaded)?;
    moe_kernels::allow_tensor_cores(config.precision.tensor_cores);
    let chosen = device::open(config.run.device)?;
    printer.say(format!("device {}", chosen.reason));
    config.warnings().iter().for_each(|warning| printer.warn(warning));
    let (corpus, position) = open_corpus(&args, &loaded, &config)?;
    let config = config.with_plan(&*corpus.samples, position)?;
    let changes = loaded.config.values.identity_changes(&config.values);
    refuse_past_stop(&args, loaded.state.step)?;
    keep_the_past(&args, &loaded, &config, &changes)?;
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
    memory::check(&config, &geometry, &chosen.device, printer)?;
    let steps = config.run.steps.unwrap_or_default();
    let interval = match loaded.state.interval.clone() {
        None => Interval::default(),
        Some(value) => Interval::from_json(value).map_err(|problem| {
            Error::checkpoint(&path.join("state.json"), format!("is damaged: interval: {problem}"))
        })?,
    };
    let validator = validator(&config, &corpus, printer)?;
    let suite = suite(&config, &corpus)?;
    let device = chosen.device.autodiff();
    let (from, step) = (path.display(), loaded.state.step);
    let (state, _lock_of_fork) = match &args.fork {
        None => {
            printer.say(format!("resuming {from} at step {step} of {steps}"));
            changes.iter().for_each(|change| printer.say(format!("  {}", change.text)));
            (loaded.train_state(&device)?, None)
        }
        Some(dir) => {
            let plan_id = corpus.plan_id;
            let fork = Fork { dir, parent, config: &config, changes: &changes, plan_id, position };
            printer.say(format!("forking {from} at step {step} of {steps}"));
            fork.differences(&loaded).iter().for_each(|line| printer.say(format!("  {line}")));
            if let Some(first) = fork::first_other_rate(&loaded, &config) {
                printer.warn(format!(
                    "step {} was made at a different learning rate than this configuration gives it",
                    first + 1
                ));
            }
            let forked = fork.loaded(loaded.clone(), corpus.samples.seq_len());
            let state = forked.train_state(&device).map_err(|error| fork.explain(error))?;
            (state, Some(fork.begin(&loaded)?))
        }
    };
    // A fork is a separate run, which records its parent.
    if let Some(warning) = other_arithmetic(&loaded, &device).filter(|_| args.fork.is_none()) {
        printer.warn(warning);
    }
    let dir = args.fork.as_deref().unwrap_or(&args.run);
    checkpoint::write_config_lock(dir, &config.values)?;
    if args.from.is_some() && args.fork.is_none() {
        // From here on this is the newest checkpoint: the lines of later steps are removed.
        checkpoint::write_latest(&args.run, &checkpoint::checkpoint_name(loaded.state.step))?;
    }
    let begun =
        Begun { dir, config: &config, corpus: &corpus, validator: validator.as_ref(), suite: suite.as_ref() };
    train_and_report(state, begun, interval, args.end, printer)
}

/// The steps so far were computed with other arithmetic than the next ones, so an uninterrupted run would
/// have had other bits.
fn other_arithmetic(loaded: &Loaded, device: &Device) -> Option<String> {
    let (was, is) = (loaded.state.arithmetic.as_deref(), ops::arithmetic(device));
    (was != Some(is)).then(|| {
        format!(
            "the steps up to {} were computed in the arithmetic {}, the next ones will be in {is}: the run continues, but not \
             with the bits that it would have had",
            loaded.state.step,
            was.unwrap_or("of an older program"),
        )
    })
}

/// Refuses to stop after a past step.
fn refuse_past_stop(args: &ResumeArgs, step: u64) -> Result<()> {
    match args.end.stop_after {
        Some(last) if last < step => Err(Error::Usage(format!(
            "--stop-after {last}: is in the past, the checkpoint is at step {step}"
        ))),
        _ => Ok(()),
    }
}

/// The run's configuration with the requested changes. Among the keys that affect what is learned, only
/// future learning rates may change, unless it is a fork.
fn changed(args: &ResumeArgs, loaded: &Loaded) -> Result<RunConfig> {
    let saved = &loaded.config.values;
    let mut source = match &args.config {
        None => source::Source::new(saved.clone()),
        Some(path) => {
            let mut source = source::of_file(path)?;
            let shards = "data.shards";
            if let (false, Some(folder)) = (source.values.is_given(shards), saved.get(shards)) {
                source.values.set(shards, folder);
            }
            source
        }
    };
    for assignment in &args.set {
        source.values.read_assignment(assignment, &mut source.problems);
    }
    source.apply(args.shards.as_deref(), args.steps, args.device);
    if let Some(n) = args.prefetch {
        source.values.read_assignment(&format!("data.prefetch={n}"), &mut source.problems);
    }
    let source::Source { mut values, mut problems, .. } = source;
    // A fraction of another number of steps would change the warm-up: it keeps its length.
    let is_changed = |key: &str| values.get(key) != saved.get(key);
    let warmup = ["schedule.warmup", "schedule.warmup_steps", "schedule.warmup_tokens"];
    if args.config.is_none() && is_changed("run.steps") && !warmup.into_iter().any(is_changed) {
        let steps = loaded.config.schedule(loaded.config.run.steps.unwrap_or_default()).warmup;
        values.set("schedule.warmup_steps", Value::Int(i64::try_from(steps).unwrap_or(i64::MAX)));
    }
    // A saved run has its lengths in steps; lengths that are now given in tokens replace them.
    for (tokens, steps) in ScheduleSettings::LENGTHS {
        if values.is_given(tokens) && values.get(steps) == saved.get(steps) {
            values.unset(steps);
        }
    }
    let changes = saved.identity_changes(&values);
    let learned: Vec<&str> = match args.fork.is_some() {
        true => Vec::new(),
        false => changes
            .iter()
            .filter(|change| !keys::is_of_schedule(change.key))
            .map(|c| c.text.as_str())
            .collect(),
    };
    if !learned.is_empty() {
        problems.push(format!(
            "a resumed run cannot change what is learned; use `--fork DIR` to make a separate run with these changes:\n    {}",
            learned.join("\n    ")
        ));
    }
    let config = RunConfig::new(values, problems)?;
    let samples = |config: &RunConfig| config.data.samples_per_pass();
    let (was, will) = (samples(&loaded.config), samples(&config));
    if args.fork.is_none() && was != will && config.depends_on_micro_batch() {
        return Err(Error::Config(vec![format!(
            "data.micro_batch: {was} -> {will}: with moe.capacity, moe.balance.quantile or moe.router.kind = \"expert_choice\" \
             it decides what is learned; leave it, or use `--fork DIR`"
        )]));
    }
    Ok(config)
}

/// Opens the plan of the run, or an extension that is the same as far as the run has read; for a fork any
/// plan of the same tokenizer, read from its first sample on. Also returns where the run continues.
fn open_corpus(args: &ResumeArgs, loaded: &Loaded, config: &RunConfig) -> Result<(Corpus, Position)> {
    let (shards, state) = (&config.data.shards, &loaded.state);
    let is_there = shards.join(PlanLock::FILE).is_file();
    if !is_there {
        let here = std::env::current_dir().map_or_else(|_| ".".to_string(), |dir| dir.display().to_string());
        let looked = if shards.is_relative() { format!(" (looked for in {here})") } else { String::new() };
        return Err(Error::Data(format!(
            "{}{looked}: the plan {} that {} was trained on is not there; give its location: moe-train resume {} \
             --shards DIR",
            shards.display(),
            state.plan_id.short(),
            args.run.display(),
            args.run.display()
        )));
    }
    let corpus = Corpus::open(shards)?;
    let position = Position { step: state.step, t: state.t, tokens_seen: state.tokens_seen };
    let continues = PlanLock::read(shards)?.continues_run(state.plan_id, state.t);
    if !continues && args.fork.is_some() {
        if corpus.tokenizer != loaded.tokenizer {
            return Err(Error::Data(format!(
                "{}: has a different tokenizer from {}, whose embedding has one row per token; build the \
                 data with the tokenizer of the run",
                shards.display(),
                loaded.path.display()
            )));
        }
        return Ok((corpus, Position { t: 0, ..position }));
    }
    if !continues {
        return Err(Error::checkpoint(
            &loaded.path,
            format!(
                "was trained on plan {}, but {} holds plan {}, which does not share its first {} samples; give the \
                 folder of that plan with --shards",
                state.plan_id.short(),
                shards.display(),
                corpus.plan_id.short(),
                state.t
            ),
        ));
    }
    let (expected, found) =
        ((state.vocab_size, state.seq_len), (corpus.vocab_size, corpus.samples.seq_len()));
    if expected != found {
        return Err(Error::checkpoint(
            &loaded.path,
            format!(
                "has a vocabulary of {} and sequences of {} tokens, but {} has {} and {}",
                expected.0,
                expected.1,
                shards.display(),
                found.0,
                found.1
            ),
        ));
    }
    Ok((corpus, position))
}

/// Refuses a run that is already complete and, unless it is a fork, changes that would have affected past
/// steps.
fn keep_the_past(args: &ResumeArgs, loaded: &Loaded, config: &RunConfig, changes: &[Change]) -> Result<()> {
    let (step, will) = (loaded.state.step, config.run.steps.unwrap_or_default());
    if step > will {
        return Err(Error::Config(vec![format!("step {step} is past the last one, run.steps = {will}")]));
    }
    if args.fork.is_some() {
        return Ok(());
    }
    let was = loaded.config.run.steps.unwrap_or_default();
    let (old, new) = (loaded.config.schedule(was), config.schedule(will));
    let changes: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
    if let Some(first) = fork::first_other_rate(loaded, config) {
        return Err(Error::Config(vec![format!(
            "step {} was made at a learning rate of {:e}, but this configuration gives {:e}; continue from step-{first:08} or \
             before (--from), go another way in a run of its own (--fork DIR), or leave as it was:\n    {}",
            first + 1,
            old.rate(first),
            new.rate(first),
            changes.join("\n    ")
        )]));
    }
    let later = checkpoint::later_than(&args.run, step)?;
    if let (Some(last), false) = (later.last(), changes.is_empty()) {
        return Err(Error::Config(vec![format!(
            "{} has already continued to {last} with its configuration; use `--fork DIR` to branch off as a separate run:\n    {}",
            args.run.display(),
            changes.join("\n    ")
        )]));
    }
    Ok(())
}
