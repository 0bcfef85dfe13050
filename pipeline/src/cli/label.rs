//! The command line of `moe-data label`: types only.

use std::path::PathBuf;

use clap::Args;
use moe_data::commands::label::{CompareArgs, LabelArgs};
use moe_data::mix::count;

/// Flags of `label`.
#[derive(Debug, Args)]
pub struct Label {
    /// Files, folders or globs
    #[arg(required_unless_present = "compare", conflicts_with = "compare", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "FIELD", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "FIELD")]
    pub id: Option<String>,
    /// Documents to draw, by the hash of their texts
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::parse_u32)]
    pub n: u32,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// File of labels; answers are appended, and documents already in it are not asked about again
    #[arg(short, long, value_name = "FILE", default_value = "labels.jsonl")]
    pub output: PathBuf,
    /// Compare the published profiles, length and a classifier with the labels of a file
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// The classifier, from `moe-data classifier train` or fastText
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub model: Option<PathBuf>,
    /// Label of a model of fastText
    #[arg(long, value_name = "LABEL", requires = "model")]
    pub label: Option<String>,
    /// Write the comparison as a page too
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub page: Option<PathBuf>,
    /// Print the comparison as JSON on stdout
    #[arg(long, requires = "compare")]
    pub json: bool,
}

/// What is asked for.
#[derive(Debug)]
pub enum Labeling {
    /// Labels.
    Ask(LabelArgs),
    /// How far others agree with them.
    Compare(CompareArgs),
}

impl Label {
    /// The flags as arguments.
    pub fn into_args(self) -> Labeling {
        let Label { paths, text, id, n, seed, output, compare, model, label, page, json } = self;
        match compare {
            Some(labels) => Labeling::Compare(CompareArgs { labels, model, label, page, json }),
            None => Labeling::Ask(LabelArgs { paths, text, id, n: n as usize, seed, output }),
        }
    }
}
