//! Exact deduplication: of documents with equal normalised text one stays. The engine finds groups of equal
//! keys; here they become one removal list a part and one audit table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{PartReport, write_list};
use crate::document::Count;
use crate::engine::{Edge, Engine};
use crate::error::{Error, Result};
use crate::json;
use crate::watch::Watch;
use crate::work::audit::{self, Duplicate};
use crate::work::documents::{Columns, DocumentBatches};
use crate::work::{DUPLICATES, clear_folder};

/// Reason of a removed document in the ledger.
pub const REASON: &str = "exact_duplicate";
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

/// Folder of the stage's results for these parts.
pub fn folder(work: &Path, parts: &[Part]) -> PathBuf {
    let places: Vec<&Path> = parts.iter().map(|p| p.keys.strip_prefix(work).unwrap_or(&p.keys)).collect();
    let identity = json!({ "version": crate::BUILD_VERSION, "keys": places });
    work.join("dedup").join(&json::digest(&identity).to_string()[..24])
}

/// Runs the stage, unless its report is there already.
///
/// # Errors
/// [`Error::Interrupted`], a damaged part, or the disk refuses.
pub fn run(work: &Path, parts: &[Part], engine: &dyn Engine, watch: &Watch) -> Result<DedupReport> {
    let folder = folder(work, parts);
    let report_path = folder.join(REPORT);
    if report_path.exists() {
        let bytes = std::fs::read(&report_path).map_err(Error::io(&report_path, "read"))?;
        return serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&report_path, format!("{e}; delete this file and rerun")));
    }
    clear_folder(&folder)?;
    let keys: Vec<PathBuf> = parts.iter().map(|part| part.keys.clone()).collect();
    let edges = engine.edges(&keys, watch)?;

    let mut removed: Vec<Vec<u32>> = vec![Vec::new(); parts.len()];
    let mut counts = vec![Count::default(); parts.len()];
    for edge in &edges {
        removed[edge.removed.run as usize].push(edge.removed.row);
        counts[edge.removed.run as usize] += Count::one(u64::from(edge.removed_bytes));
    }
    let mut reports = Vec::new();
    for (mut rows, removed) in removed.into_iter().zip(counts) {
        rows.sort_unstable();
        reports.push(PartReport { list: write_list(work, &rows)?, removed });
    }
    let duplicates = describe(parts, &edges, watch)?;
    let has_audit = audit::write_duplicates(&folder.join(DUPLICATES), &duplicates)?.is_some();
    let report = DedupReport { parts: reports, has_audit };
    atomic::write_file(&report_path, &json::canonical(&report))?;
    Ok(report)
}

/// Names the documents of the edges, reading the id columns of the parts that have any.
fn describe(parts: &[Part], edges: &[Edge], watch: &Watch) -> Result<Vec<Duplicate>> {
    let mut names: Vec<BTreeMap<u32, String>> = vec![BTreeMap::new(); parts.len()];
    for place in edges.iter().flat_map(|edge| [edge.removed, edge.kept]) {
        names[place.run as usize].insert(place.row, String::new());
    }
    for (part, names) in parts.iter().zip(&mut names) {
        if names.is_empty() {
            continue;
        }
        for batch in DocumentBatches::open(&part.documents, Columns::Ids)? {
            for (row, document) in batch?.documents() {
                if let Some(name) = names.get_mut(&row) {
                    *name = document.id.to_owned();
                }
            }
            watch.advance(0)?;
        }
    }
    let name = |place: crate::engine::Place| {
        let part = place.run as usize;
        let name = names[part].get(&place.row).cloned().unwrap_or_default();
        (parts[part].source.clone(), name)
    };
    let mut duplicates: Vec<Duplicate> = edges
        .iter()
        .map(|edge| {
            let ((removed_source, removed), (kept_source, kept)) = (name(edge.removed), name(edge.kept));
            Duplicate { removed_source, removed, kept_source, kept }
        })
        .collect();
    duplicates.sort();
    Ok(duplicates)
}
