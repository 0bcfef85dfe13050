//! `moe-data export --jsonl DIR`, `--parquet DIR`: the texts of a build's kept documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_shards::Hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ExportArgs;
use crate::document::Count;
use crate::engine::LocalEngine;
use crate::error::{Error, Result};
use crate::export::Exported;
use crate::export::text::{self, FilePlan, Selection, TextCompression, TextFormat};
use crate::json;
use crate::ledger::Ledger;
use crate::listing::{self, Entry, Listing, Maker};
use crate::lock::OutputLock;
use crate::printer::Printer;
use crate::publish;
use crate::recipe::ByteSize;
use crate::tables;
use crate::tables::parts::Parts;
use crate::watch::Watch;

/// Describes a finished export in its folder.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finished {
    version: u32,
    /// Digest of the documents, and of how they are written.
    identity: Hash,
    format: TextFormat,
    compression: TextCompression,
    /// Text of a file, in bytes as read.
    file_size: u64,
    /// Documents of each source and their bytes as read.
    sources: BTreeMap<String, Count>,
    /// In the order of reading.
    files: Vec<FinishedFile>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinishedFile {
    name: String,
    docs: u64,
    bytes: u64,
    blake3: Hash,
}

/// Name of that file below the folder: next to the lists, since readers take every file of a folder as data.
const FINISHED: &str = ".moe-data/text-export.json";
/// Changes whenever the same documents give different bytes.
const VERSION: u32 = 1;

