//! Where tasks run. An engine only places tasks and groups keys; it never sees a text, so a
//! distributed one needs nothing but the methods of [`Engine`].

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dedup::minhash::Ranks;
use crate::error::{Error, Result};
use crate::stage::{self, Report, Task};
use crate::watch::Watch;
use crate::work::dedup_rows::SketchKeyRow;
use crate::work::rows::{BandRow, KeyRow, Row, Table};
use crate::work::sort::Sorter;
use crate::work::sort::run::RunReader;

/// A place where tasks run.
pub trait Engine {
    /// Runs all tasks and returns their reports in the order of the tasks.
    ///
    /// # Errors
    /// The error of one of the failed tasks; finished tasks stay finished.
    fn map(&self, tasks: &[Task], watch: &Watch) -> Result<Vec<Report>>;

    /// Finds equal keys over sorted tables of [`KeyRow`]. For each group the least row survives,
    /// ties going to the first table; `each` gets one edge for each of the others. Edges come in
    /// ascending order of key and row.
    ///
    /// # Errors
    /// [`Error::Interrupted`], a table cannot be read, or what `each` returns.
    fn edges(&self, runs: &[PathBuf], watch: &Watch, each: &mut dyn FnMut(Edge) -> Result<()>) -> Result<()>;

    /// Finds equal band keys over sorted runs of [`SketchKeyRow`], one a part. For each group of
    /// documents with one key, `each` gets the lowest rank of the group with every other one.
    /// `folder` is for files on the way; it is removed.
    ///
    /// # Errors
    /// [`Error::Interrupted`], a run cannot be read, or what `each` returns.
    fn band_edges(
        &self,
        runs: &[PathBuf],
        ranks: &Ranks,
        folder: &Path,
        watch: &Watch,
        each: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()>;

    /// Bytes of memory for one step that sees rows of all parts.
    fn memory_bytes(&self) -> u64;
}

/// A document by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position of its table among those given.
    pub run: u32,
    /// Its row in the part's documents.
    pub row: u32,
}

/// A duplicate and what is kept instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The duplicate.
    pub removed: Place,
    /// The survivor.
    pub kept: Place,
}

/// All cores of this machine.
pub struct LocalEngine {
    pool: rayon::ThreadPool,
    memory_bytes: u64,
}

/// Memory of an engine for which nobody set a limit.
const MEMORY_BYTES: u64 = 1 << 30;
/// The least limit.
const MIN_MEMORY_BYTES: u64 = 1 << 20;
/// Keys take this many times their bytes on the disk while they are sorted in memory.
const KEY_EXPANSION: u64 = 4;

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

    /// Runs what uses the threads by itself.
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

    fn edges(&self, runs: &[PathBuf], watch: &Watch, each: &mut dyn FnMut(Edge) -> Result<()>) -> Result<()> {
        let tables =
            runs.iter().map(|path| Ok(Table::<KeyRow>::open(path)?.len())).collect::<Result<Vec<u64>>>()?;
        let n_bytes: u64 = tables.iter().sum::<u64>() * KeyRow::BYTES as u64;
        // The other half of the memory is for what `each` does.
        let n_ranges = (n_bytes * KEY_EXPANSION / (self.memory_bytes / 2) + 1).next_power_of_two();
        let bits = n_ranges.trailing_zeros();
        for range in 0..n_ranges {
            watch.advance(0)?;
            let edges = self.pool.install(|| edges_of_range(runs, bits, u128::from(range)))?;
            edges.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    fn band_edges(
        &self,
        runs: &[PathBuf],
        ranks: &Ranks,
        folder: &Path,
        watch: &Watch,
        each: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut sorter: Sorter<BandRow> =
            self.pool.install(|| Sorter::new(folder, self.memory_bytes, watch))?;
        for (part, run) in runs.iter().enumerate() {
            let mut keys = RunReader::<SketchKeyRow>::open(run, 1 << 20)?;
            while let Some(row) = keys.next_row()? {
                sorter.push(BandRow { key: row.key, document: ranks.of(part, row.index) })?;
            }
            watch.advance(0)?;
        }
        let mut groups = sorter.finish()?.groups(|row| row.key);
        while let Some(mut group) = groups.next_group()? {
            let Some(first) = group.next_row()? else { continue };
            while let Some(other) = group.next_row()? {
                each(first.document, other.document)?;
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// Edges among the keys whose first `bits` bits are `range`: that part of every table is sorted in
/// memory, so the number of open files does not grow with the number of parts.
fn edges_of_range(runs: &[PathBuf], bits: u32, range: u128) -> Result<Vec<Edge>> {
    let parts = runs.par_iter().enumerate().map(|(run, path)| {
        let table = Table::<KeyRow>::open(path)?;
        let prefix = |key: u128| key.checked_shr(u128::BITS - bits).unwrap_or(0);
        let start = table.bisect(|row| prefix(row.key) < range)?;
        let end = table.bisect(|row| prefix(row.key) <= range)?;
        Ok(table.read(start, end)?.into_iter().map(|row| (row, run as u32)).collect::<Vec<_>>())
    });
    let mut rows = parts.collect::<Result<Vec<_>>>()?.concat();
    rows.par_sort_unstable();
    let mut edges = Vec::new();
    for group in rows.chunk_by(|a, b| a.0.key == b.0.key) {
        let place = |(row, run): &(KeyRow, u32)| Place { run: *run, row: row.row };
        let kept = place(&group[0]);
        edges.extend(group[1..].iter().map(|member| Edge { removed: place(member), kept }));
    }
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::rows;

    fn key(key: u128, source: u16, document_id: u64, row: u32) -> KeyRow {
        KeyRow { key, source, variant: 0, document_id, family: 0, raw_bytes: 10 + row, metadata_hash: 0, row }
    }

    #[test]
    fn the_least_row_of_a_group_survives() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let top = u128::MAX;
        rows::write(&a, &[key(5, 0, 9, 0), key(7, 0, 1, 1), key(top, 1, 1, 2)]).unwrap();
        rows::write(&b, &[key(5, 0, 8, 0), key(5, 1, 1, 1), key(top, 0, 4, 2)]).unwrap();
        let engine = LocalEngine::new(2).unwrap();
        let mut edges = Vec::new();
        let mut each = |edge| {
            edges.push(edge);
            Ok(())
        };
        engine.edges(&[a.clone(), b.clone()], &Watch::idle(), &mut each).unwrap();
        let place = |run, row| Place { run, row };
        let edge = |removed: Place, kept| Edge { removed, kept };
        let expected =
            [edge(place(0, 0), place(1, 0)), edge(place(1, 1), place(1, 0)), edge(place(0, 2), place(1, 2))];
        assert_eq!(edges, expected);
        // Cut into ranges, the same edges come out in the same order.
        let cut: Vec<Edge> =
            (0..8).flat_map(|range| edges_of_range(&[a.clone(), b.clone()], 3, range).unwrap()).collect();
        assert_eq!(cut, expected);
    }
}
