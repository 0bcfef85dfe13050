//! Plain text, Markdown and web pages: one document per file, named after its path below the listed one. Also files that hold no text.

use super::stream::Stream;
use super::{Bad, Cause, Charset, FIRST_BYTES, Fault, FieldPaths, Raw, Reader, Record, charset, html};
use crate::error::Result;

pub(super) struct TextReader {
    stream: Stream,
    name: String,
    encoding: Option<Charset>,
    max_doc_bytes: u64,
    /// A field of the recipe that a text file cannot have.
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
        encoding: Option<Charset>,
        fields: &FieldPaths,
        max_doc_bytes: u64,
        kind: Kind,
    ) -> TextReader {
        let lacking = fields.family.as_ref().map(|_| Cause::MissingFamily);
        TextReader { stream, name: name.to_owned(), encoding, max_doc_bytes, lacking, kind, done: false }
    }

    fn document(&self, bytes: &[u8]) -> std::result::Result<Raw, Fault> {
        let decoded = match self.kind {
            Kind::Plain => charset::text(bytes, self.encoding),
            Kind::Html => Some(charset::decode(bytes, "", self.encoding)),
        };
        let decoded = decoded.ok_or_else(|| Fault::new(Cause::InvalidUtf8, charset::advice(bytes)))?;
        let text = match self.kind {
            Kind::Plain => decoded.text.into_owned(),
            Kind::Html => html::text(&decoded.text)?,
        };
        // A byte order mark may be all there is.
        if text.is_empty() {
            return Err(Cause::EmptyText.into());
        }
        Ok(Raw { id: Some(self.name.clone()), text, guessed: decoded.guessed, ..Raw::default() })
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
            None => self.document(&bytes).map_err(|fault| fault.at(&bytes)),
        };
        Ok(Some(Record { offset: 0, n_bytes, n_records: 1, content }))
    }

    fn consumed_bytes(&self) -> u64 {
        self.stream.consumed_bytes()
    }
}

/// A file that holds no text: one skipped record.
pub(super) struct Refused {
    record: Option<Record>,
    n_bytes: u64,
}

impl Refused {
    /// `what` says what it is and what to do.
    pub fn new(name: &str, n_bytes: u64, what: &str) -> Refused {
        let bad = Bad { id: Some(name.to_owned()), ..Fault::new(Cause::UnreadableFormat, what).at(b"") };
        Refused { record: Some(Record::bad(0, n_bytes, bad)), n_bytes }
    }
}

impl Reader for Refused {
    fn next_record(&mut self) -> Result<Option<Record>> {
        Ok(self.record.take())
    }

    fn consumed_bytes(&self) -> u64 {
        self.n_bytes
    }
}
