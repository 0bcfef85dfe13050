//! The command line of `moe-data decontaminate`: types only.

use std::path::PathBuf;

use clap::Args;
use moe_data::commands::decontaminate::BenchmarkFlag;

/// Flags of `decontaminate`.
#[derive(Debug, Args)]
pub struct Decontaminate {
    /// Evaluation set: its name, its file, and the fields that are looked for; may be repeated
    #[arg(long, value_name = "NAME=PATH:FIELD[,FIELD]", required = true)]
    pub benchmark: Vec<BenchmarkFlag>,
    /// Files, folders or globs to search
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Evaluation texts with fewer words must be found whole
    #[arg(long, value_name = "N", default_value_t = 13)]
    pub ngram: u32,
    /// Share of the weight of an evaluation text that makes a match
    #[arg(long, value_name = "X", default_value_t = 0.7)]
    pub threshold: f64,
    /// Words in a row that may differ inside a match
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub max_misses: u32,
    /// Evaluation texts with fewer words are not looked for
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub min_words: u32,
    /// Threads [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
}
