//! Agreement of another score with the grades, such as that of a classifier trained on them.

use serde::Serialize;

use super::judge::MAX_SCORE;

/// Lowest grade that counts as good, as in FineWeb-Edu (Penedo et al. 2024, section 4).
pub const GOOD: u8 = 3;

/// Agreement of grades and scores over the documents that have both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Documents with both.
    pub documents: usize,
    /// Spearman's rank correlation, -1 to 1; `None` if all grades or all scores are equal.
    pub spearman: Option<f64>,
    /// Probability that the score of a good document is above that of another (area under the ROC curve); `None` when there are no
    /// good ones or no others.
    pub auc: Option<f64>,
    /// For each grade from 0 to 5 the number of documents and the mean of their scores.
    pub by_grade: Vec<(usize, Option<f64>)>,
}

impl Agreement {
    /// Compares pairs of grade and score.
    pub fn of(pairs: &[(u8, f64)]) -> Agreement {
        let grades: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.0)).collect();
        let scores: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
        let (grade_ranks, score_ranks) = (ranks(&grades), ranks(&scores));
        let good: Vec<f64> = pairs
            .iter()
            .zip(&score_ranks)
            .filter(|(pair, _)| pair.0 >= GOOD)
            .map(|(_, rank)| *rank)
            .collect();
        let (n_good, n_other) = (good.len() as f64, (pairs.len() - good.len()) as f64);
        // Mann and Whitney: the ranks of the good ones, minus their ranks among themselves.
        let above = good.iter().sum::<f64>() - n_good * (n_good + 1.0) / 2.0;
        let by_grade = (0..=MAX_SCORE).map(|grade| {
            let of_grade: Vec<f64> = pairs.iter().filter(|pair| pair.0 == grade).map(|pair| pair.1).collect();
            let mean = of_grade.iter().sum::<f64>() / of_grade.len() as f64;
            (of_grade.len(), (!of_grade.is_empty()).then_some(mean))
        });
        Agreement {
            documents: pairs.len(),
            spearman: correlation(&grade_ranks, &score_ranks),
            auc: (n_good > 0.0 && n_other > 0.0).then(|| above / (n_good * n_other)),
            by_grade: by_grade.collect(),
        }
    }
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let value = values[order[start]];
        let end = start + order[start..].iter().take_while(|&&i| values[i] == value).count();
        let mean = (start + 1 + end) as f64 / 2.0;
        order[start..end].iter().for_each(|&i| ranks[i] = mean);
        start = end;
    }
    ranks
}

/// Pearson's correlation.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - mean_a) * (y - mean_b);
        aa += (x - mean_a).powi(2);
        bb += (y - mean_b).powi(2);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Ranks of the grades: 1, 2.5, 2.5, 4; of the scores: 1, 3, 2, 4.
        let pairs = [(0, 0.1), (2, 0.5), (2, 0.3), (4, 0.9)];
        let agreement = Agreement::of(&pairs);
        // Deviations: (-1.5, 0, 0, 1.5) and (-1.5, 0.5, -0.5, 1.5): 4.5 / sqrt(4.5 * 5).
        assert!((agreement.spearman.unwrap() - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(agreement.auc, Some(1.0));
        assert_eq!(agreement.by_grade[2], (2, Some(0.4)));
        assert_eq!(agreement.by_grade[5], (0, None));
    }

    #[test]
    fn ties_count_half() {
        // Good: 0.5, 0.2. Others: 0.5, 0.1. Pairs won: 0.5 > 0.1, 0.2 > 0.1; tied: 0.5 = 0.5; lost: 0.2 < 0.5.
        let agreement = Agreement::of(&[(3, 0.5), (5, 0.2), (2, 0.5), (0, 0.1)]);
        assert_eq!(agreement.auc, Some(2.5 / 4.0));
    }

    #[test]
    fn what_cannot_be_compared_has_no_number() {
        let agreement = Agreement::of(&[(4, 0.5), (4, 0.7)]);
        assert_eq!((agreement.spearman, agreement.auc), (None, None));
        assert_eq!(Agreement::of(&[]).documents, 0);
    }
}
