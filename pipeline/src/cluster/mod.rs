//! One build on many machines, without a server: the unfinished tasks of a stage are written to a list in the work
//! folder, any number of processes do their shares of it (`moe-data task run --array i/n`), and the build continues. These processes
//! are run by an array of Slurm ([`slurm`]), an indexed job of Kubernetes, or a loop in a shell.
//!
//! Processes share nothing but the file system. Tasks are the ones of a build on one machine, so the bytes are the same.

mod failure;
mod list;
mod share;
pub mod slurm;
mod status;

pub use self::failure::Failure;
pub use self::list::{Head, TaskList, remove};
pub use self::share::{Conditions, Share, run};
pub use self::status::{FailedTask, Progress};

use std::ops::Deref;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::engine::{Engine, LocalEngine};
use crate::error::{Error, Result};
use crate::stage::{Report, Task};
use crate::watch::Watch;

/// The engine of `moe-data build`: this machine alone, or with tasks for other processes.
pub struct BuildEngine {
    local: LocalEngine,
    /// Output folder of the build, where tasks are left to others.
    planned: Option<PathBuf>,
}

impl BuildEngine {
    /// Does everything here.
    pub fn here(local: LocalEngine) -> BuildEngine {
        BuildEngine { local, planned: None }
    }

    /// Leaves the tasks to others, and does the work between stages here. [`Engine::map`] ends in [`Error::Waiting`] if tasks are
    /// not done.
    pub fn planning(local: LocalEngine, out: &Path) -> BuildEngine {
        BuildEngine { local, planned: Some(out.to_owned()) }
    }

    fn collect(&self, out: &Path, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>> {
        let reports: Vec<Option<Report>> =
            self.local.install(|| tasks.par_iter().map(Task::finished).collect::<Result<_>>())?;
        let waiting: Vec<&Task> =
            tasks.iter().zip(&reports).filter(|(_, report)| report.is_none()).map(|(task, _)| task).collect();
        let Some(first) = waiting.first() else {
            watch.advance(tasks.iter().map(|task| task.weight).sum())?;
            return Ok(reports.into_iter().flatten().collect());
        };
        watch.advance(0)?;
        let stage = first.job.stage();
        list::write(out, stage, tasks.len(), &waiting)?;
        let failed = waiting.iter().map(|task| Failure::read(task)).collect::<Result<Vec<_>>>()?;
        Err(Error::Waiting {
            stage,
            n_waiting: waiting.len(),
            n_tasks: tasks.len(),
            n_failed: failed.iter().flatten().count(),
            out: out.to_owned(),
        })
    }
}

impl Deref for BuildEngine {
    type Target = LocalEngine;

    fn deref(&self) -> &LocalEngine {
        &self.local
    }
}

impl Engine for BuildEngine {
    fn map(&self, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>> {
        match &self.planned {
            None => self.local.map(tasks, watch),
            Some(out) => self.collect(out, tasks, watch),
        }
    }

    fn pool(&self) -> &rayon::ThreadPool {
        self.local.pool()
    }

    fn memory_bytes(&self) -> u64 {
        self.local.memory_bytes()
    }
}
