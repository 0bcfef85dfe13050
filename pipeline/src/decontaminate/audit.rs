//! Evaluation texts that were found in documents, and their audit table: one Parquet row for each.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringBuilder, UInt32Builder, UInt64Builder};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::tables::table::Table;

/// An evaluation text in a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Name of the evaluation set.
    pub benchmark: String,
    /// Its record, from 0 in the order of its files and their records.
    pub record: u64,
    /// The field of the record.
    pub field: String,
    /// Source of the document.
    pub source: String,
    /// Its name there.
    pub id: String,
    /// Its id.
    #[serde(skip)]
    pub document_id: u64,
    /// First byte in the normalized text.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
    /// Words of the evaluation text that were found.
    pub n_words: u32,
    /// Share of its weight, 0 to 1.
    pub score: f64,
    /// How the span begins.
    pub text: String,
}

impl Match {
    /// The order of reports.
    pub fn key(&self) -> (&str, u64, &str, &str, &str, u32) {
        (&self.benchmark, self.record, &self.field, &self.source, &self.id, self.start)
    }
}

/// Rows that are written at once, which bounds the memory.
const BATCH_ROWS: usize = 4096;

/// Writes the table.
pub struct ContaminationAudit {
    table: Table,
    n_rows: usize,
    texts: [StringBuilder; 5],
    numbers: [UInt64Builder; 2],
    places: [UInt32Builder; 3],
    score: Float64Builder,
}

impl ContaminationAudit {
    /// A table that appears at `path` on [`ContaminationAudit::finish`], if it has any row.
    pub fn new(path: &Path) -> ContaminationAudit {
        ContaminationAudit {
            table: Table::new(path),
            n_rows: 0,
            texts: Default::default(),
            numbers: Default::default(),
            places: Default::default(),
            score: Float64Builder::new(),
        }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// A write fails.
    pub fn push(&mut self, found: &Match) -> Result<()> {
        let texts = [&found.source, &found.id, &found.benchmark, &found.field, &found.text];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_value(text));
        let numbers = [found.document_id, found.record];
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.append_value(number));
        let places = [found.start, found.end, found.n_words];
        self.places.iter_mut().zip(places).for_each(|(column, place)| column.append_value(place));
        self.score.append_value(found.score);
        self.n_rows += 1;
        if self.n_rows == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.n_rows = 0;
        let [source, id, benchmark, field, text] =
            self.texts.each_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let [document_id, record] =
            self.numbers.each_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let [start, end, n_words] =
            self.places.each_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let score: ArrayRef = Arc::new(self.score.finish());
        let columns = [
            ("source", source),
            ("id", id),
            ("document_id", document_id),
            ("benchmark", benchmark),
            ("record", record),
            ("field", field),
            ("start", start),
            ("end", end),
            ("n_words", n_words),
            ("score", score),
            ("text", text),
        ];
        self.table.write(columns.map(|(name, column)| (name, column, false)))
    }

    /// Makes the table appear.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(mut self) -> Result<()> {
        if self.n_rows > 0 {
            self.flush()?;
        }
        self.table.finish().map(drop)
    }
}
