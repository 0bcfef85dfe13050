//! Readers turn a file into records. They never fail on bad content: a record that cannot be a
//! document comes out as [`Bad`] with its cause and place, and reading goes on behind it. Only
//! the operating system's refusal is an error.

mod arrow_ipc;
mod charset;
mod codec;
mod expansion;
mod fields;
mod html;
mod input;
mod jsonl;
mod lines;
mod metadata;
mod parquet;
pub mod peek;
pub mod slice;
mod sniff;
mod stream;
mod text;
mod warc;

use std::path::Path;

use serde::{Deserialize, Serialize};

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
    /// One web page a file.
    Html,
    /// One document a file.
    Text,
}

/// What one record, and one compressed file, may ask of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest record, in bytes.
    pub max_doc_bytes: u64,
    /// How many times its bytes a file may be decoded to, from 64 MiB on.
    pub max_expansion: u64,
    /// How far back a zstd stream may refer, in bytes: so much memory it takes.
    pub max_window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_doc_bytes: 10_000_000, max_expansion: 200, max_window_bytes: 128 << 20 }
    }
}

/// What the offset of a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of the decompressed stream.
    Byte,
    /// Bytes of the file as it lies there, compressed: the start of a gzip member.
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

    /// Bytes of the file (as it lies on the disk) that have been consumed.
    fn consumed_bytes(&self) -> u64;

    /// What the offsets of its records count.
    fn unit(&self) -> Unit {
        Unit::Byte
    }
}

/// What a reader found at one place.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// Where it starts, in the unit of its reader.
    pub offset: u64,
    /// Bytes of the record: the line without its end, the text of a row or a file.
    pub n_bytes: u64,
    /// 1, or more where an unreadable stretch is known to hold several.
    pub n_records: u64,
    /// The document, or why there is none.
    pub content: std::result::Result<Raw, Bad>,
}

/// The fields of a document as they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    /// Its name, when the recipe names a field for it or the format brings one.
    pub id: Option<String>,
    /// Its text, not empty.
    pub text: String,
    /// Value of the family field.
    pub family: Option<String>,
    /// Value of the variant field.
    pub variant: Option<String>,
    /// What the record says beside the text.
    pub metadata: OwnedMetadata,
}

/// A record that is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Why.
    pub cause: Cause,
    /// The first [`FIRST_BYTES`] bytes of the record.
    pub first_bytes: Vec<u8>,
}

impl Bad {
    /// A bad record that starts with `bytes`.
    pub fn new(cause: Cause, bytes: &[u8]) -> Bad {
        Bad { cause, first_bytes: bytes[..bytes.len().min(FIRST_BYTES)].to_vec() }
    }
}

/// Why a record is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The line is not a JSON object.
    BadJson,
    /// The bytes are not UTF-8.
    InvalidUtf8,
    /// Longer than `limits.max_doc_bytes`.
    TooLong,
    /// No text field.
    MissingText,
    /// The text field holds something else than text.
    TextNotAString,
    /// The text is empty, or nothing is left of it after normalisation.
    EmptyText,
    /// No id field, though the recipe names one.
    MissingId,
    /// No family field, though the recipe names one.
    MissingFamily,
    /// No variant field, though the recipe names one.
    MissingVariant,
    /// A value of the variant field that the recipe does not list.
    UnknownVariant,
    /// The quality field holds no bucket (an integer from 0 to 255), or with `quality_edges` no number.
    BadQuality,
    /// The language field holds no language code.
    BadLanguage,
    /// The tags field holds something else than a text or a list of texts of up to 64 bytes.
    BadTags,
    /// The date field holds no ISO 8601 date.
    BadDate,
    /// The score field holds no finite number.
    BadScore,
    /// The address field holds something else than text.
    BadUrl,
    /// The compressed stream ends too early; what came before it was read.
    TruncatedStream,
    /// The compressed stream is damaged; what came before it was read.
    CorruptStream,
    /// The file grows beyond `limits.max_expansion` as it is decoded; what came before was read.
    TooMuchExpansion,
    /// The zstd stream needs more memory than `limits.max_window_bytes`.
    WindowTooLarge,
    /// The Parquet file or a part of it cannot be decoded.
    CorruptParquet,
    /// The Arrow stream or a batch of it cannot be decoded.
    CorruptArrow,
    /// The header of the WARC record is damaged, or its length is not that of the record.
    BadWarc,
    /// The HTTP message in the record is damaged.
    BadHttp,
    /// The body is compressed in a way that we do not know.
    UnknownEncoding,
    /// The text of the page cannot be extracted: it is too long or too deep, or the extractor failed.
    HtmlFailed,
    /// Skipped: a WARC record that describes the file.
    WarcInfo,
    /// Skipped: the request of a crawler.
    WarcRequest,
    /// Skipped: a WARC record that describes another one.
    WarcMetadata,
    /// Skipped: a page that had not changed since another visit.
    WarcRevisit,
    /// Skipped: a WARC record of any other type.
    WarcOther,
    /// Skipped: something else than a web page.
    NotHtml,
    /// Skipped: the server did not answer with success.
    HttpStatus,
    /// A file without any record.
    EmptyFile,
}

