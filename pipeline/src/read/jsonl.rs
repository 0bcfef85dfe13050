//! JSON lines: one object a line. Blank lines are nothing; every other line is a record.

use std::path::Path;

use serde_json::Value;

use super::lines::{Line, Lines};
use super::stream::Stream;
use super::{Bad, Cause, FieldPaths, Raw, Reader, Record};
use crate::error::Result;

pub(super) struct JsonlReader {
    lines: Lines,
    fields: FieldPaths,
    /// Lines that start behind this byte are not ours.
    end: u64,
    /// Whether the whole file may still turn out to have no record.
    may_be_empty: bool,
}

impl JsonlReader {
    pub fn new(stream: Stream, fields: FieldPaths, max_doc_bytes: u64) -> JsonlReader {
        JsonlReader { lines: Lines::new(stream, max_doc_bytes), fields, end: u64::MAX, may_be_empty: true }
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
        // That a file holds nothing is said by its first slice alone.
        Ok(JsonlReader { lines, fields, end, may_be_empty: start == 0 })
    }

    fn content(&self, line: &Line) -> std::result::Result<Raw, Bad> {
        let bytes = self.lines.bytes();
        let parsed = match line.cause {
            Some(cause) => Err(cause),
            None => parse(bytes).and_then(|mut object| self.fields.extract(&mut object)),
        };
        parsed.map_err(|cause| Bad::new(cause, bytes))
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
        let bad =
            || Record { offset: 0, n_bytes: 0, n_records: 1, content: Err(Bad::new(Cause::EmptyFile, b"")) };
        Ok(empty.then(bad))
    }

    fn consumed_bytes(&self) -> u64 {
        self.lines.consumed_bytes()
    }
}

/// The object on a line. Raw control characters inside strings, which JSON forbids but programs
/// write, are forgiven: normalisation removes them anyway.
pub(super) fn parse(line: &[u8]) -> std::result::Result<Value, Cause> {
    let text = std::str::from_utf8(line).map_err(|_| Cause::InvalidUtf8)?;
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.bytes().any(|b| b < 0x20) => {
            serde_json::from_str(&without_raw_controls(text)).map_err(|_| Cause::BadJson)?
        }
        Err(_) => return Err(Cause::BadJson),
    };
    if value.is_object() { Ok(value) } else { Err(Cause::BadJson) }
}

/// Tabs inside strings are escaped, other control characters dropped.
fn without_raw_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            '\t' if in_string => out.push_str("\\t"),
            '\0'..'\x20' if in_string || c == '\0' => continue,
            _ => out.push(c),
        }
        in_string ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_objects() {
        assert_eq!(parse(br#"{"text":"a"}"#).unwrap()["text"], "a");
        assert_eq!(parse(b"{\"text\":\"a\0b\tc\\\"\x01\"}").unwrap()["text"], "ab\tc\"");
        assert_eq!(parse(br#"{"text":"\u0000a"}"#).unwrap()["text"], "\0a");
    }

    #[test]
    fn lines_that_are_not() {
        for (line, cause) in [
            (&br#"{"text":"a""#[..], Cause::BadJson),
            (b"[1]", Cause::BadJson),
            (b"\"text\"", Cause::BadJson),
            (br#"{"text":"\ud800"}"#, Cause::BadJson),
            (b"{\"text\":\"\xff\"}", Cause::InvalidUtf8),
        ] {
            assert_eq!(parse(line), Err(cause), "{line:?}");
        }
    }
}
