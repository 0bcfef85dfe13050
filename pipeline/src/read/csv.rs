//! CSV and TSV (RFC 4180): one record a row, the first row names the fields. Quoted fields may hold line ends. Memory is bounded:
//! a row over the limit is measured and skipped, never stored.

use std::collections::BTreeSet;

use csv_core::{ReadRecordResult, ReaderBuilder};
use serde_json::{Map, Number, Value};

use super::stream::Stream;
use super::{Bad, Cause, FIRST_BYTES, Fault, FieldPaths, Raw, Reader, Record, charset};
use crate::error::Result;

/// A row with more fields is not a table of texts.
const MAX_FIELDS: usize = 1 << 14;
/// Room for a row at first.
const ROW_BYTES: usize = 1 << 12;

pub(super) struct CsvReader {
    rows: Rows,
    fields: FieldPaths,
    names: Option<Vec<String>>,
    seen: u8,
    /// Whether the file has had no record so far.
    may_be_empty: bool,
}

/// Splits a stream into rows.
struct Rows {
    stream: Stream,
    parser: csv_core::Reader,
    max_bytes: u64,
    offset: u64,
    /// Fields of the row, one after another, and their ends.
    row: Vec<u8>,
    ends: Vec<usize>,
    n_fields: usize,
    ended: bool,
}

/// A row, or what is wrong with it.
struct Row {
    offset: u64,
    n_bytes: u64,
    cause: Option<Cause>,
}

impl Rows {
    fn next_row(&mut self) -> Result<Option<Row>> {
        if self.ended {
            return Ok(None);
        }
        self.skip_line_ends()?;
        let start = self.offset;
        let (mut made, mut cause, mut n_quotes) = (0usize, None, 0);
        self.n_fields = 0;
        loop {
            let (input, damage) = match self.stream.fill()? {
                Ok(input) => (input, None),
                Err(damage) => (&[][..], Some(damage)),
            };
            if let Some(damage) = damage {
                self.ended = true;
                self.row.truncate(made);
                return Ok(Some(Row { offset: start, n_bytes: self.offset - start, cause: Some(damage) }));
            }
            let (result, used, wrote, ends) =
                self.parser.read_record(input, &mut self.row[made..], &mut self.ends[self.n_fields..]);
            made += wrote;
            self.n_fields += ends;
            n_quotes += memchr::memchr_iter(b'"', &input[..used]).count();
            let is_end = input.is_empty();
            self.stream.consume(used);
            self.offset += used as u64;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull
                    if cause.is_none() && (self.row.len() as u64) <= self.max_bytes =>
                {
                    self.row.resize(self.row.len() * 2, 0);
                }
                ReadRecordResult::OutputFull => {
                    // Only the first bytes are kept; the rest is overwritten.
                    cause = Some(Cause::TooLong);
                    made = FIRST_BYTES;
                }
                ReadRecordResult::OutputEndsFull => {
                    cause = cause.or(Some(Cause::BadCsv));
                    self.n_fields = 0;
                }
                ReadRecordResult::Record => {
                    let n_bytes = self.offset - start;
                    if made as u64 > self.max_bytes {
                        cause = cause.or(Some(Cause::TooLong));
                    }
                    // The file ends inside quotes, which may hold many rows.
                    if is_end && n_quotes % 2 == 1 {
                        cause = cause.or(Some(Cause::BadCsv));
                    }
                    return Ok(Some(Row { offset: start, n_bytes, cause }));
                }
                ReadRecordResult::End => {
                    self.ended = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Moves to the first byte of a row.
    fn skip_line_ends(&mut self) -> Result<()> {
        loop {
            let n = match self.stream.fill()? {
                Ok(bytes) => bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count(),
                Err(_) => 0,
            };
            if n == 0 {
                return Ok(());
            }
            self.stream.consume(n);
            self.offset += n as u64;
        }
    }

    fn field(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.row[start..self.ends[i]]
    }

    /// The first bytes of the parsed row, with fields joined.
    fn first_bytes(&self) -> Vec<u8> {
        let end = self.n_fields.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.row[..end.min(FIRST_BYTES).min(self.row.len())].to_vec()
    }
}

impl CsvReader {
    pub fn new(stream: Stream, delimiter: u8, fields: &FieldPaths, max_doc_bytes: u64) -> CsvReader {
        let rows = Rows {
            stream,
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            max_bytes: max_doc_bytes,
            offset: 0,
            row: vec![0; ROW_BYTES],
            ends: vec![0; MAX_FIELDS],
            n_fields: 0,
            ended: false,
        };
        CsvReader { rows, fields: fields.clone(), names: None, seen: 0, may_be_empty: true }
    }

    /// Names of the fields, if the first row can be read.
    pub fn field_names(stream: Stream, delimiter: u8, max_doc_bytes: u64) -> Result<BTreeSet<String>> {
        let mut reader = CsvReader::new(stream, delimiter, &FieldPaths::default(), max_doc_bytes);
        reader.read_names()?;
        Ok(reader.names.unwrap_or_default().into_iter().collect())
    }

    /// Reads the header; an error in it becomes the first record.
    fn read_names(&mut self) -> Result<Option<Record>> {
        let Some(row) = self.rows.next_row()? else { return Ok(None) };
        let rows = &self.rows;
        let names = (0..rows.n_fields).map(|i| String::from_utf8_lossy(rows.field(i)).trim().to_owned());
        self.names = Some(names.collect());
        let bad = |cause| Record::bad(row.offset, row.n_bytes, Bad::new(cause, &rows.first_bytes()));
        Ok(row.cause.map(bad))
    }

    fn document(&mut self, cause: Option<Cause>) -> std::result::Result<Raw, Fault> {
        match cause {
            Some(Cause::BadCsv) => {
                return Err(Fault::new(
                    Cause::BadCsv,
                    "a quote is not closed, or there are more than 16384 fields",
                ));
            }
            Some(cause) => return Err(cause.into()),
            None => {}
        }
        let (rows, names) = (&self.rows, self.names.as_deref().unwrap_or_default());
        if rows.n_fields != names.len() {
            let message = format!("{} fields, but the header names {}", rows.n_fields, names.len());
            return Err(Fault::new(Cause::BadCsv, message));
        }
        let (keys, numbers) = (self.fields.keys(), self.fields.metadata.numbers());
        let mut object = Map::new();
        for (i, name) in names.iter().enumerate().filter(|(_, name)| keys.contains(name)) {
            let field = rows.field(i);
            let text = std::str::from_utf8(field).map_err(|_| {
                Fault::new(Cause::InvalidUtf8, format!("field `{name}`: {}", charset::advice(field)))
            })?;
            let number = || text.trim().parse().ok().and_then(Number::from_f64).map(Value::Number);
            let value = match text.is_empty() && *name != self.fields.text {
                true => Value::Null,
                false => {
                    numbers.contains(&name.as_str()).then(number).flatten().unwrap_or_else(|| text.into())
                }
            };
            object.insert(name.clone(), value);
        }
        let mut object = Value::Object(object);
        self.seen |= self.fields.present(&mut object);
        Ok(self.fields.extract(&mut object, &[])?)
    }
}

impl Reader for CsvReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        if self.names.is_none()
            && let Some(bad) = self.read_names()?
        {
            self.may_be_empty = false;
            return Ok(Some(bad));
        }
        let Some(row) = self.rows.next_row()? else {
            let is_empty = std::mem::replace(&mut self.may_be_empty, false);
            return Ok(is_empty.then(|| Record::bad(0, 0, Bad::new(Cause::EmptyFile, b""))));
        };
        self.may_be_empty = false;
        let content = self.document(row.cause).map_err(|fault| fault.at(&self.rows.first_bytes()));
        Ok(Some(Record { offset: row.offset, n_bytes: row.n_bytes, n_records: 1, content }))
    }

    fn consumed_bytes(&self) -> u64 {
        self.rows.stream.consumed_bytes()
    }

    fn seen(&self) -> u8 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Limits, MetadataFields, Slice, open};
    use super::*;

