//! Documents whose fate differs between two builds. The fates of both, from their shards and audit tables, are sorted by
//! document within a limit of memory and read side by side, so builds may be of any size.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use moe_shards::{Hash, Manifest, Shard};
use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::audit::{self, str_of};
use super::{STAYING, reason_of_duplicate};
use crate::error::{Error, Result};
use crate::tables::rows::{Blob, Row, row};
use crate::tables::sort::Sorter;
use crate::tables::texts::{self, Texts};
use crate::watch::Watch;

/// Memory of the sort.
const MEMORY_BYTES: u64 = 256 << 20;
/// Fate of a document in the shards.
const KEPT: &str = "kept";
/// Fate of a document that a build did not read.
const ABSENT: &str = "absent";
/// Fates of a document kept by both, if its text differs, or the rest of it after cuts.
const CHANGED: [&str; 2] = ["kept, other text", "kept, other cuts or tokens"];

row! {
    /// What became of a document.
    FateRow {
        /// XXH3-128 of source, NUL, id.
        key: u128,
        /// 0 for A, 1 for B.
        side: u8,
        /// Number of the fate.
        fate: u16,
        /// Hash of its normalized text; 0 if unknown.
        text: u128,
        /// Hash of its tokens; 0 where it has none.
        tokens: u64,
        /// First byte of `source/id` among the names.
        name_start: u64,
        /// Bytes of `source/id`.
        name_bytes: u32,
    }
}

/// What differs between build A and build B.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Identities of both data sets.
    pub builds: [Hash; 2],
    /// Documents of both, dropped ones too; records in quarantine are not documents.
    pub documents: [u64; 2],
    /// Documents of both builds with the same fate and text.
    pub unchanged: u64,
    /// The others, by pair of fates; most frequent first.
    pub changes: Vec<Change>,
}

/// Documents with one pair of fates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `kept`, a reason of the ledger, or `absent`, in A.
    pub before: String,
    /// The same in B.
    pub after: String,
    /// How many.
    pub documents: u64,
    /// Some of them as `source/id`, in the order of a hash of their names.
    pub examples: Vec<String>,
}

