//! A k-way merge by a tree of losers: each row costs one comparison per level of the tree.
//! Knuth, The Art of Computer Programming 3, section 5.4.1.

use crate::error::Result;
use crate::tables::rows::Row;

use super::run::RunReader;

/// Merges runs into one ascending stream.
pub struct Merge<R> {
    runs: Vec<RunReader<R>>,
    /// The next row of each run; `None` when it is exhausted.
    heads: Vec<Option<R>>,
    /// `tree[0]` is the run with the lowest head; `tree[node]` is the run that lost at that node.
    tree: Vec<usize>,
}

impl<R: Row + Copy> Merge<R> {
    /// Starts a merge; no runs merge to no rows.
    ///
    /// # Errors
    /// As [`RunReader::next_row`].
    pub fn new(mut runs: Vec<RunReader<R>>) -> Result<Merge<R>> {
        let heads = runs.iter_mut().map(RunReader::next_row).collect::<Result<Vec<_>>>()?;
        let n_runs = runs.len();
        let mut merge = Merge { runs, heads, tree: vec![0; n_runs] };
        // The leaf of run i is node n_runs + i, and the children of a node are 2 node and 2 node + 1.
        let mut winners: Vec<usize> = (0..2 * n_runs).map(|node| node.saturating_sub(n_runs)).collect();
        for node in (1..n_runs).rev() {
            let (left, right) = (winners[2 * node], winners[2 * node + 1]);
            let left_wins = merge.beats(left, right);
            (winners[node], merge.tree[node]) = if left_wins { (left, right) } else { (right, left) };
        }
        if let (Some(root), Some(winner)) = (merge.tree.first_mut(), winners.get(1)) {
            *root = *winner;
        }
        Ok(merge)
    }

    /// Whether the head of run `a` comes before that of run `b`. Equal rows are equal bytes, so their order is free.
    fn beats(&self, a: usize, b: usize) -> bool {
        match (&self.heads[a], &self.heads[b]) {
            (Some(a), Some(b)) => a <= b,
            (a, _) => a.is_some(),
        }
    }

    /// The next row of all runs, or `None` after the last.
    ///
    /// # Errors
    /// As [`RunReader::next_row`].
    pub fn next_row(&mut self) -> Result<Option<R>> {
        let Some(&first) = self.tree.first() else { return Ok(None) };
        let Some(row) = self.heads[first] else { return Ok(None) };
        self.heads[first] = self.runs[first].next_row()?;
        let mut winner = first;
        let mut node = (first + self.tree.len()) / 2;
        while node > 0 {
            let loser = self.tree[node];
            if self.beats(loser, winner) {
                self.tree[node] = winner;
                winner = loser;
            }
            node /= 2;
        }
        self.tree[0] = winner;
        Ok(Some(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::rows::BandRow;
    use crate::tables::sort::run::RunWriter;

    #[test]
    fn any_number_of_runs_merges() {
        let dir = tempfile::tempdir().unwrap();
        for n_runs in 0..10u64 {
            let mut runs: Vec<RunReader<BandRow>> = Vec::new();
            let mut expected = Vec::new();
            for run in 0..n_runs {
                // Run 3 is empty; the others share keys.
                let keys = (0..if run == 3 { 0 } else { 20 + run }).map(|i| i * (1 + run % 3));
                let rows: Vec<BandRow> = keys.map(|key| BandRow { key, document: run }).collect();
                let path = dir.path().join(format!("run-{run}"));
                let mut writer = RunWriter::create(&path).unwrap();
                rows.iter().for_each(|row| writer.push(*row).unwrap());
                writer.commit().unwrap();
                expected.extend(rows);
                runs.push(RunReader::open(&path, 0).unwrap());
            }
            expected.sort();
            let mut merge = Merge::new(runs).unwrap();
            let mut merged = Vec::new();
            while let Some(row) = merge.next_row().unwrap() {
                merged.push(row);
            }
            assert_eq!(merged, expected, "{n_runs} runs");
        }
    }
}
