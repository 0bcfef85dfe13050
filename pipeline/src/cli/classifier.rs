//! The command line of `moe-data classifier`: types only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// The verbs of `moe-data classifier`.
#[derive(Debug, Subcommand)]
pub enum ClassifierVerb {
    /// Train a classifier on documents of a wanted and of another kind
    #[command(before_long_help = "Examples:
  moe-data classifier train --positive good.jsonl.gz --rest web/*.jsonl.gz     # good texts against all others: quality.moecls
  moe-data classifier train --positive a.jsonl --negative b.jsonl --dim 100 --learning-rate 0.5   # embeddings, as fastText")]
    Train(Train),
    /// Say how well a model tells documents apart, beside their length alone
    #[command(before_long_help = "Examples:
  moe-data classifier eval --model quality.moecls --positive good.jsonl.gz --negative bad.jsonl.gz
  moe-data classifier eval --model fasttext.bin --label hq --positive good.jsonl.gz --negative bad.jsonl.gz")]
    Eval(Eval),
    /// Print the score of each document as JSONL
    #[command(before_long_help = "Examples:
  moe-data classifier apply --model quality.moecls web/*.jsonl.gz > scores.jsonl
  moe-data classifier apply --model lid.176.ftz --label en --id url web.jsonl.gz")]
    Apply(Apply),
}

/// What line ends become for a model of fastText.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Newlines {
    /// A space
    #[default]
    Space,
    /// Nothing: words of two lines are glued, as datatrove's classifier filter does
    Join,
}

impl From<Newlines> for moe_data::classifier::Newlines {
    fn from(newlines: Newlines) -> Self {
        match newlines {
            Newlines::Space => moe_data::classifier::Newlines::Space,
            Newlines::Join => moe_data::classifier::Newlines::Join,
        }
    }
}

/// A model and how to use it.
#[derive(Debug, Args)]
pub struct ModelFlags {
    /// Model of `classifier train`, or of fastText (.bin, .ftz)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Label of fastText whose probability is the score
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// What line ends become for a model of fastText
    #[arg(long, value_enum, default_value_t)]
    pub newlines: Newlines,
}

/// Flags of `train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Files, folders or globs with documents of the wanted kind; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub positive: Vec<PathBuf>,
    /// Files, folders or globs with other documents; may be repeated
    #[arg(long, value_name = "PATH", required_unless_present = "rest", num_args = 1..)]
    pub negative: Vec<PathBuf>,
    /// Files, folders or globs with documents of all kinds, such as the corpus itself: four for each positive one are drawn
    /// as others, none that is among the positive ones; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub rest: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// 1: words; 2: pairs of neighbours too
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub word_ngrams: u32,
    /// There are two to this power of buckets, of 4 bytes each in the model
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub bits: u32,
    /// Passes over the documents
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub epochs: u32,
    /// Learning rate at the start
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    pub learning_rate: f64,
    /// Width of embeddings to learn with, 0 for none; the model is as large and as fast either way
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub dim: u32,
    /// Seed of the order and of the held-out documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Share of the documents that are held out for the figures, by a hash of the text
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    pub held_out: f64,
    /// Leave scores as they were learned, instead of making them probabilities by the held-out documents
    #[arg(long)]
    pub no_calibration: bool,
    /// Model to write
    #[arg(long, value_name = "FILE", default_value = "quality.moecls")]
    pub output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
    /// Print the figures as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// The model.
    #[command(flatten)]
    pub model: ModelFlags,
    /// Files, folders or globs with documents of the wanted kind; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub positive: Vec<PathBuf>,
    /// Files, folders or globs with other documents; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub negative: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Look only at documents that the training of this model held out
    #[arg(long)]
    pub held_out: bool,
    /// Buckets of equal size that calibration is shown for
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub buckets: u16,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The model.
    #[command(flatten)]
    pub model: ModelFlags,
    /// Files, folders or globs
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}
