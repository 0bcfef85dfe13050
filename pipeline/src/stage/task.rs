//! A task: one stage with its parameters and inputs, and the folder of its results.

use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Inputs, Job, Report, Stage};
use crate::error::{Error, Result};
use crate::json;
use crate::tables::attempt::Attempt;
use crate::watch::Watch;

pub(super) const REPORT: &str = "report.json";

/// One unit of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Position among the tasks of its stage; for names only.
    pub part: u32,
    /// Bytes of input, for the progress bar.
    pub weight: u64,
    /// Folder for the results; its name is the task's fingerprint.
    pub output: PathBuf,
    /// What to do.
    pub job: Job,
}

/// A stage's parameters with its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Call<S: Stage> {
    /// The parameters.
    pub params: S,
    /// Files of earlier stages.
    pub inputs: S::Inputs,
}

/// Parameters in the form used by the fingerprint.
#[derive(Serialize)]
#[serde(bound = "")]
struct Named<'a, S: Stage> {
    stage: &'static str,
    #[serde(flatten)]
    params: &'a S,
}

impl<S: Stage> Call<S> {
    /// Digest of the program versions, the parameters and the inputs.
    pub(super) fn fingerprint(&self, version: (u32, u32), work: &Path) -> String {
        let mut places: Vec<&Path> = Vec::new();
        self.inputs.each(&mut |path| places.push(path.strip_prefix(work).unwrap_or(path)));
        let params = Named { stage: S::NAME, params: &self.params };
        let identity = json!({ "version": version, "params": params, "inputs": places });
        json::digest(&identity).to_string()[..24].to_owned()
    }
}

impl Task {
    /// A task in `work`. Its fingerprint covers the program's build version, the parameters and
    /// the inputs; files inside `work` count by their place there, which holds the fingerprint of
    /// the task that made them.
    pub fn new<S: Stage>(work: &Path, part: usize, weight: u64, params: S, inputs: S::Inputs) -> Task
    where
        Job: From<Call<S>>,
    {
        let call = Call { params, inputs };
        let version = (crate::BUILD_VERSION, crate::WORK_VERSION);
        let output = work.join(S::NAME).join(call.fingerprint(version, work));
        Task { part: part as u32, weight, output, job: call.into() }
    }

    /// A file of the task's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    /// The report of an earlier run.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn finished(&self) -> Result<Option<Report>> {
        let path = self.file(REPORT);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::data(&path, format!("{e}; delete this file and rerun"))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, "read")(e)),
        }
    }
}

/// Runs a task, unless its report exists.
///
/// The work is done in a separate folder that becomes the task's at the end: what a killed run leaves
/// behind cannot mix in, another process may do the same task at once, and a report means that all the
/// rest is complete.
///
/// # Errors
/// [`Error::Interrupted`], or what the stage ran into.
pub fn run(task: &Task, watch: &Watch) -> Result<Report> {
    if let Some(report) = task.finished()? {
        watch.advance(task.weight)?;
        return Ok(report);
    }
    watch.advance(0)?;
    let attempt = Attempt::start(&task.output, REPORT)?;
    let report = task.job.run(attempt.folder(), watch)?;
    atomic::write_file(&attempt.folder().join(REPORT), &json::canonical(&report))?;
    attempt.finish()?;
    Ok(report)
}
