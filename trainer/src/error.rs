//! The one error type of the library, and the exit code of each kind of failure.
//!
//! A message says what was wrong, where, and what to do about it; the program prints it after `error: ` and
//! exits with [`Error::exit_code`].

use std::path::{Path, PathBuf};

/// Everything that can go wrong while training, evaluating or reading a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All problems of a configuration.
    #[error("{} in the configuration:\n  {}", count(.0.len(), "problem"), .0.join("\n  "))]
    Config(Vec<String>),
    /// A command that cannot be run as given.
    #[error("{0}")]
    Usage(String),
    /// Shards or plan are missing, damaged or do not fit the run.
    #[error("{0}")]
    Data(String),
    /// The reader of shards and plans refused something.
    #[error(transparent)]
    Shards(#[from] moe_shards::Error),
    /// A checkpoint is missing, damaged or belongs to another run.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// Checkpoint folder or file.
        path: PathBuf,
        /// What is wrong with it and what can be done.
        problem: String,
    },
    /// The requested device is not there.
    #[error("{0}")]
    Device(String),
    /// Loss or gradient is no longer finite.
    #[error("{0}")]
    Diverged(String),
    /// An operation of the file system failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "create", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// Result of the library's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<moe_ops::DeviceFailed> for Error {
    fn from(error: moe_ops::DeviceFailed) -> Self {
        Self::Device(format!(
            "the device could not compute the step; nothing of this step is kept.\n{}",
            error.0
        ))
    }
}

impl Error {
    /// Exit code of the program: 2 configuration or usage, 3 data, 4 checkpoint, 5 device
    /// or memory, 6 diverged, 7 the machine.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Io { source, .. } => moe_shards::exit_code_of(source),
            // A missing file is missing data.
            Self::Shards(moe_shards::Error::Io { source, .. }) => moe_shards::exit_code_of(source).max(3),
            Self::Data(_) | Self::Shards(_) => 3,
            Self::Checkpoint { .. } => 4,
            Self::Device(_) => 5,
            Self::Diverged(_) => 6,
        }
    }

    /// For `map_err`: an I/O error with its path and action.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// A checkpoint error.
    pub fn checkpoint(path: &Path, problem: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_path_buf(), problem: problem.into() }
    }
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_configuration_problems_are_listed() {
        let error = Error::Config(vec!["a".into(), "b".into()]);
        assert_eq!(error.to_string(), "2 problems in the configuration:\n  a\n  b");
        assert_eq!(error.exit_code(), 2);
    }
}
