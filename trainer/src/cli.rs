//! The command line: types only.

mod models;
mod shell;
mod tasks;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::device::DeviceChoice;
use crate::model::config::AttentionConfig;
use crate::run::AlarmKind;

pub use models::{ExportArgs, ExportNumber, Format, ImportArgs, UpcycleArgs};
pub use shell::{CompletionsArgs, ManArgs};
pub use tasks::TaskArgs;

/// Trains mixture-of-experts language models from the shards and the plan of moe-data.
#[derive(Debug, Parser)]
#[command(
    name = "moe-train",
    version,
    before_long_help = "Examples:\n  \
        moe-train --shards out/                          train the preset `tiny`\n  \
        moe-train --shards out/ --preset smoke           see in seconds whether everything works\n  \
        moe-train --shards out/ --set moe.top_k=1 --set moe.router.norm_weights=false\n  \
        moe-train plan --shards out/ --measure           size, memory, passes and time before it starts\n  \
        moe-train resume runs/tiny                       go on after an interruption\n  \
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
    /// Say nothing but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: a line for each step.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train a model (the same as no verb).
    Train(TrainArgs),
    /// Go on with a run after an interruption, bit for bit as if there had been none.
    Resume(ResumeArgs),
    /// Loss of a checkpoint on held-out documents, by source, or its answers to tasks.
    Eval(EvalArgs),
    /// Text from a checkpoint.
    Sample(SampleArgs),
    /// A checkpoint as a folder of transformers, or a file of llama.cpp.
    Export(ExportArgs),
    /// Begin a run with the weights of a folder of transformers.
    Import(ImportArgs),
    /// Begin a run of a mixture of experts that computes what a dense model does.
    Upcycle(UpcycleArgs),
    /// What a checkpoint holds.
    Inspect(InspectArgs),
    /// The configuration as it would be used, or what a key means.
    Config(ConfigArgs),
    /// Where the time of a training step goes, on made-up tokens.
    Bench(BenchArgs),
    /// What a run would take before it starts: size, work, memory, passes over each source, time.
    Plan(PlanArgs),
    /// A page with the curves of one or several runs, from what they have written down so far.
    Report(ReportArgs),
    /// A run in the terminal while it goes on: loss, throughput, time left, load of each expert, alarms.
    Watch(WatchArgs),
    /// Prove on your own configuration that a killed and resumed run is the run without a stop, bit for bit.
    VerifyResume(VerifyResumeArgs),
    /// Print the completions of a shell: bash, zsh, fish, elvish, powershell.
    Completions(CompletionsArgs),
    /// Print a page of the manual, as in `moe-train man resume | man -l -`.
    Man(ManArgs),
}

