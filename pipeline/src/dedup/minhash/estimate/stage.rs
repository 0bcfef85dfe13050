//! The estimate of what MinHash finds, in two tasks: [`SampleParams`] notes the shingles and band keys of the chosen documents
//! of a part, [`CompareParams`] compares every document of a part with the samples of all parts.
//!
//! Documents are numbered by part and row. Which number a document has changes with the split of the input; which pairs
//! there are does not.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figures::{Comparer, Pair, Sample};
use crate::dedup::minhash::signature::{SketchConfig, Sketcher};
use crate::dedup::rows::{PairRow, SampleRow};
use crate::document::Count;
use crate::error::Result;
use crate::stage::inputs::{Survivors, inputs};
use crate::stage::{Report, Stage};
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::rows::{self, RemovedRow};
use crate::tables::sort::Sorter;
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::tables::{PAIRS, SAMPLE};
use crate::watch::Watch;

/// How to sketch, and the number of the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EstimateParams {
    /// Shingles and permutations.
    pub sketch: SketchConfig,
    /// Number of the part.
    pub part: u32,
}

/// Number of a document.
pub fn number(part: u32, row: u32) -> u64 {
    u64::from(part) << 32 | u64::from(row)
}

/// First task: sampled documents to their shingles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleParams(pub EstimateParams);

/// Second task: documents to those that are like sampled ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareParams(pub EstimateParams);

inputs! {
    /// A part, and which of its documents were chosen.
    pub struct SampleInputs {
        /// `documents.parquet`.
        documents: PathBuf,
        /// A table of the chosen rows.
        chosen: PathBuf,
    }
}

inputs! {
    /// A part as it was before fuzzy deduplication, and what it is compared with.
    pub struct CompareInputs {
        /// The part.
        part: Survivors,
        /// The `sample.run` of every part.
        samples: Vec<PathBuf>,
    }
}

impl Stage for SampleParams {
    const NAME: &'static str = "sample";
    type Inputs = SampleInputs;

    /// Writes `sample.run`.
    ///
    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &SampleInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let SampleInputs { documents, chosen } = inputs;
        let mut chosen = rows::read::<RemovedRow>(chosen)?.into_iter().map(|row| row.row).peekable();
        let mut sorter = Sorter::new(&folder.join("sort"), watch.memory_bytes(), watch)?;
        let mut sketcher = Sketcher::new(&self.0.sketch);
        let mut keys = Vec::new();
        let mut report = Report::default();
        'batches: for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                if chosen.peek().is_none() {
                    break 'batches;
                }
                if chosen.next_if_eq(&row).is_none() {
                    continue;
                }
                let number = number(self.0.part, row);
                for &value in sketcher.set(document.text) {
                    sorter.push(SampleRow { number, band: SampleRow::SHINGLE, value })?;
                }
                keys.clear();
                sketcher.keys(document.text, &mut keys);
                for (&value, band) in keys.iter().zip(0..) {
                    sorter.push(SampleRow { number, band, value })?;
                }
                report.kept += Count::one(u64::from(document.raw_bytes));
                watch.advance(0)?;
            }
        }
        let mut run = RunWriter::create(&folder.join(SAMPLE))?;
        let mut sorted = sorter.finish()?;
        while let Some(row) = sorted.next_row()? {
            run.push(row)?;
        }
        run.commit()?;
        Ok(report)
    }
}

/// Adds the documents of a `sample.run`.
fn read_sample(path: &Path, sample: &mut Sample) -> Result<()> {
    let mut run = RunReader::<SampleRow>::open(path, 0)?;
    let mut next = run.next_row()?;
    while let Some(first) = next {
        let (mut set, mut keys) = (Vec::new(), Vec::new());
        while let Some(row) = next.filter(|row| row.number == first.number) {
            if row.band == SampleRow::SHINGLE {
                set.push(row.value)
            } else {
                keys.push(row.value)
            }
            next = run.next_row()?;
        }
        sample.push(first.number, &set, keys);
    }
    Ok(())
}

impl Stage for CompareParams {
    const NAME: &'static str = "compare";
    type Inputs = CompareInputs;

    /// Writes `pairs.run`.
    ///
    /// # Errors
    /// A part is damaged or a write fails.
    fn run(&self, inputs: &CompareInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let CompareInputs { part: Survivors { documents, kept, removed }, samples } = inputs;
        let mut sample = Sample::default();
        samples.iter().try_for_each(|path| read_sample(path, &mut sample))?;
        let mut comparer = Comparer::new(&self.0.sketch, &sample);
        let mut rows = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
        let mut sorter = Sorter::new(&folder.join("sort"), watch.memory_bytes(), watch)?;
        let mut report = Report::default();
        let mut pairs: Vec<Pair> = Vec::new();
        for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                if rows.next_if_eq(&row).is_none() {
                    continue;
                }
                comparer.compare(number(self.0.part, row), document.text, &mut pairs);
                for pair in pairs.drain(..) {
                    let Pair { sampled, other, overlap, union, is_candidate } = pair;
                    sorter.push(PairRow {
                        sampled,
                        other,
                        overlap,
                        union,
                        is_candidate: u8::from(is_candidate),
                    })?;
                }
                report.kept += Count::one(u64::from(document.raw_bytes));
                watch.advance(0)?;
            }
        }
        let mut run = RunWriter::create(&folder.join(PAIRS))?;
        let mut sorted = sorter.finish()?;
        while let Some(row) = sorted.next_row()? {
            run.push(row)?;
        }
        run.commit()?;
        Ok(report)
    }
}
