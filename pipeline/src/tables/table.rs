//! A Parquet file of the audit, written batch by batch. It appears whole or not at all, and only if it has a row.

use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;

use super::Sink;
use super::documents::properties;
use crate::error::{Error, Result};

/// A file under way.
pub(crate) struct Table {
    path: PathBuf,
    writer: Option<ArrowWriter<Sink>>,
}

impl Table {
    /// A table that appears at `path` on [`Table::finish`].
    pub fn new(path: &Path) -> Table {
        Table { path: path.to_owned(), writer: None }
    }

    /// Appends rows: for each column its name, its values, and whether some may be absent. All batches have the same
    /// columns.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(&mut self, columns: impl IntoIterator<Item = (&'static str, ArrayRef, bool)>) -> Result<()> {
        let path = &self.path;
        let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(Error::parquet(path))?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => ArrowWriter::try_new(Sink::create(path)?, batch.schema(), Some(properties()))
                .map_err(Error::parquet(path))?,
        };
        writer.write(&batch).map_err(Error::parquet(path))?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Makes the file appear; false when it has no rows.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(self) -> Result<bool> {
        let Some(writer) = self.writer else { return Ok(false) };
        writer.into_inner().map_err(Error::parquet(&self.path))?.commit()?;
        Ok(true)
    }
}
