//! Interleaving of pools with exact integer quotas: the chairman-assignment rule (R. Tijdeman, "The
//! chairman assignment problem", Discrete Mathematics 32, 1980).
//!
//! After `t` of `N` steps, stream `i` with quota `q_i` has been chosen `x_i` times and
//! `|x_i - t q_i / N| <= 1 - 1 / (2k - 2)` for every `i` and `t`: no prefix is off by a whole sample.
//! The rule needs integers only and its state is (t, x), so counts stored every few steps give
//! random access.

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::format::{checksum_error, u64_at};
use crate::hash::Hash;
use crate::mmap::map_file;
use crate::plan_file::{self, Fields, HEADER_BYTES};

const MAGIC: [u8; 8] = *b"MOECNT01";
/// A counts file has at most about this many rows: 65,536 rows of 50 pools are 26 MB.
const ROWS_TARGET: u64 = 65_536;
const EVERY_MIN: u64 = 256;

/// The rule for one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interleaver {
    quotas: Vec<u64>,
    active: Vec<usize>,
    total: u64,
}

impl Interleaver {
    /// Streams with the given quotas; empty streams are never chosen.
    ///
    /// # Errors
    /// More than 2^40 steps or more than 65,535 streams: beyond what the arithmetic is proven for.
    pub fn new(quotas: &[u64]) -> Result<Interleaver> {
        let total = quotas.iter().try_fold(0u64, |sum, &q| sum.checked_add(q)).filter(|&n| n <= 1 << 40);
        let Some(total) = total.filter(|_| quotas.len() <= usize::from(u16::MAX)) else {
            let asked = format!(
                "at most 2^40 samples and 65535 pools are supported, {} pools were given",
                quotas.len()
            );
            return Err(Error::Quota(asked));
        };
        let active = (0..quotas.len()).filter(|&i| quotas[i] > 0).collect();
        Ok(Interleaver { quotas: quotas.to_vec(), active, total })
    }

    /// Streams, the empty ones included.
    pub fn n_streams(&self) -> usize {
        self.quotas.len()
    }

    /// Total steps: the sum of the quotas.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The stream chosen at step `t` (from 0), given how often each was chosen before; counts it.
    ///
    /// # Errors
    /// The counts are not those of this rule after `t` steps.
    ///
    /// # Panics
    /// `counts` is shorter than the quotas: a bug.
    pub fn next(&self, t: u64, counts: &mut [u64]) -> Result<usize> {
        let chosen = match self.active[..] {
            [only] => Some(only),
            _ => self.most_urgent(t + 1, counts),
        };
        let Some(chosen) = chosen else {
            return Err(Error::Quota(format!("counts {counts:?} are not those of the rule after {t} steps")));
        };
        counts[chosen] += 1;
        Ok(chosen)
    }

    /// Among the streams whose deficit allows them a turn, the one whose deadline is nearest. By Tijdeman's
    /// theorem there is one at every step up to the total.
    fn most_urgent(&self, t: u64, counts: &[u64]) -> Option<usize> {
        let n = self.total as i64;
        // At most 2^17, and with |sigma| <= 2n <= 2^41 everything but the last product fits into 64 bits.
        let scale = 2 * self.active.len() as i64 - 2;
        let mut best: Option<(usize, i64, u64)> = None;
        for &i in &self.active {
            let q = self.quotas[i];
            // The products may wrap, but their difference is exact: it is within 2n for the counts of this
            // rule.
            let sigma = q.wrapping_mul(t).wrapping_sub(counts[i].wrapping_mul(self.total)) as i64;
            if sigma.unsigned_abs() > 2 * self.total {
                return None;
            }
            if sigma * scale < n {
                continue;
            }
            // deadline = slack / q, compared by cross-multiplication; ties go to the lower index.
            let slack = n * (scale - 1) - sigma * scale;
            let nearer = |best_slack, best_q| {
                i128::from(slack) * i128::from(best_q) < i128::from(best_slack) * i128::from(q)
            };
            if best.is_none_or(|(_, best_slack, best_q): (usize, i64, u64)| nearer(best_slack, best_q)) {
                best = Some((i, slack, q));
            }
        }
        best.map(|(i, ..)| i)
    }
}

/// Counts of a phase, stored every `every` steps: the `.counts` file.
#[derive(Debug)]
pub struct Counts {
    path: PathBuf,
    data: Mmap,
    streams: usize,
    every: u64,
    rows: u64,
}

