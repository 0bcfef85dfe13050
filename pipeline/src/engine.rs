//! Where tasks run, and where equal keys are found. An engine never sees a text and knows no stage, so a distributed one needs
//! nothing but the methods of [`Engine`].

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

    /// Calls `each` with every pair of rows that have a key in common, as [`Keyed`] says.
    ///
    /// # Errors
    /// That of `each`, [`crate::Error::Interrupted`], or what finding them ran into.
    fn pairs(&self, rows: &dyn Keyed, watch: &Watch, each: &mut dyn FnMut(Pair) -> Result<()>) -> Result<()>;

    /// Threads of this machine for a step that sees rows of all parts.
    fn pool(&self) -> &rayon::ThreadPool;

    /// Bytes of memory for one step that sees rows of all parts.
    fn memory_bytes(&self) -> u64;
}

/// Rows of all parts with keys. Of the rows with one key, the first makes a pair with each other one.
pub trait Keyed {
    /// Whether pairs come in ascending order of keys, and for one key in that of its rows. Otherwise they come in any order, and
    /// rows with several keys in common may be paired once or several times.
    fn in_order(&self) -> bool;

    /// Finds the pairs on this machine, within the memory of the engine.
    ///
    /// # Errors
    /// That of `each`, [`crate::Error::Interrupted`], or the disk refuses.
    fn pairs_here(
        &self,
        engine: &dyn Engine,
        watch: &Watch,
        each: &mut dyn FnMut(Pair) -> Result<()>,
    ) -> Result<()>;

    /// Tasks that write the rows into tables of keys ([`crate::tables::keys`]), for engines that find the pairs elsewhere.
    ///
    /// # Errors
    /// The disk refuses.
    fn tables(&self) -> Result<Vec<Task>>;
}

/// Two rows with a key in common, by what they are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The first row of the key.
    pub first: u64,
    /// Another one.
    pub other: u64,
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

    fn pairs(&self, rows: &dyn Keyed, watch: &Watch, each: &mut dyn FnMut(Pair) -> Result<()>) -> Result<()> {
        rows.pairs_here(self, watch, each)
    }

    fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}
