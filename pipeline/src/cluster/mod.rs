//! One build on many machines. Without a server: the unfinished tasks of a stage are written to a list in the work
//! folder, any number of processes do their shares of it (`moe-data task run --array i/n`), and the build continues. These processes
//! are run by an array of Slurm ([`slurm`]), an indexed job of Kubernetes, or a loop in a shell. Or, with the feature `cluster`, with
//! the build as a server: executors ask it for tasks (`ballista`).
//!
//! Processes share nothing but the file system. Tasks are the ones of a build on one machine, so the bytes are the same.

#[cfg(feature = "cluster")]
mod ballista;
mod failure;
mod list;
mod share;
pub mod slurm;
mod status;

#[cfg(feature = "cluster")]
pub use self::ballista::{BallistaEngine, Executor, execute};
pub use self::failure::Failure;
pub use self::list::{Head, TaskList, remove};
pub use self::share::{Conditions, Share, run};
pub use self::status::{FailedTask, Progress};

use std::ops::Deref;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::engine::{Engine, Keyed, LocalEngine, Pair};
use crate::error::{Error, Result};
use crate::stage::{Report, Task};
use crate::watch::Watch;

/// The engine of `moe-data build`: this machine alone, or with tasks for other processes.
pub enum BuildEngine {
    /// Does everything here.
    Here(LocalEngine),
    /// Leaves the tasks to others, and does the work between stages here. [`Engine::map`] ends in [`Error::Waiting`] if tasks are
    /// not done.
    Planned {
        /// For what is between stages.
        local: LocalEngine,
        /// Output folder of the build.
        out: PathBuf,
    },
    /// Hands the tasks to executors.
    #[cfg(feature = "cluster")]
    Ballista(Box<BallistaEngine>),
}

impl Deref for BuildEngine {
    type Target = LocalEngine;

    fn deref(&self) -> &LocalEngine {
        match self {
            BuildEngine::Here(local) | BuildEngine::Planned { local, .. } => local,
            #[cfg(feature = "cluster")]
            BuildEngine::Ballista(engine) => engine.local(),
        }
    }
}

impl Engine for BuildEngine {
    fn map(&self, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>> {
        match self {
            BuildEngine::Here(local) => local.map(tasks, watch),
            BuildEngine::Planned { local, out } => collect(local, out, tasks, watch),
            #[cfg(feature = "cluster")]
            BuildEngine::Ballista(engine) => engine.map(tasks, watch),
        }
    }

    fn pairs(&self, rows: &dyn Keyed, watch: &Watch, each: &mut dyn FnMut(Pair) -> Result<()>) -> Result<()> {
        match self {
            BuildEngine::Here(local) | BuildEngine::Planned { local, .. } => local.pairs(rows, watch, each),
            #[cfg(feature = "cluster")]
            BuildEngine::Ballista(engine) => engine.pairs(rows, watch, each),
        }
    }

    fn pool(&self) -> &rayon::ThreadPool {
        self.deref().pool()
    }

    fn memory_bytes(&self) -> u64 {
        self.deref().memory_bytes()
    }
}

/// The reports of tasks that are all done, or a list of those that wait.
fn collect(local: &LocalEngine, out: &Path, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>> {
    let reports: Vec<Option<Report>> =
        local.install(|| tasks.par_iter().map(Task::finished).collect::<Result<_>>())?;
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
