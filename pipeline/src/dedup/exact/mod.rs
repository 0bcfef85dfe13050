//! Exact deduplication: of documents with equal normalized text one stays. Groups of equal
//! keys (`edges`) become one removal list a part and one audit table. What lies between is sorted within the memory limit.

mod edges;
pub mod keys;

use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use moe_shards::{Shard, atomic};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::edges::{Keys, Place};
use super::audit::{NearDuplicate, NearDuplicates};
use super::earlier::EarlierShards;
use super::rows::{NameRow, NamedRow};
use super::{PartReport, write_list};
use crate::document::Count;
use crate::engine::{Engine, Pair};
use crate::error::{Error, Result};
use crate::json;
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::rows::Blob;
use crate::tables::sort::{Sorted, Sorter};
use crate::tables::{DUPLICATES, IDS, KEYS, clear_folder};
use crate::watch::Watch;

/// Reason of a removed document in the ledger.
pub const REASON: &str = "exact_duplicate";
/// Reason of one whose text is in another build.
pub const REASON_AGAINST: &str = "duplicate_in_against";
/// Method in the audit table.
const METHOD: &str = "exact";
const REPORT: &str = "report.json";

/// A part as deduplication sees it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Name of its source.
    pub source: String,
    /// Its `documents.parquet`.
    pub documents: PathBuf,
    /// Its sorted `keys.rows`.
    pub keys: PathBuf,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupReport {
    /// One for each part, in their order.
    pub parts: Vec<PartReport>,
    /// Whether there is a `dups.parquet`.
    pub has_audit: bool,
}

/// Tables of the keys of all parts, then of the shards of other builds.
fn keys(parts: &[Part], others: EarlierShards<'_>) -> Vec<PathBuf> {
    let own = parts.iter().map(|part| part.keys.clone());
    own.chain(others.keys.iter().map(|task| task.file(KEYS))).collect()
}

/// Folder of the stage's results for these parts.
pub fn folder(work: &Path, parts: &[Part], others: EarlierShards<'_>) -> PathBuf {
    let keys = keys(parts, others);
    let places: Vec<&Path> = keys.iter().map(|keys| keys.strip_prefix(work).unwrap_or(keys)).collect();
    let identity = json!({ "version": (crate::BUILD_VERSION, crate::WORK_VERSION), "keys": places });
    work.join("dedup").join(&json::digest(&identity).to_string()[..24])
}

/// Runs the stage, unless its report is there already.
///
/// # Errors
/// [`Error::Interrupted`], a damaged part, or a write fails.
pub fn run(
    work: &Path,
    parts: &[Part],
    others: EarlierShards<'_>,
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<DedupReport> {
    let folder = folder(work, parts, others);
    let report_path = folder.join(REPORT);
    if report_path.exists() {
        let bytes = std::fs::read(&report_path).map_err(Error::io(&report_path, "read"))?;
        return serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&report_path, format!("{e}; delete this file and rerun")));
    }
    clear_folder(&folder)?;
    let runs = keys(parts, others);
    let asked = ask(&folder, &Keys { work, runs: &runs }, parts.len(), engine, watch)?;
    let stage = Stage { work, folder: &folder, parts, others, engine, watch };
    let (reports, named) = stage.name(asked)?;
    let report = DedupReport { parts: reports, has_audit: stage.audit(named)? };
    atomic::write_file(&report_path, &json::canonical(&report))?;
    Ok(report)
}

/// Two rows for each duplicate of this build: itself, and what is kept instead of it, in the order of their places.
fn ask(
    folder: &Path,
    keys: &Keys<'_>,
    n_parts: usize,
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<Sorted<NameRow>> {
    let mut asked = Sorter::new(&folder.join("asked"), engine.memory_bytes() / 2, watch)?;
    let mut edge = 0;
    engine.pairs(keys, watch, &mut |Pair { first, other }| {
        let [kept, removed] = [first, other].map(Place::of_id);
        // Duplicates within other builds do not matter here.
        if removed.run as usize >= n_parts {
            return Ok(());
        }
        let is_against = kept.run as usize >= n_parts;
        let roles = [(removed, if is_against { NameRow::IN_AGAINST } else { NameRow::REMOVED })];
        for (place, role) in roles.into_iter().chain([(kept, NameRow::KEPT)]) {
            asked.push(NameRow { part: place.run, row: place.row, edge, role })?;
        }
        edge += 1;
        Ok(())
    })?;
    asked.finish()
}

struct Stage<'a> {
    work: &'a Path,
    folder: &'a Path,
    parts: &'a [Part],
    others: EarlierShards<'a>,
    engine: &'a dyn Engine,
    watch: &'a Watch,
}

