//! Fuzzy deduplication, first task: the band keys of the documents of a part that are still in, and what
//! decides which of them survive.
//!
//! Writes `sketches.run` and `keys.run`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::signature::{SketchConfig, Sketcher};
use crate::dedup::rows::{SketchKeyRow, SketchRow};
use crate::document::Count;
use crate::error::Result;
use crate::stage::inputs::Survivors;
use crate::stage::{Report, Stage};
use crate::tables::documents::{Columns, Document, DocumentBatches};
use crate::tables::rows;
use crate::tables::sort::run::RunWriter;
use crate::tables::{SKETCH_KEYS, SKETCHES, Sink};
use crate::watch::Watch;

/// How to sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchParams {
    /// Shingles and permutations.
    pub sketch: SketchConfig,
    /// Whether the records of the source declare families.
    pub has_family: bool,
}

impl Stage for SketchParams {
    const NAME: &'static str = "sketch";
    type Inputs = Survivors;

    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &Survivors, folder: &Path, watch: &Watch) -> Result<Report> {
        let Survivors { documents, kept, removed } = inputs;
        let mut survivors = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
        let mut writer = SketchWriter::create(folder, &self.sketch, self.has_family)?;
        let mut report = Report::default();
        for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                if survivors.next_if_eq(&row).is_none() {
                    continue;
                }
                writer.append(row, &document)?;
                report.kept += Count::one(u64::from(document.raw_bytes));
                watch.advance_by_document(u64::from(document.raw_bytes))?;
            }
        }
        writer.finish()?;
        Ok(report)
    }
}

/// Writes `sketches.run` and `keys.run`.
pub(crate) struct SketchWriter {
    sketches: RunWriter<SketchRow, Sink>,
    key_rows: RunWriter<SketchKeyRow, Sink>,
    sketcher: Sketcher,
    keys: Vec<u64>,
    has_family: bool,
    index: u32,
}

impl SketchWriter {
    pub(crate) fn create(folder: &Path, config: &SketchConfig, has_family: bool) -> Result<SketchWriter> {
        Ok(SketchWriter {
            sketches: RunWriter::create(&folder.join(SKETCHES))?,
            key_rows: RunWriter::create(&folder.join(SKETCH_KEYS))?,
            sketcher: Sketcher::new(config),
            keys: Vec::new(),
            has_family,
            index: 0,
        })
    }

    /// Takes the next document, in ascending order of `row`.
    pub(crate) fn append(&mut self, row: u32, document: &Document<'_>) -> Result<()> {
        self.sketches.push(sketch(row, self.has_family, document))?;
        self.keys.clear();
        self.sketcher.keys(document.text, &mut self.keys);
        self.keys.sort_unstable();
        let index = self.index;
        self.keys.iter().try_for_each(|&key| self.key_rows.push(SketchKeyRow { index, key }))?;
        self.index += 1;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.sketches.commit()?;
        self.key_rows.commit()?;
        Ok(())
    }
}

fn sketch(row: u32, has_family: bool, document: &Document<'_>) -> SketchRow {
    let (date_high, date_low) = date_numbers(document.metadata.date.unwrap_or_default());
    SketchRow {
        row,
        variant: document.variant,
        has_family: u8::from(has_family),
        document_id: document.document_id.0,
        text_hash: document.text_hash.0,
        raw_bytes: document.raw_bytes,
        // Texts are below 2^32 bytes.
        n_bytes: document.text.len() as u32,
        date_high,
        date_low,
        score: document.metadata.score.map_or(0, score_number),
        metadata_hash: document.metadata.hash(),
    }
}

/// The first 32 bytes of a text as two numbers that order as the text does.
fn date_numbers(date: &str) -> (u128, u128) {
    let mut bytes = [0; 32];
    let n_bytes = date.len().min(32);
    bytes[..n_bytes].copy_from_slice(&date.as_bytes()[..n_bytes]);
    let number = |half: &[u8]| half.iter().fold(0, |number, byte| (number << 8) | u128::from(*byte));
    (number(&bytes[..16]), number(&bytes[16..]))
}

/// A finite number as one that orders in the same way, above 0.
fn score_number(score: f64) -> u64 {
    // Minus zero is zero.
    let bits = (score + 0.0).to_bits();
    // The bits of a positive number order as it does, those of a negative one the other way round.
    if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_order_as_text() {
        let dates = ["", "2019", "2020-01-01", "2020-01-01T10:00:00.000000+02:00", "2020-01-02"];
        let numbers = dates.map(date_numbers);
        assert!(numbers.is_sorted());
        assert_eq!(numbers[0], (0, 0));
        assert_eq!(numbers[1], (u128::from(u32::from_be_bytes(*b"2019")) << 96, 0));
    }

    #[test]
    fn scores_order_as_numbers() {
        let scores = [f64::MIN, -1.5, -1e-300, 0.0, 1e-300, 2.0, f64::MAX];
        let numbers = scores.map(score_number);
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert!(numbers[0] > 0);
        assert_eq!(score_number(-0.0), score_number(0.0));
    }
}
