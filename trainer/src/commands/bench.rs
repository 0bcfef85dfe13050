//! `moe-train bench`: where the time of a step goes.

use super::{memory, source};
use crate::bench::{self, Setup};
use crate::cli::BenchArgs;
use crate::config::RunConfig;
use crate::device::{self, Chosen};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::printer::Printer;

/// Steps of the schedule: far more than any benchmark makes, so that the rate stays in its warm-up.
const SCHEDULE_STEPS: u64 = 1 << 20;

/// What it takes to measure steps of a configuration.
pub(super) fn setup(config: &RunConfig, geometry: ModelConfig, chosen: Chosen, n_steps: u64) -> Setup {
    Setup {
        geometry,
        groups: config.groups.clone(),
        step: config.step_config(SCHEDULE_STEPS),
        batch: config.data.batch,
        n_steps,
        n_repeats: 1,
        device: chosen.device,
        device_name: chosen.reason,
        peak_tflops: None,
    }
}

pub(super) fn run(args: BenchArgs, printer: &mut Printer) -> Result<u8> {
    let source = source::read(&args.source)?;
    let config = RunConfig::new(source.values, source.problems)?;
    moe_kernels::allow_tensor_cores(config.precision.tensor_cores);
    let chosen = device::open(args.device)?;
    let geometry = config.model(args.vocab, args.seq_len);
    device::check(&chosen.device, geometry.compute, geometry.head_dim())?;
    printer.say(format!("device {}", chosen.reason));
    printer.say(&source.origin);
    memory::check(&config, &geometry, &chosen.device, printer)?;
    let setup = Setup {
        n_repeats: args.repeats,
        peak_tflops: args.peak_tflops,
        ..setup(&config, geometry, chosen, args.steps)
    };
    let report = bench::run(&setup, &mut |line| printer.say(line))?;
    match args.json {
        // Cannot fail: the report holds numbers and names.
        true => printer.data(serde_json::to_string_pretty(&report).expect("numbers and names"))?,
        false => printer.data(report.to_string().trim_end())?,
    }
    Ok(0)
}
