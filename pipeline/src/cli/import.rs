//! The command line of `moe-data import`: types only.

use std::path::PathBuf;

use clap::Args;
use moe_data::commands::import::ImportArgs;
use moe_data::import::Kind;
use moe_data::recipe::ByteSize;

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("kind").required(true).args(["megatron", "npy", "datatrove"])))]
pub struct Import {
    /// Megatron-LM's NAME.idx and NAME.bin; the name without ending, a folder, or a pattern
    #[arg(long, value_name = "PREFIX", num_args = 1..)]
    pub megatron: Vec<PathBuf>,
    /// NumPy files with one row of tokens, in which documents end with the end-of-document token
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub npy: Vec<PathBuf>,
    /// datatrove's NAME.ds, NAME.ds.index and NAME.ds.metadata
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub datatrove: Vec<PathBuf>,
    /// The tokenizer that made the tokens, a tokenizer.json
    #[arg(long, value_name = "FILE")]
    pub tokenizer: PathBuf,
    /// End-of-document token, if it cannot be derived from the file
    #[arg(long, value_name = "TOKEN")]
    pub eod: Option<String>,
    /// Name of the source
    #[arg(long, value_name = "NAME", default_value = "imported")]
    pub source: String,
    /// Folder of the shards, empty or new
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Largest size of a shard's tokens, in bytes
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub shard_bytes: ByteSize,
    /// Print the ledger as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl From<Import> for ImportArgs {
    fn from(flags: Import) -> ImportArgs {
        let Import { megatron, npy, datatrove, tokenizer, eod, source, out, shard_bytes, json } = flags;
        let (kind, paths) = match (megatron.is_empty(), npy.is_empty()) {
            (false, _) => (Kind::Megatron, megatron),
            (_, false) => (Kind::Npy, npy),
            _ => (Kind::Datatrove, datatrove),
        };
        ImportArgs { kind, paths, tokenizer, eod, source, out, shard_bytes, json }
    }
}
