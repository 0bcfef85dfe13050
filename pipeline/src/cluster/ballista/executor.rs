//! The executor's side.

use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use moe_ballista::{ExecutorConfig, MIN_MEMORY_BYTES, TaskError};
use moe_cli::lock;
use moe_report::progress::Bar;

use super::order::Order;
use crate::cluster::Failure;
use crate::engine::{Engine, LocalEngine};
use crate::error::{Error, Result};
use crate::printer::Printer;
use crate::recipe::ByteSize;
use crate::stage::{self, Task};
use crate::watch::Watch;

/// What an executor has, and for whom.
#[derive(Debug)]
pub struct Executor {
    /// Host and port of the driver.
    pub driver: (String, u16),
    /// The address of this machine at which others fetch rows.
    pub listen: IpAddr,
    /// Its own folder for rows on their way is made here.
    pub work_dir: PathBuf,
    /// How long to wait for a driver that does not answer.
    pub patience: Duration,
}

/// Works for a driver until it is gone. `engine` has the threads for as many tasks at once, and their memory.
///
/// # Errors
/// [`Error::Interrupted`], or the executor cannot start.
pub fn execute(
    executor: &Executor,
    engine: LocalEngine,
    printer: &Printer,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let n_cores = engine.threads();
    let least = MIN_MEMORY_BYTES * n_cores as u64;
    if engine.memory_bytes() < least {
        return Err(Error::Usage(format!(
            "--memory is {}, and {n_cores} tasks at once need {} at least; give more, or fewer --vcores",
            ByteSize(engine.memory_bytes()),
            ByteSize(least)
        )));
    }
    // Absolute, since tasks start from the folder of their build.
    let parent = std::path::absolute(&executor.work_dir).map_err(Error::io(&executor.work_dir, "find"))?;
    let work_dir = Scratch::create(&parent)?;
    let (driver_host, driver_port) = executor.driver.clone();
    let driver = format!("{driver_host}:{driver_port}");
    let worker = Worker {
        memory_bytes: engine.memory_bytes() / n_cores as u64,
        engine,
        printer: *printer,
        stop: stop.clone(),
        folder: RwLock::new(PathBuf::new()),
    };
    let config = ExecutorConfig {
        driver_host,
        driver_port,
        listen: executor.listen,
        n_cores,
        memory_bytes: worker.engine.memory_bytes(),
        work_dir: work_dir.folder.clone(),
        patience: executor.patience,
        stop: stop.clone(),
        run: Arc::new(move |order| worker.run(order)),
    };
    let outcome = moe_ballista::execute(&config, |address| {
        printer.note(&format!("executor {address} does {n_cores} tasks at a time for {driver}"));
    });
    drop(work_dir);
    match outcome {
        _ if stop.load(Ordering::Relaxed) => Err(Error::Interrupted),
        Ok(()) => {
            printer.note(&format!("{driver} does not answer any more; the build has ended"));
            Ok(())
        }
        Err(error @ moe_ballista::Error::NoDriver { .. }) => Err(Error::Machine(format!(
            "{error}; is it the address of a moe-data build --engine ballista --listen HOST:PORT?"
        ))),
        Err(error) => Err(Error::Machine(error.to_string())),
    }
}

/// Beginning of the names of executors' folders.
const SCRATCH: &str = "moe-executor-";

/// A folder of this process, which goes with it. It is locked, so that what a killed process left can be told from what another one uses.
struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    fn create(parent: &Path) -> Result<Scratch> {
        std::fs::create_dir_all(parent).map_err(Error::io(parent, "create folder"))?;
        remove_abandoned(parent)?;
        let mut n = 0;
        loop {
            let folder = parent.join(format!("{SCRATCH}{}-{n}", std::process::id()));
            match std::fs::create_dir(&folder) {
                // Between the two steps another executor may have found the folder without its lock, and removed it.
                Ok(()) => match lock::acquire(&folder) {
                    Ok(Some(lock)) if folder.join(lock::FILE).exists() => {
                        return Ok(Scratch { folder, _lock: lock });
                    }
                    Ok(_) => n += 1,
                    Err(e) if e.kind() == ErrorKind::NotFound => n += 1,
                    Err(e) => return Err(Error::io(&folder, "lock")(e)),
                },
                Err(e) if e.kind() == ErrorKind::AlreadyExists => n += 1,
                Err(e) => return Err(Error::io(&folder, "create folder")(e)),
            }
        }
    }
}

/// Removes the folders of executors that were killed. Rows of a large build fill disks.
fn remove_abandoned(parent: &Path) -> Result<()> {
    for entry in std::fs::read_dir(parent).map_err(Error::io(parent, "list"))? {
        let folder = entry.map_err(Error::io(parent, "list"))?.path();
        let is_ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH));
        // Others may be removing it, too.
        if is_ours && folder.join(lock::FILE).exists() && matches!(lock::acquire(&folder), Ok(Some(_))) {
            std::fs::remove_dir_all(&folder).ok();
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: tasks that are given up may still write, and Ballista may be removing rows of finished jobs.
        for _ in 0..10 {
            match std::fs::remove_dir_all(&self.folder) {
                Err(e) if e.kind() != ErrorKind::NotFound => std::thread::sleep(Duration::from_millis(50)),
                _ => return,
            }
        }
    }
}