impl Counts {
    /// Runs the rule once over the phase and writes its counts; returns the digest of the file.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(path: &Path, rule: &Interleaver) -> Result<Hash> {
        let every = rule.total().div_ceil(ROWS_TARGET).next_power_of_two().max(EVERY_MIN);
        let mut counts = vec![0; rule.quotas.len()];
        let mut rows = Vec::new();
        for t in 0..rule.total() {
            if t % every == 0 {
                rows.extend(counts.iter().flat_map(|count: &u64| count.to_le_bytes()));
            }
            rule.next(t, &mut counts)?;
        }
        let words = [every, rule.total().div_ceil(every), xxh3_64(&rows), 0, 0];
        plan_file::write(path, MAGIC, Fields { small: rule.quotas.len() as u32, words }, &rows)
    }

    /// Opens and checks a counts file.
    ///
    /// # Errors
    /// Missing, damaged, or not made for this rule.
    pub fn open(path: &Path, rule: &Interleaver) -> Result<Counts> {
        let data = map_file(path)?;
        let Fields { small, words: [every, rows, recorded, ..] } = plan_file::parse(path, &data, MAGIC)?;
        let streams = small as usize;
        let bytes = (streams as u64).checked_mul(8).and_then(|row| row.checked_mul(rows));
        let fits = bytes.and_then(|b| b.checked_add(HEADER_BYTES as u64)) == Some(data.len() as u64);
        if !fits || every == 0 || streams != rule.quotas.len() || rows != rule.total().div_ceil(every) {
            let expected = format!("{} streams, {} steps", rule.quotas.len(), rule.total());
            let found = format!("{streams} streams, {rows} rows of {every} steps, {} bytes", data.len());
            return Err(Error::format(path, "counts", expected, found));
        }
        let computed = xxh3_64(&data[HEADER_BYTES..]);
        if recorded != computed {
            return Err(checksum_error(path, "rows", recorded, computed));
        }
        Ok(Counts { path: path.to_owned(), data, streams, every, rows })
    }

    /// Steps between two stored rows.
    pub fn every(&self) -> u64 {
        self.every
    }

    /// Counts before step `row * every`.
    ///
    /// # Errors
    /// No such row.
    pub fn row(&self, row: u64) -> Result<Vec<u64>> {
        if row >= self.rows {
            return Err(Error::OutOfRange {
                path: self.path.clone(),
                what: "row",
                index: row,
                len: self.rows,
            });
        }
        let start = HEADER_BYTES + row as usize * self.streams * 8;
        Ok((0..self.streams).map(|i| u64_at(&self.data, start + i * 8)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(quotas: &[u64]) -> Vec<usize> {
        let rule = Interleaver::new(quotas).unwrap();
        let mut counts = vec![0; quotas.len()];
        (0..rule.total()).map(|t| rule.next(t, &mut counts).unwrap()).collect()
    }

    /// Largest |x_i - t q_i / N| over all streams and prefixes, times N; quotas must come out exactly.
    fn worst_deviation(quotas: &[u64]) -> u64 {
        let total: u64 = quotas.iter().sum();
        let mut counts = vec![0u64; quotas.len()];
        let mut worst = 0;
        for (t, chosen) in order(quotas).into_iter().enumerate() {
            counts[chosen] += 1;
            for (count, quota) in counts.iter().zip(quotas) {
                worst = worst.max((count * total).abs_diff(quota * (t as u64 + 1)));
            }
        }
        assert_eq!(counts, quotas);
        worst
    }

    #[test]
    fn golden_orders() {
        // Printed in docs/plan-format.md.
        assert_eq!(order(&[4, 2, 2]), [0, 1, 2, 0, 0, 1, 2, 0]);
        assert_eq!(order(&[5, 0, 1]), [0, 0, 0, 2, 0, 0]);
        assert_eq!(order(&[3]), [0, 0, 0]);
        assert_eq!(order(&[0, 0]), [0usize; 0]);
    }

    /// Fifty pools whose sizes span four orders of magnitude.
    #[test]
    fn fifty_skewed_pools_stay_below_one_sample() {
        let quotas: Vec<u64> = (0..50).map(|i| (1.2f64.powi(i) * 3.0) as u64 + 1).collect();
        let total: u64 = quotas.iter().sum();
        let worst = worst_deviation(&quotas);
        assert!(worst * 98 <= total * 97, "{} exceeds 1 - 1/98", worst as f64 / total as f64);
    }

    proptest! {
        #[test]
        fn no_prefix_is_off_by_a_sample(quotas in proptest::collection::vec(0u64..200, 1..9)) {
            let total: u64 = quotas.iter().sum();
            let k = quotas.iter().filter(|&&q| q > 0).count() as u64;
            let worst = worst_deviation(&quotas);
            if k > 1 {
                prop_assert!(worst * (2 * k - 2) <= total * (2 * k - 3));
            } else {
                prop_assert_eq!(worst, 0);
            }
        }
    }

    #[test]
    fn counts_of_another_rule_are_an_error() {
        let rule = Interleaver::new(&[5, 5, 5]).unwrap();
        assert!(rule.next(3, &mut [9, 9, 9]).is_err());
    }

    #[test]
    fn stored_rows_equal_a_replay_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let rule = Interleaver::new(&[700, 300, 11]).unwrap();
        Counts::write(&path, &rule).unwrap();
        let stored = Counts::open(&path, &rule).unwrap();
        let mut counts = vec![0; 3];
        for t in 0..rule.total() {
            if t % stored.every() == 0 {
                assert_eq!(stored.row(t / stored.every()).unwrap(), counts);
            }
            rule.next(t, &mut counts).unwrap();
        }
        assert!(stored.row(4).is_err());
        assert!(Counts::open(&path, &Interleaver::new(&[700, 300, 300]).unwrap()).is_err());

        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(Counts::open(&path, &rule).is_err(), "byte {at}");
        }
    }
}
