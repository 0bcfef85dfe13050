//! Plain text, Markdown and web pages: one document a file, named after its place below the listed path.

use super::stream::Stream;
use super::{Bad, Cause, FIRST_BYTES, FieldPaths, Raw, Reader, Record, charset, html};
use crate::error::Result;

pub(super) struct TextReader {
    stream: Stream,
    name: String,
    max_doc_bytes: u64,
    /// A field that the recipe asks for and that a text file cannot have.
    lacking: Option<Cause>,
    kind: Kind,
    done: bool,
}

/// What the file is.
pub(super) enum Kind {
    Plain,
    Html,
}

impl TextReader {
    pub fn new(
        stream: Stream,
        name: &str,
        fields: &FieldPaths,
        max_doc_bytes: u64,
        kind: Kind,
    ) -> TextReader {
        let lacking = fields.family.as_ref().map(|_| Cause::MissingFamily);
        TextReader { stream, name: name.to_owned(), max_doc_bytes, lacking, kind, done: false }
    }

    fn text(&self, bytes: Vec<u8>) -> std::result::Result<String, Bad> {
        match self.kind {
            Kind::Plain => String::from_utf8(bytes).map_err(|e| Bad::new(Cause::InvalidUtf8, e.as_bytes())),
            Kind::Html => html::text(&charset::decode(&bytes, "")).map_err(|cause| Bad::new(cause, &bytes)),
        }
    }
}

impl Reader for TextReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut n_bytes = 0u64;
        let mut cause = None;
        loop {
            let part = match self.stream.fill()? {
                Ok([]) => break,
                Ok(part) => part,
                Err(damage) => {
                    cause = Some(damage);
                    break;
                }
            };
            n_bytes += part.len() as u64;
            if n_bytes <= self.max_doc_bytes {
                bytes.extend_from_slice(part);
            } else if cause.is_none() {
                cause = Some(Cause::TooLong);
                bytes.extend_from_slice(&part[..part.len().min(FIRST_BYTES)]);
                bytes.truncate(FIRST_BYTES);
            }
            let used = part.len();
            self.stream.consume(used);
        }
        let cause = cause.or(self.lacking).or((n_bytes == 0).then_some(Cause::EmptyFile));
        let content = match cause {
            Some(cause) => Err(Bad::new(cause, &bytes)),
            None => self.text(bytes).map(|text| Raw { id: Some(self.name.clone()), text, ..Raw::default() }),
        };
        Ok(Some(Record { offset: 0, n_bytes, n_records: 1, content }))
    }

    fn consumed_bytes(&self) -> u64 {
        self.stream.consumed_bytes()
    }
}
