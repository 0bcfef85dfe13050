//! `moe-train train`, and `moe-train` without a verb.

use std::path::{Path, PathBuf};

use super::{lock, source, train_and_report};
use crate::checkpoint;
use crate::cli::TrainArgs;
use crate::config::value::Value;
use crate::config::{RunConfig, Values};
use crate::data::{Corpus, DataDigest};
use crate::device;
use crate::error::{Error, Result};
use crate::model::memory::MemoryPlan;
use crate::model::{Model, ModelConfig, size};
use crate::optim::Optimizer;
use crate::printer::Printer;
use crate::train::TrainState;

pub(super) fn run(args: TrainArgs, printer: &mut Printer) -> Result<u8> {
    let mut source = source::read(&args.source)?;
    apply_flags(&args, &mut source.values);
    let config = RunConfig::new(source.values, source.problems)?;
    let dir = args.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(&source.name));
    refuse_existing(&dir)?;
    let chosen = device::open(config.device)?;
    printer.say(format!("device {}", chosen.reason));
    printer.say(&source.origin);
    let corpus = Corpus::open(&config.shards)?;
    let config = config.with_plan_len(corpus.samples.len())?;
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
    describe(&config, &geometry, &corpus, printer);

    std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let _lock = lock(&dir)?;
    checkpoint::write_config_lock(&dir, &config.values)?;
    let model = Model::new(&geometry, config.seed, &chosen.device.autodiff());
    let optimizer = Optimizer::new(config.adamw.clone(), &model);
    let state = TrainState { model, optimizer, step: 0, t: 0, tokens_seen: 0, digest: DataDigest::new() };
    train_and_report(state, &dir, &config, &corpus, args.json, printer)
}

/// Flags of single keys are the last word.
fn apply_flags(args: &TrainArgs, values: &mut Values) {
    if let Some(shards) = &args.shards {
        values.set("data.shards", Value::Text(shards.to_string_lossy().into_owned().into()));
    }
    if let Some(steps) = args.steps {
        values.set("run.steps", Value::Int(i64::try_from(steps).unwrap_or(i64::MAX)));
    }
    if let Some(device) = args.device {
        values.set("run.device", Value::Text(device.to_string().into()));
    }
}

fn refuse_existing(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{0} exists: `moe-train resume {0}` goes on with it; --run DIR starts another run",
        dir.display()
    )))
}

fn describe(config: &RunConfig, geometry: &ModelConfig, corpus: &Corpus, printer: &Printer) {
    let size = size::size(geometry);
    let millions = |n: u64| n as f64 / 1e6;
    printer.say(format!(
        "model {:.2} M parameters, {:.2} M active per token; vocabulary {}",
        millions(size.total),
        millions(size.active),
        geometry.vocab_size
    ));
    let steps = config.steps.unwrap_or_default();
    printer.say(format!(
        "plan {}: {} samples of {} tokens; {steps} steps of {} samples = {:.2} M tokens",
        corpus.plan_id.short(),
        corpus.samples.len(),
        geometry.seq_len,
        config.batch,
        millions(steps * (config.batch * geometry.seq_len) as u64)
    ));
    let plan = MemoryPlan::new(geometry, config.micro_batch * geometry.seq_len, config.recompute);
    let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    printer.say(format!(
        "memory about {:.2} GiB: parameters, gradients and moments {:.2}, activations of {} samples {:.2}, \
         logits {:.2}",
        gib(plan.total()),
        gib(plan.parameters + plan.casts + plan.gradients + plan.moments),
        config.micro_batch,
        gib(plan.activations),
        gib(plan.logits)
    ));
}
