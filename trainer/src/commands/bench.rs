//! `moe-train bench`: where the time of a step goes.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{memory, source};
use crate::bench::{self, Measured, Setup};
use crate::cli::BenchArgs;
use crate::config::RunConfig;
use crate::device::{self, Chosen};
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::model::config::AttentionConfig;
use crate::printer::Printer;

/// Steps of the schedule: far more than any benchmark makes, so that the rate stays in its warm-up.
const SCHEDULE_STEPS: u64 = 1 << 20;

/// What is needed to measure steps of a configuration.
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
    if args.attention {
        return attention(&args, printer);
    }
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
    if args.only_steps {
        // Cannot fail: it only has numbers.
        printer.data(serde_json::to_string_pretty(&bench::steps(&setup)?).expect("numbers"))?;
        return Ok(0);
    }
    let report = bench::run(&setup, &mut |line| printer.say(line))?;
    match args.json {
        // Cannot fail: the report only has numbers and names.
        true => printer.data(serde_json::to_string_pretty(&report).expect("numbers and names"))?,
        false => printer.data(report.to_string().trim_end())?,
    }
    Ok(0)
}

/// Size of the vocabulary, which does not affect attention.
const NO_VOCAB: usize = 1;

/// One attention kind in this process, or each of several in its own, so that the peak memory is its own.
fn attention(args: &BenchArgs, printer: &mut Printer) -> Result<u8> {
    let mut source = source::read(&args.source)?;
    if let Some(kind) = &args.kind {
        // So that the configuration accepts settings of this kind.
        source.values.read_assignment(&format!("attention.kind={kind}"), &mut source.problems);
    }
    let config = RunConfig::new(source.values, source.problems)?;
    moe_kernels::allow_tensor_cores(config.precision.tensor_cores);
    let kinds = match &args.kind {
        Some(kind) => vec![kind.as_str()],
        None => AttentionConfig::KINDS.to_vec(),
    };
    let (mut measured, mut failures) = (Vec::new(), Vec::new());
    if let ([kind], [tokens]) = (&kinds[..], &args.lengths[..]) {
        let geometry = config.model(NO_VOCAB, *tokens);
        let attention =
            AttentionConfig::read(kind, &config.values).map_err(|problem| Error::Config(vec![problem]))?;
        let problems = attention.problems(geometry.d_model);
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        let chosen = device::open(args.device)?;
        device::check(&chosen.device, geometry.compute, attention.head_dim(geometry.d_model))?;
        printer.say(format!("device {}; {}", chosen.reason, source.origin));
        measured.push(bench::measure_attention(&attention, &geometry, &chosen.device)?);
    } else {
        for kind in kinds {
            for &tokens in &args.lengths {
                printer.say(format!("measuring {kind} over {tokens} tokens"));
                // One cell that does not fit should not end the others.
                match in_a_process(args, kind, tokens) {
                    Ok(cell) => measured.extend(cell),
                    Err(error) => failures.push(error.to_string()),
                }
            }
        }
    }
    match args.json {
        // Cannot fail: it only has numbers and names.
        true => printer.data(serde_json::to_string_pretty(&measured).expect("numbers and names"))?,
        false => printer.data(bench::table(&measured))?,
    }
    if !failures.is_empty() {
        return Err(Error::Device(failures.join("\n")));
    }
    Ok(0)
}

/// The measurement of one kind at one length.
fn in_a_process(args: &BenchArgs, kind: &str, tokens: usize) -> Result<Vec<Measured>> {
    let program = Path::new("this program");
    let mut command = Command::new(std::env::current_exe().map_err(Error::io(program, "find"))?);
    command.args(["--quiet", "bench", "--attention", "--json", "--kind", kind]);
    command.args(["--lengths", &tokens.to_string(), "--device", &args.device.to_string()]);
    if let Some(config) = &args.source.config {
        command.arg("--config").arg(config);
    }
    if let Some(preset) = &args.source.preset {
        command.args(["--preset", preset]);
    }
    command.args(args.source.set.iter().flat_map(|assignment| ["--set", assignment]));
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(Error::io(program, "run"))?;
    let failed =
        |what: String| Error::Device(format!("{kind} over {tokens} tokens could not be measured: {what}"));
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}
