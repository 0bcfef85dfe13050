//! Equal keys over the sorted tables of all parts.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::keys::{self, ExactKeys};
use crate::engine::{Engine, Keyed, Pair};
use crate::error::Result;
use crate::stage::Task;
use crate::tables::rows::{KeyRow, Row, Table};
use crate::watch::Watch;

/// A document by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position of its table among those given.
    pub run: u32,
    /// Its row in the part's documents.
    pub row: u32,
}

impl Place {
    /// The place of a row that engines know by its id.
    pub fn of_id(id: u64) -> Place {
        Place { run: (id >> 32) as u32, row: id as u32 }
    }

    fn id(self) -> u64 {
        keys::id(self.run, self.row)
    }
}

/// Keys take this many times their bytes on the disk while they are sorted in memory.
const KEY_EXPANSION: u64 = 4;

/// Sorted tables of [`KeyRow`]. The first row of a key is the lowest one, ties going to the first table; it survives.
pub(super) struct Keys<'a> {
    /// The work folder.
    pub work: &'a Path,
    /// The tables.
    pub runs: &'a [PathBuf],
}

impl Keyed for Keys<'_> {
    fn in_order(&self) -> bool {
        true
    }

    fn pairs_here(
        &self,
        engine: &dyn Engine,
        watch: &Watch,
        each: &mut dyn FnMut(Pair) -> Result<()>,
    ) -> Result<()> {
        let n_bytes = self.bytes()?.iter().sum::<u64>();
        // The other half of the memory is for what `each` does.
        let n_ranges = (n_bytes * KEY_EXPANSION / (engine.memory_bytes() / 2) + 1).next_power_of_two();
        let bits = n_ranges.trailing_zeros();
        for range in 0..n_ranges {
            watch.advance(0)?;
            let pairs = engine.pool().install(|| pairs_of_range(self.runs, bits, u128::from(range)))?;
            pairs.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    fn tables(&self) -> Result<Vec<Task>> {
        let task = |(run, (path, weight)): (usize, (&PathBuf, u64))| {
            Task::new(self.work, run, weight, ExactKeys { run: run as u32 }, path.clone())
        };
        Ok(self.runs.iter().zip(self.bytes()?).enumerate().map(task).collect())
    }
}

impl Keys<'_> {
    /// Bytes of each table.
    fn bytes(&self) -> Result<Vec<u64>> {
        self.runs.iter().map(|path| Ok(Table::<KeyRow>::open(path)?.len() * KeyRow::BYTES as u64)).collect()
    }
}

/// Pairs among the keys whose first `bits` bits are `range`: that part of every table is sorted in
/// memory, so the number of open files does not grow with the number of parts.
fn pairs_of_range(runs: &[PathBuf], bits: u32, range: u128) -> Result<Vec<Pair>> {
    let parts = runs.par_iter().enumerate().map(|(run, path)| {
        let table = Table::<KeyRow>::open(path)?;
        let prefix = |key: u128| key.checked_shr(u128::BITS - bits).unwrap_or(0);
        let start = table.bisect(|row| prefix(row.key) < range)?;
        let end = table.bisect(|row| prefix(row.key) <= range)?;
        Ok(table.read(start, end)?.into_iter().map(|row| (row, run as u32)).collect::<Vec<_>>())
    });
    let mut rows = parts.collect::<Result<Vec<_>>>()?.concat();
    rows.par_sort_unstable();
    let mut pairs = Vec::new();
    for group in rows.chunk_by(|a, b| a.0.key == b.0.key) {
        let id = |(row, run): &(KeyRow, u32)| Place { run: *run, row: row.row }.id();
        let first = id(&group[0]);
        pairs.extend(group[1..].iter().map(|member| Pair { first, other: id(member) }));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LocalEngine;
    use crate::tables::{KEY_TABLE, keys, rows};

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
        let runs = [a, b];
        let mut pairs = Vec::new();
        let mut each = |pair| {
            pairs.push(pair);
            Ok(())
        };
        engine.pairs(&Keys { work: dir.path(), runs: &runs }, &Watch::idle(), &mut each).unwrap();
        let id = |run, row| Place { run, row }.id();
        let pair = |other, first| Pair { first, other };
        let expected = [pair(id(0, 0), id(1, 0)), pair(id(1, 1), id(1, 0)), pair(id(0, 2), id(1, 2))];
        assert_eq!(pairs, expected);
        assert_eq!(Place::of_id(pairs[0].first), Place { run: 1, row: 0 });
        // Cut into ranges, the same pairs come out in the same order.
        let cut: Vec<Pair> = (0..8).flat_map(|range| pairs_of_range(&runs, 3, range).unwrap()).collect();
        assert_eq!(cut, expected);
        // And so they do from the tables of other engines.
        let tasks = Keys { work: dir.path(), runs: &runs }.tables().unwrap();
        engine.map(&tasks, &Watch::idle()).unwrap();
        let tables: Vec<PathBuf> = tasks.iter().map(|task| task.file(KEY_TABLE)).collect();
        assert_eq!(keys::tests::pairs(&tables), expected);
    }
}
