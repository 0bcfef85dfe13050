//! Recall and precision from the pairs of a sample.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{FLOOR, Pair};
use crate::dedup::minhash::signature::{SketchConfig, candidate_probability};

/// Bins of width 0.05; the last holds pairs of equal sets.
const N_BINS: usize = 21;
/// Probabilities are summed as multiples of 2^-32: sums of integers do not depend on their order.
const UNIT: f64 = (1u64 << 32) as f64;

/// One row of the table of an [`Estimate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    /// Least Jaccard index; the bin ends where the next begins.
    pub from: f64,
    /// Pairs by brute force.
    pub pairs: u64,
    /// Those that share a band key.
    pub candidates: u64,
    /// Candidates that the S-curve promises.
    pub expected: f64,
    /// Pairs with both documents kept.
    pub both_kept: u64,
}

/// What brute force says about a run of MinHash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Sampled documents with shingles.
    pub sampled: u64,
    /// Documents that each was compared with.
    pub documents: u64,
    /// Bands of the signature.
    pub bands: u32,
    /// Rows of a band.
    pub rows: u32,
    /// Jaccard index from which a pair counts as alike.
    pub threshold: f64,
    /// Pairs at or above the threshold.
    pub pairs: u64,
    /// Share of these pairs that became candidates; absent without pairs.
    pub recall: Option<f64>,
    /// 95 % score interval of `recall` (Wilson 1927), as for independent pairs.
    pub recall_interval: Option<(f64, f64)>,
    /// The recall that the S-curve promises for these pairs.
    pub expected_recall: Option<f64>,
    /// Share of all candidates that are at or above the threshold: the precision without verification.
    pub candidate_precision: Option<f64>,
    /// Sampled documents that were removed.
    pub removed: u64,
    /// Those that are at or above the threshold with a document that was kept.
    pub removed_like_kept: u64,
    /// By Jaccard index, from [`FLOOR`] in steps of 0.05.
    pub bins: Vec<Bin>,
}

impl Estimate {
    /// Counts pairs. `size` is the sampled and all documents; `removed` are the sampled documents that
    /// the run removed, and `is_removed` says it of any document.
    pub fn new(
        config: &SketchConfig,
        threshold: f64,
        size: (u64, u64),
        pairs: &[Pair],
        removed: &[u64],
        is_removed: impl Fn(u64) -> bool,
    ) -> Estimate {
        let mut counts = [[0u64; 4]; N_BINS];
        let mut like_kept: Vec<u64> = Vec::new();
        let (mut alike, mut found, mut expected, mut candidates) = (0u64, 0u64, 0u64, 0u64);
        for pair in pairs {
            let probability = candidate_probability(pair.jaccard(), config.bands, config.rows);
            let probability = (probability * UNIT) as u64;
            let both_kept = !is_removed(pair.sampled) && !is_removed(pair.other);
            let bin = u64::from(pair.overlap) * (N_BINS as u64 - 1) / u64::from(pair.union.max(1));
            let one = [1, u64::from(pair.is_candidate), probability, u64::from(both_kept)];
            counts[(bin as usize).min(N_BINS - 1)].iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
            candidates += u64::from(pair.is_candidate);
            if pair.jaccard() >= threshold {
                alike += 1;
                found += u64::from(pair.is_candidate);
                expected += probability;
                let sides = [(pair.sampled, pair.other), (pair.other, pair.sampled)];
                like_kept.extend(sides.iter().filter(|(_, other)| !is_removed(*other)).map(|(one, _)| one));
            }
        }
        like_kept.sort_unstable();
        let share = |part: f64, all: u64| (all > 0).then(|| rounded(part / all as f64));
        let bins = counts.iter().enumerate().map(|(bin, [pairs, candidates, expected, both_kept])| Bin {
            from: bin as f64 / (N_BINS - 1) as f64,
            pairs: *pairs,
            candidates: *candidates,
            expected: rounded(*expected as f64 / UNIT),
            both_kept: *both_kept,
        });
        Estimate {
            sampled: size.0,
            documents: size.1,
            bands: config.bands,
            rows: config.rows,
            threshold,
            pairs: alike,
            recall: share(found as f64, alike),
            recall_interval: (alike > 0).then(|| wilson(found, alike)),
            expected_recall: share(expected as f64 / UNIT, alike),
            candidate_precision: share(found as f64, candidates),
            removed: removed.len() as u64,
            removed_like_kept: removed.iter().filter(|n| like_kept.binary_search(n).is_ok()).count() as u64,
            bins: bins.filter(|bin| bin.from >= FLOOR).collect(),
        }
    }
}

