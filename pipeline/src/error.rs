//! The one error type of this crate. Each message says what, where, what was expected and found,
//! and what to do; [`Error::exit_code`] is the only place that turns errors into exit codes.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can end a command.
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
    /// All problems of a recipe.
    #[error("{}", list(problems))]
    Recipe {
        /// In the order of the file's lines.
        problems: Vec<Problem>,
    },
    /// Flags or folders that cannot be used as given.
    #[error("{0}")]
    Usage(String),
    /// The machine refused something other than a file: threads, requests.
    #[error("{0}")]
    Machine(String),
    /// More memory than there is.
    #[error("{0}")]
    Memory(String),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// A check of finished output failed.
    #[error("{0}")]
    Check(String),
    /// More records were bad than the recipe allows.
    #[error(
        "{bad} of {read} records are bad, more than {allowed}: {worst}\n  hint: all are listed in {}; fix the input, or allow more and rerun, which continues from here",
        quarantine.display()
    )]
    TooManyBad {
        /// Records in quarantine.
        bad: u64,
        /// Records read.
        read: u64,
        /// The setting and its limit, in words.
        allowed: String,
        /// The first bad record of the most frequent cause, with its file.
        worst: String,
        /// Folder of the quarantine.
        quarantine: PathBuf,
    },
    /// A damaged file of the work folder, or an input that changed while it was read.
    #[error("{}: {message}", path.display())]
    Data {
        /// File.
        path: PathBuf,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// The tokenizer cannot be used.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// Its file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// A Parquet file of ours could not be written or read.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// File.
        path: PathBuf,
        /// The library's reason.
        source: parquet::errors::ParquetError,
    },
    /// A shard, manifest or plan.
    #[error(transparent)]
    Shards(#[from] moe_shards::Error),
    /// A server of language models, or the cache of its completions.
    #[error(transparent)]
    Llm(moe_llm::Error),
    /// The build continues once other processes have done their part.
    #[error(
        "{n_waiting} of {n_tasks} tasks of `{stage}` are waiting{}\n  next: moe-data task run --out {} --array I/N for every I from 0 to N-1, then the same command again",
failed_before(n_failed),
        out.display()
    )]
    Waiting {
        /// Name of the stage.
        stage: &'static str,
        /// Unfinished tasks.
        n_waiting: usize,
        /// All tasks of the stage.
        n_tasks: usize,
        /// Waiting tasks that have failed.
        n_failed: usize,
        /// Folder of the build.
        out: PathBuf,
    },
    /// Tasks that were run failed.
    #[error("{message}")]
    Tasks {
        /// How many, and where the reasons are.
        message: String,
        /// Exit code of the first one.
        code: u8,
    },
    /// The user asked to stop.
    #[error("interrupted; finished parts are kept: run the same command to continue")]
    Interrupted,
}

/// One thing wrong with a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Recipe file, or `None` when the value came from a flag.
    pub file: Option<PathBuf>,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Dotted key, such as `source.paths`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            write!(f, " ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        write!(f, "{}", self.message)
    }
}

fn failed_before(n: &usize) -> String {
    match n {
        0 => String::new(),
        n => format!(", {n} of them have failed before"),
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl Error {
    /// An I/O error with its path; for use in `map_err`.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// A Parquet error with its path; for use in `map_err`.
    pub fn parquet<E: Into<parquet::errors::ParquetError>>(path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |source| Error::Parquet { path, source: source.into() }
    }

    /// A data error with its path.
    pub fn data(path: &Path, message: impl Into<String>) -> Error {
        Error::Data { path: path.to_owned(), message: message.into() }
    }

    /// 1 a check failed, 2 usage or configuration, 3 data, 5 memory, 7 the machine or a server, 8 tasks are waiting,
    /// 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        use moe_shards::exit_code_of;
        match self {
            Error::Check(_) => 1,
            Error::Io { source, .. }
            | Error::Output(source)
            | Error::Shards(moe_shards::Error::Io { source, .. })
            | Error::Llm(moe_llm::Error::Io { source, .. }) => exit_code_of(source),
            Error::Recipe { .. } | Error::Usage(_) | Error::Tokenizer { .. } => 2,
            Error::Memory(_) => 5,
            Error::Machine(_) => 7,
            Error::Llm(moe_llm::Error::Data { .. }) => 3,
            Error::Llm(moe_llm::Error::Connect { .. } | moe_llm::Error::Server { .. }) => 7,
            Error::Llm(_) | Error::Shards(moe_shards::Error::Missing { .. }) => 2,
            // I/O errors of the library come boxed.
            Error::Parquet { source: parquet::errors::ParquetError::External(source), .. } => {
                source.downcast_ref().map_or(3, exit_code_of)
            }
            Error::TooManyBad { .. } | Error::Data { .. } | Error::Parquet { .. } | Error::Shards(_) => 3,
            Error::Waiting { .. } => 8,
            Error::Tasks { code, .. } => *code,
            Error::Interrupted => 130,
        }
    }
}

impl From<moe_llm::Error> for Error {
    fn from(error: moe_llm::Error) -> Error {
        match error {
            moe_llm::Error::Interrupted => Error::Interrupted,
            moe_llm::Error::Shards(error) => Error::Shards(error),
            other => Error::Llm(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_file_line_and_key() {
        let problem = Problem {
            file: Some("a.toml".into()),
            line: Some(3),
            key: "source.path".into(),
            message: "unknown key; did you mean `paths`?".into(),
        };
        let error = Error::Recipe { problems: vec![problem.clone(), problem] };
        let line = "a.toml:3: `source.path`: unknown key; did you mean `paths`?";
        assert_eq!(error.to_string(), format!("{line}\n{line}"));
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn exit_codes_follow_the_kind() {
        assert_eq!(Error::Interrupted.exit_code(), 130);
        assert_eq!(Error::Check(String::new()).exit_code(), 1);
        assert_eq!(Error::data(Path::new("x"), "y").exit_code(), 3);
        let io = |kind: std::io::ErrorKind| Error::io(Path::new("x"), "open")(kind.into());
        assert_eq!(io(std::io::ErrorKind::NotFound).exit_code(), 2);
        assert_eq!(io(std::io::ErrorKind::StorageFull).exit_code(), 7);
        let full: std::io::Error = std::io::ErrorKind::StorageFull.into();
        assert_eq!(Error::parquet(Path::new("x"))(full).exit_code(), 7);
        assert_eq!(Error::Memory(String::new()).exit_code(), 5);
    }
}
