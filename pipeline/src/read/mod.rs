//! Readers turn a file into records. They never fail on bad content: a record that cannot be a
//! document comes out as [`Bad`] with its cause and place, and reading goes on after it. Only
//! the operating system's refusal is an error.

mod archive;
mod arrow_ipc;
mod cause;
pub mod charset;
mod codec;
mod columns;
mod csv;
mod dotted;
mod expansion;
mod fields;
#[cfg(feature = "html")]
mod furniture;
#[cfg(feature = "html")]
mod html;
#[cfg(not(feature = "html"))]
#[path = "without_html.rs"]
mod html;
mod input;
mod jsonl;
mod kept;
mod lines;
mod magic;
mod metadata;
mod object;
mod parquet;
pub mod peek;
mod record;
pub mod slice;
pub mod slicing;
mod sniff;
mod stream;
mod text;
mod values;
mod warc;
#[cfg(feature = "html")]
mod white_space;

use std::path::Path;

use serde::{Deserialize, Serialize};

use self::cause::Fault;
pub use self::cause::{Bad, Cause};
pub use self::charset::Charset;
pub use self::fields::FieldPaths;
pub use self::metadata::{MAX_TAG_BYTES, MetadataFields};
pub use self::slice::Slice;
use crate::document::OwnedMetadata;
use crate::error::Result;
use crate::guard;

/// Bytes of a bad record that the quarantine shows.
pub const FIRST_BYTES: usize = 120;

/// Format of an input file, before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, as a stream or as a file (Feather version 2).
    Arrow,
    /// WARC, and WET, which is WARC with text: one record a document.
    Warc,
    /// ARC, the format of crawls before WARC.
    Arc,
    /// One web page a file.
    Html,
    /// One document a file.
    Text,
    /// JSON objects that are elements of an array, or follow each other over several lines.
    Json,
    /// Rows of fields between commas, the first one their names.
    Csv,
    /// Rows of fields between tabs, the first one their names.
    Tsv,
}

/// What is known about a source's files before they are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The format; by content and name when absent.
    pub format: Option<Format>,
    /// The encoding of text; detected when absent.
    pub encoding: Option<Charset>,
}

impl From<Option<Format>> for Form {
    fn from(format: Option<Format>) -> Form {
        Form { format, encoding: None }
    }
}

/// Limits for one record and one compressed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest record, in bytes.
    pub max_doc_bytes: u64,
    /// How many times its size a file may expand to, beyond 64 MiB.
    pub max_expansion: u64,
    /// How far back a zstd stream may refer, in bytes, which is also the memory it takes.
    pub max_window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_doc_bytes: 10_000_000, max_expansion: 200, max_window_bytes: 128 << 20 }
    }
}

/// Unit of a record's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of the decompressed stream.
    Byte,
    /// Bytes of the compressed file: the start of a gzip member.
    FileByte,
    /// Rows.
    Row,
}

impl Unit {
    /// For people and for the quarantine.
    pub fn in_words(self) -> &'static str {
        match self {
            Unit::Byte => "byte",
            Unit::FileByte => "file byte",
            Unit::Row => "row",
        }
    }
}

/// A sequence of records.
pub trait Reader {
    /// The next record, or `None` at the end of the file.
    ///
    /// # Errors
    /// The operating system refused to read.
    fn next_record(&mut self) -> Result<Option<Record>>;

    /// Bytes of the file (as stored) consumed so far.
    fn consumed_bytes(&self) -> u64;

    /// Unit of its records' offsets.
    fn unit(&self) -> Unit {
        Unit::Byte
    }

    /// The file of an archive that the last record came from.
    fn member(&self) -> Option<&str> {
        None
    }

    /// Which fields with metadata the records had so far, as `FieldPaths::present` says; all if unknown.
    fn seen(&self) -> u8 {
        u8::MAX
    }
}

/// What a reader found at one position.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// Where it starts, in the unit of its reader.
    pub offset: u64,
    /// Bytes of the record: the line without its end, the text of a row or a file.
    pub n_bytes: u64,
    /// 1, or more if an unreadable stretch is known to hold several.
    pub n_records: u64,
    /// The document, or why there is none.
    pub content: std::result::Result<Raw, Bad>,
}

impl Record {
    /// One bad record.
    pub fn bad(offset: u64, n_bytes: u64, bad: Bad) -> Record {
        Record { offset, n_bytes, n_records: 1, content: Err(bad) }
    }
}

/// The fields of a document as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    /// Its name, if the recipe names a field for it or the format provides one.
    pub id: Option<String>,
    /// Its text, not empty; for a conversation, the JSON object of its fields.
    pub text: String,
    /// Value of the family field.
    pub family: Option<String>,
    /// Value of the variant field.
    pub variant: Option<String>,
    /// Its metadata.
    pub metadata: OwnedMetadata,
    /// Name of the encoding, if guessed.
    pub guessed: Option<&'static str>,
}

