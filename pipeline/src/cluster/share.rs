//! Doing a share of the waiting tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use rayon::prelude::*;

use super::{Failure, TaskList};
use crate::engine::{Engine, LocalEngine};
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::stage::{self, Task};
use crate::watch::Watch;

/// Which tasks: every `of`-th from number `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// Above the index.
    pub of: usize,
}

/// How a share is done.
#[derive(Clone, Debug, Default, Args)]
pub struct Conditions {
    /// Digest of the list that this share is of: another list is refused, after two minutes in which the file system may show it
    #[arg(long, value_name = "DIGEST")]
    pub list: Option<String>,
    /// File that holds the output of this process, which the reason of a failed task then names
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// How long a file system may take to show a list that another machine wrote. Those of NFS are up to a minute late.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does a share, and returns the name of the stage and the number of tasks; `None` when nothing is waiting. A task that fails does
/// not keep the others from being done; its error is noted next to its folder and printed.
///
/// # Errors
/// [`Error::Interrupted`], the list cannot be used, or [`Error::Tasks`] when any task failed.
pub fn run(
    out: &Path,
    share: Share,
    engine: &LocalEngine,
    conditions: &Conditions,
    printer: &Printer,
    stop: Arc<AtomicBool>,
) -> Result<Option<(String, usize)>> {
    let is_in_share = |n: usize| n % share.of == share.index;
    let list = match &conditions.list {
        Some(expected) => TaskList::read_expected(out, expected, PATIENCE, is_in_share)?,
        None => match TaskList::read(out, is_in_share)? {
            Some(list) => list,
            None => return Ok(None),
        },
    };
    // An absolute path, since the tasks may start from another folder.
    let log = conditions
        .log
        .as_deref()
        .map(std::path::absolute)
        .transpose()
        .map_err(Error::io(Path::new("."), "find"))?;
    std::env::set_current_dir(&list.head.folder).map_err(Error::io(&list.head.folder, "enter"))?;
    let total = list.tasks.iter().map(|task| task.weight).sum();
    let watch = Watch::new(stop, printer.bar("tasks", total));
    let watch = watch.with_memory(engine.memory_bytes() / engine.threads() as u64);
    let outcomes = engine.install(|| {
        let tasks = list.tasks.par_iter().with_max_len(1);
        tasks.map(|task| run_one(task, log.clone(), &watch)).collect::<Vec<_>>()
    });
    watch.finish();
    let mut first = None;
    let mut n_failed = 0;
    for (task, outcome) in list.tasks.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                printer.error(&format!("task {} of `{}`: {error}", task.part, list.head.stage));
                first.get_or_insert(error.exit_code());
                n_failed += 1;
            }
        }
    }
    let n_tasks = list.tasks.len();
    match first {
        None => Ok(Some((list.head.stage, n_tasks))),
        Some(code) => Err(Error::Tasks {
            message: format!(
                "{n_failed} of {n_tasks} tasks of `{}` failed; the others are done, and the next try does only what failed",
                list.head.stage
            ),
            code,
        }),
    }
}

fn run_one(task: &Task, log: Option<PathBuf>, watch: &Watch) -> Result<()> {
    match stage::run(task, watch) {
        Ok(_) => Failure::forget(task),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => {
            // Another process may have finished meanwhile what failed here.
            if task.finished()?.is_none() {
                Failure::note(task, &error, log)?;
            }
            Err(error)
        }
    }
}