    fn records(bytes: &[u8]) -> Vec<Record> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let fields = FieldPaths {
            id: Some("id".into()),
            text: "text".into(),
            metadata: MetadataFields { score: Some("score".into()), ..MetadataFields::default() },
            ..FieldPaths::default()
        };
        let limits = Limits { max_doc_bytes: 5000, ..Limits::default() };
        let mut reader = open(file.path(), "n", Some(Format::Csv), Slice::Whole, &fields, limits).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).collect()
    }

    #[test]
    fn rows_become_records() {
        let long = "x".repeat(6000);
        let table = format!(
            "\u{feff}id,score,text\r\n001,0.5,\"two\nlines, \"\"quoted\"\"\"\n2,,é\n3,x,bad score\n4\n5,1,\n6,1,{long}\n7,1,\"open"
        );
        let found = records(table.as_bytes());
        let one = found[0].content.clone().unwrap();
        assert_eq!((one.id.as_deref(), one.text.as_str()), (Some("001"), "two\nlines, \"quoted\""));
        assert_eq!(one.metadata.score, Some(0.5));
        assert_eq!(found[1].content.clone().unwrap().metadata.score, None);
        let causes: Vec<Cause> = found[2..6].iter().map(|r| r.content.clone().unwrap_err().cause).collect();
        assert_eq!(causes, [Cause::BadScore, Cause::BadCsv, Cause::EmptyText, Cause::TooLong]);
        assert_eq!(found[6].content.clone().unwrap_err().cause, Cause::BadCsv);
        assert_eq!(&table.as_bytes()[found[1].offset as usize..][..2], b"2,");
        assert_eq!(records(b"")[0].content.clone().unwrap_err().cause, Cause::EmptyFile);
        assert_eq!(records(b"id,text\n").len(), 1);
    }
}
