//! The memory that a run needs, and refusing one that cannot fit.

use burn::tensor::Device;

use crate::config::RunConfig;
use crate::device;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::model::memory::MemoryPlan;
use crate::ops::Form;
use crate::optim::kept_bytes;
use crate::printer::Printer;

/// Prints how much memory a run needs, and refuses it if the machine has less.
pub(super) fn check(
    config: &RunConfig,
    geometry: &ModelConfig,
    device: &Device,
    printer: &Printer,
) -> Result<()> {
    let plan = plan(config, geometry, Form::on(device));
    let of_model = plan.of_model();
    printer.say(format!(
        "memory about {:.2} GiB: parameters, gradients and moments {:.2}, activations of {} samples {:.2}, \
         attention scores {:.2}, logits {:.2}, matrices in the order of products {:.2}",
        gib(plan.total()),
        gib(of_model),
        config.data.samples_per_pass(),
        gib(plan.activations),
        gib(plan.scores),
        gib(plan.logits),
        gib(plan.packed)
    ));
    fits(config, geometry, device)
}

/// Refuses a run that needs more memory than the machine has. Only its allocator knows how much memory a GPU
/// has.
///
/// # Errors
/// [`Error::Config`] with the settings that help.
pub(super) fn fits(config: &RunConfig, geometry: &ModelConfig, device: &Device) -> Result<()> {
    let form = Form::on(device);
    let plan = plan(config, geometry, form);
    let of_model = plan.of_model();
    let Some(limit) = device::memory_limit().filter(|_| form == Form::Cpu) else { return Ok(()) };
    if plan.total() <= limit {
        return Ok(());
    }
    let with = |micro_batch, recompute| gib(planned(config, geometry, form, micro_batch, recompute).total());
    Err(Error::Config(vec![format!(
        "the run needs about {:.2} GiB of memory, but this process may use {:.2}; three settings help:\n    \
         data.micro_batch = 1: {:.2} GiB\n    \
         run.recompute = true: {:.2} GiB, with data.micro_batch = 1 {:.2} GiB\n    \
         model.layers, moe.experts, moe.expert_ffn: of the model's size alone come {:.2} GiB",
        gib(plan.total()),
        gib(limit),
        with(1, config.run.recompute),
        with(config.data.samples_per_pass(), true),
        with(1, true),
        gib(of_model)
    )]))
}

/// The memory of a run's steps.
pub(super) fn plan(config: &RunConfig, geometry: &ModelConfig, form: Form) -> MemoryPlan {
    planned(config, geometry, form, config.data.samples_per_pass(), config.run.recompute)
}

fn planned(
    config: &RunConfig,
    geometry: &ModelConfig,
    form: Form,
    micro_batch: usize,
    recompute: bool,
) -> MemoryPlan {
    let kept = kept_bytes(&config.groups, geometry);
    let average = if config.run.ema_decay.is_some() { kept.average } else { 0 };
    MemoryPlan { average, ..MemoryPlan::new(geometry, kept.moments, micro_batch, form, recompute) }
}

pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 30)
}
