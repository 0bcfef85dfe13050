//! The command line of `moe-data rephrase`: types only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use moe_data::commands::rephrase::WhatArgs;
use moe_data::rephrase::import::Layout;

use super::server::ServerFlags;

/// Flags of `rephrase` itself, and its other verbs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Rephrase {
    /// Verbs that do not ask a server
    #[command(subcommand)]
    pub verb: Option<RephraseVerb>,
    /// What is asked, and whom
    #[command(flatten)]
    pub ask: Ask,
}

/// The other verbs.
#[derive(Debug, Subcommand)]
pub enum RephraseVerb {
    /// Judge the answers again with the current limits of the style files, without a server
    Validate(Validate),
    /// Write a page with samples side by side, counts, and histograms of what the gates measured
    Report(Report),
    /// Judge variants that another program wrote and keep those that pass
    Import(Import),
    /// Write the open questions as a batch file (JSON lines) instead of asking a server
    ExportBatch(ExportBatch),
    /// Read the answers of a batch, and judge them
    ImportBatch(ImportBatch),
}

/// What to ask.
#[derive(Debug, Args)]
pub struct What {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Name of the model on the server
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Distinguishes files of that name, such as a commit or a quantization; part of every key
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub revision: String,
    /// Styles, separated by commas [default: all in the folder]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub styles: Vec<String>,
    /// Folder of the style files
    #[arg(long, value_name = "DIR", default_value = "configs/styles")]
    pub styles_dir: PathBuf,
    /// Most styles of a document
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub per_doc: usize,
    /// Most documents [default: all]; a larger number later keeps these and adds more
    #[arg(long, value_name = "N", value_parser = moe_data::mix::count::parse_u64)]
    pub max_docs: Option<u64>,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// License of what the model writes, stored with every variant
    #[arg(long = "license", alias = "licence", value_name = "TEXT")]
    pub licence: Option<String>,
}

/// Flags of `rephrase`.
#[derive(Debug, Args)]
pub struct Ask {
    /// What is asked
    #[command(flatten)]
    pub what: What,
    /// Who is asked
    #[command(flatten)]
    pub server: ServerFlags,
    /// Run N documents, print them, and estimate the cost of all
    #[arg(long, value_name = "N")]
    pub dry_run: Option<u64>,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `rephrase validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Folder of the style files [default: the one used for asking]
    #[arg(long, value_name = "DIR")]
    pub styles_dir: Option<PathBuf>,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `rephrase report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Folder of the style files [default: the one used for asking]
    #[arg(long, value_name = "DIR")]
    pub styles_dir: Option<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Samples of each style, accepted and rejected
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub samples: usize,
}

/// Flags of `rephrase export-batch`.
#[derive(Debug, Args)]
pub struct ExportBatch {
    /// The file; further ones are FILE-00001 and so on, since hosts limit the size
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What is asked
    #[command(flatten)]
    pub what: What,
    /// Export again the questions that the server could not answer
    #[arg(long)]
    pub retry_poisoned: bool,
}

/// Flags of `rephrase import-batch`.
#[derive(Debug, Args)]
pub struct ImportBatch {
    /// The answers, as the host returned them
    #[arg(value_name = "ANSWERS")]
    pub answers: PathBuf,
    /// The exported file that they belong to
    #[arg(long, value_name = "FILE")]
    pub exported: PathBuf,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `rephrase import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Files of records: JSON Lines, Parquet, Arrow, CSV, also compressed; folders and patterns
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Folder for what passes [default: OUT/rephrase-import]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Which program wrote the records
    #[arg(long, value_enum, value_name = "NAME", default_value_t = LayoutFlag::Plain)]
    pub layout: LayoutFlag,
    /// Style of records without one
    #[arg(long, value_name = "NAME")]
    pub style: Option<String>,
    /// Model of records without one
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Folder of the style files, whose limits apply; a style without a file has the default limits
    #[arg(long, value_name = "DIR", default_value = "configs/styles")]
    pub styles_dir: PathBuf,
    /// License of what the model wrote, stored with every variant
    #[arg(long = "license", alias = "licence", value_name = "TEXT")]
    pub licence: Option<String>,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Layouts of imported records.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LayoutFlag {
    /// Fields id, style, text, model
    Plain,
    /// What distilabel's TextGeneration adds to id and style: generation, model_name
    Distilabel,
    /// datatrove's InferenceRunner: id, and metadata.rollout_results
    Datatrove,
}

impl From<LayoutFlag> for Layout {
    fn from(flag: LayoutFlag) -> Layout {
        match flag {
            LayoutFlag::Plain => Layout::Plain,
            LayoutFlag::Distilabel => Layout::Distilabel,
            LayoutFlag::Datatrove => Layout::Datatrove,
        }
    }
}

impl What {
    /// The flags as arguments; only the model is required.
    pub fn into_args(self) -> moe_data::Result<WhatArgs> {
        let missing =
            || moe_data::Error::Usage("--model is missing; name the model as the server knows it".to_owned());
        Ok(WhatArgs {
            out: self.out,
            model: self.model.ok_or_else(missing)?,
            revision: self.revision,
            styles: self.styles,
            styles_dir: self.styles_dir,
            per_document: self.per_doc,
            max_docs: self.max_docs,
            seed: self.seed,
            licence: self.licence,
        })
    }
}
