//! The one error type of this crate. No message holds an API key.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors that end a run, or keep one from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Flags or settings that cannot be used as given.
    #[error("{0}")]
    Usage(String),
    /// A file of a cache or a batch is not what it should be.
    #[error("{}: {message}", path.display())]
    Data {
        /// File.
        path: PathBuf,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// The server refuses access.
    #[error("{url}: the server refuses access with status {status}: {message}\n  hint: {hint}")]
    Unauthorized {
        /// Where.
        url: String,
        /// 401 or 403.
        status: u16,
        /// The server's message.
        message: String,
        /// Which variable to look at.
        hint: String,
    },
    /// The address cannot be reached.
    #[error("{url}: cannot connect: {message}\n  hint: {hint}")]
    Connect {
        /// Where.
        url: String,
        /// The system's reason.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The server has stopped working; what it answered is in the cache.
    #[error(
        "{url}: {message}\n  hint: all answers are kept; check the server and run the same command again; it continues from here"
    )]
    Server {
        /// Where.
        url: String,
        /// What it did, and for how long.
        message: String,
    },
    /// A file could not be written completely.
    #[error(transparent)]
    Shards(#[from] moe_shards::Error),
    /// The user asked to stop.
    #[error("interrupted; all answers are kept: run the same command to continue")]
    Interrupted,
}

impl Error {
    /// An I/O error with its path; for use in `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// A data error with its path.
    pub(crate) fn data(path: &Path, message: impl Into<String>) -> Error {
        Error::Data { path: path.to_owned(), message: message.into() }
    }
}
