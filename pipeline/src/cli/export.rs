//! The command line of `moe-data export`: types only.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use moe_data::commands::export::ExportArgs;
use moe_data::commands::export::text::TextArgs;
use moe_data::export::text::{TextCompression, TextFormat};
use moe_data::recipe::ByteSize;

/// How texts are compressed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Compression {
    /// Zstandard
    Zstd,
    /// Gzip
    Gzip,
}

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["megatron", "npy", "plan_npy", "jsonl", "parquet"])))]
pub struct Export {
    /// Write Megatron-LM's .idx next to each shard; the tokens are not copied
    #[arg(long)]
    pub megatron: bool,
    /// Write the tokens of each shard, and the ends of its documents, as .npy
    #[arg(long)]
    pub npy: bool,
    /// Write which tokens make up each sample of the plan, as .npy
    #[arg(long)]
    pub plan_npy: bool,
    /// Write the texts of the kept documents, after all rules and cuts, to a folder as JSON Lines
    #[arg(long, value_name = "DIR")]
    pub jsonl: Option<PathBuf>,
    /// Write the texts of the kept documents to a folder as Parquet
    #[arg(long, value_name = "DIR")]
    pub parquet: Option<PathBuf>,
    /// Compression of the texts
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Compression::Zstd)]
    pub compression: Compression,
    /// Text of a file, in bytes as read, at least 1KiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_file_size)]
    pub file_size: ByteSize,
    /// Threads that write texts [default: one for each core]; the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Samples of the plan, such as 0..1000 [default: all]
    #[arg(long, value_name = "A..B", requires = "plan_npy", value_parser = moe_data::commands::export::parse_range)]
    pub range: Option<std::ops::Range<u64>>,
    /// Write the sequences too: tokens, targets, segments
    #[arg(long, requires = "plan_npy")]
    pub rows: bool,
    /// Folder of the .npy files [default: OUT/export]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Folder of the build and its plan
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// List the files as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// A size of at least 1 KiB: a smaller one would make a file of each document.
fn parse_file_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    match size.0 {
        0..1024 => Err(format!("{size} is too small; expected at least 1KiB")),
        _ => Ok(size),
    }
}

impl From<Export> for ExportArgs {
    fn from(flags: Export) -> ExportArgs {
        let compression = match flags.compression {
            Compression::Zstd => TextCompression::Zstd,
            Compression::Gzip => TextCompression::Gzip,
        };
        let folders = [(flags.jsonl, TextFormat::Jsonl), (flags.parquet, TextFormat::Parquet)];
        let texts = folders.into_iter().filter_map(|(to, format)| {
            Some(TextArgs {
                to: to?,
                format,
                compression,
                file_size: flags.file_size,
                threads: flags.threads.map(usize::from),
            })
        });
        ExportArgs {
            out: flags.out,
            to: flags.to,
            megatron: flags.megatron,
            npy: flags.npy,
            plan_npy: flags.plan_npy,
            range: flags.range,
            rows: flags.rows,
            texts: texts.collect(),
            json: flags.json,
        }
    }
}
