//! `moe-train resume`: goes on with a run, as it was or with another future.

use std::path::Path;

use moe_shards::PlanLock;
use serde_json::json;

use super::{Begun, lock, plan, source, train_and_report, validator};
use crate::checkpoint::{self, Loaded};
use crate::cli::ResumeArgs;
use crate::config::value::Value;
use crate::config::{Change, RunConfig, keys};
use crate::data::Corpus;
use crate::device;
use crate::error::{Error, Result};
use crate::metrics::Interval;
use crate::printer::Printer;

pub(super) fn run(args: ResumeArgs, printer: &mut Printer) -> Result<u8> {
    if !args.run.is_dir() {
        return Err(Error::checkpoint(&args.run, "no such run; `moe-train --shards DIR` starts one"));
    }
    // A run that another one branches off stays as it is.
    let _lock = match &args.into {
        Some(_) => None,
        None => Some(lock(&args.run)?),
    };
    if args.into.is_none() {
        checkpoint::tidy(&args.run)?;
    }
    let path = checkpoint::resolve(&args.run, args.from.as_deref())?;
    let loaded = checkpoint::load(&path)?;
    let (config, changes) = changed(&args, &loaded)?;
    moe_kernels::allow_tensor_cores(config.tensor_cores);
    let chosen = device::open(config.device)?;
    printer.say(format!("device {}", chosen.reason));
    config.warnings().iter().for_each(|warning| printer.warn(warning));
    let corpus = open_corpus(&args, &loaded, &config)?;
    let config = config.with_plan_len(corpus.samples.len())?;
    keep_the_past(&args, &loaded, &config, &changes)?;
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
    plan::check(&config, &geometry, &chosen.device, printer)?;
    let steps = config.steps.unwrap_or_default();
    printer.say(format!("resuming {} at step {} of {steps}", path.display(), loaded.state.step));
    changes.iter().for_each(|change| printer.say(format!("  {}", change.text)));

    let interval = match loaded.state.interval.clone() {
        None => Interval::default(),
        Some(value) => Interval::from_json(value).map_err(|problem| {
            Error::checkpoint(&path.join("state.json"), format!("is damaged: interval: {problem}"))
        })?,
    };
    let validator = validator(&config, &corpus, printer)?;
    let state = loaded.train_state(&chosen.device.autodiff())?;
    let dir = args.into.as_deref().unwrap_or(&args.run);
    let _lock_of_branch = match &args.into {
        None => None,
        Some(branch) => Some(begin_branch(branch, &args.run, &loaded)?),
    };
    checkpoint::write_config_lock(dir, &config.values)?;
    if args.from.is_some() && args.into.is_none() && checkpoint::resolve(&args.run, None).is_err() {
        checkpoint::write_latest(&args.run, &checkpoint::checkpoint_name(loaded.state.step))?;
    }
    let begun = Begun { dir, config: &config, corpus: &corpus, validator: validator.as_ref() };
    train_and_report(state, begun, interval, args.json, printer)
}

/// The run's configuration with the changes asked for, and those of them that decide what is learnt:
/// nothing but the learning rates of its future may.
fn changed(args: &ResumeArgs, loaded: &Loaded) -> Result<(RunConfig, Vec<Change>)> {
    let saved = &loaded.config.values;
    let mut source = source::Source::new(saved.clone());
    for assignment in &args.set {
        source.values.read_assignment(assignment, &mut source.problems);
    }
    if let Some(shards) = &args.shards {
        source.set_path("--shards", "data.shards", shards);
    }
    let flags = [
        ("run.steps", args.steps.map(|n| n.to_string())),
        ("data.prefetch", args.prefetch.map(|n| n.to_string())),
        ("run.device", args.device.map(|device| device.to_string())),
    ];
    for (key, value) in flags {
        if let Some(value) = value {
            source.values.read_assignment(&format!("{key}={value}"), &mut source.problems);
        }
    }
    let source::Source { mut values, mut problems, .. } = source;
    // A share of another number of steps would be another warm-up: it stays as long as it was.
    let is_changed = |key: &str| values.get(key) != saved.get(key);
    let warmup = ["schedule.warmup", "schedule.warmup_steps"];
    if is_changed("run.steps") && !warmup.into_iter().any(is_changed) {
        let steps = loaded.config.schedule(loaded.config.steps.unwrap_or_default()).warmup;
        values.set("schedule.warmup_steps", Value::Int(i64::try_from(steps).unwrap_or(i64::MAX)));
    }
    let changes = saved.identity_changes(&values);
    let learnt: Vec<&str> =
        changes.iter().filter(|change| !keys::is_of_schedule(change.key)).map(|c| c.text.as_str()).collect();
    if !learnt.is_empty() {
        problems.push(format!(
            "a resumed run cannot change what is learnt; start another run for:\n    {}",
            learnt.join("\n    ")
        ));
    }
    Ok((RunConfig::new(values, problems)?, changes))
}

