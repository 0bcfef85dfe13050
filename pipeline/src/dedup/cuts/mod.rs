//! Stages that find text in several places, and cut it from all but one.
//!
//! ```text
//! paragraphs(part) --------------------------------------> paragraph_matches(range) \
//! anchors(part) -> shared_anchors(range) -> segments(part) -> substring_matches(range) -> apply_cuts(part)
//! ```
//!
//! Paragraphs go first; substrings are looked for in what they leave. Both end in marks (what to cut, and
//! where the copy that stays is), which are sorted by part and applied to each part alone. What compares all parts does so for a range of
//! keys, in as many tasks as there are ranges.

pub mod anchor;
pub mod apply;
pub mod audit;
pub mod config;
pub mod cut_rows;
pub mod marks;
pub mod paragraph;
pub mod segment;
pub mod substring;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stage::inputs::PlacedDocuments;
use crate::tables::cuts::{Cuts, DocumentCuts};
use crate::tables::documents::{Columns, Document, DocumentBatches};
use crate::tables::families::Families;
use crate::tables::rows;
use crate::watch::Watch;

/// What the collecting stages know about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartParams {
    /// Its number.
    pub part: u32,
    /// Position of its source in the recipe.
    pub source: u16,
    /// Whether the source declares families, whose members count as one document.
    pub has_families: bool,
}

impl PartParams {
    /// What counts as one document.
    fn group(&self, document: &Document<'_>) -> u64 {
        if self.has_families { document.family.0 } else { document.document_id.0 }
    }
}

/// Calls `see` with each document that is still in, and its cuts so far.
fn for_each_left(
    part: &PlacedDocuments,
    watch: &Watch,
    mut see: impl FnMut(u32, &Document<'_>, DocumentCuts<'_>) -> Result<()>,
) -> Result<()> {
    let PlacedDocuments { documents, kept, removed, cuts, families } = part;
    let mut left = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
    let cuts = Cuts::read(cuts)?;
    let families = Families::read(families)?;
    for batch in DocumentBatches::open(documents, Columns::All)? {
        for (row, document) in batch?.documents() {
            if left.next_if_eq(&row).is_some() {
                see(row, &families.place(row, document), cuts.of(row))?;
                watch.advance_by_document(u64::from(document.raw_bytes))?;
            }
        }
    }
    Ok(())
}

/// Folder in which a task sorts.
fn sort_folder(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("sort-{name}"))
}