/// Writes the texts, and returns the files.
///
/// # Errors
/// The build is unfinished or its work folder is gone, the folder holds other things, or a write fails.
pub(super) fn run(
    args: &ExportArgs,
    to: &Path,
    format: TextFormat,
    printer: &Printer,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Exported>> {
    let out = &args.out;
    publish::finished_parts(out)?;
    let _lock = OutputLock::acquire(out)?;
    // A build may have been running until now.
    let parts = publish::finished_parts(out)?;
    let ledger = Ledger::read(out)?;
    let work = out.join("work");
    let identity = identity(&parts, args, format);
    let mut listing = match claim_folder(to, identity)? {
        Target::Done(files) => {
            printer.note(&format!("nothing changed: {} holds this export", to.display()));
            return Ok(files);
        }
        Target::Free(listing) => listing,
    };
    let _to_lock = OutputLock::acquire(to)?;

    let threads =
        args.threads.map(usize::from).or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let engine = LocalEngine::new(threads.unwrap_or(1))?;
    let n_bytes = ledger.sources.values().map(|source| source.kept.bytes).sum();
    let watch = Watch::new(stop.clone(), printer.bar("select", n_bytes));
    let selection = engine.install(|| Selection::of(&work, &parts, &watch));
    watch.finish();
    let selection = selection?;
    for (source, entry) in &ledger.sources {
        let n_docs = selection.n_docs.get(source).copied().unwrap_or(0);
        check_same(out, source, "documents", n_docs, entry.kept.docs)?;
    }
    let files = text::layout(&work, &parts, &selection, args.file_size.0)?;
    let ending = format.ending(args.compression);
    let name = |file: &FilePlan| format!("{}.{ending}", file.name);
    let names: BTreeSet<String> = files.iter().map(name).chain([FINISHED.to_owned()]).collect();
    // Remains of a killed export.
    listing.remove(|name| names.contains(name) && name != FINISHED)?;
    listing.claim(names)?;
    let watch = Watch::new(stop.clone(), printer.bar("export", n_bytes));
    let written = engine.install(|| {
        let write = |file: &FilePlan| {
            let (path, how) = (to.join(name(file)), (format, args.compression));
            text::write(&work, &parts, &selection, file, &path, how, &watch)
        };
        files.par_iter().map(write).collect::<Result<Vec<_>>>()
    });
    watch.finish();
    let written = written?;
    let mut sources: BTreeMap<String, Count> = BTreeMap::new();
    for (file, (_, count)) in files.iter().zip(&written) {
        let first = file.pieces.first().map(|piece| parts.parts[piece.part].source.clone());
        *sources.entry(first.unwrap_or_default()).or_default() += *count;
    }
    for (source, entry) in &ledger.sources {
        let found = sources.get(source).copied().unwrap_or_default();
        check_same(out, source, "bytes", found.bytes, entry.kept.bytes)?;
    }
    let finished = Finished {
        version: VERSION,
        identity,
        format,
        compression: args.compression,
        file_size: args.file_size.0,
        sources,
        files: (files.iter().zip(&written))
            .map(|(file, (exported, count))| FinishedFile {
                name: name(file),
                docs: count.docs,
                bytes: exported.bytes,
                blake3: exported.blake3,
            })
            .collect(),
    };
    for file in &finished.files {
        listing.note(&file.name, Entry { bytes: file.bytes, blake3: file.blake3 });
    }
    listing.write_file(FINISHED, &json::canonical(&finished))?;
    listing.finish()?;
    let sum: Count = finished.sources.values().fold(Count::default(), |mut sum, count| {
        sum += *count;
        sum
    });
    printer.note(&format!("{} documents, {} of text in {}", sum.docs, ByteSize(sum.bytes), to.display()));
    Ok(written.into_iter().map(|(exported, _)| exported).collect())
}

/// Digest of the documents and their output format. Tables count by their paths in the work folder, which contain the
/// fingerprints of the tasks that made them.
fn identity(parts: &Parts, args: &ExportArgs, format: TextFormat) -> Hash {
    let parts_of = parts.parts.iter().map(|part| {
        let tables = [&part.documents, &part.kept, &part.removed, &part.cuts, &part.families];
        json!([part.source, tables, part.scores, part.tags, part.tokens])
    });
    let parts_of: Vec<_> = parts_of.collect();
    let how = json!([format, args.compression, args.file_size.0]);
    json::digest(&json!([VERSION, parts_of, parts.quality_edges, how]))
}

fn check_same(out: &Path, source: &str, what: &str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!(
        "source `{source}`: the work folder has {found} {what} of kept documents, the ledger {expected}; delete {} and run moe-data build again",
        out.join("work").display()
    );
    Err(Error::data(out, message))
}

/// State of an export's folder.
enum Target {
    /// It already holds this export.
    Done(Vec<Exported>),
    /// It is empty, or holds remains of this or a killed export.
    Free(Listing),
}

/// Refuses a folder with other files in it.
fn claim_folder(to: &Path, identity: Hash) -> Result<Target> {
    if to.exists() && !to.is_dir() {
        return Err(Error::Usage(format!("{} is not a folder", to.display())));
    }
    let Some(listing) = Listing::read(to, Maker::Text)? else {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_foreign = |name: &String| name != ".lock" && name != listing::FOLDER;
        if listing::is_output(to) {
            let message = format!(
                "{} is the folder of a build; choose an empty or new one for the texts",
                to.display()
            );
            return Err(Error::Usage(message));
        }
        return match tables::entries(to)?.iter().map(name).find(is_foreign) {
            Some(first) => Err(Error::Usage(format!(
                "{} holds other files, such as `{first}`; choose an empty or new folder for the texts",
                to.display()
            ))),
            None => Ok(Target::Free(Listing::open(to, Maker::Text, [])?)),
        };
    };
    let finished = fs::read(to.join(FINISHED)).ok();
    let finished = finished.and_then(|bytes| serde_json::from_slice::<Finished>(&bytes).ok());
    let is_same = finished.as_ref().is_some_and(|finished| finished.identity == identity);
    let is_whole = |file: &FinishedFile| {
        let data = fs::metadata(to.join(&file.name));
        listing.files().get(&file.name).is_some_and(Option::is_some)
            && data.is_ok_and(|data| data.len() == file.bytes)
    };
    match finished.filter(|finished| is_same && finished.files.iter().all(is_whole)) {
        Some(finished) => Ok(Target::Done(
            (finished.files.into_iter())
                .map(|file| Exported { path: to.join(file.name), bytes: file.bytes, blake3: file.blake3 })
                .collect(),
        )),
        None if !is_same && listing.files().values().any(Option::is_some) => Err(Error::Usage(format!(
            "{} holds another export; choose an empty or new folder, or delete this one",
            to.display()
        ))),
        None => Ok(Target::Free(listing)),
    }
}
