//! Reads the audit tables of a build: rows that match, as JSON, whatever columns a table has.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, UInt8Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A row by its columns.
pub type AuditRow = Map<String, Value>;

/// Calls `see` with each row of the tables whose names start with `prefix`, if every column in `wanted` has its
/// value.
///
/// # Errors
/// A table cannot be read.
pub fn for_each(
    out: &Path,
    prefix: &str,
    wanted: &[(&str, &str)],
    mut see: impl FnMut(AuditRow),
) -> Result<()> {
    for path in tables(&out.join("audit"), prefix)? {
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(Error::parquet(&path))?;
        for batch in builder.build().map_err(Error::parquet(&path))? {
            let batch = batch.map_err(Error::parquet(&path))?;
            for row in (0..batch.num_rows())
                .filter(|&row| wanted.iter().all(|(c, v)| text(&batch, c, row) == Some(v)))
            {
                let columns = batch.schema();
                let names = columns.fields().iter().map(|field| field.name());
                see(names
                    .zip(batch.columns())
                    .map(|(name, column)| (name.clone(), value(column, row)))
                    .collect());
            }
        }
    }
    Ok(())
}

/// The rows of [`for_each`].
///
/// # Errors
/// As [`for_each`].
pub fn rows(out: &Path, prefix: &str, wanted: &[(&str, &str)]) -> Result<Vec<AuditRow>> {
    let mut rows = Vec::new();
    for_each(out, prefix, wanted, |row| rows.push(row))?;
    Ok(rows)
}

/// Tables in order of their names; none if nothing was dropped.
fn tables(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        let path = entry.map_err(Error::io(folder, "read"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".parquet") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let column = batch.column_by_name(column)?.as_string_opt::<i32>()?;
    (!column.is_null(row)).then(|| column.value(row))
}

/// Types that audit tables do not have become null.
fn value(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        _ => Value::Null,
    }
}

/// A text column of a row; empty where it is absent.
pub fn str_of<'a>(row: &'a AuditRow, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}
