//! The one error type of this crate: each variant says which file, what was expected, what was
//! found; the caller adds what it was doing, and the remedy where one is known is in the message.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with shards and plans.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `write`.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that another command makes is not there.
    #[error("{} is missing: run `{maker}`", path.display())]
    Missing {
        /// File.
        path: PathBuf,
        /// Command that makes it.
        maker: &'static str,
    },
    /// The bytes are not what the format says.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Format {
        /// File.
        path: PathBuf,
        /// Field or section.
        what: &'static str,
        /// What the format asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A stored checksum does not belong to the bytes.
    #[error("{}: {what} is damaged: checksum {expected} is recorded, the bytes give {found}", path.display())]
    Checksum {
        /// File.
        path: PathBuf,
        /// Section, or `file`.
        what: String,
        /// Recorded.
        expected: String,
        /// Computed.
        found: String,
    },
    /// A file of a newer program.
    #[error("{}: format version {found}; this program reads up to {supported}: install a newer one", path.display())]
    Version {
        /// File.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Newest version that this program knows.
        supported: u32,
    },
    /// A JSON file that does not parse or lacks a field.
    #[error("{}: {source}", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// Parser's message with line and column.
        source: serde_json::Error,
    },
    /// Two files that should belong together do not.
    #[error("{}: {key} is {found}, expected {expected}: {hint}", path.display())]
    Mismatch {
        /// File that was opened.
        path: PathBuf,
        /// Field that differs.
        key: &'static str,
        /// Value of the other file.
        expected: String,
        /// Value found.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// A document or sample number past the end.
    #[error("{}: {what} {index} does not exist, there are {len}", path.display())]
    OutOfRange {
        /// File.
        path: PathBuf,
        /// `document`, `sample`.
        what: &'static str,
        /// Number asked for.
        index: u64,
        /// How many there are.
        len: u64,
    },
    /// Documents reached a writer out of order.
    #[error("{}: family {next} after {previous}: documents of a shard come in ascending family order", path.display())]
    Order {
        /// Shard.
        path: PathBuf,
        /// Family of the last document.
        previous: String,
        /// Family of this one.
        next: String,
    },
    /// A token that the vocabulary does not have.
    #[error("{}: document `{id}`: token {token} at position {at} is outside the vocabulary of {vocab_size}", path.display())]
    TokenRange {
        /// Shard.
        path: PathBuf,
        /// Document.
        id: String,
        /// Token.
        token: u32,
        /// Position in the document.
        at: usize,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// Sampling past the end of the plan: an epoch never ends silently.
    #[error(
        "E-PLAN-EXHAUSTED: sample {t} was asked for, the plan has {len}: make a longer plan with `moe-data mix --epochs`"
    )]
    PlanExhausted {
        /// Sample asked for.
        t: u64,
        /// Samples in the plan.
        len: u64,
    },
    /// More languages or tags than a shard can hold.
    #[error("{0}")]
    Names(String),
    /// Quotas that no interleaving can serve.
    #[error("interleaving: {0}")]
    Quota(String),
}

impl Error {
    /// An I/O error with its path; for use in `map_err`.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// A read error of a file that the command `maker` makes.
    pub(crate) fn unread(path: &Path, maker: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { path, maker },
            _ => Error::Io { path, action: "read", source },
        }
    }

    pub(crate) fn format(
        path: &Path,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::Format {
            path: path.to_owned(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
