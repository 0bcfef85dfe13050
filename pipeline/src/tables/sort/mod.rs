//! External sort: any number of rows in ascending order within a memory limit.
//!
//! [`Sorter`] takes rows in any order. It fills a chunk of memory, hands it to a thread that sorts
//! it and writes it as a run ([`run`]), and goes on with the next chunk. [`Sorter::finish`] merges
//! the runs ([`merge`]) and returns [`Sorted`], a stream; [`Groups`] cuts the stream at changes of
//! a key. Rows compare by all their fields, so equal rows are equal bytes, and the stream is the
//! same for any memory limit, number of threads and order of input. Equal rows are all kept.
//!
//! Chunks are sorted by the standard library's `sort_unstable`, one a thread. It was measured
//! against radix sort (`rdst` 0.20) and rayon's parallel sort on 40 million band rows and is the
//! fastest where several chunks are sorted at once.

pub mod merge;
pub mod range;
pub mod run;
mod stream;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rayon::slice::ParallelSliceMut;

use super::clear_folder;
use super::rows::Row;
use crate::error::{Error, Result};
use crate::watch::Watch;

use self::merge::Merge;
use self::run::{BLOCK_BYTES, RunReader, RunWriter, block_len};
pub use self::stream::{Group, Groups, Sorted};

/// The lowest memory limit in bytes; a lower one is raised to it.
pub const MIN_MEMORY_BYTES: u64 = 1 << 20;
/// Runs that are merged at once, at most: each is an open file.
const MAX_FAN_IN: usize = 128;
/// Most of a run that is read at once.
const MAX_READ_BYTES: usize = 4 << 20;

/// What a memory limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// Threads that sort and write chunks while the next one fills.
    workers: usize,
    /// Rows in a chunk.
    chunk_rows: usize,
    /// Runs that are merged at once.
    fan_in: usize,
    /// Bytes for reading all runs of a merge.
    read_bytes: usize,
    /// Rows that the merging thread hands over at once; there are up to four such batches.
    batch_rows: usize,
}

impl Limits {
    fn new<R: Row>(memory_bytes: u64, threads: usize) -> Limits {
        let memory = usize::try_from(memory_bytes.max(MIN_MEMORY_BYTES)).unwrap_or(usize::MAX);
        // A sixteenth is left for stacks, the block under construction of each worker and the allocator.
        let memory = memory / 16 * 15;
        let workers = threads.min(memory / (16 * BLOCK_BYTES)).max(1);
        let row_bytes = size_of::<R>().max(1);
        // While rows are merged there are no chunks, so both may have all of the memory: half for
        // reading runs, and an eighth for each of four batches at most.
        let read_bytes = memory / 2;
        Limits {
            workers,
            chunk_rows: (memory / (workers + 1) / row_bytes).max(1),
            fan_in: (read_bytes / (2 * block_len::<R>())).clamp(2, MAX_FAN_IN),
            read_bytes,
            batch_rows: (memory / 8 / row_bytes).clamp(1, 1 << 16),
        }
    }
}

/// A run and whether it is ours to remove.
struct Run<R> {
    path: PathBuf,
    temporary: bool,
    /// Which of its rows, as for [`RunReader::open_range`]; all of them when absent.
    side: Option<Side<R>>,
}

type Side<R> = Arc<dyn Fn(&R) -> Ordering + Send + Sync>;

/// A thread that sorts and writes a chunk; it returns the chunk, empty, to be filled again.
type Worker<R> = JoinHandle<Result<Vec<R>>>;

/// Sorts rows. See the module's documentation.
pub struct Sorter<R> {
    folder: PathBuf,
    limits: Limits,
    watch: Watch,
    chunk: Vec<R>,
    workers: VecDeque<Worker<R>>,
    runs: VecDeque<Run<R>>,
    n_files: usize,
}