/// Does tasks.
struct Worker {
    engine: LocalEngine,
    /// Memory of a task.
    memory_bytes: u64,
    printer: Printer,
    stop: Arc<AtomicBool>,
    /// The folder that the process is in; tasks that are at work hold it.
    folder: RwLock<PathBuf>,
}

impl Worker {
    fn run(&self, order: &str) -> std::result::Result<String, TaskError> {
        let order = Order::decode(order).map_err(TaskError::Lasting)?;
        let _folder = self.enter(&order.folder).map_err(|e| TaskError::Lasting(e.to_string()))?;
        let task = &order.task;
        let name = format!("task {} of `{}`", task.part, task.job.stage());
        let watch = Watch::new(self.stop.clone(), Bar::hidden()).with_memory(self.memory_bytes);
        let work = || self.engine.install(|| stage::run(task, &watch));
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            Err(Error::Tasks {
                message: format!("panicked: {text}; this is a bug, please report it"),
                code: 101,
            })
        });
        let error = match outcome {
            Ok(report) => {
                self.printer.detail(&format!("  {name} is done: {}", task.output.display()));
                Failure::forget(task).map_err(|e| TaskError::Passing(e.to_string()))?;
                return serde_json::to_string(&report).map_err(|e| TaskError::Lasting(e.to_string()));
            }
            Err(error) => error,
        };
        let reason = format!("{name}: {error}");
        if matches!(error, Error::Interrupted) {
            return Err(TaskError::Passing(reason));
        }
        self.printer.error(&reason);
        if let Err(e) = note(task, &error) {
            self.printer.error(&format!("{name}: {e}"));
        }
        Err(if may_pass(&error) { TaskError::Passing(reason) } else { TaskError::Lasting(reason) })
    }

    /// Goes to the folder that a task starts from, when no task of another folder is at work.
    fn enter(&self, folder: &Path) -> Result<RwLockReadGuard<'_, PathBuf>> {
        loop {
            let here = self.folder.read().unwrap_or_else(PoisonError::into_inner);
            if *here == folder {
                return Ok(here);
            }
            drop(here);
            let mut here = self.folder.write().unwrap_or_else(PoisonError::into_inner);
            std::env::set_current_dir(folder).map_err(Error::io(folder, "enter"))?;
            *here = folder.to_owned();
        }
    }
}

fn note(task: &Task, error: &Error) -> Result<()> {
    // Another executor may have done meanwhile what failed here.
    match task.finished()? {
        None => Failure::note(task, error, None),
        Some(_) => Ok(()),
    }
}

/// Whether another try may do better: the network or the disk had a bad moment, or a file that another machine wrote is not there yet.
fn may_pass(error: &Error) -> bool {
    let source = match error {
        Error::Io { source, .. }
        | Error::Shards(moe_shards::Error::Io { source, .. })
        | Error::Llm(moe_llm::Error::Io { source, .. }) => source,
        Error::Machine(_) | Error::Llm(moe_llm::Error::Connect { .. } | moe_llm::Error::Server { .. }) => {
            return true;
        }
        _ => return false,
    };
    !matches!(
        source.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::AlreadyExists
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::DirectoryNotEmpty
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::UnexpectedEof
            | ErrorKind::Unsupported
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::InvalidFilename
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        let io = |kind: ErrorKind| Error::io(Path::new("x"), "read")(kind.into());
        for kind in [ErrorKind::TimedOut, ErrorKind::NotFound, ErrorKind::StaleNetworkFileHandle] {
            assert!(may_pass(&io(kind)), "{kind}");
        }
        assert!(may_pass(&Error::io(Path::new("x"), "read")(std::io::Error::from_raw_os_error(5))));
        for kind in [ErrorKind::NotADirectory, ErrorKind::PermissionDenied, ErrorKind::StorageFull] {
            assert!(!may_pass(&io(kind)), "{kind}");
        }
        assert!(!may_pass(&Error::data(Path::new("x"), "damaged")));
    }

    #[test]
    fn the_folder_of_an_executor_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = [0, 1].map(|_| Scratch::create(dir.path()).unwrap());
        assert_ne!(a.folder, b.folder);
        std::fs::write(a.folder.join("x"), "x").unwrap();
        let path = a.folder.clone();
        drop(a);
        assert!(!path.exists() && b.folder.exists());
    }

    #[test]
    fn rows_of_a_killed_executor_go_with_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let alive = Scratch::create(dir.path()).unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, is_locked) in [("moe-executor-1-0", true), ("moe-executor-notes", false), ("other", true)]
        {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join("rows"), "x").unwrap();
            if is_locked {
                std::fs::write(path(name).join(lock::FILE), "").unwrap();
            }
        }
        let _next = Scratch::create(dir.path()).unwrap();
        assert!(!path("moe-executor-1-0").exists());
        assert!(alive.folder.exists() && path("moe-executor-notes").exists() && path("other").exists());
    }
}
