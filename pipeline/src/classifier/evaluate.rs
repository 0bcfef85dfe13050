//! How well scores separate positive from negative documents.

use serde::Serialize;

/// A score and whether its document is positive.
pub type Scored = (f64, bool);

/// Area under the ROC curve: the chance that a positive document has a higher score than a negative one, where equal
/// scores count half. `None` without documents of both kinds.
pub fn auc(scored: &[Scored]) -> Option<f64> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut positive, mut before) = (0.0, 0.0, 0.0);
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let n = same.len() as f64;
        let n_positive = same.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
        // The mean rank of this group, from 1.
        ranks += n_positive * (before + (n + 1.0) / 2.0);
        positive += n_positive;
        before += n;
    }
    let pairs = positive * (before - positive);
    (pairs > 0.0).then(|| (ranks - positive * (positive + 1.0) / 2.0) / pairs)
}

/// Share of documents on the right side of a threshold; 0 without documents.
pub fn accuracy(scored: &[Scored], threshold: f64) -> f64 {
    let right = scored.iter().filter(|(score, is_positive)| (*score >= threshold) == *is_positive).count();
    right as f64 / scored.len().max(1) as f64
}

/// The best accuracy that any threshold reaches on these documents, in either direction.
pub fn best_accuracy(scored: &[Scored]) -> f64 {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n_positive = sorted.iter().filter(|(_, is_positive)| *is_positive).count() as i64;
    // Right when all are called positive; raising the threshold calls one group after another negative.
    let mut right = n_positive;
    let mut best = right.max(sorted.len() as i64 - right);
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let positive = same.iter().filter(|(_, is_positive)| *is_positive).count() as i64;
        right += same.len() as i64 - 2 * positive;
        best = best.max(right).max(sorted.len() as i64 - right);
    }
    best as f64 / sorted.len().max(1) as f64
}

/// What a threshold does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AtThreshold {
    /// The least score that passes.
    pub threshold: f64,
    /// Share of all documents that pass.
    pub kept: f64,
    /// Share of those that are positive; absent when none passes.
    pub precision: Option<f64>,
    /// Share of the positive documents that pass; absent when there is none.
    pub recall: Option<f64>,
}

/// What a threshold does to documents.
pub fn at_threshold(scored: &[Scored], threshold: f64) -> AtThreshold {
    let share = |n: usize, of: usize| (of > 0).then(|| n as f64 / of as f64);
    let kept = scored.iter().filter(|(score, _)| *score >= threshold).count();
    let right = scored.iter().filter(|(score, is_positive)| *is_positive && *score >= threshold).count();
    let positive = scored.iter().filter(|(_, is_positive)| *is_positive).count();
    AtThreshold {
        threshold,
        kept: share(kept, scored.len()).unwrap_or(0.0),
        precision: share(right, kept),
        recall: share(right, positive),
    }
}

/// Documents of neighboring scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// Lowest score.
    pub from: f64,
    /// Highest score.
    pub to: f64,
    /// Documents.
    pub documents: usize,
    /// Mean score: what share of positive documents the model expects.
    pub expected: f64,
    /// Share of positive documents.
    pub positive: f64,
}

/// Cuts documents into `n` buckets of equal size by score; ties stay together, so that there may be fewer.
pub fn calibration(scored: &[Scored], n: usize) -> Vec<Bucket> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut start = 0;
    for i in 1..=n {
        let mut end = (sorted.len() * i / n.max(1)).max(start);
        while end > 0 && end < sorted.len() && sorted[end].0 == sorted[end - 1].0 {
            end += 1;
        }
        let Some(part) = sorted.get(start..end).filter(|part| !part.is_empty()) else { continue };
        let documents = part.len();
        let positive = part.iter().filter(|(_, is_positive)| *is_positive).count() as f64 / documents as f64;
        let expected = part.iter().map(|(score, _)| score).sum::<f64>() / documents as f64;
        buckets.push(Bucket { from: part[0].0, to: part[documents - 1].0, documents, expected, positive });
        start = end;
    }
    buckets
}

/// Mean distance between expected and real share over the buckets, each weighed by its documents.
pub fn calibration_error(buckets: &[Bucket]) -> f64 {
    let n: usize = buckets.iter().map(|bucket| bucket.documents).sum();
    let sum: f64 = buckets
        .iter()
        .map(|bucket| bucket.documents as f64 * (bucket.expected - bucket.positive).abs())
        .sum();
    sum / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORED: [Scored; 6] =
        [(0.1, false), (0.2, false), (0.4, true), (0.4, false), (0.8, true), (0.9, true)];

    #[test]
    fn auc_counts_pairs_and_half_of_ties() {
        // 3 * 3 pairs; the positive 0.4 beats two and ties with one: 8.5 of 9.
        assert_eq!(auc(&SCORED), Some(8.5 / 9.0));
        assert_eq!(auc(&[(0.3, true), (0.3, false)]), Some(0.5));
        assert_eq!(auc(&[(0.1, true), (0.3, false)]), Some(0.0));
        assert_eq!(auc(&[(0.1, true)]), None);
        assert_eq!(auc(&[]), None);
    }

    #[test]
    fn thresholds() {
        assert_eq!(accuracy(&SCORED, 0.5), 5.0 / 6.0);
        assert_eq!(best_accuracy(&SCORED), 5.0 / 6.0);
        let turned: Vec<Scored> = SCORED.iter().map(|(score, positive)| (-score, *positive)).collect();
        assert_eq!(best_accuracy(&turned), 5.0 / 6.0);
        let at = at_threshold(&SCORED, 0.4);
        assert_eq!((at.kept, at.precision, at.recall), (4.0 / 6.0, Some(0.75), Some(1.0)));
        assert_eq!(at_threshold(&SCORED, 2.0).precision, None);
    }

    #[test]
    fn buckets_hold_equal_numbers_unless_scores_tie() {
        let sizes = |n| calibration(&SCORED, n).iter().map(|bucket| bucket.documents).collect::<Vec<_>>();
        assert_eq!(sizes(2), [4, 2]);
        assert_eq!(sizes(6), [1, 1, 2, 1, 1]);
        assert_eq!(sizes(1), [6]);
        let buckets = calibration(&SCORED, 2);
        assert_eq!((buckets[0].from, buckets[0].to, buckets[0].positive), (0.1, 0.4, 0.25));
        let expected = (4.0 * (0.275f64 - 0.25).abs() + 2.0 * (0.85f64 - 1.0).abs()) / 6.0;
        assert!((calibration_error(&buckets) - expected).abs() < 1e-12);
    }
}
