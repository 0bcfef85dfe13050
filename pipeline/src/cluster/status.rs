//! Progress of the waiting tasks of a build.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Failure, TaskList};
use crate::error::Result;
use crate::stage::Task;
use crate::tables::attempt;

/// Progress of the stage whose tasks are, or were, waiting.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// Name of the stage.
    pub stage: String,
    /// Its tasks.
    pub tasks: usize,
    /// Those that are done.
    pub done: usize,
    /// Those that a process has started; one that was killed may be among them.
    pub running: usize,
    /// Those that nobody has started.
    pub waiting: usize,
    /// Those that failed in their last try.
    pub failed: Vec<FailedTask>,
}

/// A task that failed.
#[derive(Clone, Debug, Serialize)]
pub struct FailedTask {
    /// Its number in the stage.
    pub part: u32,
    /// Folder of its results, which is not there.
    pub output: PathBuf,
    /// What is known.
    #[serde(flatten)]
    pub failure: Failure,
}

impl FailedTask {
    /// In words, with the place of the log.
    pub fn text(&self) -> String {
        let Failure { n_tries, reason, host, log, .. } = &self.failure;
        let times = if *n_tries == 1 { "once".to_owned() } else { format!("{n_tries} times") };
        let log = log.as_ref().map_or_else(String::new, |log| format!("; log: {}", log.display()));
        format!("task {} failed {times}, last on {host}: {reason}{log}", self.part)
    }
}

impl Progress {
    /// Checks every task in the list of a build. `None` if there is no list.
    ///
    /// # Errors
    /// The list, a report or a note of a failure cannot be read.
    pub fn read(out: &Path) -> Result<Option<Progress>> {
        let Some(TaskList { head, tasks }) = TaskList::read(out, |_| true)? else { return Ok(None) };
        let mut progress = Progress {
            stage: head.stage,
            tasks: head.n_tasks,
            done: head.n_tasks - head.n_waiting,
            running: 0,
            waiting: 0,
            failed: Vec::new(),
        };
        for task in tasks {
            let task = Task { output: head.folder.join(&task.output), ..task };
            if task.finished()?.is_some() {
                progress.done += 1;
            } else if attempt::is_under_way(&task.output) {
                progress.running += 1;
            } else if let Some(failure) = Failure::read(&task)? {
                progress.failed.push(FailedTask { part: task.part, output: task.output, failure });
            } else {
                progress.waiting += 1;
            }
        }
        progress.failed.sort_by_key(|failed| failed.part);
        Ok(Some(progress))
    }

    /// The same if no process is running: started but unfinished tasks were killed.
    pub fn with_nobody_at_work(self) -> Progress {
        Progress { running: 0, waiting: self.waiting + self.running, ..self }
    }

    /// A line with the numbers, and one for each failure.
    pub fn text(&self) -> String {
        let Progress { stage, tasks, done, running, waiting, failed } = self;
        let mut text = format!(
            "{stage}: {tasks} tasks, {done} done, {running} running, {waiting} waiting, {} failed\n",
            failed.len()
        );
        failed.iter().for_each(|failed| text.push_str(&format!("  {}\n", failed.text())));
        text
    }
}
