//! Files that stages pass to each other under `out/work/`: documents as Parquet, and tables of
//! fixed-size rows, sorted so that a later stage can read a range without an index.
//!
//! They are private to one build of this program ([`crate::BUILD_VERSION`] is part of their
//! fingerprints) and may be deleted at any time: missing files are made again.

pub mod attempt;
pub mod audit;
pub mod cuts;
pub mod documents;
pub mod families;
pub mod flagged;
pub mod kept;
pub mod keys;
pub mod measures;
pub mod names;
pub mod parts;
pub mod rows;
pub mod scores;
pub mod sort;
pub(crate) mod table;
pub mod tags;
pub mod texts;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;

use crate::error::{Error, Result};

/// Documents of a part.
pub const DOCUMENTS: &str = "documents.parquet";
/// Ids of these documents, sorted.
pub const DOCUMENT_IDS: &str = "ids.rows";
/// Records of a part that are not documents.
pub const QUARANTINE: &str = "quarantine.jsonl";
/// Measurements of the documents of a part.
pub const MEASURES: &str = "measures.rows";
/// Tags from filters for documents of a part, as bits.
pub const TAGS: &str = "tags.rows";
/// The names of these bits.
pub const TAG_NAMES: &str = "tags.json";
/// Rows of the documents that passed the filters.
pub const KEPT: &str = "kept.rows";
/// Keys of those documents, sorted.
pub const KEYS: &str = "keys.rows";
/// Keys of a part's documents for a distributed engine.
pub const KEY_TABLE: &str = "keys.parquet";
/// Audit of the documents that a task dropped.
pub const DROPS: &str = "drops.parquet";
/// Audit of the duplicates.
pub const DUPLICATES: &str = "dups.parquet";
/// Simplified paragraphs of a part, sorted.
pub const PARAGRAPHS: &str = "paragraphs.run";
/// Anchors of a part's segments, sorted.
pub const ANCHORS: &str = "anchors.run";
/// Anchors of more than one segment, sorted.
pub const SHARED: &str = "shared.run";
/// Bytes of a part's segments with shared anchors.
pub const SEGMENT_BYTES: &str = "segments.bytes";
/// All cuts of a part.
pub const CUTS: &str = "cuts.rows";
/// All documents of a part that deduplication removes.
pub const REMOVED: &str = "removed.rows";
/// Audit of the cuts that a task made.
pub const CUT_AUDIT: &str = "cuts.parquet";
/// Evaluation texts that were found in a part.
pub const MATCHES: &str = "matches.jsonl";
/// Audit of them.
pub const CONTAMINATION_AUDIT: &str = "contamination.parquet";
/// Ranks that decide which of a part's documents survive fuzzy deduplication.
pub const SKETCHES: &str = "sketches.run";
/// Band keys of a part's documents.
pub const SKETCH_KEYS: &str = "keys.run";
/// Documents of a part that share a band.
pub const MEMBERS: &str = "members.run";
/// Their sets of shingles.
pub const SHINGLES: &str = "shingles.u64";
/// What comparing found.
pub const VERDICTS: &str = "verdicts.run";
/// Shingles and band keys of the sampled documents of a part.
pub const SAMPLE: &str = "sample.run";
/// Documents of a part similar to sampled ones.
pub const PAIRS: &str = "pairs.run";
/// A tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// Token ids of a part as little-endian u32.
pub const TOKENS: &str = "tokens.u32";
/// Ids of the documents of a part, one after another.
pub const IDS: &str = "ids.txt";
/// Languages and tags of a part, numbered by first appearance.
pub const NAMES: &str = "names.json";
/// Texts of a part not given back by their tokens, one zstd frame each.
pub const STORED: &str = "stored.zst";
/// Where each document's tokens and id are, sorted by variant and family.
pub const TOKEN_ROWS: &str = "tokens.rows";

/// Tasks of a stage that wait for other processes.
pub const TASKS: &str = "tasks.jsonl";

/// Folder of a dry run.
pub const DRY_RUN: &str = "dry-run";
/// What a dry run predicts.
pub const PREDICTION: &str = "prediction.json";
/// Characters of the digests that name the folders of tasks.
const DIGEST_CHARS: usize = 24;

/// Makes an empty folder. Only for folders named by the digest of their contents.
///
/// # Errors
/// The operating system refuses.
pub fn clear_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(folder, "empty")(e)),
        _ => {}
    }
    fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))
}

/// Deletes results of tasks in a work folder, except `used`: files and folders named by a digest, in the folders of the
/// stages, and our own files next to them. Everything else stays.
///
/// # Errors
/// The operating system refuses.
pub fn clear_work(work: &Path, used: &BTreeSet<PathBuf>) -> Result<()> {
    for stage in entries(work)?.into_iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        for unused in entries(&stage)?.into_iter().filter(|path| !used.contains(path) && is_digest(path)) {
            match unused.is_dir() {
                true => fs::remove_dir_all(&unused).map_err(Error::io(&unused, "delete"))?,
                false => remove_file(&unused)?,
            }
        }
        remove_if_empty(&stage)?;
    }
    Ok(())
}

/// Deletes everything of ours in a work folder, and the folder if it is then empty.
///
/// # Errors
/// The operating system refuses.
pub fn remove_work(work: &Path) -> Result<()> {
    if work.join(DRY_RUN).is_dir() {
        remove_dry_run(work)?;
    }
    clear_work(work, &BTreeSet::new())?;
    for name in [parts::FILE, PREDICTION, TASKS] {
        remove_file(&work.join(name))?;
    }
    remove_if_empty(work)
}

/// Deletes the results of a dry run in a work folder.
///
/// # Errors
/// The operating system refuses.
pub fn remove_dry_run(work: &Path) -> Result<()> {
    remove_work(&work.join(DRY_RUN).join("work"))?;
    remove_if_empty(&work.join(DRY_RUN))
}

/// Deletes a file, if it is there.
///
/// # Errors
/// The operating system refuses.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "delete")(e)),
        _ => Ok(()),
    }
}

/// Whether a file or folder is named by 24 hexadecimal digits, as tasks and lists are.
fn is_digest(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.len() == DIGEST_CHARS && stem.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Deletes an empty folder.
///
/// # Errors
/// The operating system refuses for another reason.
pub fn remove_if_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io(folder, "delete")(e))
        }
        _ => Ok(()),
    }
}

/// Entries of a folder, sorted; empty if it does not exist.
///
/// # Errors
/// The operating system refuses.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(Error::io(folder, "read"))?,
    };
    let paths = read.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<BTreeSet<_>>>();
    Ok(paths.map_err(Error::io(folder, "read"))?.into_iter().collect())
}

/// A file error in the form of a library that writes to it.
pub fn io_error(error: moe_shards::Error) -> io::Error {
    match error {
        // The kind decides the exit code.
        moe_shards::Error::Io { ref source, .. } => io::Error::new(source.kind(), error),
        error => io::Error::other(error),
    }
}

/// An [`AtomicFile`] that Parquet can write into.
pub struct Sink(AtomicFile);

impl Sink {
    /// Starts a file that appears at `path` on [`Sink::commit`].
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> Result<Sink> {
        Ok(Sink(AtomicFile::create(path)?))
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// A write fails.
    pub fn commit(self) -> Result<()> {
        Ok(self.0.commit()?)
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io_error)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
