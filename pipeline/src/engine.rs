//! Where tasks run. An engine only places tasks; it never sees a text and knows no stage, so a
//! distributed one needs nothing but the methods of [`Engine`].

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::stage::{self, Report, Task};
use crate::watch::Watch;

/// A place where tasks run.
pub trait Engine {
    /// Runs all tasks and returns their reports in the order of the tasks.
    ///
    /// # Errors
    /// The error of one of the failed tasks; finished tasks stay finished.
    fn map(&self, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>>;

    /// Threads of this machine for a step that sees rows of all parts.
    fn pool(&self) -> &rayon::ThreadPool;

    /// Bytes of memory for one step that sees rows of all parts.
    fn memory_bytes(&self) -> u64;
}

/// All cores of this machine.
pub struct LocalEngine {
    pool: rayon::ThreadPool,
    memory_bytes: u64,
}

/// Default memory of an engine.
const MEMORY_BYTES: u64 = 1 << 30;
/// The least limit.
const MIN_MEMORY_BYTES: u64 = 1 << 20;

impl LocalEngine {
    /// An engine with `threads` threads, at least one.
    ///
    /// # Errors
    /// The system refuses to start them.
    pub fn new(threads: usize) -> Result<LocalEngine> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        pool.map(|pool| LocalEngine { pool, memory_bytes: MEMORY_BYTES })
            .map_err(|e| Error::Machine(format!("cannot start {threads} threads: {e}")))
    }

    /// The same with a limit for the memory of deduplication, raised to 1 MiB where it is lower. Results do
    /// not depend on it.
    pub fn with_memory(self, memory_bytes: u64) -> LocalEngine {
        LocalEngine { memory_bytes: memory_bytes.max(MIN_MEMORY_BYTES), ..self }
    }

    /// Runs a function that uses the threads itself.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Tasks that run at once.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Engine for LocalEngine {
    fn map(&self, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>> {
        let watch = watch.with_memory(self.memory_bytes / self.pool.current_num_threads() as u64);
        self.pool.install(|| tasks.par_iter().map(|task| stage::run(task, &watch)).collect())
    }

    fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}
