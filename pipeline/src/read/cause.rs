//! Why a record is not a document: the cause by name, and the details.

use serde::{Deserialize, Serialize};

use super::FIRST_BYTES;

/// A record that is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Why.
    pub cause: Cause,
    /// Details beyond the cause; may be empty.
    pub detail: String,
    /// Its name, where it has one.
    pub id: Option<String>,
    /// The deciding number, such as the status of an HTTP response.
    pub measured: Option<u32>,
    /// The first [`FIRST_BYTES`] bytes of the record.
    pub first_bytes: Vec<u8>,
}

impl Bad {
    /// A bad record that starts with `bytes`.
    pub fn new(cause: Cause, bytes: &[u8]) -> Bad {
        Fault::from(cause).at(bytes)
    }
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub cause: Cause,
    /// As [`Bad::detail`].
    pub detail: String,
    /// As [`Bad::measured`].
    pub measured: Option<u32>,
}

impl Fault {
    pub fn new(cause: Cause, detail: impl Into<String>) -> Fault {
        Fault { cause, detail: detail.into(), measured: None }
    }

    /// The bad record that starts with `bytes`.
    pub fn at(self, bytes: &[u8]) -> Bad {
        let Fault { cause, detail, measured } = self;
        let first_bytes = bytes[..bytes.len().min(FIRST_BYTES)].to_vec();
        Bad { cause, detail, id: None, measured, first_bytes }
    }
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Fault {
        Fault::new(cause, "")
    }
}

/// Why a record is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The line or the element of the array is not a JSON object.
    BadJson,
    /// The row has more or fewer fields than the header, or is damaged.
    BadCsv,
    /// The bytes are not UTF-8.
    InvalidUtf8,
    /// Longer than `limits.max_doc_bytes`.
    TooLong,
    /// No text field.
    MissingText,
    /// The text field holds something other than text.
    TextNotAString,
    /// The text is empty, or nothing is left of it after normalization.
    EmptyText,
    /// The messages of a conversation are malformed.
    BadMessages,
    /// An answer of a conversation has no text.
    EmptyAnswer,
    /// A conversation without an answer.
    NoAnswer,
    /// The chat template refuses the conversation, or does not say where its answers are.
    ChatTemplate,
    /// The id field of the recipe is missing.
    MissingId,
    /// The family field of the recipe is missing.
    MissingFamily,
    /// The variant field of the recipe is missing.
    MissingVariant,
    /// A value of the variant field that the recipe does not list.
    UnknownVariant,
    /// The quality field holds no bucket (an integer from 0 to 255), or with `quality_edges` no number.
    BadQuality,
    /// The language field holds no language code.
    BadLanguage,
    /// The tags field holds something other than a text or a list of texts of up to 64 bytes.
    BadTags,
    /// The date field holds no ISO 8601 date.
    BadDate,
    /// The score field holds no finite number.
    BadScore,
    /// The address field holds something other than text.
    BadUrl,
    /// The compressed stream ends too early; everything before it was read.
    TruncatedStream,
    /// The compressed stream is damaged; everything before it was read.
    CorruptStream,
    /// The file grows beyond `limits.max_expansion` as it is decoded; everything before was read.
    TooMuchExpansion,
    /// The zstd stream needs more memory than `limits.max_window_bytes`.
    WindowTooLarge,
    /// The Parquet file or a part of it cannot be decoded.
    CorruptParquet,
    /// The Arrow stream or a batch of it cannot be decoded.
    CorruptArrow,
    /// The archive (tar or zip) is damaged; everything before it was read.
    CorruptArchive,
    /// The header of the WARC record is damaged, or its length is not that of the record.
    BadWarc,
    /// The HTTP message in the record is damaged.
    BadHttp,
    /// The body's compression is unknown.
    UnknownEncoding,
    /// The text of the page cannot be extracted: it is too long or too deep, or the extractor failed.
    HtmlFailed,
    /// A web page, and this program was built without the feature `html`.
    BuiltWithoutHtml,
    /// Skipped: a WARC record that describes the file.
    WarcInfo,
    /// Skipped: the request of a crawler.
    WarcRequest,
    /// Skipped: a WARC record that describes another one.
    WarcMetadata,
    /// Skipped: a page unchanged since an earlier visit.
    WarcRevisit,
    /// Skipped: a WARC record of any other type.
    WarcOther,
    /// Skipped: not a web page.
    NotHtml,
    /// Skipped: the server did not answer with success.
    HttpStatus,
    /// Skipped: a file of a format that holds no text we can read, such as a picture or an archive in an archive.
    UnreadableFormat,
    /// A file without any record.
    EmptyFile,
}

impl Cause {
    /// Name in the ledger and the quarantine.
    pub fn name(self) -> &'static str {
        match self {
            Cause::BadJson => "bad_json",
            Cause::BadCsv => "bad_csv",
            Cause::InvalidUtf8 => "invalid_utf8",
            Cause::TooLong => "too_long",
            Cause::MissingText => "missing_text",
            Cause::TextNotAString => "text_not_a_string",
            Cause::EmptyText => "empty_text",
            Cause::BadMessages => "bad_messages",
            Cause::EmptyAnswer => "empty_answer",
            Cause::NoAnswer => "no_answer",
            Cause::ChatTemplate => "chat_template",
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
            Cause::CorruptArchive => "corrupt_archive",
            Cause::BadWarc => "bad_warc",
            Cause::BadHttp => "bad_http",
            Cause::UnknownEncoding => "unknown_encoding",
            Cause::HtmlFailed => "html_failed",
            Cause::BuiltWithoutHtml => "built_without_html",
            Cause::WarcInfo => "warc_warcinfo",
            Cause::WarcRequest => "warc_request",
            Cause::WarcMetadata => "warc_metadata",
            Cause::WarcRevisit => "warc_revisit",
            Cause::WarcOther => "warc_other",
            Cause::NotHtml => "not_html",
            Cause::HttpStatus => "http_status",
            Cause::UnreadableFormat => "unreadable_format",
            Cause::EmptyFile => "empty_file",
        }
    }

    /// Whether the record is fine but of a kind without documents. The ledger counts it
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
                | Cause::UnreadableFormat
        )
    }
}
