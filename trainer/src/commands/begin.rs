//! What every run begins with: its data, its model, and its folder.

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use super::{Begun, lock_run, memory, suite, train_and_report, validator};
use crate::checkpoint;
use crate::cli::EndArgs;
use crate::config::RunConfig;
use crate::data::Corpus;
use crate::device;
use crate::error::{Error, Result};
use crate::metrics::Interval;
use crate::model::{Model, ModelConfig, size};
use crate::optim::Optimizer;
use crate::printer::Printer;
use crate::train::TrainState;

/// A run that is about to begin.
pub(super) struct Start<'a> {
    /// Its configuration.
    pub(super) config: RunConfig,
    /// Where the configuration comes from.
    pub(super) origin: String,
    /// Its folder, in which no run has begun.
    pub(super) dir: &'a Path,
    /// How it ends.
    pub(super) end: EndArgs,
    /// The contents of `parent.json`, if its weights come from another run.
    pub(super) parent: Option<Value>,
}

/// Begins a run with the model that `make` returns for its geometry, data and device.
pub(super) fn begin(
    start: Start,
    printer: &mut Printer,
    make: impl FnOnce(&ModelConfig, &Corpus, &Device, &Printer) -> Result<Model>,
) -> Result<u8> {
    let Start { config, origin, dir, end, parent } = start;
    refuse_begun(dir)?;
    moe_kernels::allow_tensor_cores(config.precision.tensor_cores);
    let chosen = device::open(config.run.device)?;
    printer.say(format!("device {}", chosen.reason));
    printer.say(&origin);
    config.warnings().iter().for_each(|warning| printer.warn(warning));
    let corpus = Corpus::open(&config.data.shards)?;
    let config = config.with_plan_len(&*corpus.samples)?;
    let geometry = config.model(corpus.vocab_size, corpus.samples.seq_len());
    device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
    describe(&config, &geometry, &corpus, printer);
    memory::check(&config, &geometry, &chosen.device, printer)?;
    let validator = validator(&config, &corpus, printer)?;
    let suite = suite(&config, &corpus)?;

    let model = make(&geometry, &corpus, &chosen.device.autodiff(), printer)?;
    let optimizer = Optimizer::new(config.groups.clone(), &model);
    let state = TrainState::new(model, optimizer);
    // Everything that can fail comes before the folder is created.
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    let _lock = lock_run(dir)?;
    refuse_begun(dir)?;
    match parent {
        Some(parent) => checkpoint::write_parent(dir, &parent)?,
        None => checkpoint::forget_parent(dir)?,
    }
    checkpoint::write_config_lock(dir, &config.values)?;
    let begun =
        Begun { dir, config: &config, corpus: &corpus, validator: validator.as_ref(), suite: suite.as_ref() };
    train_and_report(state, begun, Interval::default(), end, printer)
}

fn refuse_begun(dir: &Path) -> Result<()> {
    if !checkpoint::has_begun(dir)? {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{0} exists: continue it with `moe-train resume {0}`, or start another run with --run DIR",
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
    let steps = config.run.steps.unwrap_or_default();
    printer.say(format!(
        "plan {}: {} samples of {} tokens; {steps} steps of {}{} samples = {:.2} M tokens",
        corpus.plan_id.short(),
        corpus.samples.len(),
        corpus.sample_tokens(),
        if config.batches.is_ramp() { "up to " } else { "" },
        config.data.batch,
        millions(corpus.samples.tokens_before(config.batches.before(steps)))
    ));
}
