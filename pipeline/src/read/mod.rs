//! Readers turn a file into records. They never fail on bad content: a record that cannot be a
//! document comes out as [`Bad`] with its cause and place, and reading goes on behind it. Only
//! the operating system's refusal is an error.

mod fields;
mod jsonl;
mod lines;
mod metadata;
mod parquet;
pub mod peek;
pub mod slice;
mod stream;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::fields::FieldPaths;
pub use self::metadata::{MAX_TAG_BYTES, MetadataFields};
pub use self::slice::Slice;
use self::stream::Sniffed;
use crate::document::OwnedMetadata;
use crate::error::Result;

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
    /// One document a file.
    Text,
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
}

/// What a reader found at one place.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// Byte offset in the decompressed stream; for Parquet, the row number.
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
    /// The Parquet file or a part of it cannot be decoded.
    CorruptParquet,
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
            Cause::CorruptParquet => "corrupt_parquet",
            Cause::EmptyFile => "empty_file",
        }
    }
}

/// Opens a file, or a slice of it.
///
/// The format is taken from the content unless `format` says it: Parquet and gzip and zstd by
/// their magic numbers, JSONL by an object at the start, with the name (`.jsonl`, `.ndjson`,
/// `.json`) deciding where a damaged start hides it; all else is text. `name` is the id of a text
/// file's document.
///
/// # Errors
/// The file cannot be opened.
pub fn open(
    path: &Path,
    name: &str,
    format: Option<Format>,
    slice: Slice,
    fields: &FieldPaths,
    max_doc_bytes: u64,
) -> Result<Box<dyn Reader>> {
    if let Slice::Bytes { start, end } = slice {
        return Ok(Box::new(jsonl::JsonlReader::slice(path, start, end, fields.clone(), max_doc_bytes)?));
    }
    Ok(match stream::sniff(path, format)? {
        Sniffed::Parquet(file) => {
            Box::new(parquet::ParquetReader::open(path, file, slice, fields, max_doc_bytes)?)
        }
        Sniffed::Jsonl(stream) => Box::new(jsonl::JsonlReader::new(stream, fields.clone(), max_doc_bytes)),
        Sniffed::Text(stream) => Box::new(text::TextReader::new(stream, name, fields, max_doc_bytes)),
    })
}
