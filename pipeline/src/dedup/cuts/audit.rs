//! Audit table of cuts: one Parquet row for every stretch that was cut, with the place of the copy that stays.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, UInt32Builder, UInt64Builder};

use crate::document::DocumentId;
use crate::error::Result;
use crate::tables::table::Table;

/// A cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    /// Source of the document.
    pub source: &'a str,
    /// Its name there.
    pub id: &'a str,
    /// Its id.
    pub document_id: DocumentId,
    /// First byte in the normalized text.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
    /// Method, as in the ledger.
    pub method: &'a str,
    /// Source of the document that holds the copy that stays, or held the first one where none stays.
    pub kept_source: &'a str,
    /// Its name there.
    pub kept: &'a str,
    /// First byte of the copy in that document's normalized text.
    pub kept_start: u32,
    /// What was cut.
    pub text: &'a str,
}

/// Characters of a cut that the table shows.
pub const SAMPLE_CHARS: usize = 200;
/// Rows that are written at once, which bounds the memory.
const BATCH_ROWS: usize = 4096;

/// Writes the table.
pub struct CutAudit {
    table: Table,
    n_rows: usize,
    texts: [StringBuilder; 6],
    document_id: UInt64Builder,
    places: [UInt32Builder; 3],
}

impl CutAudit {
    /// A table that appears at `path` on [`CutAudit::finish`], if it has any row.
    pub fn new(path: &Path) -> CutAudit {
        CutAudit {
            table: Table::new(path),
            n_rows: 0,
            texts: Default::default(),
            document_id: UInt64Builder::new(),
            places: Default::default(),
        }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// A write fails.
    pub fn push(&mut self, cut: &Cut<'_>) -> Result<()> {
        let sample: String = cut.text.chars().take(SAMPLE_CHARS).collect();
        let texts = [cut.source, cut.id, cut.method, cut.kept_source, cut.kept, &sample];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_value(text));
        let places = [cut.start, cut.end, cut.kept_start];
        self.places.iter_mut().zip(places).for_each(|(column, place)| column.append_value(place));
        self.document_id.append_value(cut.document_id.0);
        self.n_rows += 1;
        if self.n_rows == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.n_rows = 0;
        let [source, id, method, kept_source, kept, sample] =
            self.texts.each_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let [start, end, kept_start] =
            self.places.each_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let document_id: ArrayRef = Arc::new(self.document_id.finish());
        let columns = [
            ("source", source),
            ("id", id),
            ("document_id", document_id),
            ("start", start),
            ("end", end),
            ("method", method),
            ("kept_source", kept_source),
            ("kept", kept),
            ("kept_start", kept_start),
            ("text", sample),
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
