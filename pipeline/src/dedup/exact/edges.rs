//! Equal keys over the sorted tables of all parts.

use std::path::PathBuf;

use rayon::prelude::*;

use crate::engine::Engine;
use crate::error::Result;
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

/// A duplicate and what is kept instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// The duplicate.
    pub removed: Place,
    /// The survivor.
    pub kept: Place,
}

/// Keys take this many times their bytes on the disk while they are sorted in memory.
const KEY_EXPANSION: u64 = 4;

/// Finds equal keys over sorted tables of [`KeyRow`]. For each group, the lowest row survives,
/// ties going to the first table; `each` gets one edge for each of the others. Edges come in
/// ascending order of key and row.
pub(super) fn find(
    runs: &[PathBuf],
    engine: &dyn Engine,
    watch: &Watch,
    each: &mut dyn FnMut(Edge) -> Result<()>,
) -> Result<()> {
    let tables =
        runs.iter().map(|path| Ok(Table::<KeyRow>::open(path)?.len())).collect::<Result<Vec<u64>>>()?;
    let n_bytes: u64 = tables.iter().sum::<u64>() * KeyRow::BYTES as u64;
    // The other half of the memory is for what `each` does.
    let n_ranges = (n_bytes * KEY_EXPANSION / (engine.memory_bytes() / 2) + 1).next_power_of_two();
    let bits = n_ranges.trailing_zeros();
    for range in 0..n_ranges {
        watch.advance(0)?;
        let edges = engine.pool().install(|| edges_of_range(runs, bits, u128::from(range)))?;
        edges.into_iter().try_for_each(&mut *each)?;
    }
    Ok(())
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
    use crate::engine::LocalEngine;
    use crate::tables::rows;

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
        find(&[a.clone(), b.clone()], &engine, &Watch::idle(), &mut each).unwrap();
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
