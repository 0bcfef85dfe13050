//! The audit of deduplication: one Parquet row for every duplicate with the document that stands for it.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringBuilder, UInt32Builder, UInt64Builder};

use crate::error::Result;
use crate::tables::table::Table;

/// Rows that are written together.
const BATCH_ROWS: usize = 8192;

/// A duplicate.
#[derive(Clone, Copy, Debug)]
pub struct NearDuplicate<'a> {
    /// Its name in its source.
    pub removed: &'a str,
    /// Its source.
    pub removed_source: &'a str,
    /// Name of the document that stands for it; empty when none is kept.
    pub kept: &'a str,
    /// Its source.
    pub kept_source: &'a str,
    /// Folder of the other build that the kept document is in, as the user named it; absent when it is in this build.
    pub against: Option<&'a str>,
    /// `exact` or `minhash` for a removed document, `variant_copy` for a declared variant that stays.
    pub method: &'a str,
    /// Jaccard index of the two sets of shingles; absent when they were not compared.
    pub jaccard: Option<f64>,
    /// Bytes of its normalized text, where fuzzy deduplication removed it.
    pub removed_bytes: Option<u32>,
    /// Bytes of the other's.
    pub kept_bytes: Option<u32>,
    /// Number of the cluster; absent for a variant copy and for exact duplicates.
    pub cluster: Option<u64>,
}

/// Writes the table; no file appears when there are no rows.
pub struct NearDuplicates {
    table: Table,
    n_rows: usize,
    text: [StringBuilder; 5],
    against: StringBuilder,
    jaccard: Float64Builder,
    bytes: [UInt32Builder; 2],
    cluster: UInt64Builder,
}

impl NearDuplicates {
    /// A table that appears at `path` on [`NearDuplicates::finish`].
    pub fn create(path: &Path) -> NearDuplicates {
        NearDuplicates {
            table: Table::new(path),
            n_rows: 0,
            text: Default::default(),
            against: StringBuilder::new(),
            jaccard: Float64Builder::new(),
            bytes: Default::default(),
            cluster: UInt64Builder::new(),
        }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// A write fails.
    pub fn append(&mut self, row: &NearDuplicate<'_>) -> Result<()> {
        let values = [row.removed, row.removed_source, row.kept, row.kept_source, row.method];
        self.text.iter_mut().zip(values).for_each(|(column, value)| column.append_value(value));
        self.against.append_option(row.against);
        self.jaccard.append_option(row.jaccard);
        let values = [row.removed_bytes, row.kept_bytes];
        self.bytes.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
        self.cluster.append_option(row.cluster);
        self.n_rows += 1;
        if self.n_rows == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let names = ["removed", "removed_source", "kept", "kept_source", "method"];
        let mut columns: Vec<(&'static str, ArrayRef, bool)> = Vec::new();
        for (name, column) in names.into_iter().zip(&mut self.text) {
            columns.push((name, Arc::new(column.finish()), false));
        }
        columns.push(("jaccard", Arc::new(self.jaccard.finish()), true));
        for (name, column) in ["removed_bytes", "kept_bytes"].into_iter().zip(&mut self.bytes) {
            columns.push((name, Arc::new(column.finish()), true));
        }
        columns.push(("cluster", Arc::new(self.cluster.finish()), true));
        columns.push(("against", Arc::new(self.against.finish()), true));
        self.n_rows = 0;
        self.table.write(columns)
    }

    /// Makes the table appear; false when it has no rows.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(mut self) -> Result<bool> {
        if self.n_rows > 0 {
            self.flush()?;
        }
        self.table.finish()
    }
}
