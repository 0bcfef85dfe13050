//! The command line of `moe-data tokenizer`: types only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use moe_data::tokenizer::family::Family;

/// The verbs of `moe-data tokenizer`.
#[derive(Debug, Subcommand)]
pub enum TokenizerVerb {
    /// Say which engine encodes with a tokenizer file, and which piece of it forces the slow one
    #[command(before_long_help = "Examples:
  moe-data tokenizer check tokenizer.json
  moe-data tokenizer check tokenizer.json --data corpus/     # compare every document with the reference")]
    Check(Check),
    /// Train a byte-level BPE on files, or on the documents that a build has kept
    #[command(before_long_help = "Examples:
  moe-data tokenizer train corpus/ --vocab-size 32000 --output tokenizer.json
  moe-data tokenizer train --out out/ --sample-bytes 200MB --output tokenizer.json")]
    Train(Train),
    /// Make a tokenizer.json of a .tiktoken file
    #[command(before_long_help = "Examples:
  moe-data tokenizer import cl100k_base.tiktoken --pattern cl100k --special '<|endoftext|>=100257' --output tokenizer.json")]
    Import(Import),
    /// Show bytes per token by source, unused tokens, the longest and the most used ones
    #[command(before_long_help = "Examples:
  moe-data tokenizer stats                                  # the shards of out/
  moe-data tokenizer stats --tokenizer tokenizer.json corpus/ --group language")]
    Stats(Stats),
}

/// What special strings in text become.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum SpecialInText {
    /// Characters like any others
    #[default]
    Text,
    /// Special tokens, except begin and end of document
    Match,
}

/// How a tokenizer file is used.
#[derive(Debug, Args)]
pub struct Use {
    /// End-of-document token, where it cannot be derived
    #[arg(long, value_name = "TOKEN")]
    pub eod: Option<String>,
    /// What special strings in text become
    #[arg(long, value_enum, default_value_t)]
    pub special_in_text: SpecialInText,
    /// Use the reference engine
    #[arg(long)]
    pub reference: bool,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// tokenizer.json
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File, folder or glob whose documents are encoded by both engines and compared; may be repeated
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Field with the text of those documents
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// How the file is used.
    #[command(flatten)]
    pub usage: Use,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Files, folders or globs to train on
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Train on the documents that this build has kept
    #[arg(long, value_name = "DIR", conflicts_with = "paths")]
    pub out: Option<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Tokens wanted, the 256 bytes and the special tokens included
    #[arg(long, value_name = "N", default_value_t = 32_000, value_parser = moe_data::mix::count::parse_u32)]
    pub vocab_size: u32,
    /// Text to train on
    #[arg(long, value_name = "SIZE", default_value = "64MB")]
    pub sample_bytes: moe_data::recipe::ByteSize,
    /// Which sample of the texts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Special token beside `<|endoftext|>`; may be repeated
    #[arg(long, value_name = "TOKEN")]
    pub special: Vec<String>,
    /// tokenizer.json to write
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    pub output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// Flags of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Ranks, one token a line in base64
    #[arg(value_name = "FILE.tiktoken")]
    pub file: PathBuf,
    /// How text is split: gpt2, cl100k, qwen2, o200k or deepseek
    #[arg(long, value_name = "NAME")]
    pub pattern: Family,
    /// Special token, with its id if that is not the next free one: NAME or NAME=ID; may be repeated
    #[arg(long, value_name = "TOKEN")]
    pub special: Vec<String>,
    /// tokenizer.json to write
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    pub output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// Flags of `stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// Files, folders or globs instead of the shards of a build
    #[arg(value_name = "PATH", requires = "tokenizer")]
    pub paths: Vec<PathBuf>,
    /// tokenizer.json for those texts
    #[arg(long, value_name = "FILE", requires = "paths")]
    pub tokenizer: Option<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Field by which texts are counted, such as their language [default: by file]
    #[arg(long, value_name = "NAME", requires = "tokenizer")]
    pub group: Option<String>,
    /// How the file is used.
    #[command(flatten)]
    pub usage: Use,
    /// Folder of a build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Tokens in each list
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl From<Use> for moe_data::tokenizer::EncoderOptions {
    fn from(flags: Use) -> Self {
        use moe_data::tokenizer::{EncoderOptions, EngineChoice};
        EncoderOptions {
            eod: flags.eod,
            bos: None,
            special_in_text: match flags.special_in_text {
                SpecialInText::Text => moe_data::tokenizer::SpecialInText::Text,
                SpecialInText::Match => moe_data::tokenizer::SpecialInText::Match,
            },
            engine: if flags.reference { EngineChoice::Reference } else { EngineChoice::Auto },
        }
    }
}