/// Compares two builds; of each pair of fates at most `limit` documents are listed. `watch` advances by one a shard.
///
/// # Errors
/// A build is missing or damaged, or the system refuses a temporary folder.
pub fn changes(a: &Path, b: &Path, limit: usize, watch: &Watch) -> Result<Changes> {
    let folder = Temporary::create()?;
    let names_path = folder.0.join("names");
    let mut collect = Collect {
        with_tokens: Manifest::read(a)?.tokenizer.blake3 == Manifest::read(b)?.tokenizer.blake3,
        sorter: Sorter::new(&folder.0.join("sort"), MEMORY_BYTES, watch)?,
        names: AtomicFile::create(&names_path)?,
        n_name_bytes: 0,
        fates: Vec::new(),
    };
    let mut builds = [Hash::default(); 2];
    let mut documents = [0; 2];
    for (side, out) in [a, b].into_iter().enumerate() {
        (builds[side], documents[side]) = collect.build(side as u8, out, watch)?;
    }
    let Collect { sorter, names, fates, .. } = collect;
    names.commit()?;
    let names = Blob::open(&names_path)?;
    let name = |row: &FateRow| {
        let mut bytes = vec![0; row.name_bytes as usize];
        names.read_at(row.name_start, &mut bytes)?;
        Ok::<String, Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let fate = |row: &FateRow| fates[usize::from(row.fate)].as_str();
    let mut found: BTreeMap<(String, String), (u64, Vec<String>)> = BTreeMap::new();
    let mut unchanged = 0;
    let mut groups = sorter.finish()?.groups(|row: &FateRow| row.key);
    while let Some(mut group) = groups.next_group()? {
        // Two documents of a build may share a name; they are paired in the order of their fates.
        let mut sides: [Vec<FateRow>; 2] = Default::default();
        while let Some(row) = group.next_row()? {
            sides[usize::from(row.side)].push(row);
        }
        for i in 0..sides[0].len().max(sides[1].len()) {
            let (before, after) = match (sides[0].get(i), sides[1].get(i)) {
                (Some(a), Some(b)) if fate(a) != fate(b) => (fate(a), fate(b)),
                (Some(a), Some(b)) if a.text != b.text && a.text != 0 && b.text != 0 => (KEPT, CHANGED[0]),
                (Some(a), Some(b)) if a.tokens != b.tokens && a.tokens != 0 && b.tokens != 0 => {
                    (KEPT, CHANGED[1])
                }
                (Some(_), Some(_)) => {
                    unchanged += 1;
                    continue;
                }
                (a, b) => (a.map_or(ABSENT, fate), b.map_or(ABSENT, fate)),
            };
            let entry = found.entry((before.to_owned(), after.to_owned())).or_default();
            entry.0 += 1;
            if entry.1.len() < limit
                && let Some(row) = sides[1].get(i).or(sides[0].get(i))
            {
                entry.1.push(name(row)?);
            }
        }
    }
    let mut changes: Vec<Change> = (found.into_iter())
        .map(|((before, after), (documents, examples))| Change { before, after, documents, examples })
        .collect();
    // Stable, so that equal counts stay in the order of their fates.
    changes.sort_by_key(|change| std::cmp::Reverse(change.documents));
    Ok(Changes { builds, documents, unchanged, changes })
}

struct Collect {
    /// Whether both builds have one tokenizer; tokens of different vocabularies cannot be compared.
    with_tokens: bool,
    sorter: Sorter<FateRow>,
    names: AtomicFile,
    n_name_bytes: u64,
    fates: Vec<String>,
}

impl Collect {
    /// Takes the fates of all documents of a build; returns its identity and how many there are.
    fn build(&mut self, side: u8, out: &Path, watch: &Watch) -> Result<(Hash, u64)> {
        let manifest = Manifest::read(out)?;
        let mut n = 0;
        for info in &manifest.shards {
            let shard = Shard::open(&Manifest::mdx_path(out, &info.name))?;
            let source = manifest.sources.get(usize::from(info.source));
            let source = source.map(|source| source.name.as_str()).unwrap_or_default();
            let path = texts::path(out, &info.name);
            let texts = if path.exists() { Some(Texts::open(&path)?) } else { None };
            let width = shard.token_bytes().len() as u64 / shard.n_tokens().max(1);
            for doc in 0..shard.n_docs() {
                let text = texts.as_ref().map(|texts| texts.hash(doc)).transpose()?.map_or(0, |hash| hash.0);
                let (start, len) = shard.span(doc)?;
                let bytes = (start * width) as usize..((start + len) * width) as usize;
                let tokens = shard.token_bytes().get(bytes).unwrap_or_default();
                let tokens = if self.with_tokens { xxh3_64(tokens).max(1) } else { 0 };
                self.push(side, source, shard.id(doc)?, KEPT, text, tokens)?;
                n += 1;
            }
            watch.advance(1)?;
        }
        let mut failed = Ok(());
        let mut see = |source: &str, id: &str, fate: &str| {
            if failed.is_ok() {
                n += 1;
                failed = self.push(side, source, id, fate, 0, 0);
            }
        };
        audit::for_each(out, "drops-", &[], |row| {
            see(str_of(&row, "source"), str_of(&row, "id"), str_of(&row, "reason"));
        })?;
        audit::for_each(out, "dups-", &[], |row| {
            if !STAYING.contains(&str_of(&row, "method")) {
                let reason = reason_of_duplicate(&row);
                see(str_of(&row, "removed_source"), str_of(&row, "removed"), reason);
            }
        })?;
        failed?;
        Ok((manifest.hash()?, n))
    }

    fn push(&mut self, side: u8, source: &str, id: &str, fate: &str, text: u128, tokens: u64) -> Result<()> {
        let number = match self.fates.iter().position(|known| known == fate) {
            Some(number) => number,
            None => {
                self.fates.push(fate.to_owned());
                self.fates.len() - 1
            }
        };
        let key = xxh3_128(format!("{source}\0{id}").as_bytes());
        let name = format!("{source}/{id}");
        self.names.write(name.as_bytes())?;
        let (name_start, name_bytes) = (self.n_name_bytes, name.len() as u32);
        self.n_name_bytes += u64::from(name_bytes);
        // There are a few dozen reasons.
        self.sorter.push(FateRow { key, side, fate: number as u16, text, tokens, name_start, name_bytes })
    }
}

/// A folder deleted with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn create() -> Result<Temporary> {
        // An existing one is foreign, or from a killed process with this id.
        for n in 0.. {
            let folder = std::env::temp_dir().join(format!("moe-data-diff-{}-{n}", std::process::id()));
            match std::fs::create_dir(&folder) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    return made.map(|()| Temporary(folder.clone())).map_err(Error::io(&folder, "create"));
                }
            }
        }
        Err(Error::Machine("no temporary folder is free".to_owned()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: leftovers are in the system's temporary folder.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
