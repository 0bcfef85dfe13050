//! The command line of `moe-data grade`: types only.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use moe_data::commands::grade::GradeArgs;
use moe_data::grade::judge::ResponseFormat;

use super::server::ServerFlags;

/// How to request JSON from the server.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Format {
    /// In words only
    None,
    /// Any JSON object
    #[default]
    JsonObject,
    /// A JSON object with these members
    JsonSchema,
}

/// Flags of `grade`.
#[derive(Debug, Args)]
pub struct Grade {
    /// Files, folders or globs
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Field with the text
    #[arg(long, value_name = "FIELD", default_value = "text")]
    pub text: String,
    /// Field with the name of the document [default: file and offset]
    #[arg(long, value_name = "FIELD")]
    pub id: Option<String>,
    /// Grade N documents, drawn by the hash of their texts [default: all]
    #[arg(long, value_name = "N")]
    pub max_docs: Option<usize>,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// File that says what the scores mean [default: configs/rubrics/educational.toml]
    #[arg(long, value_name = "FILE")]
    pub rubric: Option<PathBuf>,
    /// Without --base-url only the cache is used
    #[command(flatten)]
    pub server: ServerFlags,
    /// Name of the model on the server
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Distinguishes files of that name, such as a commit or a quantization; part of every key
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub revision: String,
    /// How to request JSON from the server
    #[arg(long, value_enum, default_value_t)]
    pub response_format: Format,
    /// Folder of the answers
    #[arg(long, value_name = "DIR", default_value = "out/grade/cache")]
    pub cache: PathBuf,
    /// Compare with these scores: JSON lines with `id` and `score`, as `classifier apply` prints them
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// File for the grades [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the texts next to the grades
    #[arg(long)]
    pub with_text: bool,
    /// Print the summary as JSON on stdout
    #[arg(long, requires = "output")]
    pub json: bool,
}

impl From<Grade> for GradeArgs {
    fn from(flags: Grade) -> GradeArgs {
        GradeArgs {
            paths: flags.paths,
            text: flags.text,
            id: flags.id,
            max_docs: flags.max_docs,
            seed: flags.seed,
            rubric: flags.rubric,
            server: flags.server.into_args(),
            model: flags.model,
            revision: flags.revision,
            format: match flags.response_format {
                Format::None => ResponseFormat::None,
                Format::JsonObject => ResponseFormat::JsonObject,
                Format::JsonSchema => ResponseFormat::JsonSchema,
            },
            cache: flags.cache,
            scores: flags.scores,
            output: flags.output,
            with_text: flags.with_text,
            json: flags.json,
        }
    }
}
