//! Why a task failed, in a file next to the folder of its results, `DIGEST.failed`, which is removed when the task succeeds.

use std::io::ErrorKind;
use std::path::PathBuf;

use moe_shards::atomic;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;
use crate::stage::Task;
use crate::tables::attempt::host;
use crate::tables::remove_file;

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Tries that ended in an error.
    pub n_tries: u32,
    /// The last error.
    pub reason: String,
    /// Its exit code.
    pub exit_code: u8,
    /// The machine.
    pub host: String,
    /// File with the output of the process, where its caller named one.
    pub log: Option<PathBuf>,
}

impl Failure {
    fn path(task: &Task) -> PathBuf {
        task.output.with_extension("failed")
    }

    /// The note about a task.
    ///
    /// # Errors
    /// The note cannot be read.
    pub fn read(task: &Task) -> Result<Option<Failure>> {
        let path = Failure::path(task);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::data(&path, format!("{e}; delete this file and rerun"))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, "read")(e)),
        }
    }

    /// Notes another failure.
    ///
    /// # Errors
    /// A write fails.
    pub fn note(task: &Task, error: &Error, log: Option<PathBuf>) -> Result<()> {
        let n_before = Failure::read(task)?.map_or(0, |failure| failure.n_tries);
        let failure = Failure {
            n_tries: n_before + 1,
            reason: error.to_string(),
            exit_code: error.exit_code(),
            host: host(),
            log,
        };
        Ok(atomic::write_file(&Failure::path(task), &json::canonical(&failure))?)
    }

    /// Forgets all failures of a task.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn forget(task: &Task) -> Result<()> {
        remove_file(&Failure::path(task))
    }
}
