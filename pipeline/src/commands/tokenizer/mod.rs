//! `moe-data tokenizer ...`: train, import, check and measure tokenizers.

pub mod check;
pub mod import;
mod sample;
pub mod stats;
mod texts;
pub mod train;

use clap::{Args, Subcommand, ValueEnum};

pub use self::texts::TextArgs;
use crate::error::Result;
use crate::printer::Printer;
use crate::tokenizer::{EncoderOptions, EngineChoice};

/// The verbs of `moe-data tokenizer`.
#[derive(Debug, Subcommand)]
pub enum TokenizerVerb {
    /// Show which engine encodes with a tokenizer file, and what forces the slow one
    #[command(before_long_help = "Examples:
  moe-data tokenizer check tokenizer.json
  moe-data tokenizer check tokenizer.json --data corpus/     # compare every document with the reference")]
    Check(check::CheckArgs),
    /// Train a byte-level BPE on files, or on the documents that a build kept
    #[command(before_long_help = "Examples:
  moe-data tokenizer train corpus/ --vocab-size 32000 --output tokenizer.json
  moe-data tokenizer train --out out/ --sample-bytes 200MB --output tokenizer.json")]
    Train(train::TrainArgs),
    /// Make a tokenizer.json from a .tiktoken file
    #[command(before_long_help = "Examples:
  moe-data tokenizer import cl100k_base.tiktoken --pattern cl100k --special '<|endoftext|>=100257' --output tokenizer.json")]
    Import(import::ImportArgs),
    /// Show bytes per token by source, unused tokens, and the longest and most used ones
    #[command(before_long_help = "Examples:
  moe-data tokenizer stats                                  # the shards of out/
  moe-data tokenizer stats --tokenizer tokenizer.json corpus/ --group language")]
    Stats(stats::StatsArgs),
}

/// What happens to special-token strings in text.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum SpecialInText {
    /// Ordinary characters
    #[default]
    Text,
    /// Special tokens, except begin and end of document
    Match,
}

/// How a tokenizer file is used.
#[derive(Clone, Debug, Args)]
pub struct Use {
    /// End-of-document token, if it cannot be derived
    #[arg(long, value_name = "TOKEN")]
    pub eod: Option<String>,
    /// What happens to special-token strings in text
    #[arg(long, value_enum, default_value_t)]
    pub special_in_text: SpecialInText,
    /// Use the reference engine
    #[arg(long)]
    pub reference: bool,
}

impl Use {
    fn options(&self) -> EncoderOptions {
        EncoderOptions {
            eod: self.eod.clone(),
            bos: None,
            special_in_text: match self.special_in_text {
                SpecialInText::Text => crate::tokenizer::SpecialInText::Text,
                SpecialInText::Match => crate::tokenizer::SpecialInText::Match,
            },
            engine: if self.reference { EngineChoice::Reference } else { EngineChoice::Auto },
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// Those of the verb.
pub fn run(verb: &TokenizerVerb, printer: &Printer) -> Result<()> {
    match verb {
        TokenizerVerb::Check(args) => check::run(args, printer),
        TokenizerVerb::Train(args) => train::run(args, printer),
        TokenizerVerb::Import(args) => import::run(args, printer),
        TokenizerVerb::Stats(args) => stats::run(args, printer),
    }
}