/// Opens the plan of the run, or an extension that does not differ in what the run has read.
fn open_corpus(args: &ResumeArgs, loaded: &Loaded, config: &RunConfig) -> Result<Corpus> {
    let (shards, state) = (&config.shards, &loaded.state);
    let is_there = shards.join(PlanLock::FILE).is_file();
    if !is_there {
        let here = std::env::current_dir().map_or_else(|_| ".".to_string(), |dir| dir.display().to_string());
        let looked = if shards.is_relative() { format!(" (looked for in {here})") } else { String::new() };
        return Err(Error::Data(format!(
            "{}{looked}: the plan {} that {} was trained on is not there; say where it is: moe-train resume {} \
             --shards DIR",
            shards.display(),
            state.plan_id.short(),
            args.run.display(),
            args.run.display()
        )));
    }
    let corpus = Corpus::open(shards)?;
    if !PlanLock::read(shards)?.continues_run(state.plan_id, state.t) {
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
    Ok(corpus)
}

/// Refuses a future in which the past would have been another one.
fn keep_the_past(args: &ResumeArgs, loaded: &Loaded, config: &RunConfig, changes: &[Change]) -> Result<()> {
    let step = loaded.state.step;
    let (was, will) = (loaded.config.steps.unwrap_or_default(), config.steps.unwrap_or_default());
    let (old, new) = (loaded.config.schedule(was), config.schedule(will));
    let changes: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
    if let Some(first) = (0..step).find(|&step| old.rate(step).to_bits() != new.rate(step).to_bits()) {
        return Err(Error::Config(vec![format!(
            "step {} was made at a learning rate of {:e}, which would have been {:e}; go on from step-{first:08} or \
             before (--from), or leave as it was:\n    {}",
            first + 1,
            old.rate(first),
            new.rate(first),
            changes.join("\n    ")
        )]));
    }
    if step > will {
        return Err(Error::Config(vec![format!("step {step} is after the last one, run.steps = {will}")]));
    }
    let later = checkpoint::later_than(&args.run, step)?;
    if let (Some(last), None, false) = (later.last(), &args.into, changes.is_empty()) {
        return Err(Error::Config(vec![format!(
            "{} went on to {last} as it was configured; `--into DIR` goes another way in a run of its own:\n    {}",
            args.run.display(),
            changes.join("\n    ")
        )]));
    }
    Ok(())
}

/// Makes and locks the folder of a run that branches off another one, and writes down which.
fn begin_branch(branch: &Path, run: &Path, loaded: &Loaded) -> Result<std::fs::File> {
    if checkpoint::has_begun(branch)? {
        let problem = format!("--into {}: exists; name a folder that does not", branch.display());
        return Err(Error::Usage(problem));
    }
    std::fs::create_dir_all(branch).map_err(Error::io("create", branch))?;
    let lock = lock(branch)?;
    let parent = json!({
        "run": std::path::absolute(run).map_err(Error::io("find", run))?,
        "step": loaded.state.step,
        "parameter_hash": loaded.state.parameter_hash,
        "config_fingerprint": loaded.state.config_fingerprint,
    });
    moe_shards::atomic::write_file(&branch.join("parent.json"), format!("{parent:#}\n").as_bytes())?;
    Ok(lock)
}
