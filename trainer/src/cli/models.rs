//! The command line of models that leave for other programs, come from them, or become others.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{ConfigSource, at_least_one};
use crate::device::DeviceChoice;
use crate::error::Error;

/// Programs for which a checkpoint can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder of Hugging Face's transformers.
    Hf,
    /// A file of llama.cpp.
    Gguf,
}

/// Types of numbers in exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportNumber {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32; of `--to hf`.
    Bf16,
    /// 16 bits of IEEE 754; of `--to gguf`.
    F16,
    /// 8 bits, with a factor for each 32 values of a row; of `--to gguf`.
    #[value(name = "q8_0")]
    Q8_0,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run or one of its checkpoints.
    pub path: PathBuf,
    /// What to make, and where: hf DIR, a folder that is empty or not there, or gguf FILE.
    #[arg(long, num_args = 2, value_names = ["FORMAT", "PATH"], required = true)]
    to: Vec<OsString>,
    /// Type of numbers: f32 or bf16 of hf, f32, f16 or q8_0 of gguf. Routers stay f32 [default: f32].
    #[arg(long = "type", value_name = "TYPE")]
    pub number: Option<ExportNumber>,
    /// Read what was written, and compare its logits with the checkpoint's. In f32 a difference above 1e-4 is an error.
    #[arg(long)]
    pub verify: bool,
}

impl ExportArgs {
    /// What to make, and where.
    ///
    /// # Errors
    /// When the first word is no format.
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
    /// What to read: hf DIR, a folder of transformers.
    #[arg(long, num_args = 2, value_names = ["FORMAT", "PATH"], required = true)]
    from: Vec<OsString>,
    /// Folder of the shards and the plan, tokenized by the tokenizer of the model [default: out].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// Where the configuration of training comes from; what the model is comes from its folder.
    #[command(flatten)]
    pub source: ConfigSource,
    /// Optimizer steps [default: what the plan has samples for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Folder of the run; it must not exist [default: runs/ and the name of the folder].
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
    /// When the first word is no format.
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
    /// The run of a dense model, or one of its checkpoints.
    pub path: PathBuf,
    /// Experts of each block.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub experts: usize,
    /// Parts that the dense feed-forward is cut into: experts are that much narrower.
    #[arg(long, value_name = "G", default_value_t = 1, value_parser = at_least_one)]
    pub granularity: usize,
    /// Experts that each token visits, a multiple of the granularity [default: twice the granularity].
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub top_k: Option<usize>,
    /// Leading blocks that stay dense.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub dense_layers: usize,
    /// Share of the hidden channels of each expert to draw anew; 0 computes exactly what the dense model does.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = share)]
    pub redraw: f64,
    /// Folder of the shards and the plan [default: that of the run].
    #[arg(long, value_name = "DIR")]
    pub shards: Option<PathBuf>,
    /// One key of the configuration, which is otherwise that of the run; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Optimizer steps [default: as many as the run].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Device: auto, cpu, cuda or cuda:N [default: that of the run].
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
