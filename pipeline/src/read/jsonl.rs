//! JSON lines: one object a line. Blank lines are skipped; every other line is a record.

use std::path::Path;

use super::lines::{Line, Lines};
use super::object::{self, Wanted};
use super::stream::Stream;
use super::{Bad, Cause, Fault, FieldPaths, Raw, Reader, Record, record};
use crate::error::Result;

pub(super) struct JsonlReader {
    lines: Lines,
    objects: Objects,
    /// Lines that start after this byte belong to another slice.
    end: u64,
    /// Whether the file has had no record so far.
    may_be_empty: bool,
}

/// Makes documents from JSON objects.
pub(super) struct Objects {
    fields: FieldPaths,
    wanted: Wanted,
    /// Fields that were there, as [`FieldPaths::present`].
    pub seen: u8,
}

impl Objects {
    pub fn new(fields: FieldPaths) -> Objects {
        Objects { wanted: fields.wanted(), fields, seen: 0 }
    }

    /// The document in an object.
    pub fn document(&mut self, bytes: &[u8]) -> std::result::Result<Raw, Bad> {
        let document = object::parse(bytes, Some(&self.wanted)).and_then(|mut parsed| {
            self.seen |= self.fields.present(&mut parsed.object);
            let found = self.fields.extract(&mut parsed.object, &parsed.digits);
            // A conversation keeps the order of its keys, which templates write.
            let found = found.map(|raw| match parsed.sources.is_empty() {
                true => raw,
                false => Raw { text: record::of_sources(&parsed.sources), ..raw },
            });
            found.map_err(|cause| Fault::new(cause, parsed.note))
        });
        document.map_err(|fault| fault.at(bytes))
    }
}

impl JsonlReader {
    pub fn new(stream: Stream, fields: FieldPaths, max_doc_bytes: u64) -> JsonlReader {
        let lines = Lines::new(stream, max_doc_bytes);
        JsonlReader { lines, objects: Objects::new(fields), end: u64::MAX, may_be_empty: true }
    }

    /// The lines of a plain file that start in `start..end`.
    pub fn slice(
        path: &Path,
        start: u64,
        end: u64,
        fields: FieldPaths,
        max_doc_bytes: u64,
    ) -> Result<JsonlReader> {
        let lines = Lines::starting_in(path, start, end, max_doc_bytes)?;
        // Only the first slice reports an empty file.
        Ok(JsonlReader { lines, objects: Objects::new(fields), end, may_be_empty: start == 0 })
    }

    fn content(&mut self, line: &Line) -> std::result::Result<Raw, Bad> {
        match line.cause {
            Some(cause) => Err(Bad::new(cause, self.lines.bytes())),
            None => self.objects.document(self.lines.bytes()),
        }
    }
}

impl Reader for JsonlReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        // A first slice of blank lines reads on, to know whether the file has any other.
        while self.may_be_empty || self.lines.offset() < self.end {
            let Some(line) = self.lines.next_line()? else { break };
            if line.cause.is_none() && self.lines.bytes().iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.may_be_empty = false;
            if line.offset >= self.end {
                return Ok(None);
            }
            let content = self.content(&line);
            return Ok(Some(Record { offset: line.offset, n_bytes: line.n_bytes, n_records: 1, content }));
        }
        let empty = std::mem::replace(&mut self.may_be_empty, false);
        Ok(empty.then(|| Record::bad(0, 0, Bad::new(Cause::EmptyFile, b""))))
    }

    fn consumed_bytes(&self) -> u64 {
        self.lines.consumed_bytes()
    }

    fn seen(&self) -> u8 {
        self.objects.seen
    }
}