impl Cause {
    /// Name in the ledger and the quarantine.
    pub fn name(self) -> &'static str {
        match self {
            Cause::BadJson => "bad_json",
            Cause::InvalidUtf8 => "invalid_utf8",
            Cause::TooLong => "too_long",
            Cause::MissingText => "missing_text",
            Cause::TextNotAString => "text_not_a_string",
            Cause::EmptyText => "empty_text",
            Cause::MissingId => "missing_id",
            Cause::MissingFamily => "missing_family",
            Cause::MissingVariant => "missing_variant",
            Cause::UnknownVariant => "unknown_variant",
            Cause::BadQuality => "bad_quality",
            Cause::BadLanguage => "bad_language",
            Cause::BadTags => "bad_tags",
            Cause::BadDate => "bad_date",
            Cause::BadScore => "bad_score",
            Cause::BadUrl => "bad_url",
            Cause::TruncatedStream => "truncated_stream",
            Cause::CorruptStream => "corrupt_stream",
            Cause::TooMuchExpansion => "too_much_expansion",
            Cause::WindowTooLarge => "window_too_large",
            Cause::CorruptParquet => "corrupt_parquet",
            Cause::CorruptArrow => "corrupt_arrow",
            Cause::BadWarc => "bad_warc",
            Cause::BadHttp => "bad_http",
            Cause::UnknownEncoding => "unknown_encoding",
            Cause::HtmlFailed => "html_failed",
            Cause::WarcInfo => "warc_warcinfo",
            Cause::WarcRequest => "warc_request",
            Cause::WarcMetadata => "warc_metadata",
            Cause::WarcRevisit => "warc_revisit",
            Cause::WarcOther => "warc_other",
            Cause::NotHtml => "not_html",
            Cause::HttpStatus => "http_status",
            Cause::EmptyFile => "empty_file",
        }
    }

    /// Whether nothing is wrong with the record: it is of a kind that holds no document. The ledger counts it
    /// among the dropped.
    pub fn is_skipped(self) -> bool {
        matches!(
            self,
            Cause::WarcInfo
                | Cause::WarcRequest
                | Cause::WarcMetadata
                | Cause::WarcRevisit
                | Cause::WarcOther
                | Cause::NotHtml
                | Cause::HttpStatus
        )
    }
}

/// Opens a file, or a slice of it.
///
/// The format is taken from the content unless `format` says it, with the name (`.jsonl`, `.parquet`, `.warc`)
/// deciding where damage hides the start; all else is text. `name` is the id of a document that is a whole file.
///
/// # Errors
/// The file cannot be opened.
pub fn open(
    path: &Path,
    name: &str,
    format: Option<Format>,
    slice: Slice,
    fields: &FieldPaths,
    limits: Limits,
) -> Result<Box<dyn Reader>> {
    let max_doc_bytes = limits.max_doc_bytes;
    if let Slice::Bytes { start, end } = slice {
        return Ok(Box::new(jsonl::JsonlReader::slice(path, start, end, fields.clone(), max_doc_bytes)?));
    }
    if let Slice::Batches(batches) = slice {
        return Ok(Box::new(arrow_ipc::ArrowReader::slice(path, batches, fields, limits)?));
    }
    if sniff::is_parquet(path, format)? {
        let file = input::RandomAccess::open(path)?;
        return Ok(Box::new(parquet::ParquetReader::open(path, file, slice, fields, limits)?));
    }
    let sniff::Sniffed { format, stream } = sniff::sniff(path, format, limits)?;
    Ok(match format {
        Format::Arrow => Box::new(arrow_ipc::ArrowReader::new(stream, fields, limits)),
        Format::Warc => {
            let n_bytes = input::RandomAccess::open(path)?.n_bytes(path)?;
            Box::new(warc::WarcReader::new(stream, n_bytes, fields, limits))
        }
        Format::Jsonl => Box::new(jsonl::JsonlReader::new(stream, fields.clone(), max_doc_bytes)),
        Format::Html => {
            Box::new(text::TextReader::new(stream, name, fields, max_doc_bytes, text::Kind::Html))
        }
        Format::Text | Format::Parquet => {
            Box::new(text::TextReader::new(stream, name, fields, max_doc_bytes, text::Kind::Plain))
        }
    })
}
