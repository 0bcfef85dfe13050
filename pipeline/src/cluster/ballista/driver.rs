//! The build's side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moe_ballista::{Driver, DriverConfig};
use moe_shards::Hash;
use rayon::prelude::*;

use super::order::Order;
use crate::cluster::Failure;
use crate::engine::{Engine, Keyed, LocalEngine, Pair};
use crate::error::{Error, Result};
use crate::stage::{Report, Task};
use crate::tables::{KEY_TABLE, clear_folder, entries, remove_if_empty};
use crate::watch::Watch;

/// Folder in the work folder for what executors read of a job.
const JOBS: &str = "ballista";
/// How often it is looked which tasks have been done, at most.
const LOOK: Duration = Duration::from_secs(1);

/// An engine whose tasks run elsewhere; what sees rows of all parts, but for equal keys, runs here.
pub struct BallistaEngine {
    local: LocalEngine,
    driver: Driver,
    work: PathBuf,
}

impl BallistaEngine {
    /// Listens for executors. `out` is the output folder of the build; `executor_timeout` is how long an executor may be silent before
    /// its tasks are done by others.
    ///
    /// # Errors
    /// Nobody can listen at the address, or the machine has no threads left.
    pub fn listen(
        local: LocalEngine,
        out: &Path,
        listen: SocketAddr,
        executor_timeout: Duration,
    ) -> Result<BallistaEngine> {
        let driver = Driver::start(DriverConfig { listen, executor_timeout }).map_err(failed)?;
        Ok(BallistaEngine { local, driver, work: out.join("work") })
    }

    /// Where executors find it.
    pub fn address(&self) -> SocketAddr {
        self.driver.address()
    }

    /// The machine of the build.
    pub fn local(&self) -> &LocalEngine {
        &self.local
    }

    /// Runs tasks that nobody has done, large ones first, and returns their reports in the order of `tasks`.
    fn run(&self, tasks: &[&Task], watch: &Watch) -> Result<Vec<Report>> {
        let folder = std::env::current_dir().map_err(Error::io(Path::new("."), "find"))?;
        let orders = tasks.iter().map(|&task| {
            Failure::forget(task)?;
            let order = Order { folder: folder.clone(), task: task.clone() };
            order.encode().map_err(|e| Error::data(&task.output, format!("its task cannot be sent: {e}")))
        });
        let orders = orders.collect::<Result<Vec<String>>>()?;
        let digest = Hash::of(orders.concat().as_bytes()).to_string()[..24].to_owned();
        let jobs = self.work.join(JOBS);
        let job = jobs.join(digest);
        clear_folder(&job)?;
        let mut progress = Progress::new(tasks, watch);
        let answers = self.driver.run(&orders, &job, &mut || progress.look());
        std::fs::remove_dir_all(&job).map_err(Error::io(&job, "delete"))?;
        remove_if_empty(&jobs)?;
        progress.outcome?;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => return Err(self.failure(tasks, error)?),
        };
        let parse = |(answer, task): (String, &&Task)| {
            serde_json::from_str(&answer).map_err(|e| Error::data(&task.output, format!("its report: {e}")))
        };
        answers.into_iter().zip(tasks).map(parse).collect()
    }

    /// Names the task that failed: executors have noted why.
    fn failure(&self, tasks: &[&Task], error: moe_ballista::Error) -> Result<Error> {
        if matches!(error, moe_ballista::Error::Stopped) {
            return Ok(Error::Interrupted);
        }
        let noted = |task: &&Task| Ok(Failure::read(task)?.map(|failure| ((*task).clone(), failure)));
        let noted: Vec<Option<(Task, Failure)>> = tasks.iter().map(noted).collect::<Result<_>>()?;
        // One that failed once and succeeded later has no note any more; one that was to be tried again has fewer tries.
        let worst = noted
            .into_iter()
            .flatten()
            .max_by_key(|(task, failure)| (failure.n_tries, std::cmp::Reverse(task.part)));
        Ok(match worst {
            None => failed(error),
            Some((task, failure)) => Error::Tasks {
                message: format!(
                    "task {} of `{}` failed {} on {}: {}\n  hint: the other tasks that were done stay; mend the cause and rerun, which continues from here",
                    task.part,
                    task.job.stage(),
                    times(failure.n_tries),
                    failure.host,
                    failure.reason
                ),
                code: failure.exit_code,
            },
        })
    }
}

