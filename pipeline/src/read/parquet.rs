//! Parquet: one record a row. Only the columns that the recipe names are decoded.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Bad, Cause, FieldPaths, Raw, Reader, Record};
use crate::error::{Error, Result};

/// Rows decoded at a time: texts of the longest allowed size still fit in memory.
const BATCH_ROWS: usize = 256;

pub(super) struct ParquetReader {
    fields: FieldPaths,
    max_doc_bytes: u64,
    file_bytes: u64,
    n_rows: u64,
    /// Rows handed out or given up.
    row: u64,
    state: State,
}

enum State {
    Reading(Box<Reading>),
    /// Nothing can be read: the cause comes out once.
    Broken(Cause),
    Done,
}

struct Reading {
    batches: ParquetRecordBatchReader,
    columns: Columns,
    /// Row in the columns.
    at: usize,
}

/// The wanted columns of one batch, as text.
#[derive(Default)]
struct Columns {
    n_rows: usize,
    id: Option<LargeStringArray>,
    text: Option<LargeStringArray>,
    text_is_string: bool,
    family: Option<LargeStringArray>,
    variant: Option<LargeStringArray>,
}

impl ParquetReader {
    pub fn open(path: &Path, file: File, fields: &FieldPaths, max_doc_bytes: u64) -> Result<ParquetReader> {
        let file_bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut reader = ParquetReader {
            fields: fields.clone(),
            max_doc_bytes,
            file_bytes,
            n_rows: 0,
            row: 0,
            state: State::Broken(if file_bytes == 0 { Cause::EmptyFile } else { Cause::CorruptParquet }),
        };
        let Ok(builder) = ParquetRecordBatchReaderBuilder::try_new(file) else { return Ok(reader) };
        reader.n_rows = builder.metadata().file_metadata().num_rows().max(0) as u64;
        if reader.n_rows == 0 {
            reader.state = State::Broken(Cause::EmptyFile);
            return Ok(reader);
        }
        let wanted: Vec<&str> = fields.names().map(|name| name.split('.').next().unwrap_or(name)).collect();
        let roots: Vec<usize> = (builder.schema().fields().iter().enumerate())
            .filter(|(_, field)| {
                wanted.contains(&field.name().as_str()) || fields.names().any(|n| n == field.name())
            })
            .map(|(i, _)| i)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        if let Ok(batches) = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build() {
            reader.state = State::Reading(Box::new(Reading { batches, columns: Columns::default(), at: 0 }));
        }
        Ok(reader)
    }

    /// Gives up the rest of the file: its rows are counted, since the footer says how many there are.
    fn broken(&mut self, cause: Cause) -> Record {
        let n_records = (self.n_rows - self.row).max(1);
        // Nothing could be read: the whole file is the record. Else its size is unknown.
        let n_bytes = if self.row == 0 { self.file_bytes } else { 0 };
        let record = Record { offset: self.row, n_bytes, n_records, content: Err(Bad::new(cause, b"")) };
        self.row = self.n_rows;
        self.state = State::Done;
        record
    }
}

impl Reader for ParquetReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            let State::Reading(reading) = &mut self.state else {
                return Ok(match self.state {
                    State::Broken(cause) => Some(self.broken(cause)),
                    _ => None,
                });
            };
            let Reading { batches, columns, at } = reading.as_mut();
            if *at < columns.n_rows {
                let content = columns.row(*at, &self.fields, self.max_doc_bytes);
                let n_bytes = columns.text_bytes(*at);
                *at += 1;
                let record = Record { offset: self.row, n_bytes, n_records: 1, content };
                self.row += 1;
                return Ok(Some(record));
            }
            match batches.next().map(|batch| batch.map(|batch| Columns::of(&batch, &self.fields))) {
                Some(Ok(next)) => (*columns, *at) = (next, 0),
                None if self.row >= self.n_rows => self.state = State::Done,
                // A batch failed, or the file holds fewer rows than its footer says.
                Some(Err(_)) | None => return Ok(Some(self.broken(Cause::CorruptParquet))),
            }
        }
    }

    fn consumed_bytes(&self) -> u64 {
        (self.file_bytes as f64 * (self.row as f64 / self.n_rows.max(1) as f64)) as u64
    }
}

