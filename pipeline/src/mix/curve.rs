//! Upsampling by quality: how often each quality bucket of a pool is shown.
//!
//! Olmo 3 (arXiv 2512.13961) orders text by quality, discards the worst share `a`, and repeats the rest the more the
//! better it is, up to a largest factor. Here a text at place `x` of all tokens, 0 = worst, 1 = best, is shown
//! `f(x) = M ((x - a) / (1 - a))^(q - 1)` times: `M` = `max_factor` at the very top, nothing below `a`. The integral is the
//! mean number of passes `z = M (1 - a) / q`, which gives `q`. A bucket of the places `u..v` is shown the mean of
//! `f` over them, `z (g(v) - g(u)) / (v - u)` with `g(x) = ((x - a) / (1 - a))^q`: never more than `M`, and the buckets
//! together exactly `z` times.

use super::mixture::Curve;

/// How often each bucket is shown so that all are shown `mean` times on average; `tokens` go from the worst bucket to the
/// best. `None` if that is more than the curve allows, [`most`].
pub fn factors(tokens: &[u64], curve: Curve, mean: f64) -> Option<Vec<f64>> {
    // The slack allows for rounding when the request is exactly the limit.
    if mean > most(curve) * (1.0 + 1e-9) {
        return None;
    }
    let exponent = (most(curve) / mean).max(1.0);
    let g = |x: f64| ((x - curve.discard) / (1.0 - curve.discard)).max(0.0).powf(exponent);
    let total = tokens.iter().sum::<u64>() as f64;
    let mut below = 0u64;
    let factor = |&bucket: &u64| {
        let (u, v) = (below as f64 / total, (below + bucket) as f64 / total);
        below += bucket;
        if bucket == 0 { 0.0 } else { mean * (g(v) - g(u)) / (v - u) }
    };
    Some(tokens.iter().map(factor).collect())
}

/// The largest mean: everything above the discarded share is shown `max_factor` times.
pub fn most(curve: Curve) -> f64 {
    curve.max_factor * (1.0 - curve.discard)
}

/// Which buckets are entirely in the discarded share.
pub fn discarded(tokens: &[u64], curve: Curve) -> Vec<bool> {
    let total = tokens.iter().sum::<u64>() as f64;
    let mut below = 0u64;
    let is_out = |bucket: &u64| {
        below += bucket;
        below as f64 <= curve.discard * total
    };
    tokens.iter().map(is_out).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLMO: Curve = Curve { discard: 0.4, max_factor: 7.0 };

    #[test]
    fn twenty_even_buckets() {
        let tokens = [50; 20];
        let found = factors(&tokens, OLMO, 1.0).unwrap();
        assert_eq!(discarded(&tokens, OLMO).iter().filter(|&&out| out).count(), 8);
        assert!(found[..8].iter().all(|&f| f == 0.0));
        // q = 4.2: the top 5 % are shown (1 - (0.55 / 0.6)^4.2) / 0.05 = 6.12 times, the next 5 % 4.58 times.
        assert!((found[19] - 6.122).abs() < 0.001, "{}", found[19]);
        assert!((found[18] - 4.578).abs() < 0.001, "{}", found[18]);
        assert!((found.iter().sum::<f64>() / 20.0 - 1.0).abs() < 1e-12);
        // As much as is possible: all that is kept, seven times.
        let most = factors(&tokens, OLMO, 4.2).unwrap();
        assert!(most[8..].iter().all(|f| (f - 7.0).abs() < 1e-9), "{most:?}");
        assert!(factors(&tokens, OLMO, 4.3).is_none());
    }

    #[test]
    fn a_bucket_across_the_edge_is_kept_in_part() {
        // Places 0..0.5 and 0.5..1; a sixth of the kept share lies in the first.
        let found = factors(&[10, 10], OLMO, 4.2).unwrap();
        assert!((found[0] - 1.4).abs() < 1e-9 && (found[1] - 7.0).abs() < 1e-9, "{found:?}");
        assert_eq!(discarded(&[10, 10], OLMO), [false, false]);
    }

    proptest! {
        #[test]
        fn factors_rise_to_the_cap_and_their_mean_is_the_wish(
            tokens in proptest::collection::vec(0u64..1000, 1..25), discard in 0.0f64..0.9, max_factor in 1.0f64..9.0, share in 0.01f64..1.0,
        ) {
            prop_assume!(tokens.iter().sum::<u64>() > 0);
            let curve = Curve { discard, max_factor };
            let mean = most(curve) * share;
            let found = factors(&tokens, curve, mean).unwrap();
            let total = tokens.iter().sum::<u64>() as f64;
            let shown: f64 = found.iter().zip(&tokens).map(|(f, &n)| f * n as f64).sum();
            prop_assert!((shown / total - mean).abs() < 1e-9 * mean.max(1.0));
            prop_assert!(found.iter().all(|&f| (0.0..=max_factor * (1.0 + 1e-9)).contains(&f)));
            let filled: Vec<f64> = found.iter().zip(&tokens).filter(|(_, n)| **n > 0).map(|(f, _)| *f).collect();
            prop_assert!(filled.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-6) + 1e-9), "{:?}", found);
        }
    }
}