impl Engine for BallistaEngine {
    fn map(&self, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>> {
        let mut reports: Vec<Option<Report>> =
            self.local.install(|| tasks.par_iter().map(Task::finished).collect::<Result<_>>())?;
        let mut waiting: Vec<usize> = (0..tasks.len()).filter(|&i| reports[i].is_none()).collect();
        let done = tasks.iter().zip(&reports).filter(|(_, report)| report.is_some());
        watch.advance(done.map(|(task, _)| task.weight).sum())?;
        if !waiting.is_empty() {
            waiting.sort_by_key(|&i| (std::cmp::Reverse(tasks[i].weight), tasks[i].part));
            let sent: Vec<&Task> = waiting.iter().map(|&i| &tasks[i]).collect();
            for (i, report) in waiting.into_iter().zip(self.run(&sent, watch)?) {
                reports[i] = Some(report);
            }
        }
        Ok(reports.into_iter().flatten().collect())
    }

    fn pairs(&self, rows: &dyn Keyed, watch: &Watch, each: &mut dyn FnMut(Pair) -> Result<()>) -> Result<()> {
        let tasks = rows.tables()?;
        self.map(&tasks, &watch.without_bar())?;
        let tables: Vec<PathBuf> = tasks.iter().map(|task| task.file(KEY_TABLE)).collect();
        let mut go_on = || watch.advance(0).is_ok();
        let mut pair = |first, other| each(Pair { first, other }).map_err(Stopped::Here);
        self.driver.pairs(&tables, rows.in_order(), &mut go_on, &mut pair).map_err(Stopped::error)
    }

    fn pool(&self) -> &rayon::ThreadPool {
        self.local.pool()
    }

    fn memory_bytes(&self) -> u64 {
        self.local.memory_bytes()
    }
}

/// What ended a search for pairs.
enum Stopped {
    Here(Error),
    There(moe_ballista::Error),
}

impl From<moe_ballista::Error> for Stopped {
    fn from(error: moe_ballista::Error) -> Stopped {
        Stopped::There(error)
    }
}

impl Stopped {
    fn error(self) -> Error {
        match self {
            Stopped::Here(error) => error,
            Stopped::There(moe_ballista::Error::Stopped) => Error::Interrupted,
            Stopped::There(error) => failed(error),
        }
    }
}

/// How far a job is, by the folders that tasks leave when they end.
struct Progress<'a> {
    /// Weights of the tasks that are not done, by their folders.
    left: HashMap<&'a Path, u64>,
    watch: &'a Watch,
    next_look: Instant,
    outcome: Result<()>,
}

impl<'a> Progress<'a> {
    fn new(tasks: &[&'a Task], watch: &'a Watch) -> Progress<'a> {
        let left = tasks.iter().map(|task| (task.output.as_path(), task.weight)).collect();
        Progress { left, watch, next_look: Instant::now() + LOOK, outcome: Ok(()) }
    }

    /// False when the job is to be stopped.
    fn look(&mut self) -> bool {
        let amount = match Instant::now() >= self.next_look {
            false => Ok(0),
            true => self.newly_done(),
        };
        self.outcome = amount.and_then(|amount| self.watch.advance(amount));
        self.outcome.is_ok()
    }

    /// The weight of tasks that have ended since the last look.
    fn newly_done(&mut self) -> Result<u64> {
        let started = Instant::now();
        let mut amount = 0;
        // All tasks of a stage have their folders in one.
        if let Some(stage) = self.left.keys().next().and_then(|folder| folder.parent()) {
            for folder in entries(stage)? {
                amount += self.left.remove(folder.as_path()).unwrap_or(0);
            }
        }
        // A slow file system is not asked all the time.
        self.next_look = Instant::now() + LOOK.max(20 * started.elapsed());
        Ok(amount)
    }
}

fn failed(error: moe_ballista::Error) -> Error {
    match error {
        moe_ballista::Error::Stopped => Error::Interrupted,
        moe_ballista::Error::Listen { address, source } => Error::Machine(format!(
            "cannot listen on {address}: {source}; choose another address with --listen"
        )),
        error => Error::Machine(format!("the executors could not do it: {error}")),
    }
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}
