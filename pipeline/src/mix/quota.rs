//! How many samples each pool gives. Without weights: all its passes. With weights: its share of
//! the token budget, counted in trained tokens and turned into samples with the measured fill.

use moe_shards::PassLock;

use super::mixture::Mixture;
use super::pool::PoolBuilder;
use crate::error::{Error, Result};

/// Lays out as many passes of each pool as it needs (through `add_pass`) and returns its samples.
///
/// # Errors
/// A budget that needs more passes than the epochs allow, or an error of `add_pass`.
pub fn lay_out(
    builders: &mut [PoolBuilder],
    mixture: &Mixture,
    mut add_pass: impl FnMut(&mut PoolBuilder) -> Result<()>,
) -> Result<Vec<u64>> {
    let targets = token_targets(mixture);
    let mut quotas = Vec::with_capacity(builders.len());
    for ((builder, pool), target) in builders.iter_mut().zip(&mixture.pool).zip(targets) {
        let epochs = mixture.epochs(pool);
        while (builder.lock.passes.len() as u32) < epochs
            && target.is_none_or(|target| trained(&builder.lock.passes) < target)
        {
            add_pass(builder)?;
        }
        let passes = &builder.lock.passes;
        quotas.push(match target {
            None => passes.iter().map(PassLock::n_bins).sum(),
            Some(target) => bins_for(passes, target).ok_or_else(|| {
                let available = trained(passes);
                Error::Usage(format!(
                    "pool `{}`: its weight asks for {target} trained tokens, {epochs} epochs have {available}; \
                     lower its weight or `mix.tokens`, or raise its epochs (repeats are worth less: see the table)",
                    builder.lock.name
                ))
            })?,
        });
    }
    Ok(quotas)
}

/// Trained tokens of each pool by largest remainder, so that they sum to the budget exactly.
fn token_targets(mixture: &Mixture) -> Vec<Option<u64>> {
    let Some(budget) = mixture.mix.tokens else {
        return vec![None; mixture.pool.len()];
    };
    let weights: Vec<f64> = mixture.pool.iter().map(|pool| pool.weight.unwrap_or(0.0)).collect();
    largest_remainder(budget, &weights).into_iter().map(Some).collect()
}

/// Integers that sum to `total` in proportion to `weights`; ties go to the lower index.
fn largest_remainder(total: u64, weights: &[f64]) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| total as f64 * weight / sum).collect();
    let mut shares: Vec<u64> = exact.iter().map(|&share| share as u64).collect();
    let left = total.saturating_sub(shares.iter().sum());
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    for &i in order.iter().cycle().take(left as usize) {
        shares[i] += 1;
    }
    shares
}

fn trained(passes: &[PassLock]) -> u64 {
    passes.iter().map(|pass| pass.trained_tokens).sum()
}

/// Bins that hold `target` trained tokens: whole passes, then a share of the next by its mean fill.
fn bins_for(passes: &[PassLock], target: u64) -> Option<u64> {
    let (mut left, mut bins) = (target, 0);
    for pass in passes {
        if left >= pass.trained_tokens {
            left -= pass.trained_tokens;
            bins += pass.n_bins();
        } else {
            let share = u128::from(left) * u128::from(pass.n_bins());
            return Some(bins + share.div_ceil(u128::from(pass.trained_tokens)) as u64);
        }
    }
    (left == 0).then_some(bins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_go_to_the_largest_fractions() {
        assert_eq!(largest_remainder(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(largest_remainder(10, &[0.55, 0.25, 0.2]), [6, 2, 2]);
        assert_eq!(largest_remainder(7, &[2.0]), [7]);
    }

    #[test]
    fn a_budget_ends_inside_a_pass() {
        let pass = |bins, trained_tokens| PassLock {
            bins_per_window: vec![bins],
            trained_tokens,
            placed_tokens: trained_tokens,
            originals: 0,
            pack: None,
        };
        let passes = [pass(10, 1000), pass(11, 1100)];
        assert_eq!(bins_for(&passes, 500), Some(5));
        assert_eq!(bins_for(&passes, 1000), Some(10));
        assert_eq!(bins_for(&passes, 1101), Some(12)); // 101 of 1100 tokens: 1.01 bins
        assert_eq!(bins_for(&passes, 2100), Some(21));
        assert_eq!(bins_for(&passes, 2101), None);
    }
}
