//! Rows with keys as a distributed engine compares them: Parquet files of unsigned 64-bit numbers. The columns `key…` together
//! are the key, `order…` say which row of a key comes first, and `id`, the last, is what a row is known by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::Sink;
use crate::error::{Error, Result};

/// Rows that are held in memory.
const BATCH_ROWS: usize = 1 << 16;

/// A table under way, of `N` columns.
pub struct KeyTable<const N: usize> {
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<Sink>,
    columns: [Vec<u64>; N],
}

impl<const N: usize> KeyTable<N> {
    /// A table that appears at `path` on [`KeyTable::commit`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, columns: [&str; N]) -> Result<KeyTable<N>> {
        let fields: Vec<Field> = columns.map(|name| Field::new(name, DataType::UInt64, false)).into();
        let schema = Arc::new(Schema::new(fields));
        // Keys are random numbers, and most other columns nearly so.
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_compression(Compression::LZ4_RAW)
            .set_max_row_group_row_count(Some(BATCH_ROWS))
            .build();
        let writer = ArrowWriter::try_new(Sink::create(path)?, schema.clone(), Some(properties));
        let writer = writer.map_err(Error::parquet(path))?;
        Ok(KeyTable { path: path.to_owned(), schema, writer, columns: [const { Vec::new() }; N] })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, row: [u64; N]) -> Result<()> {
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value);
        }
        match self.columns.first().is_some_and(|column| column.len() == BATCH_ROWS) {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> Result<()> {
        let columns = self.columns.iter_mut().map(std::mem::take);
        let columns = columns.map(|column| Arc::new(UInt64Array::from(column)) as ArrayRef).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(Error::parquet(&self.path))?;
        self.writer.write(&batch).map_err(Error::parquet(&self.path))
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn commit(mut self) -> Result<()> {
        self.write()?;
        self.writer.into_inner().map_err(Error::parquet(&self.path))?.commit()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;

    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::engine::Pair;

    /// Names of the columns, and all rows of some tables.
    pub fn read(tables: &[PathBuf]) -> (Vec<String>, Vec<Vec<u64>>) {
        let (mut names, mut rows) = (Vec::new(), Vec::new());
        for table in tables {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(table).unwrap()).unwrap();
            names = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
            for batch in reader.build().unwrap() {
                let batch = batch.unwrap();
                let columns =
                    batch.columns().iter().map(|column| column.as_primitive::<UInt64Type>().values());
                let columns: Vec<_> = columns.collect();
                rows.extend((0..batch.num_rows()).map(|i| columns.iter().map(|column| column[i]).collect()));
            }
        }
        (names, rows)
    }

    /// The pairs that an engine finds in tables, in order.
    pub fn pairs(tables: &[PathBuf]) -> Vec<Pair> {
        let (names, mut rows) = read(tables);
        let n_keys = names.iter().filter(|name| name.starts_with("key")).count();
        rows.sort();
        let groups = rows.chunk_by(|a, b| a[..n_keys] == b[..n_keys]);
        let id = |row: &Vec<u64>| row[names.len() - 1];
        groups
            .flat_map(|group| group[1..].iter().map(|row| Pair { first: id(&group[0]), other: id(row) }))
            .collect()
    }

    #[test]
    fn rows_survive_the_disk_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.parquet");
        for n_rows in [0, 1, BATCH_ROWS as u64, BATCH_ROWS as u64 + 1] {
            let mut table = KeyTable::create(&path, ["key0", "id"]).unwrap();
            (0..n_rows).for_each(|i| table.push([u64::MAX - i, i]).unwrap());
            table.commit().unwrap();
            let (names, rows) = read(std::slice::from_ref(&path));
            assert_eq!(names, ["key0", "id"]);
            assert_eq!(rows, (0..n_rows).map(|i| vec![u64::MAX - i, i]).collect::<Vec<_>>());
        }
    }
}