impl Columns {
    fn of(batch: &RecordBatch, fields: &FieldPaths) -> Columns {
        let column = |path: &str| find(batch, path);
        let text = column(&fields.text);
        Columns {
            n_rows: batch.num_rows(),
            id: fields.id.as_deref().and_then(column).and_then(as_text),
            text_is_string: text.as_ref().is_some_and(|column| is_string(column.data_type())),
            text: text.and_then(as_text),
            family: fields.family.as_deref().and_then(column).and_then(as_text),
            variant: fields.variant.as_deref().and_then(column).and_then(as_text),
        }
    }

    fn text_bytes(&self, row: usize) -> u64 {
        value(&self.text, row).map_or(0, |text| text.len() as u64)
    }

    fn row(&self, row: usize, fields: &FieldPaths, max_doc_bytes: u64) -> std::result::Result<Raw, Bad> {
        let name = |wanted: &Option<String>, column: &Option<LargeStringArray>, missing| match wanted {
            None => Ok(None),
            Some(_) => value(column, row).map(|v| Some(v.to_owned())).ok_or(missing),
        };
        let text = value(&self.text, row);
        let fields = || {
            let text = match text {
                None => return Err(Cause::MissingText),
                Some(_) if !self.text_is_string => return Err(Cause::TextNotAString),
                Some("") => return Err(Cause::EmptyText),
                Some(text) if text.len() as u64 > max_doc_bytes => return Err(Cause::TooLong),
                Some(text) => text.to_owned(),
            };
            Ok(Raw {
                id: name(&fields.id, &self.id, Cause::MissingId)?,
                text,
                family: name(&fields.family, &self.family, Cause::MissingFamily)?,
                variant: name(&fields.variant, &self.variant, Cause::MissingVariant)?,
            })
        };
        fields().map_err(|cause| Bad::new(cause, text.unwrap_or_default().as_bytes()))
    }
}

fn value(column: &Option<LargeStringArray>, row: usize) -> Option<&str> {
    column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

fn is_string(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_string(values),
        _ => false,
    }
}

/// A column of any type that has a textual form.
fn as_text(column: ArrayRef) -> Option<LargeStringArray> {
    cast(&column, &DataType::LargeUtf8).ok()?.as_string_opt::<i64>().cloned()
}

/// The column at a dotted path; a column whose own name holds dots is found first.
fn find(batch: &RecordBatch, path: &str) -> Option<ArrayRef> {
    if let Some(column) = batch.column_by_name(path) {
        return Some(column.clone());
    }
    let mut steps = path.split('.');
    let mut column = batch.column_by_name(steps.next()?)?.clone();
    for step in steps {
        column = column.as_struct_opt()?.column_by_name(step)?.clone();
    }
    Some(column)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, StructArray};
    use arrow::datatypes::Field;
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn records(bytes: &[u8]) -> Vec<Record> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let fields =
            FieldPaths { id: Some("meta.id".into()), text: "text".into(), family: None, variant: None };
        let opened = File::open(file.path()).unwrap();
        let mut reader = ParquetReader::open(file.path(), opened, &fields, 5).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).collect()
    }

    fn sample() -> Vec<u8> {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4)]));
        let meta = StructArray::from(vec![(Arc::new(Field::new("id", DataType::Int64, true)), ids)]);
        let text = StringArray::from(vec![Some("one"), None, Some("three"), Some("far too long")]);
        let batch = RecordBatch::try_from_iter([
            ("meta", Arc::new(meta) as ArrayRef),
            ("unread", Arc::new(Int64Array::from(vec![0; 4])) as ArrayRef),
            ("text", Arc::new(text) as ArrayRef),
        ])
        .unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn rows_become_records() {
        let found = records(&sample());
        let one = Raw { id: Some("1".into()), text: "one".into(), ..Raw::default() };
        assert_eq!(found[0], Record { offset: 0, n_bytes: 3, n_records: 1, content: Ok(one) });
        let causes: Vec<_> =
            found[1..].iter().map(|r| (r.offset, r.content.clone().unwrap_err().cause)).collect();
        assert_eq!(causes, [(1, Cause::MissingText), (2, Cause::MissingId), (3, Cause::TooLong)]);
    }

    #[test]
    fn a_cut_file_is_one_bad_record_and_an_empty_one_is_named() {
        let bytes = sample();
        let cut = records(&bytes[..bytes.len() - 9]);
        assert_eq!(cut.len(), 1);
        assert_eq!(cut[0].n_bytes, bytes.len() as u64 - 9);
        assert_eq!(cut[0].content.clone().unwrap_err().cause, Cause::CorruptParquet);
        assert_eq!(records(b"")[0].content.clone().unwrap_err().cause, Cause::EmptyFile);
    }
}