impl<R: Row + Copy + Send + 'static> Sorter<R> {
    /// A sorter that uses at most about `memory_bytes`, [`MIN_MEMORY_BYTES`] at least, as many
    /// threads as the rayon pool it is called in, and `folder` for its runs. The folder must be
    /// the sorter's own: it is emptied now and removed at the end.
    ///
    /// # Errors
    /// The folder cannot be made or emptied.
    pub fn new(folder: &Path, memory_bytes: u64, watch: &Watch) -> Result<Sorter<R>> {
        let limits = Limits::new::<R>(memory_bytes, rayon::current_num_threads());
        Sorter::with_limits(folder, limits, watch)
    }

    fn with_limits(folder: &Path, limits: Limits, watch: &Watch) -> Result<Sorter<R>> {
        clear_folder(folder)?;
        Ok(Sorter {
            folder: folder.to_owned(),
            limits,
            watch: watch.clone(),
            chunk: Vec::with_capacity(limits.chunk_rows),
            workers: VecDeque::new(),
            runs: VecDeque::new(),
            n_files: 0,
        })
    }

    /// Takes a row.
    ///
    /// # Errors
    /// [`Error::Interrupted`], or a run cannot be written.
    pub fn push(&mut self, row: R) -> Result<()> {
        if self.chunk.len() == self.limits.chunk_rows {
            self.spill()?;
        }
        self.chunk.push(row);
        Ok(())
    }

    /// Takes a run that [`RunWriter::commit`] made; it is read at the end and left in place.
    pub fn add_run(&mut self, path: &Path) {
        self.runs.push_back(Run { path: path.to_owned(), temporary: false, side: None });
    }

    /// Takes some rows of such runs: those that `side` finds equal, see [`RunReader::open_range`].
    pub fn add_ranges(
        &mut self,
        paths: impl IntoIterator<Item = PathBuf>,
        side: impl Fn(&R) -> Ordering + Send + Sync + 'static,
    ) {
        let side: Side<R> = Arc::new(side);
        let runs = paths.into_iter().map(|path| Run { path, temporary: false, side: Some(side.clone()) });
        self.runs.extend(runs);
    }

    /// All rows in ascending order.
    ///
    /// # Errors
    /// [`Error::Interrupted`], a run cannot be written or read, or is damaged.
    pub fn finish(mut self) -> Result<Sorted<R>> {
        if self.runs.is_empty() {
            self.chunk.par_sort_unstable();
            remove_folder(&self.folder)?;
            return Ok(Sorted::in_memory(mem::take(&mut self.chunk)));
        }
        if !self.chunk.is_empty() {
            self.spill()?;
        }
        self.chunk = Vec::new();
        while let Some(worker) = self.workers.pop_front() {
            join(worker)?;
        }
        // The oldest runs are merged first: they are the smallest, and so few that one merge is left.
        let fan_in = self.limits.fan_in;
        while self.runs.len() > fan_in {
            let n_runs = fan_in.min(self.runs.len() - fan_in + 1);
            let runs = self.runs.drain(..n_runs).collect();
            let merged = self.merge_to_run(runs)?;
            self.runs.push_back(merged);
        }
        let runs: Vec<Run<R>> = self.runs.drain(..).collect();
        let merge = Merge::new(open(&runs, self.limits.read_bytes)?)?;
        Sorted::merging(merge, self.limits.batch_rows, mem::take(&mut self.folder))
    }

    fn next_path(&mut self) -> PathBuf {
        self.n_files += 1;
        self.folder.join(format!("{:06}.run", self.n_files))
    }

    /// Hands the chunk to a thread, waiting for the oldest one when all are at work.
    fn spill(&mut self) -> Result<()> {
        self.watch.advance(0)?;
        let empty = match self.workers.len() == self.limits.workers {
            true => self.workers.pop_front().map(join).transpose()?,
            false => None,
        };
        let empty = empty.unwrap_or_else(|| Vec::with_capacity(self.limits.chunk_rows));
        let mut chunk = mem::replace(&mut self.chunk, empty);
        let path = self.next_path();
        self.runs.push_back(Run { path: path.clone(), temporary: true, side: None });
        let work = move || {
            chunk.sort_unstable();
            let mut run = RunWriter::temporary(&path)?;
            chunk.iter().try_for_each(|row| run.push(*row))?;
            run.finish()?;
            chunk.clear();
            Ok(chunk)
        };
        let thread = std::thread::Builder::new().name("sort".to_owned()).spawn(work);
        self.workers.push_back(thread.map_err(Error::io(&self.folder, "start a thread to sort in"))?);
        Ok(())
    }

    /// Merges runs into one and removes those that are ours.
    fn merge_to_run(&mut self, runs: Vec<Run<R>>) -> Result<Run<R>> {
        let path = self.next_path();
        let mut merge: Merge<R> = Merge::new(open(&runs, self.limits.read_bytes)?)?;
        let mut merged = RunWriter::temporary(&path)?;
        let mut n_rows = 0u64;
        while let Some(row) = merge.next_row()? {
            merged.push(row)?;
            n_rows += 1;
            if n_rows.is_multiple_of(1 << 16) {
                self.watch.advance(0)?;
            }
        }
        merged.finish()?;
        drop(merge);
        for run in runs.iter().filter(|run| run.temporary) {
            fs::remove_file(&run.path).map_err(Error::io(&run.path, "remove"))?;
        }
        Ok(Run { path, temporary: true, side: None })
    }
}

impl<R> Drop for Sorter<R> {
    /// Waits for the threads of an abandoned sorter; the next sorter in the folder removes their runs.
    fn drop(&mut self) {
        for worker in self.workers.drain(..) {
            drop(worker.join());
        }
    }
}

fn join<R>(worker: Worker<R>) -> Result<Vec<R>> {
    match worker.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn open<R: Row + Copy>(runs: &[Run<R>], read_bytes: usize) -> Result<Vec<RunReader<R>>> {
    let buffer_bytes = (read_bytes / runs.len().max(1)).min(MAX_READ_BYTES);
    let open = |run: &Run<R>| match &run.side {
        None => RunReader::open(&run.path, buffer_bytes),
        Some(side) => RunReader::open_range(&run.path, buffer_bytes, &**side),
    };
    runs.iter().map(open).collect()
}

fn remove_folder(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).map_err(Error::io(folder, "remove"))
}

#[cfg(test)]
mod tests;
