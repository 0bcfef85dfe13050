//! Scores of the remaining documents of a part, in a file named by its content, so that a part with the same
//! scores as before is not tokenized again. And their quantiles over all parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moe_shards::{Hash, atomic};

use super::rows::{self, Row, row};
use crate::document::Count;
use crate::error::Result;

row! {
    /// The score of a document.
    ScoreRow {
        /// Row in the part's documents.
        row: u32,
        /// Bits of the score, see [`to_bits`].
        score: u32,
    }
}

/// A score as bits in the same order: those of its 32-bit float, and 1, so that 0 means no score. Negative scores count as 0.
pub fn to_bits(score: f64) -> u32 {
    (score.max(0.0) as f32).to_bits() + 1
}

/// The score of bits, if they are one.
pub fn from_bits(bits: u32) -> Option<f64> {
    bits.checked_sub(1).map(|bits| f64::from(f32::from_bits(bits)))
}

/// Writes the scores of a part and returns their place in `work`.
///
/// # Errors
/// A write fails.
pub fn write(work: &Path, scores: &[ScoreRow]) -> Result<PathBuf> {
    let mut bytes = Vec::with_capacity(scores.len() * ScoreRow::BYTES);
    scores.iter().for_each(|score| score.put(&mut bytes));
    let place = Path::new("scores").join(format!("{}.rows", &Hash::of(&bytes).to_string()[..24]));
    atomic::write_file(&work.join(&place), &bytes)?;
    Ok(place)
}

/// Reads the scores of a part.
///
/// # Errors
/// The file is missing or damaged.
pub fn read(path: &Path) -> Result<BTreeMap<u32, u32>> {
    Ok(rows::read::<ScoreRow>(path)?.into_iter().map(|row| (row.row, row.score)).collect())
}

/// Distribution of text over scores. Scores are resolved to one part in 2^15, which bounds the memory whatever the
/// number of documents.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    by_score: BTreeMap<u32, Count>,
}

/// Bits of the mantissa that are left out.
const COARSE_BITS: u32 = 8;

impl Histogram {
    /// Adds a document.
    pub fn add(&mut self, score: u32, n_bytes: u64) {
        *self.by_score.entry((score.saturating_sub(1)) >> COARSE_BITS).or_default() += Count::one(n_bytes);
    }

    /// Ascending edges of `n` buckets with equal bytes. Where many documents have one score there are fewer.
    pub fn edges(&self, n: u32) -> Vec<f64> {
        let total: u64 = self.by_score.values().map(|count| count.bytes).sum();
        let mut edges: Vec<f64> = Vec::new();
        let (mut before, mut i) = (0u64, 1);
        for (key, count) in &self.by_score {
            let mut is_edge = false;
            while i < n && u128::from(before) * u128::from(n) >= u128::from(total) * u128::from(i) {
                is_edge = true;
                i += 1;
            }
            if is_edge {
                edges.push(f64::from(f32::from_bits(key << COARSE_BITS)));
            }
            before += count.bytes;
        }
        edges
    }

    /// Documents and bytes of each bucket between `edges`.
    pub fn buckets(&self, edges: &[f64]) -> Vec<Count> {
        let mut buckets = vec![Count::default(); edges.len() + 1];
        for (key, count) in &self.by_score {
            let score = f64::from(f32::from_bits(key << COARSE_BITS));
            buckets[edges.partition_point(|edge| *edge <= score)] += *count;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_keep_the_order_of_scores() {
        let scores = [0.0, 1e-9, 0.1, 0.5, 0.999, 1.0];
        assert!(scores.windows(2).all(|pair| to_bits(pair[0]) < to_bits(pair[1])));
        assert_eq!(from_bits(0), None);
        assert_eq!(from_bits(to_bits(0.5)), Some(0.5));
        assert_eq!(to_bits(-1.0), to_bits(0.0));
    }

    #[test]
    fn buckets_hold_equal_bytes_unless_scores_tie() {
        let mut histogram = Histogram::default();
        for i in 0..100u32 {
            histogram.add(to_bits(f64::from(i) / 100.0), 10);
        }
        let edges = histogram.edges(4);
        assert_eq!(edges.len(), 3);
        let buckets: Vec<u64> = histogram.buckets(&edges).iter().map(|count| count.docs).collect();
        assert_eq!(buckets, [25, 25, 25, 25]);
        let mut ties = Histogram::default();
        (0..10).for_each(|_| ties.add(to_bits(0.5), 10));
        ties.add(to_bits(0.75), 1);
        assert_eq!(ties.edges(4), [0.75]);
        assert_eq!(ties.buckets(&[0.75]), [Count { docs: 10, bytes: 100 }, Count::one(1)]);
        assert_eq!(Histogram::default().edges(20), [0.0; 0]);
    }
}
