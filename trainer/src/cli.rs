//! The command line: types only.

mod models;
mod tasks;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use moe_cli::shell::{CompletionsArgs, ManArgs};

use crate::device::DeviceChoice;
use crate::model::config::AttentionConfig;
use crate::run::AlarmKind;

pub use models::{ExportArgs, ExportNumber, Format, ImportArgs, UpcycleArgs};
pub use tasks::TaskArgs;

/// Trains mixture-of-experts language models on the shards and plans of moe-data.
#[derive(Debug, Parser)]
#[command(
    name = "moe-train",
    version,
    before_long_help = "Examples:\n  \
        moe-train --shards out/                          train the `tiny` preset\n  \
        moe-train --shards out/ --preset smoke           check in seconds that everything works\n  \
        moe-train --shards out/ --set moe.top_k=1 --set moe.router.norm_weights=false\n  \
        moe-train plan --shards out/ --measure           size, memory, passes and time before a run\n  \
        moe-train resume runs/tiny                       continue after an interruption\n  \
        moe-train --from runs/tiny --shards chat/ --run runs/chat --set optim.lr=1e-4\n  \
        moe-train sample runs/tiny --prompt \"In the\"\n  \
        moe-train config --explain moe.balance.switch"
)]
pub struct Cli {
    /// What to do; without a verb: train.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Training.
    #[command(flatten)]
    pub train: TrainArgs,
    /// Print only errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: a line for each step.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train a model (same as no verb).
    Train(TrainArgs),
    /// Continue a run after an interruption, bit for bit as if there had been none.
    Resume(ResumeArgs),
    /// Evaluate a checkpoint: loss on held-out documents by source, or results on tasks.
    Eval(EvalArgs),
    /// Generate text from a checkpoint.
    Sample(SampleArgs),
    /// Write a checkpoint as a transformers folder or a llama.cpp file.
    Export(ExportArgs),
    /// Start a run from the weights in a transformers folder.
    Import(ImportArgs),
    /// Start a mixture-of-experts run that initially computes what a dense model does.
    Upcycle(UpcycleArgs),
    /// Show what is in a checkpoint.
    Inspect(InspectArgs),
    /// Show the configuration as it would be used, or what a key means.
    Config(ConfigArgs),
    /// Measure where the time of a training step goes, on synthetic tokens.
    Bench(BenchArgs),
    /// Estimate what a run needs before it starts: size, FLOPs, memory, passes over each source, time.
    Plan(PlanArgs),
    /// Write an HTML page with the curves of one or several runs, finished or not.
    Report(ReportArgs),
    /// Follow a run in the terminal: loss, throughput, time left, load of each expert, alarms.
    Watch(WatchArgs),
    /// Prove on your own configuration that a killed and resumed run equals an uninterrupted one, bit for
    /// bit.
    VerifyResume(VerifyResumeArgs),
    /// Print shell completions for bash, zsh, fish, elvish or powershell.
    Completions(CompletionsArgs),
    /// Print a man page, as in `moe-train man resume | man -l -`.
    Man(ManArgs),
}

