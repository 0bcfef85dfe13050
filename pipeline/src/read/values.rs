//! JSON objects that are elements of an array, or follow each other over several lines: one record per object. They
//! are found by their brackets, so that an array of any length is read in bounded memory.

use serde_json::Value;

use super::jsonl::Objects;
use super::stream::Stream;
use super::{Bad, Cause, FIRST_BYTES, Fault, FieldPaths, Reader, Record, object};
use crate::error::Result;

pub(super) struct JsonReader {
    stream: Stream,
    objects: Objects,
    max_bytes: u64,
    offset: u64,
    value: Vec<u8>,
    /// Whether an array is open.
    in_array: bool,
    /// Damage that ended the value before.
    damage: Option<Cause>,
    ended: bool,
    /// Whether the file has had no record so far.
    may_be_empty: bool,
}

/// State of the scanner inside a value.
#[derive(Default)]
struct Scan {
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Reads the next byte; returns whether the value ends with it.
    fn step(&mut self, b: u8) -> bool {
        if self.in_string {
            let ends = b == b'"' && !self.escaped;
            self.escaped = b == b'\\' && !self.escaped;
            self.in_string = !ends;
            return ends && self.depth == 0;
        }
        match b {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => return false,
        }
        self.depth == 0 && !self.in_string
    }
}

impl JsonReader {
    pub fn new(stream: Stream, fields: FieldPaths, max_doc_bytes: u64) -> JsonReader {
        JsonReader {
            stream,
            objects: Objects::new(fields),
            max_bytes: max_doc_bytes,
            offset: 0,
            value: Vec::new(),
            in_array: false,
            damage: None,
            ended: false,
            may_be_empty: true,
        }
    }

    fn consume(&mut self, n: usize) {
        self.stream.consume(n);
        self.offset += n as u64;
    }

    /// Moves to the next value; `false` at the end and before damage.
    fn skip_separators(&mut self) -> Result<bool> {
        loop {
            let bytes = match self.stream.fill()? {
                Ok([]) => return Ok(false),
                Ok(bytes) => bytes,
                Err(damage) => {
                    self.damage = Some(damage);
                    return Ok(false);
                }
            };
            let is_separator = |b: u8| {
                b.is_ascii_whitespace() || matches!(b, b',' | b'[' | b']' | 0x1e | 0xef | 0xbb | 0xbf)
            };
            let n = bytes.iter().take_while(|b| is_separator(**b)).count();
            let bracket = bytes[..n].iter().rfind(|b| matches!(b, b'[' | b']')).copied();
            let is_value = n < bytes.len();
            self.in_array = bracket.map_or(self.in_array, |bracket| bracket == b'[');
            self.consume(n);
            if is_value {
                return Ok(true);
            }
        }
    }

    /// Reads the value that starts here; returns what is wrong with it.
    fn read_value(&mut self) -> Result<Option<Fault>> {
        let (mut scan, mut fault) = (Scan::default(), None);
        self.value.clear();
        let mut n_bytes = 0u64;
        loop {
            let bytes = match self.stream.fill()? {
                Ok([]) => {
                    // Said once is enough.
                    self.in_array = false;
                    let message = "the file ends inside of a value";
                    return Ok(Some(fault.unwrap_or_else(|| Fault::new(Cause::BadJson, message))));
                }
                Ok(bytes) => bytes,
                Err(damage) => return Ok(Some(damage.into())),
            };
            let mut ended = false;
            let end = bytes.iter().position(|b| {
                // A number or a word ends before the separator.
                let is_bare = scan.depth == 0 && !scan.in_string && n_bytes > 0;
                ended = is_bare && matches!(b, b',' | b']' | b'}' | b'\n' | b' ');
                ended || scan.step(*b) || {
                    n_bytes += 1;
                    false
                }
            });
            let used = end.map_or(bytes.len(), |end| if ended { end } else { end + 1 });
            if fault.is_none() {
                self.value.extend_from_slice(&bytes[..used]);
            }
            if fault.is_none() && self.value.len() as u64 > self.max_bytes {
                self.value.truncate(FIRST_BYTES);
                fault = Some(Cause::TooLong.into());
            }
            self.consume(used);
            if end.is_some() {
                return Ok(fault);
            }
        }
    }
}

