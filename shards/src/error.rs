//! The one error type of this crate: each variant says which file, what was expected, what was found; the
//! caller adds what it was doing, and the message has the remedy if one is known.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of shards and plans.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system reported an error.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `write`.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that another command makes is missing.
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
        /// What the format requires.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A stored checksum does not match the bytes.
    #[error("{}: {what} is damaged: the recorded checksum is {expected}, the bytes give {found}", path.display())]
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
    /// A file from a newer program.
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
    #[error(
        "{}: is damaged, or not a moe-data file: {source}\n  hint: restore it from a copy, or make it again: `moe-data build` writes MANIFEST.json, `moe-data mix` writes plan.lock",
        path.display()
    )]
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
        /// Requested number.
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
        "E-PLAN-EXHAUSTED: sample {t} was requested, but the plan has {len}: make a longer plan with `moe-data mix --epochs`"
    )]
    PlanExhausted {
        /// Requested sample.
        t: u64,
        /// Samples in the plan.
        len: u64,
    },
    /// More languages or tags than a shard can hold.
    #[error("{0}")]
    Names(String),
    /// Quotas that no interleaving can satisfy.
    #[error("interleaving: {0}")]
    Quota(String),
}

/// The exit code of both programs for errors of the operating system: 2 if a path or a flag is to blame, 5 if
/// memory is, 7 if the machine or a server is: a full disk, a missing permission, a broken connection.
pub fn exit_code_of(refusal: &io::Error) -> u8 {
    use io::ErrorKind;
    match refusal.kind() {
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::DirectoryNotEmpty
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidData
        | ErrorKind::NotSeekable
        | ErrorKind::Unsupported => 2,
        ErrorKind::OutOfMemory => 5,
        _ => 7,
    }
}

impl Error {
    /// An I/O error with its path; for use in `map_err`.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// A read error of a file that the command `maker` makes.
    pub(crate) fn unread(path: &Path, maker: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path, maker },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_errors_have_a_separate_exit_code() {
        for (kind, code) in [
            (io::ErrorKind::NotFound, 2),
            (io::ErrorKind::IsADirectory, 2),
            (io::ErrorKind::OutOfMemory, 5),
            (io::ErrorKind::StorageFull, 7),
            (io::ErrorKind::PermissionDenied, 7),
            (io::ErrorKind::ReadOnlyFilesystem, 7),
            (io::ErrorKind::ConnectionReset, 7),
        ] {
            assert_eq!(exit_code_of(&kind.into()), code, "{kind}");
        }
        // No space left on the device, quota exceeded, input/output error, too many open files.
        for number in [28, 122, 5, 24] {
            assert_eq!(exit_code_of(&io::Error::from_raw_os_error(number)), 7, "{number}");
        }
    }
}