/// Opens a file, or a slice of it.
///
/// The format is detected from the contents unless `form` gives it, with the name (`.txt`, `.jsonl`, `.csv`) deciding where
/// the contents are ambiguous; everything else is text. `name` is the id of a document that is a whole file.
///
/// # Errors
/// The file cannot be opened.
pub fn open(
    path: &Path,
    name: &str,
    form: impl Into<Form>,
    slice: Slice,
    fields: &FieldPaths,
    limits: Limits,
) -> Result<Box<dyn Reader>> {
    let (form, max_doc_bytes) = (form.into(), limits.max_doc_bytes);
    if let Slice::Bytes { start, end } = slice {
        return Ok(Box::new(jsonl::JsonlReader::slice(path, start, end, fields.clone(), max_doc_bytes)?));
    }
    if let Slice::Batches(batches) = slice {
        return Ok(Box::new(arrow_ipc::ArrowReader::slice(path, batches, fields, limits)?));
    }
    if sniff::is_parquet(path, form.format)? {
        let file = input::RandomAccess::open(path)?;
        return Ok(Box::new(parquet::ParquetReader::open(path, file, slice, fields, limits)?));
    }
    let stream = stream::Stream::open(path, limits)?;
    let sniff::Sniffed { kind, stream } = sniff::sniff(stream, path, form)?;
    // For an object this is a request.
    let n_bytes = match kind {
        sniff::Kind::Format(Format::Warc) | sniff::Kind::Refused(_) => {
            input::RandomAccess::open(path)?.n_bytes(path)?
        }
        _ => 0,
    };
    let whole = Whole { name, n_bytes, form, fields, limits };
    match kind {
        sniff::Kind::Archive(archive) => archive::ArchiveReader::open(archive, path, stream, &whole),
        kind => Ok(whole.reader(kind, stream)),
    }
}

/// Why a file has no readable text, for people: what it is and what to do. `None` if it has.
///
/// # Errors
/// The file cannot be opened.
pub fn refusal(path: &Path, form: impl Into<Form>, limits: Limits) -> Result<Option<&'static str>> {
    let form = form.into();
    if sniff::is_parquet(path, form.format)? {
        return Ok(None);
    }
    let stream = stream::Stream::open(path, limits)?;
    Ok(match sniff::sniff(stream, path, form)?.kind {
        sniff::Kind::Refused(what) => Some(what),
        _ => None,
    })
}

/// A file, or a file in an archive, read from start to end.
struct Whole<'a> {
    /// As of [`open`].
    name: &'a str,
    /// Its size.
    n_bytes: u64,
    form: Form,
    fields: &'a FieldPaths,
    limits: Limits,
}

impl Whole<'_> {
    fn reader(&self, kind: sniff::Kind, stream: stream::Stream) -> Box<dyn Reader> {
        let Whole { name, n_bytes, form, fields, limits } = *self;
        let max_doc_bytes = limits.max_doc_bytes;
        let text = |stream, kind| {
            Box::new(text::TextReader::new(stream, name, form.encoding, fields, max_doc_bytes, kind))
        };
        let format = match kind {
            sniff::Kind::Format(format) => format,
            sniff::Kind::Refused(what) => return Box::new(text::Refused::new(name, n_bytes, what)),
            sniff::Kind::Archive(_) => {
                return Box::new(text::Refused::new(name, n_bytes, magic::NESTED));
            }
        };
        match format {
            Format::Arrow => Box::new(arrow_ipc::ArrowReader::new(stream, fields, limits)),
            Format::Arc => Box::new(warc::arc::ArcReader::new(stream, fields, limits)),
            Format::Warc => Box::new(warc::WarcReader::new(stream, n_bytes, fields, limits)),
            Format::Jsonl => Box::new(jsonl::JsonlReader::new(stream, fields.clone(), max_doc_bytes)),
            Format::Json => Box::new(values::JsonReader::new(stream, fields.clone(), max_doc_bytes)),
            Format::Csv => Box::new(csv::CsvReader::new(stream, b',', fields, max_doc_bytes)),
            Format::Tsv => Box::new(csv::CsvReader::new(stream, b'\t', fields, max_doc_bytes)),
            Format::Html => text(stream, text::Kind::Html),
            // The end of a compressed file cannot be read first.
            Format::Parquet => Box::new(text::Refused::new(name, n_bytes, magic::PACKED_PARQUET)),
            Format::Text => text(stream, text::Kind::Plain),
        }
    }
}
