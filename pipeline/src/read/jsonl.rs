//! JSON lines: one object a line. Blank lines are nothing; every other line is a record.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::lines::{Line, Lines};
use super::stream::Stream;
use super::{Bad, Cause, FieldPaths, Raw, Reader, Record};
use crate::error::Result;

pub(super) struct JsonlReader {
    lines: Lines,
    fields: FieldPaths,
    /// Keys of the objects in which the fields are.
    keys: Vec<String>,
    /// Lines that start behind this byte are not ours.
    end: u64,
    /// Whether the whole file may still turn out to have no record.
    may_be_empty: bool,
}

impl JsonlReader {
    pub fn new(stream: Stream, fields: FieldPaths, max_doc_bytes: u64) -> JsonlReader {
        let lines = Lines::new(stream, max_doc_bytes);
        JsonlReader { lines, keys: fields.keys(), fields, end: u64::MAX, may_be_empty: true }
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
        Ok(JsonlReader { lines, keys: fields.keys(), fields, end, may_be_empty: start == 0 })
    }

    fn content(&self, line: &Line) -> std::result::Result<Raw, Bad> {
        let bytes = self.lines.bytes();
        let parsed = match line.cause {
            Some(cause) => Err(cause),
            None => parse(bytes, Some(&self.keys)).and_then(|mut object| self.fields.extract(&mut object)),
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

/// The object on a line, with all its keys or only the `wanted` ones; the values of others are passed
/// over without being stored. Raw control characters inside strings, which JSON forbids but programs
/// write, are forgiven: normalisation removes them anyway.
pub(super) fn parse(line: &[u8], wanted: Option<&[String]>) -> std::result::Result<Value, Cause> {
    let text = std::str::from_utf8(line).map_err(|_| Cause::InvalidUtf8)?;
    match object(text, wanted) {
        Ok(object) => Ok(object),
        Err(_) if text.bytes().any(|b| b < 0x20) => {
            object(&without_raw_controls(text), wanted).map_err(|_| Cause::BadJson)
        }
        Err(_) => Err(Cause::BadJson),
    }
}

fn object(text: &str, wanted: Option<&[String]>) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object = Keys(wanted).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Value::Object(object))
}

/// Reads an object, and of it only these keys.
struct Keys<'a>(Option<&'a [String]>);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = access.next_key_seed(Key(self.0))? {
            match key {
                Some(key) => {
                    object.insert(key, access.next_value()?);
                }
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(object)
    }
}

/// Reads a key; `None` when it is not among these.
struct Key<'a>(Option<&'a [String]>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<Self::Value, E> {
        let is_wanted = self.0.is_none_or(|wanted| wanted.iter().any(|name| name == key));
        Ok(is_wanted.then(|| key.to_owned()))
    }
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
        assert_eq!(parse(br#"{"text":"a"}"#, None).unwrap()["text"], "a");
        assert_eq!(parse(b"{\"text\":\"a\0b\tc\\\"\x01\"}", None).unwrap()["text"], "ab\tc\"");
        assert_eq!(parse(br#"{"text":"\u0000a"}"#, None).unwrap()["text"], "\0a");
    }

    #[test]
    fn only_the_wanted_keys_are_stored_but_the_whole_line_is_checked() {
        let wanted = ["a".to_owned(), "m".to_owned()];
        let line = br#"{"a":"x\ny","b":[1,{"a":2}],"m":{"b":1},"c":"\"\u00e9","a":"z"}"#;
        let expected = serde_json::json!({"a": "z", "m": {"b": 1}});
        assert_eq!(parse(line, Some(&wanted)), Ok(expected));
        for line in [r#"{"a":1,"b":}"#, r#"{"a":1,"b":[}"#, r#"{"a":1} x"#, r#"{"a":1,"b":"x}"#, "[1]"] {
            assert_eq!(parse(line.as_bytes(), Some(&wanted)), Err(Cause::BadJson), "{line}");
        }
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
            assert_eq!(parse(line, None), Err(cause), "{line:?}");
        }
    }
}
