//! Audit tables: one Parquet row for every dropped document, with the value that was
//! measured and the limit it missed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringBuilder, UInt64Builder};

use super::table::Table;
use crate::document::DocumentId;
use crate::error::Result;

/// A dropped document.
#[derive(Clone, Copy, Debug)]
pub struct Drop<'a> {
    /// Its name in the source.
    pub id: &'a str,
    /// Its id.
    pub document_id: DocumentId,
    /// Its source.
    pub source: &'a str,
    /// Stage that dropped it.
    pub stage: &'a str,
    /// Name of the reason, as in the ledger.
    pub reason: &'a str,
    /// The measured value; NaN if there is none.
    pub measured: f64,
    /// The limit that it missed; NaN if there is none.
    pub threshold: f64,
    /// Bytes of the text as read.
    pub raw_bytes: u64,
}

/// Collects the rows of `drops`, few enough to hold a batch in memory.
#[derive(Default)]
pub struct Drops {
    n_rows: usize,
    id: StringBuilder,
    document_id: UInt64Builder,
    source: StringBuilder,
    stage: StringBuilder,
    reason: StringBuilder,
    measured: Float64Builder,
    threshold: Float64Builder,
    raw_bytes: UInt64Builder,
}

impl Drops {
    /// Notes a dropped document.
    pub fn push(&mut self, drop: &Drop<'_>) {
        self.n_rows += 1;
        self.id.append_value(drop.id);
        self.document_id.append_value(drop.document_id.0);
        self.source.append_value(drop.source);
        self.stage.append_value(drop.stage);
        self.reason.append_value(drop.reason);
        self.measured.append_option(Some(drop.measured).filter(|x| !x.is_nan()));
        self.threshold.append_option(Some(drop.threshold).filter(|x| !x.is_nan()));
        self.raw_bytes.append_value(drop.raw_bytes);
    }

    /// Writes the table; no file appears when nothing was dropped.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(mut self, path: &Path) -> Result<Option<PathBuf>> {
        if self.n_rows == 0 {
            return Ok(None);
        }
        let columns: [(&'static str, ArrayRef, bool); 8] = [
            ("id", Arc::new(self.id.finish()), false),
            ("document_id", Arc::new(self.document_id.finish()), false),
            ("source", Arc::new(self.source.finish()), false),
            ("stage", Arc::new(self.stage.finish()), false),
            ("reason", Arc::new(self.reason.finish()), false),
            ("measured", Arc::new(self.measured.finish()), true),
            ("threshold", Arc::new(self.threshold.finish()), true),
            ("raw_bytes", Arc::new(self.raw_bytes.finish()), false),
        ];
        let mut table = Table::new(path);
        table.write(columns)?;
        table.finish()?;
        Ok(Some(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_dropped_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Drops::default().write(&dir.path().join("a")).unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn rows_can_be_read_by_any_parquet_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drops.parquet");
        let mut drops = Drops::default();
        let row = Drop {
            id: "a",
            document_id: DocumentId(1),
            source: "s",
            stage: "filter",
            reason: "too_short",
            measured: 3.0,
            threshold: f64::NAN,
            raw_bytes: 3,
        };
        drops.push(&row);
        drops.write(&path).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let mut reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 10).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (1, 8));
        assert_eq!(batch.column_by_name("threshold").unwrap().null_count(), 1);
    }
}
