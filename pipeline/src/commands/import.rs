//! `moe-data import`: makes shards from the tokens of other programs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_shards::Manifest;
use serde_json::json;

use crate::error::{Error, Problem, Result};
use crate::import::{self, Corpus, Imported, Kind, Tokenizer};
use crate::listing::{Listing, Maker};
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::publish;
use crate::recipe::ByteSize;
use crate::recipe::inputs::{self, InputFile};
use crate::tokenizer::{Encoder, EncoderOptions};
use crate::watch::Watch;

/// Flags of `import`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("kind").required(true).args(["megatron", "npy", "datatrove"])))]
pub struct ImportArgs {
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

impl ImportArgs {
    fn kind(&self) -> (Kind, &[PathBuf]) {
        match (self.megatron.is_empty(), self.npy.is_empty()) {
            (false, _) => (Kind::Megatron, &self.megatron),
            (_, false) => (Kind::Npy, &self.npy),
            _ => (Kind::Datatrove, &self.datatrove),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A file is not of its kind, an id is not in the vocabulary, the folder holds other files, or a write fails.
pub fn run(args: &ImportArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if args.source.is_empty() || !args.source.bytes().all(allowed) {
        return Err(Error::Usage(format!("--source {:?} may hold only a-z, 0-9, `_` and `-`", args.source)));
    }
    let (kind, paths) = args.kind();
    let files = files(kind, paths)?;
    let options = EncoderOptions { eod: args.eod.clone(), ..EncoderOptions::default() };
    let encoder = Encoder::shared(&args.tokenizer, &options)?;
    let tokenizer_file = std::fs::read(&args.tokenizer).map_err(Error::io(&args.tokenizer, "read"))?;
    let tokenizer = Tokenizer::of(&encoder);
    // Before locking, which leaves a file in the folder.
    check_folder(&args.out)?;
    let _lock = OutputLock::acquire(&args.out)?;
    // Again, since another import may have finished meanwhile; only now may the remains of a killed one be removed.
    check_folder(&args.out)?.clear()?;
    let bar = printer.work_bar("import", 0, "documents");
    let watch = Watch::new(stop, bar.clone());
    let corpora = files.iter().map(|file| Corpus::open(kind, file, tokenizer.eod, &watch));
    let mut corpora = corpora.collect::<Result<Vec<Corpus>>>()?;
    import::name(&mut corpora)?;
    // One pass to find the families, one to write.
    bar.set_length(2 * corpora.iter().map(|corpus| corpus.len() as u64).sum::<u64>());
    let reading = import::read(&corpora, &tokenizer, &watch)?;
    if reading.rows.is_empty() {
        return Err(Error::Usage("the files have no documents".to_owned()));
    }
    for file in &files {
        file.check_read()?;
    }
    let imported = Imported {
        corpora: &corpora,
        reading,
        source: &args.source,
        tokenizer: &tokenizer,
        tokenizer_file: &tokenizer_file,
        shard_bytes: args.shard_bytes.0,
    };
    let ledger = import::write(imported, &args.out, &watch);
    watch.finish();
    let ledger = ledger?;
    if args.json {
        printer.data(&format!("{}\n", json!(ledger)));
    } else {
        printer.data(&ledger.table(&args.out));
    }
    printer.note(&format!("next: moe-data mix --out {}", args.out.display()));
    Ok(())
}

/// The files of this kind at the paths.
fn files(kind: Kind, paths: &[PathBuf]) -> Result<Vec<InputFile>> {
    let path = |path: &PathBuf| {
        let path = path.to_string_lossy().into_owned();
        // Megatron's own programs take the path without its extension.
        match kind == Kind::Megatron && !Path::new(&path).is_dir() && !path.ends_with(".idx") {
            true => format!("{}.idx", path.strip_suffix(".bin").unwrap_or(&path)),
            false => path,
        }
    };
    let paths: Vec<String> = paths.iter().map(path).collect();
    let found = inputs::find(Path::new(""), &paths).map_err(|messages| {
        let problem = |message| Problem { file: None, line: None, key: String::new(), message };
        Error::Recipe { problems: messages.into_iter().map(problem).collect() }
    })?;
    let files: Vec<InputFile> = found.into_iter().filter(|file| kind.takes(&file.path)).collect();
    if files.is_empty() {
        let expected = match kind {
            Kind::Megatron => "NAME.idx",
            Kind::Npy => "NAME.npy",
            Kind::Datatrove => "NAME.ds",
        };
        return Err(Error::Usage(format!("{} has no files {expected}", paths.join(", "))));
    }
    Ok(files)
}

/// Refuses a folder that holds a finished data set or files that are not ours. Changes nothing.
fn check_folder(out: &Path) -> Result<Leftovers> {
    publish::check_folder(out)?;
    let listing = Listing::open(out, Maker::Build, [])?;
    // Builds leave their recipe.
    if out.join(Manifest::FILE).exists() || out.join("work").exists() || listing.has(publish::RECIPE_LOCK) {
        let message = "holds a data set already; choose an empty or new folder";
        return Err(Error::Usage(format!("--out {} {message}", out.display())));
    }
    Ok(Leftovers(listing))
}

/// Remains of a killed import.
struct Leftovers(Listing);

impl Leftovers {
    fn clear(mut self) -> Result<()> {
        if self.0.files().is_empty() {
            return Ok(());
        }
        self.0.remove(|_| false)?;
        self.0.finish()
    }
}
