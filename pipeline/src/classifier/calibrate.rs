//! Platt's calibration: log-odds `x` become `scale x + shift`, so that about seven in ten documents with a score of 0.7 are positive.
//! Fitted on documents that the model has not learned from, by Newton's method as in Lin, Lin and Weng, "A note on Platt's probabilistic
//! outputs for support vector machines" (2007), always in the same order of sums.

use serde::{Deserialize, Serialize};

use super::evaluate::{self, Scored};

/// With fewer documents of a kind nothing is fitted.
const LEAST_OF_A_KIND: usize = 30;
/// Buckets in which expected and real shares are compared.
const BUCKETS: usize = 10;
const MOST_STEPS: usize = 100;

/// How scores were calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor of the log-odds, above 0.
    pub scale: f64,
    /// What is added to them.
    pub shift: f64,
    /// Calibration error of the uncalibrated scores.
    pub error_before: f64,
    /// The same for each half of the documents, fitted on the other half.
    pub error_after: f64,
}

/// The logistic function.
pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Fits log-odds of held-out documents; `None` if there are too few of a kind, or the scores say nothing.
pub fn fit(documents: &[Scored]) -> Option<Calibration> {
    let (scale, shift) = platt(documents)?;
    let by_half = |half: usize| documents.iter().skip(half).step_by(2).copied().collect::<Vec<_>>();
    let mut crossed: Vec<Scored> = Vec::new();
    for half in 0..2 {
        let (scale, shift) = platt(&by_half(1 - half)).unwrap_or((1.0, 0.0));
        crossed
            .extend(by_half(half).into_iter().map(|(x, positive)| (logistic(scale * x + shift), positive)));
    }
    let raw: Vec<Scored> = documents.iter().map(|&(x, positive)| (logistic(x), positive)).collect();
    let error = |scored: &[Scored]| evaluate::calibration_error(&evaluate::calibration(scored, BUCKETS));
    Some(Calibration { scale, shift, error_before: error(&raw), error_after: error(&crossed) })
}

fn platt(documents: &[Scored]) -> Option<(f64, f64)> {
    let n_positive = documents.iter().filter(|(_, positive)| *positive).count();
    let n_negative = documents.len() - n_positive;
    if n_positive.min(n_negative) < LEAST_OF_A_KIND {
        return None;
    }
    // Targets short of 0 and 1, so that perfectly separated classes have a best fit too.
    let (high, low) =
        ((n_positive as f64 + 1.0) / (n_positive as f64 + 2.0), 1.0 / (n_negative as f64 + 2.0));
    let target = |positive: bool| if positive { high } else { low };
    let loss = |scale: f64, shift: f64| -> f64 {
        documents
            .iter()
            .map(|&(x, positive)| {
                let z = scale * x + shift;
                // ln(1 + e^z) - t z without overflow.
                z.max(0.0) + (-z.abs()).exp().ln_1p() - target(positive) * z
            })
            .sum()
    };
    let (mut scale, mut shift) = (0.0, ((n_positive as f64 + 1.0) / (n_negative as f64 + 1.0)).ln());
    let mut best = loss(scale, shift);
    for _ in 0..MOST_STEPS {
        let (mut g1, mut g2, mut h11, mut h12, mut h22) = (0.0, 0.0, 1e-12, 0.0, 1e-12);
        for &(x, positive) in documents {
            let p = logistic(scale * x + shift);
            let (d, w) = (p - target(positive), p * (1.0 - p));
            g1 += x * d;
            g2 += d;
            h11 += x * x * w;
            h12 += x * w;
            h22 += w;
        }
        let determinant = h11 * h22 - h12 * h12;
        if determinant <= 0.0 {
            break;
        }
        let step = [(h22 * g1 - h12 * g2) / determinant, (h11 * g2 - h12 * g1) / determinant];
        let mut length = 1.0;
        let better = loop {
            let next = loss(scale - length * step[0], shift - length * step[1]);
            if next < best {
                break Some(next);
            }
            length /= 2.0;
            if length < 1e-10 {
                break None;
            }
        };
        let Some(next) = better else { break };
        scale -= length * step[0];
        shift -= length * step[1];
        best = next;
    }
    (scale.is_finite() && shift.is_finite() && scale > 0.0).then_some((scale, shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents whose true chance is `logistic(x / 3 + 1)`, in exact shares.
    fn documents() -> Vec<Scored> {
        let mut documents = Vec::new();
        for x in [-9.0, -6.0, -3.0, 0.0, 3.0, 6.0] {
            let n_positive = (1000.0 * logistic(x / 3.0 + 1.0)).round() as usize;
            documents.extend((0..1000).map(|i| (x, (i * 7) % 1000 < n_positive)));
        }
        documents
    }

    #[test]
    fn overconfident_scores_are_brought_back() {
        let found = fit(&documents()).unwrap();
        assert!((found.scale - 1.0 / 3.0).abs() < 0.005 && (found.shift - 1.0).abs() < 0.02, "{found:?}");
        assert!(found.error_before > 0.1 && found.error_after < 0.02, "{found:?}");
        assert_eq!(fit(&documents()), Some(found));
    }

    #[test]
    fn classes_told_apart_perfectly_have_a_finite_fit_and_too_few_none() {
        let apart: Vec<Scored> =
            (0..200).map(|i| (if i % 2 == 0 { 4.0 } else { -4.0 }, i % 2 == 0)).collect();
        let found = fit(&apart).unwrap();
        assert!(found.scale > 0.5 && found.scale < 5.0, "{found:?}");
        assert_eq!(fit(&apart[..40]), None);
        // Scores that are upside down say nothing that a scale above 0 could mend.
        let turned: Vec<Scored> = apart.iter().map(|&(x, positive)| (x, !positive)).collect();
        assert_eq!(fit(&turned), None);
    }
}