impl Estimate {
    /// Its recall in a line.
    pub fn summary(&self) -> String {
        let Estimate { pairs, threshold, sampled, .. } = self;
        match self.recall {
            None => format!("no pair from Jaccard {threshold} on among {sampled} sampled documents"),
            Some(recall) => format!(
                "{:.2} % of {pairs} sampled pairs from Jaccard {threshold} on were candidates (`moe-data inspect` of ledger.json shows the table)",
                recall * 100.0
            ),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} documents compared with all {} by brute force", self.sampled, self.documents)?;
        writeln!(f, "  Jaccard      pairs  candidates   share  S-curve   both kept")?;
        for bin in self.bins.iter().filter(|bin| bin.pairs > 0) {
            let share = bin.candidates as f64 / bin.pairs as f64;
            let curve = bin.expected / bin.pairs as f64;
            let (from, pairs, candidates, kept) = (bin.from, bin.pairs, bin.candidates, bin.both_kept);
            writeln!(
                f,
                "  {from:>5.2}.. {pairs:>9} {candidates:>11}  {share:>6.3}   {curve:>6.3} {kept:>11}"
            )?;
        }
        let percent = |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{:.2} %", s * 100.0));
        let interval = self.recall_interval.map_or(String::new(), |(low, high)| {
            format!(", {:.2} to {:.2} % at 95 % confidence", low * 100.0, high * 100.0)
        });
        let (recall, expected) = (percent(self.recall), percent(self.expected_recall));
        let (pairs, threshold) = (self.pairs, self.threshold);
        writeln!(
            f,
            "  recall of the {pairs} pairs from {threshold} on: {recall}{interval}; S-curve: {expected}"
        )?;
        writeln!(f, "  precision without verification: {}", percent(self.candidate_precision))?;
        let (removed, like_kept) = (self.removed, self.removed_like_kept);
        write!(
            f,
            "  sampled documents removed: {removed}, of these like a document that was kept: {like_kept}"
        )
    }
}

/// 95 % score interval of a share.
fn wilson(hits: u64, all: u64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let (n, share) = (all as f64, hits as f64 / all as f64);
    let scale = 1.0 / (1.0 + Z * Z / n);
    let middle = scale * (share + Z * Z / (2.0 * n));
    let half = scale * Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    (rounded((middle - half).max(0.0)), rounded((middle + half).min(1.0)))
}

/// Six decimals. A number this short is read back from JSON as it was written, so that a build that
/// was interrupted after the estimate has the same ledger as one that was not.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::minhash::signature::Profile;

    const CONFIG: SketchConfig =
        SketchConfig { profile: Profile::Native, ngram: 5, bands: 14, rows: 8, seed: 1 };

    #[test]
    fn shares_are_counted_by_hand() {
        let pair = |sampled, other, overlap, is_candidate| Pair {
            sampled,
            other,
            overlap,
            union: 100,
            is_candidate,
        };
        // 1 and 2 equal, 2 removed; 3 and 4 at 0.72, missed; 5 and 6 at 0.5, a false candidate, 6 removed.
        let pairs = [pair(1, 2, 100, true), pair(3, 4, 72, false), pair(5, 6, 50, true)];
        let removed = [2, 6];
        let estimate = Estimate::new(&CONFIG, 0.7, (6, 9), &pairs, &removed, |n| removed.contains(&n));
        assert_eq!((estimate.pairs, estimate.recall), (2, Some(0.5)));
        assert_eq!(estimate.candidate_precision, Some(0.5));
        assert_eq!((estimate.removed, estimate.removed_like_kept), (2, 1));
        // 0.72^8 = 0.072222; 1 - (1 - 0.072222)^14 = 0.6498
        let expected = estimate.expected_recall.unwrap();
        assert!((expected - (1.0 + 0.6498) / 2.0).abs() < 1e-3, "{expected}");
        let bins = estimate.bins.iter().filter(|bin| bin.pairs > 0);
        let bins: Vec<_> = bins.map(|bin| (bin.from, bin.candidates, bin.both_kept)).collect();
        assert_eq!(bins, [(0.5, 1, 0), (0.7, 0, 1), (1.0, 1, 0)]);
        assert_eq!(estimate.bins.len(), 19);
        let text = estimate.to_string();
        assert!(text.contains("recall of the 2 pairs from 0.7 on: 50.00 %"), "{text}");
    }

    #[test]
    fn no_pairs_give_no_shares() {
        let estimate = Estimate::new(&CONFIG, 0.7, (3, 3), &[], &[], |_| false);
        assert_eq!((estimate.recall, estimate.recall_interval), (None, None));
        assert_eq!(estimate.candidate_precision, None);
        assert!(estimate.to_string().contains("from 0.7 on: -"));
    }

    #[test]
    fn the_interval_is_wilsons() {
        // Newcombe, Two-sided confidence intervals for the single proportion, 1998: 81 of 263 is 0.2553 to 0.3662.
        let (low, high) = wilson(81, 263);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson(5, 5).1, 1.0);
    }
}
