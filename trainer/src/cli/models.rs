//! Command-line arguments of `export`, `import` and `upcycle`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{ConfigSource, at_least_one};
use crate::device::DeviceChoice;
use crate::error::Error;

/// Programs for which a checkpoint can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder for Hugging Face transformers.
    Hf,
    /// A file for llama.cpp.
    Gguf,
}

/// Number types in exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportNumber {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32; for `--to hf`.
    Bf16,
    /// 16 bits of IEEE 754; for `--to gguf`.
    F16,
    /// 8 bits, with one factor per 32 values of a row; for `--to gguf`.
    #[value(name = "q8_0")]
    Q8_0,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run or one of its checkpoints.
    pub path: PathBuf,
    /// What to write, and where: hf DIR (empty or nonexistent), or gguf FILE.
    #[arg(long, num_args = 2, value_names = ["FORMAT", "PATH"], required = true)]
    to: Vec<OsString>,
    /// Number type: f32 or bf16 for hf; f32, f16 or q8_0 for gguf. Routers stay f32 [default: f32].
    #[arg(long = "type", value_name = "TYPE")]
    pub number: Option<ExportNumber>,
    /// Read the output back and compare its logits with the checkpoint's. In f32, a difference above 1e-4 is
    /// an error.
    #[arg(long)]
    pub verify: bool,
}

impl ExportArgs {
    /// What to write, and where.
    ///
    /// # Errors
    /// If the first word is not a format.
    pub fn to(&self) -> crate::error::Result<(Format, PathBuf)> {
        let path = self.to.get(1).map(PathBuf::from).unwrap_or_default();
        match self.to.first().and_then(|word| word.to_str()) {
            Some("hf") => Ok((Format::Hf, path)),
            Some("gguf") => Ok((Format::Gguf, path)),
            _ => Err(unknown_format("--to", "hf or gguf", &self.to)),
        }
    }
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What to read: hf DIR, a transformers folder.
    #[arg(long, num_args = 2, value_names = ["FORMAT", "PATH"], required = true)]
    from: Vec<OsString>,
    /// Folder of the shards and the plan, tokenized with the model's tokenizer [default: out].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Where the training configuration comes from; the model's shape comes from its folder.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Optimizer steps [default: as many as the plan has samples for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Folder of the run; it must not exist [default: runs/ plus the folder's name].
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Print the summary as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

impl ImportArgs {
    /// The folder to read.
    ///
    /// # Errors
    /// If the first word is not a format.
    pub fn from(&self) -> crate::error::Result<PathBuf> {
        match self.from.first().and_then(|word| word.to_str()) {
            Some("hf") => Ok(self.from.get(1).map(PathBuf::from).unwrap_or_default()),
            _ => Err(unknown_format("--from", "hf", &self.from)),
        }
    }
}

/// Arguments of `upcycle`.
#[derive(Debug, Args)]
pub struct UpcycleArgs {
    /// A run of a dense model, or one of its checkpoints.
    pub path: PathBuf,
    /// Experts per block.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub experts: usize,
    /// Number of parts that the dense feed-forward is split into: experts are that much narrower.
    #[arg(long, value_name = "G", default_value_t = 1, value_parser = at_least_one)]
    pub granularity: usize,
    /// Experts that each token visits, a multiple of the granularity [default: twice the granularity].
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub top_k: Option<usize>,
    /// Leading blocks that stay dense.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub dense_layers: usize,
    /// Fraction of each expert's hidden channels to redraw; 0 computes exactly what the dense model does.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = share)]
    pub redraw: f64,
    /// Folder of the shards and the plan [default: the run's].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// One configuration key; the others are the run's. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Optimizer steps [default: as many as the run].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: the run's].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Folder of the new run; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Print the summary as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err(format!("expected a number from 0 to 1, found {text:?}")),
    }
}

fn unknown_format(flag: &str, expected: &str, words: &[OsString]) -> Error {
    let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    Error::Usage(format!("{flag} {word}: {expected} expected"))
}
