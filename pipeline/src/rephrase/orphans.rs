//! Drops variants whose original is no longer kept, or whose text has changed since rephrasing.
//!
//! Writes `removed.rows` with what was removed before, and `drops.parquet` where there is any.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::{Count, TextHash};
use crate::error::{Error, Result};
use crate::rephrase::record;
use crate::stage::inputs::{CutDocuments, PlacedDocuments, inputs};
use crate::stage::{Report, Stage};
use crate::tables::audit::{Drop, Drops};
use crate::tables::cuts::Cuts;
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::families::Families;
use crate::tables::rows::{self, RemovedRow};
use crate::tables::{DROPS, REMOVED};
use crate::watch::Watch;

/// Reason for a variant whose original is not kept.
pub const DROPPED: &str = "parent_dropped";
/// Reason for a variant whose original's text changed.
pub const CHANGED: &str = "parent_changed";

/// What to check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrphansParams {
    /// Name of the source.
    pub source: String,
}

inputs! {
    /// Variants and their originals.
    pub struct OrphansInputs {
        /// The file of accepted variants.
        accepted: PathBuf,
        /// The variants.
        variants: CutDocuments,
        /// The parts of the source with originals.
        originals: Vec<PlacedDocuments>,
    }
}

impl Stage for OrphansParams {
    const NAME: &'static str = "parents";
    type Inputs = OrphansInputs;

    /// # Errors
    /// A table is damaged or a write fails.
    fn run(&self, inputs: &OrphansInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let OrphansInputs { accepted, variants, originals } = inputs;
        let CutDocuments { documents, kept, removed, cuts } = variants;
        let more_rows = || {
            Error::data(
                documents,
                "has more documents than there are accepted variants; delete its folder and rerun",
            )
        };
        // In the order of the rows: id and text of each variant's original.
        let mut parents = Vec::new();
        for record in record::accepted(accepted)? {
            parents.push(record?.parent().map_err(|message| Error::data(accepted, message))?);
        }
        let mut texts: HashMap<u64, Option<u128>> = parents.iter().map(|(id, _)| (*id, None)).collect();
        for part in originals {
            find_texts(part, &mut texts, watch)?;
        }
        let cuts = Cuts::read(cuts)?;
        let mut survivors = rows::survivors(kept, removed)?.into_iter().peekable();
        let mut removed = rows::read::<RemovedRow>(removed)?;
        let mut report = Report::default();
        let mut drops = Drops::default();
        for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                if survivors.next_if(|survivor| survivor.row == row).is_none() {
                    continue;
                }
                let (id, text) = *parents.get(row as usize).ok_or_else(more_rows)?;
                let reason = match texts.get(&id).copied().flatten() {
                    Some(found) if found == text => continue,
                    Some(_) => CHANGED,
                    None => DROPPED,
                };
                // Its cuts are already recorded.
                let cut: u64 = cuts.of(row).raw_bytes(document.raw_bytes, document.text.len()).values().sum();
                let count = Count::one(u64::from(document.raw_bytes) - cut);
                *report.dropped.entry(reason.to_owned()).or_default() += count;
                removed.push(RemovedRow { row });
                drops.push(&Drop {
                    id: document.id,
                    document_id: document.document_id,
                    source: &self.source,
                    stage: "parents",
                    reason,
                    measured: f64::NAN,
                    threshold: f64::NAN,
                    raw_bytes: count.bytes,
                });
            }
        }
        removed.sort_unstable();
        rows::write(&folder.join(REMOVED), &removed)?;
        drops.write(&folder.join(DROPS))?;
        Ok(report)
    }
}

/// Fills in the texts of a part's kept originals.
fn find_texts(
    PlacedDocuments { documents, kept, removed, cuts, families }: &PlacedDocuments,
    texts: &mut HashMap<u64, Option<u128>>,
    watch: &Watch,
) -> Result<()> {
    let cuts = Cuts::read(cuts)?;
    // An original that deduplication moved to another family no longer counts.
    let families = Families::read(families)?;
    let mut survivors = rows::survivors(kept, removed)?.into_iter().peekable();
    // Without cuts, the hash of the whole text is the text's.
    let columns = if cuts.rows().is_empty() { Columns::Ids } else { Columns::All };
    for batch in DocumentBatches::open(documents, columns)? {
        for (row, document) in batch?.documents() {
            let document = families.place(row, document);
            if survivors.next_if(|survivor| survivor.row == row).is_none() || document.variant != 0 {
                continue;
            }
            let Some(text) = texts.get_mut(&document.document_id.0) else { continue };
            let cuts = cuts.of(row);
            *text = Some(match cuts.is_empty() {
                true => document.text_hash.0,
                false => TextHash::of(&cuts.apply(document.text)?).0,
            });
        }
        watch.advance(0)?;
    }
    Ok(())
}