/// How a configuration is assembled: defaults < preset or file < --set.
#[derive(Debug, Clone, Args)]
pub struct ConfigSource {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub config: Option<PathBuf>,
    /// Built-in configuration: smoke, tiny, char, mini-1b, wide-1b, speedrun-moe64,
    /// moonlet-7b, mixtral-8x7b or olmoe-1b-7b.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// One configuration key, as in moe.top_k=2; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `train`.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Folder of the shards and the plan [default: out; with --from, the run's].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Start from the weights of this run, or of one of its checkpoints, with a new plan and optimizer, at
    /// step 0. The configuration is the run's, then --config, then --set.
    #[arg(long, value_name = "RUN", conflicts_with = "preset", requires = "run")]
    pub from: Option<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Optimizer steps [default: as many as the plan has samples for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Folder of the run; it must not exist [default: runs/PRESET].
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// How it ends.
    #[command(flatten)]
    pub end: EndArgs,
}

/// How training is shown, and how it ends.
#[derive(Debug, Clone, Default, Args)]
pub struct EndArgs {
    /// Save after this step and stop, with exit code 0; `resume` continues. Learning rates stay those of the
    /// full run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,
    /// Save and stop with exit code 6 at the first alarm of these kinds; alarms are recorded in the run's
    /// alarms.jsonl.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub fail_on: Vec<AlarmKind>,
    /// Show curves, expert loads and alarms in a full-screen terminal view, like `moe-train watch`.
    #[arg(long)]
    pub ui: bool,
    /// Print the summary as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

impl TrainArgs {
    /// The first flag that was given.
    pub fn first_given(&self) -> Option<&'static str> {
        let ConfigSource { config, preset, set } = &self.source;
        let flags = [
            ("--shards", self.shards.is_some()),
            ("--from", self.from.is_some()),
            ("--config", config.is_some()),
            ("--preset", preset.is_some()),
            ("--set", !set.is_empty()),
            ("--steps", self.steps.is_some()),
            ("--device", self.device.is_some()),
            ("--run", self.run.is_some()),
            ("--stop-after", self.end.stop_after.is_some()),
            ("--fail-on", !self.end.fail_on.is_empty()),
            ("--ui", self.end.ui),
            ("--json", self.end.json),
        ];
        flags.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of runs; the others are compared with the first.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Where to write the page [default: report.html in the run's folder; for several runs, in the current
    /// folder].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write each figure as an SVG file to this folder.
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,
    /// Also write the metrics as a TensorBoard event file to `tensorboard/` in each run's folder.
    #[arg(long)]
    pub tensorboard: bool,
    /// Print the numbers of all figures as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Folder of the run, in progress or not.
    pub run: PathBuf,
    /// Show the current state and exit.
    #[arg(long)]
    pub once: bool,
    /// Exit with code 6 at an alarm of these kinds.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub fail_on: Vec<AlarmKind>,
    /// If output is not a terminal: minimum number of seconds between lines.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive)]
    pub every: f64,
    /// Print JSON on stdout, one object per line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Folder of the run.
    pub run: PathBuf,
    /// Checkpoint to continue from, as in step-00000100 [default: the latest].
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Folder of the shards and the plan, if it has moved.
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Total optimizer steps of the run, more or fewer than it was started with. Refused if that would
    /// change a past learning rate.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Continue as a separate run in this folder and leave the original unchanged: a decay, a different
    /// length, different balancing, another plan. Anything may differ except the tensors; differences are
    /// listed, and recorded with the parent in parent.json.
    #[arg(long, value_name = "DIR")]
    pub fork: Option<PathBuf>,
    /// Configuration of a fork [default: the run's].
    #[arg(long, value_name = "FILE", requires = "fork")]
    pub config: Option<PathBuf>,
    /// Samples read ahead.
    #[arg(long, value_name = "N")]
    pub prefetch: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// A key that does not affect what was learned, as in run.log_every=1, or any key for a fork; may be
    /// repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How it ends.
    #[command(flatten)]
    pub end: EndArgs,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run or one of its checkpoints.
    pub path: PathBuf,
    /// Folder of the shards and the plan. With --tasks: report questions whose text is in these shards.
    #[arg(long, value_name = "DIR", required_unless_present = "tasks")]
    pub shards: Option<PathBuf>,
    /// Tasks.
    #[command(flatten)]
    pub tasks: TaskArgs,
    /// Expert capacities to try, relative to the even load, as in 1,1.25,2,inf; prints loss and dropped
    /// choices for each.
    #[arg(long, value_name = "X,...", value_delimiter = ',', value_parser = capacity)]
    pub capacity: Vec<f64>,
    /// Record what --capacity measured in the run's capacity.jsonl, where `moe-train report` finds it.
    #[arg(long, requires = "capacity")]
    pub record: bool,
    /// Evaluate the moving average of the weights (only for runs with run.ema_decay).
    #[arg(long)]
    pub ema: bool,
    /// Also write loss and rank of every target, as a NumPy array of records; the file must not exist.
    #[arg(long, value_name = "FILE.npy", conflicts_with = "capacity")]
    pub per_token: Option<PathBuf>,
    /// Also write all logits, with tokens, positions and documents, as safetensors; the file must not exist.
    #[arg(long, value_name = "FILE", requires = "samples", conflicts_with = "capacity")]
    pub logits: Option<PathBuf>,
    /// Validation samples to use [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub samples: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `sample`.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// A run or one of its checkpoints.
    pub path: PathBuf,
    /// Sample from the moving average of the weights (only for runs with run.ema_decay).
    #[arg(long)]
    pub ema: bool,
    /// Text to continue; may be repeated, and each is continued independently.
    #[arg(long, default_value = "The")]
    pub prompt: Vec<String>,
    /// Maximum number of tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// Divides the logits; 0 always takes the most likely token.
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw only from this many of the most likely tokens.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = at_least_one)]
    pub top_k: usize,
    /// Of these, draw from the smallest set with at least this total probability, above 0 and up to 1.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = share)]
    pub top_p: f64,
    /// Random seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Print one JSON object per prompt and line: prompt, text, tokens, and how many of them are new.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A run or one of its checkpoints.
    pub path: PathBuf,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Tokens per sample.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one)]
    pub seq_len: usize,
    /// Vocabulary size.
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = at_least_one)]
    pub vocab: usize,
    /// Steps to measure, after three warm-up steps.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Repetitions of each part.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Peak of the device in TFLOP/s, for the MFU [default: a large matrix product, measured].
    #[arg(long, value_name = "X", value_parser = positive)]
    pub peak_tflops: Option<f64>,
    /// Measure only whole steps, not their parts, and print time, CPU seconds and tokens per second as JSON.
    #[arg(long, conflicts_with_all = ["repeats", "peak_tflops", "attention", "json"])]
    pub only_steps: bool,
    /// Instead, measure time and memory of each attention kind, forward and backward, on one document. Each
    /// is measured in a separate process.
    #[arg(long, conflicts_with_all = ["seq_len", "vocab", "steps", "repeats", "peak_tflops"])]
    pub attention: bool,
    /// With --attention: document lengths, in tokens.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [256, 1024, 4096, 16384],
          value_parser = at_least_one, requires = "attention")]
    pub lengths: Vec<usize>,
    /// With --attention: only this kind.
    #[arg(long, value_name = "KIND", value_parser = AttentionConfig::KINDS.to_vec(), requires = "attention")]
    pub kind: Option<String>,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Folder of the shards and the plan [default: out].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Optimizer steps [default: as many as the plan has samples for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Measure the time of N steps on synthetic tokens [default: 3], after three warm-up steps.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3",
          value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "tokens_per_second")]
    pub measure: Option<u64>,
    /// Speed from which to estimate the time, as reported by `moe-train bench` or another run's metrics.
    #[arg(long, value_name = "X", value_parser = positive)]
    pub tokens_per_second: Option<f64>,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify-resume`.
#[derive(Debug, Args)]
pub struct VerifyResumeArgs {
    /// Folder of the shards and the plan [default: out].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Steps of each run. The second run is killed after half of them.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=1 << 40))]
    pub steps: u64,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Folder for both runs; it must not exist, and is removed if they are equal.
    #[arg(long, value_name = "DIR", default_value = "runs/verify-resume")]
    pub work: PathBuf,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("expected a whole number from 1, found {text:?}")),
        Ok(n) => Ok(n),
    }
}

/// A capacity; 0 means no limit, as in `moe.capacity.eval_factor`.
fn capacity(text: &str) -> Result<f64, String> {
    if text == "inf" { Ok(0.0) } else { positive(text) }
}

/// A number above 0, at most 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err(format!("expected a number above 0 and at most 1, found {text:?}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x > 0.0 => Ok(x),
        _ => Err(format!("expected a number above 0, found {text:?}")),
    }
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Explain one key.
    #[arg(long, value_name = "KEY", conflicts_with = "groups")]
    pub explain: Option<String>,
    /// Show which optimizer group each parameter belongs to, why, and how it is updated.
    #[arg(long)]
    pub groups: bool,
}