impl Stage<'_> {
    /// Reads the ids of all documents that are asked for, and makes the removal lists on the way. Returns where the ids
    /// are, by duplicate.
    fn name(&self, mut asked: Sorted<NameRow>) -> Result<(Vec<PartReport>, Sorted<NamedRow>)> {
        let memory = self.engine.memory_bytes() / 2;
        let mut named = Sorter::new(&self.folder.join("named"), memory, self.watch)?;
        let mut ids = AtomicFile::create(&self.folder.join(IDS))?;
        let mut n_id_bytes = 0;
        let mut next = asked.next_row()?;
        let mut reports = Vec::new();
        for (i, part) in self.parts.iter().enumerate() {
            let mut removed = Vec::new();
            let mut report = PartReport::default();
            let is_here = |row: &NameRow| row.part as usize == i;
            // A part without duplicates is not opened.
            let batches = match next.filter(is_here) {
                Some(_) => Some(DocumentBatches::open(&part.documents, Columns::Ids)?),
                None => None,
            };
            for batch in batches.into_iter().flatten() {
                for (row, document) in batch?.documents() {
                    let is_asked = |asked: &NameRow| is_here(asked) && asked.row == row;
                    if !next.as_ref().is_some_and(is_asked) {
                        continue;
                    }
                    ids.write(document.id.as_bytes())?;
                    let (id_start, id_bytes) = (n_id_bytes, document.id.len() as u32);
                    n_id_bytes += u64::from(id_bytes);
                    while let Some(NameRow { part, edge, role, .. }) = next.filter(is_asked) {
                        named.push(NamedRow { edge, role, part, id_start, id_bytes })?;
                        let count = Count::one(u64::from(document.raw_bytes));
                        match role {
                            NameRow::REMOVED => report.removed += count,
                            NameRow::IN_AGAINST => report.in_against += count,
                            _ => {}
                        }
                        if role != NameRow::KEPT {
                            removed.push(row);
                        }
                        next = asked.next_row()?;
                    }
                }
                self.watch.advance(0)?;
            }
            if next.is_some_and(|row| is_here(&row)) {
                let message = "has fewer documents than its keys; delete its folder and rerun";
                return Err(Error::data(&part.documents, message));
            }
            report.list = write_list(self.work, &removed)?;
            reports.push(report);
        }
        while let Some(first) = next {
            let other = first.part as usize - self.parts.len();
            let shard = self.others.shards.get(other);
            let shard = shard.map(|shard| Shard::open(&shard.mdx)).transpose()?;
            while let Some(NameRow { part, row, edge, role }) = next.filter(|row| row.part == first.part) {
                let id = shard.as_ref().map(|shard| shard.id(row)).transpose()?.unwrap_or_default();
                ids.write(id.as_bytes())?;
                let (id_start, id_bytes) = (n_id_bytes, id.len() as u32);
                n_id_bytes += u64::from(id_bytes);
                named.push(NamedRow { edge, role, part, id_start, id_bytes })?;
                next = asked.next_row()?;
            }
            self.watch.advance(0)?;
        }
        ids.commit()?;
        Ok((reports, named.finish()?))
    }

    /// Writes the audit: for each duplicate its own row of `named`, and after it that of what is kept.
    fn audit(&self, mut named: Sorted<NamedRow>) -> Result<bool> {
        let path = self.folder.join(IDS);
        let ids = Blob::open(&path)?;
        let name = |row: &NamedRow| {
            let mut bytes = vec![0; row.id_bytes as usize];
            ids.read_at(row.id_start, &mut bytes)?;
            String::from_utf8(bytes)
                .map_err(|_| Error::data(&path, "is damaged; delete its folder and rerun"))
        };
        let mut audit = NearDuplicates::create(&self.folder.join(DUPLICATES));
        while let Some(first) = named.next_row()? {
            let pair = named.next_row()?.filter(|second| second.edge == first.edge);
            // Roles order within a duplicate: what is kept comes first.
            let Some(removed) = pair else {
                return Err(Error::data(
                    &path,
                    "a duplicate has no partner; this is a bug, please report it",
                ));
            };
            let kept_part = first.part as usize;
            let (against, kept_source) = match self.parts.get(kept_part) {
                Some(part) => (None, &part.source[..]),
                None => {
                    let (build, source) = self.others.names(kept_part - self.parts.len())?;
                    (Some(build), source)
                }
            };
            audit.append(&NearDuplicate {
                removed: &name(&removed)?,
                removed_source: &self.parts[removed.part as usize].source,
                kept: &name(&first)?,
                kept_source,
                against,
                method: METHOD,
                jaccard: Some(1.0),
                removed_bytes: None,
                kept_bytes: None,
                cluster: None,
            })?;
        }
        std::fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        audit.finish()
    }
}
