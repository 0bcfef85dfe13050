//! The status of a submitted build.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::settings::job_name;
use super::{Job, Outcome, State, absolute, logs, queue};
use crate::cluster::Progress;
use crate::error::Result;

/// The status of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its jobs are in the queue.
    AtWork,
    /// The data is there.
    Finished,
    /// A reason says why.
    Stopped,
    /// No job of it is in the queue, and none said why: they were canceled, or a driver was killed.
    Abandoned,
}

/// A job with its log.
#[derive(Clone, Debug, Serialize)]
pub struct LoggedJob {
    /// As Slurm knows it.
    #[serde(flatten)]
    pub job: Job,
    /// Where its output goes.
    pub log: PathBuf,
}

/// What is known of a build.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Output folder.
    pub out: PathBuf,
    /// Its status.
    pub standing: Standing,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Arrays submitted so far.
    pub rounds: usize,
    /// Progress of the current stage; absent before the first one and when the build is finished.
    pub progress: Option<Progress>,
    /// Jobs in the queue.
    pub jobs: Vec<LoggedJob>,
    /// Log of the last driver.
    pub driver_log: Option<PathBuf>,
}

impl Status {
    /// Asks Slurm and the folder.
    ///
    /// # Errors
    /// The build was not submitted, Slurm cannot be asked, or a file cannot be read.
    pub fn read(out: &Path) -> Result<Status> {
        let out = absolute(out)?;
        State::read(&out)?;
        let jobs = queue::jobs(&job_name(&out))?;
        // After the queue: the last driver notes how the build ended before it leaves the queue.
        let state = State::read(&out)?;
        let progress = Progress::read(&out)?;
        let is_running = jobs.iter().any(|job| job.index.is_some() && job.state == "RUNNING");
        let progress = match is_running {
            true => progress,
            false => progress.map(Progress::with_nobody_at_work),
        };
        let (standing, reason) = match state.outcome {
            Some(Outcome::Finished) => (Standing::Finished, None),
            Some(Outcome::Stopped(reason)) => (Standing::Stopped, Some(reason)),
            None if jobs.is_empty() => (Standing::Abandoned, None),
            None => (Standing::AtWork, None),
        };
        let log = |job: Job| {
            let name = match job.index {
                Some(index) => format!("{}_{index}.log", job.array),
                None => format!("driver-{}.log", job.id),
            };
            LoggedJob { job, log: logs(&out).join(name) }
        };
        let driver_log = state.driver.map(|id| logs(&out).join(format!("driver-{id}.log")));
        let jobs = jobs.into_iter().map(log).collect();
        Ok(Status { standing, reason, rounds: state.rounds.len(), progress, jobs, driver_log, out })
    }

    /// For people.
    pub fn text(&self) -> String {
        let log =
            self.driver_log.as_ref().map_or_else(String::new, |log| format!("; log: {}", log.display()));
        let out = self.out.display();
        let mut text = match (&self.standing, &self.reason) {
            (Standing::Finished, _) => format!("{out}: finished after {} arrays\n", self.rounds),
            (Standing::AtWork, _) => format!("{out}: at work, array {}\n", self.rounds),
            (Standing::Stopped, reason) => {
                format!("{out}: stopped: {}{log}\n", reason.as_deref().unwrap_or_default())
            }
            (Standing::Abandoned, _) => format!(
                "{out}: no job of it is in the queue, and the build is not finished{log}\n  hint: moe-data slurm retry {out}\n"
            ),
        };
        text.extend(self.progress.iter().map(Progress::text));
        for LoggedJob { job, log } in &self.jobs {
            let kind = if job.index.is_some() { "tasks " } else { "driver" };
            let place = if job.node.is_empty() { &job.reason } else { &job.node };
            text.push_str(&format!(
                "{kind} {:<10} {:<10} {place:<12} {}\n",
                job.id,
                job.state,
                log.display()
            ));
        }
        text
    }
}
