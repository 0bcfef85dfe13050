//! `moe-train resume`: goes on with a run.

use moe_shards::PlanLock;

use super::{lock, train_and_report};
use crate::checkpoint;
use crate::cli::ResumeArgs;
use crate::config::value::Value;
use crate::config::{RunConfig, Values};
use crate::data::Corpus;
use crate::device;
use crate::error::{Error, Result};
use crate::printer::Printer;

pub(super) fn run(args: ResumeArgs, printer: &mut Printer) -> Result<u8> {
    if !args.run.is_dir() {
        return Err(Error::checkpoint(&args.run, "no such run; `moe-train --shards DIR` starts one"));
    }
    let _lock = lock(&args.run)?;
    let path = checkpoint::resolve(&args.run, args.from.as_deref())?;
    let loaded = checkpoint::load(&path)?;
    let config = changed(&args, &loaded.config.values)?;
    let chosen = device::open(config.device)?;
    printer.say(format!("device {}", chosen.reason));
    let corpus = Corpus::open(&config.shards)?;
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
    // An extension of the plan will do, if it does not differ in what the run has read.
    if !PlanLock::read(&config.shards)?.continues_run(loaded.state.plan_id, loaded.state.t) {
        return Err(Error::checkpoint(
            &path,
            format!(
                "was trained on plan {}, but {} holds plan {}, which does not share its first {} samples; give the \
                 folder of that plan with --shards",
                loaded.state.plan_id.short(),
                config.shards.display(),
                corpus.plan_id.short(),
                loaded.state.t
            ),
        ));
    }
    let config = config.with_plan_len(corpus.samples.len())?;
    let steps = config.steps.unwrap_or_default();
    printer.say(format!("resuming {} at step {} of {steps}", path.display(), loaded.state.step));
    checkpoint::write_config_lock(&args.run, &config.values)?;
    let state = loaded.train_state(&chosen.device.autodiff())?;
    train_and_report(state, &args.run, &config, &corpus, args.json, printer)
}

/// The run's configuration with the changes asked for, none of which may touch what is learnt.
fn changed(args: &ResumeArgs, saved: &Values) -> Result<RunConfig> {
    let (mut values, mut problems) = (saved.clone(), Vec::new());
    for assignment in &args.set {
        values.read_assignment(assignment, &mut problems);
    }
    if let Some(shards) = &args.shards {
        values.set("data.shards", Value::Text(shards.to_string_lossy().into_owned().into()));
    }
    if let Some(prefetch) = args.prefetch {
        values.read_assignment(&format!("data.prefetch={prefetch}"), &mut problems);
    }
    if let Some(device) = args.device {
        values.set("run.device", Value::Text(device.to_string().into()));
    }
    let changes = saved.identity_changes(&values);
    if !changes.is_empty() {
        problems.push(format!(
            "a resumed run cannot change what is learnt; start another run for:\n    {}",
            changes.join("\n    ")
        ));
    }
    RunConfig::new(values, problems)
}
