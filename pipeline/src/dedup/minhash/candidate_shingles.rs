//! Fuzzy deduplication, second task: the sets of shingles and the ids of those documents of a part that share a
//! band with another document.
//!
//! Writes `members.run`, `shingles.u64` and `ids.txt`.

use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::shingles::ShingleWriter;
use super::signature::{SketchConfig, Sketcher};
use crate::dedup::rows::{CandidateRow, ClusteredRow};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::stage::inputs::inputs;
use crate::stage::{Report, Stage};
use crate::tables::documents::{Columns, Document, DocumentBatches};
use crate::tables::sort::Sorter;
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::tables::{IDS, MEMBERS, SHINGLES};
use crate::watch::Watch;

/// What to note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateShinglesParams {
    /// Shingles.
    pub sketch: SketchConfig,
    /// Whether texts are compared at all; otherwise all sets are empty.
    pub with_shingles: bool,
    /// Whether the records of the source declare families.
    pub has_family: bool,
}

inputs! {
    /// A part, and which of its documents share a band with another one.
    pub struct CandidateShinglesInputs {
        /// `documents.parquet`.
        documents: PathBuf,
        /// The list of these documents.
        clustered: PathBuf,
    }
}

impl Stage for CandidateShinglesParams {
    const NAME: &'static str = "members";
    type Inputs = CandidateShinglesInputs;

    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &CandidateShinglesInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let CandidateShinglesInputs { documents, clustered } = inputs;
        let mut clustered = RunReader::<ClusteredRow>::open(clustered, 0)?;
        let mut next = clustered.next_row()?;
        let mut writer =
            CandidateWriter::create(folder, &self.sketch, self.with_shingles, self.has_family, watch)?;
        'batches: for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                let Some(wanted) = next else { break 'batches };
                if wanted.row != row {
                    continue;
                }
                writer.append(&wanted, &document)?;
                next = clustered.next_row()?;
                watch.advance_by_document(u64::from(document.raw_bytes))?;
            }
        }
        if let Some(missing) = next {
            let message = format!(
                "has no row {}, which shares a band; delete this file's folder and rerun",
                missing.row
            );
            return Err(Error::data(documents, message));
        }
        writer.finish()
    }
}

/// Writes `members.run`, `shingles.u64` and `ids.txt`.
pub(crate) struct CandidateWriter<'a> {
    folder: &'a Path,
    sorter: Sorter<CandidateRow>,
    shingles: ShingleWriter,
    ids: AtomicFile,
    n_id_bytes: u64,
    sketcher: Sketcher,
    with_shingles: bool,
    has_family: bool,
    report: Report,
}

impl<'a> CandidateWriter<'a> {
    pub(crate) fn create(
        folder: &'a Path,
        sketch: &SketchConfig,
        with_shingles: bool,
        has_family: bool,
        watch: &Watch,
    ) -> Result<CandidateWriter<'a>> {
        Ok(CandidateWriter {
            folder,
            sorter: Sorter::new(&folder.join("sort"), watch.memory_bytes(), watch)?,
            shingles: ShingleWriter::create(&folder.join(SHINGLES))?,
            ids: AtomicFile::create(&folder.join(IDS))?,
            n_id_bytes: 0,
            sketcher: Sketcher::new(sketch),
            with_shingles,
            has_family,
            report: Report::default(),
        })
    }

    pub(crate) fn append(&mut self, wanted: &ClusteredRow, document: &Document<'_>) -> Result<()> {
        let set = if self.with_shingles { self.sketcher.set(document.text) } else { &[] };
        let extent = self.shingles.append(set)?;
        self.ids.write(document.id.as_bytes())?;
        let id_bytes = document.id.len() as u32;
        self.sorter.push(CandidateRow {
            root: wanted.root,
            rank: wanted.rank,
            part: 0,
            row: wanted.row,
            n_bytes: document.text.len() as u32,
            raw_bytes: document.raw_bytes,
            family: document.family.0,
            has_family: u8::from(self.has_family),
            variant: document.variant,
            shingle_start: extent.start,
            n_shingles: extent.n_shingles,
            shingle_hash: extent.hash,
            id_start: self.n_id_bytes,
            id_bytes,
        })?;
        self.n_id_bytes += u64::from(id_bytes);
        self.report.kept += Count::one(u64::from(document.raw_bytes));
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Report> {
        self.shingles.finish()?;
        self.ids.commit()?;
        let mut members = RunWriter::create(&self.folder.join(MEMBERS))?;
        let mut sorted = self.sorter.finish()?;
        while let Some(row) = sorted.next_row()? {
            members.push(row)?;
        }
        members.commit()?;
        Ok(self.report)
    }
}