/// How a configuration is put together: defaults < preset or file < --set.
#[derive(Debug, Clone, Args)]
pub struct ConfigSource {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub config: Option<PathBuf>,
    /// Configuration that is part of the program: smoke, tiny, char, mini-1b, wide-1b, speedrun-moe64,
    /// moonlet-7b, mixtral-8x7b or olmoe-1b-7b.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// One key of the configuration, as in moe.top_k=2; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `train`.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Folder of the shards and the plan [default: out; with --from that of the run].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Begin with the weights of this run, or of one of its checkpoints: another plan, another optimizer, step 0. The
    /// configuration is that of the run, then --config, then --set.
    #[arg(long, value_name = "RUN", conflicts_with = "preset", requires = "run")]
    pub from: Option<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Optimizer steps [default: what the plan has samples for].
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
    /// Save after this step and stop, with exit code 0; `resume` goes on. Learning rates stay those of the whole
    /// run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub stop_after: Option<u64>,
    /// Save and stop with exit code 6 at the first alarm of these kinds; alarms are in alarms.jsonl of the run.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub fail_on: Vec<AlarmKind>,
    /// Show curves, loads of experts and alarms on the whole terminal, as `moe-train watch` does.
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
    /// Folders of runs; the first is the one that the others are compared with.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Where to write the page [default: report.html in the folder of the run; for several runs, here].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write each figure as an SVG file into this folder, too.
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,
    /// Write the metrics as an event file for TensorBoard into `tensorboard/` in the folder of each run, too.
    #[arg(long)]
    pub tensorboard: bool,
    /// Print the numbers of all figures as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Folder of the run, going on or not.
    pub run: PathBuf,
    /// Show how it stands and leave.
    #[arg(long)]
    pub once: bool,
    /// Leave with exit code 6 at an alarm of these kinds.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub fail_on: Vec<AlarmKind>,
    /// Where there is no terminal: seconds from one line to the next, at least.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive)]
    pub every: f64,
    /// Print JSON on stdout, an object for each line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Folder of the run.
    pub run: PathBuf,
    /// Checkpoint to go on from, as in step-00000100 [default: the latest].
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Folder of the shards and the plan, if it has moved.
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Optimizer steps of the whole run, more or fewer than it was started with. Refused where that would
    /// change a learning rate of the past.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Go on in a run of its own, in this folder, and leave this one as it is: a decay, another length, other
    /// balancing, another plan. Everything may differ but the tensors; what does is listed, and recorded with the
    /// parent in parent.json.
    #[arg(long, value_name = "DIR")]
    pub fork: Option<PathBuf>,
    /// Configuration of a fork [default: that of the run].
    #[arg(long, value_name = "FILE", requires = "fork")]
    pub config: Option<PathBuf>,
    /// Samples read ahead.
    #[arg(long, value_name = "N")]
    pub prefetch: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// A key that does not change what was learnt, as in run.log_every=1, or any of a fork; may be repeated.
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
    /// Folder of the shards and the plan. With --tasks: name the questions whose text is in these shards.
    #[arg(long, value_name = "DIR", required_unless_present = "tasks")]
    pub shards: Option<PathBuf>,
    /// Tasks.
    #[command(flatten)]
    pub tasks: TaskArgs,
    /// Capacities of experts to try, as shares of their even load, as in 1,1.25,2,inf; prints loss and dropped choices of
    /// each.
    #[arg(long, value_name = "X,...", value_delimiter = ',', value_parser = capacity)]
    pub capacity: Vec<f64>,
    /// Keep what --capacity measured in capacity.jsonl of the run, where `moe-train report` finds it.
    #[arg(long, requires = "capacity")]
    pub record: bool,
    /// Evaluate the moving average of the weights, which runs with run.ema_decay have.
    #[arg(long)]
    pub ema: bool,
    /// Also write loss and rank of every target, as a NumPy array of records; the file must not be there.
    #[arg(long, value_name = "FILE.npy", conflicts_with = "capacity")]
    pub per_token: Option<PathBuf>,
    /// Also write all logits, with tokens, positions and documents, as safetensors; the file must not be there.
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
    /// Sample from the moving average of the weights, which runs with run.ema_decay have.
    #[arg(long)]
    pub ema: bool,
    /// Text to continue; may be repeated, and each is continued as if it were alone.
    #[arg(long, default_value = "The")]
    pub prompt: Vec<String>,
    /// Tokens to make at most.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most likely token each time.
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw among so many most likely tokens.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = at_least_one)]
    pub top_k: usize,
    /// Of these, draw among the fewest that have at least this probability together, above 0 and up to 1.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = share)]
    pub top_p: f64,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Print a JSON object for each prompt, one on a line: prompt, text, tokens, and how many of them are new.
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
    /// Tokens of a sample.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one)]
    pub seq_len: usize,
    /// Entries of the vocabulary.
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = at_least_one)]
    pub vocab: usize,
    /// Steps to measure, after three for warming up.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Repetitions of each part.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Peak of the device in TFLOP/s, of which the MFU is a share [default: a large product, measured].
    #[arg(long, value_name = "X", value_parser = positive)]
    pub peak_tflops: Option<f64>,
    /// Measure whole steps alone, not their parts, and print time, processor seconds and tokens per second as JSON.
    #[arg(long, conflicts_with_all = ["repeats", "peak_tflops", "attention", "json"])]
    pub only_steps: bool,
    /// Measure another thing: time and memory of one attention of each kind, forward and backward, on one document. Each
    /// is measured in a process of its own.
    #[arg(long, conflicts_with_all = ["seq_len", "vocab", "steps", "repeats", "peak_tflops"])]
    pub attention: bool,
    /// With --attention: lengths of the document, in tokens.
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
    /// Optimizer steps [default: what the plan has samples for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Measure the time of N steps on made-up tokens [default: 3], after three for warming up.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3",
          value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "tokens_per_second")]
    pub measure: Option<u64>,
    /// Speed by which to tell the time, as `moe-train bench` or the metrics of another run have it.
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
    /// Steps of each run. The second is killed after half of them.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(2..=1 << 40))]
    pub steps: u64,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Folder of both runs; it must not exist, and goes when they are the same.
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

/// A capacity; 0 is without a limit, as in `moe.capacity.eval_factor`.
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
    /// Show which parameter falls into which group of the optimizer, why, and how it moves.
    #[arg(long)]
    pub groups: bool,
}