/// The first objects, with all their fields.
pub(super) fn first_objects(stream: Stream, n: usize, max_doc_bytes: u64) -> Result<Vec<Value>> {
    let mut reader = JsonReader::new(stream, FieldPaths::default(), max_doc_bytes);
    let mut objects = Vec::new();
    for _ in 0..n {
        if !reader.skip_separators()? {
            break;
        }
        if reader.read_value()?.is_none()
            && let Ok(parsed) = object::parse(&reader.value, None)
        {
            objects.push(parsed.object);
        }
    }
    Ok(objects)
}

impl Reader for JsonReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        if self.skip_separators()? {
            self.may_be_empty = false;
            let start = self.offset;
            let fault = self.read_value()?;
            let content = match fault {
                Some(fault) => Err(fault.at(&self.value)),
                None => self.objects.document(&self.value),
            };
            let n_bytes = self.offset - start;
            return Ok(Some(Record { offset: start, n_bytes, n_records: 1, content }));
        }
        self.ended = true;
        let fault = match self.damage {
            Some(damage) => Fault::from(damage),
            None if self.in_array => Fault::new(Cause::TruncatedStream, "the array is not closed"),
            None if self.may_be_empty => Cause::EmptyFile.into(),
            None => return Ok(None),
        };
        let bad: Bad = fault.at(b"");
        Ok(Some(Record::bad(self.offset, 0, bad)))
    }

    fn consumed_bytes(&self) -> u64 {
        self.stream.consumed_bytes()
    }

    fn seen(&self) -> u8 {
        self.objects.seen
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Limits, Slice, open};
    use super::*;

    /// Texts and causes.
    fn check(bytes: &[u8], expected: &[std::result::Result<&str, Cause>]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let fields = FieldPaths { text: "text".into(), ..FieldPaths::default() };
        let limits = Limits { max_doc_bytes: 60, ..Limits::default() };
        let mut reader = open(file.path(), "n", Some(Format::Json), Slice::Whole, &fields, limits).unwrap();
        let found: Vec<Record> = std::iter::from_fn(|| reader.next_record().unwrap()).collect();
        let found: Vec<_> = found
            .iter()
            .map(|record| record.content.as_ref().map(|raw| raw.text.as_str()).map_err(|bad| bad.cause))
            .collect();
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn objects_are_found_by_their_brackets() {
        check(b"[{\"text\":\"a\"}, {\"text\":\"b]}\\\"\"}]\n", &[Ok("a"), Ok("b]}\"")]);
        check(
            b"\xef\xbb\xbf{\n \"text\": \"a\",\n \"m\": [{}, [1]]\n}\n{\"text\":\"b\"}",
            &[Ok("a"), Ok("b")],
        );
        let long = format!("[{{\"text\":\"{}\"}},{{\"text\":\"b\"}}]", "x".repeat(100));
        check(long.as_bytes(), &[Err(Cause::TooLong), Ok("b")]);
        check(
            b"[1, \"x\", null, {\"text\":\"a\"}]",
            &[Err(Cause::BadJson), Err(Cause::BadJson), Err(Cause::BadJson), Ok("a")],
        );
        check(b"[{\"text\":\"a\"},", &[Ok("a"), Err(Cause::TruncatedStream)]);
        check(b"[{\"text\":\"a\"},{\"text\":\"b", &[Ok("a"), Err(Cause::BadJson)]);
        check(b"[]", &[Err(Cause::EmptyFile)]);
        check(b"}", &[Err(Cause::BadJson)]);
        check(b"", &[Err(Cause::EmptyFile)]);
    }
}
