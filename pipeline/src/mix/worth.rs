//! What a plan is worth: the table that `moe-data mix` prints.
//!
//! Repetition is priced with the data-constrained scaling law of Muennighoff et al. (arXiv 2305.16264,
//! equation 5 and appendix A): `D' = U + U R* (1 - exp(-R / R*))` with `R = D / U - 1` repeats and
//! `R* = 15.387756`. Whether a rephrasing counts as a repeat or as new text is unknown, so both ends are printed.

use std::collections::BTreeMap;

use moe_shards::PoolLock;
use serde::Serialize;

use super::pool::PoolBuilder;
use crate::error::Result;

/// Muennighoff et al., appendix A.
const R_STAR: f64 = 15.387756;

/// One row of the table. Token counts are trained tokens: those with a target.
#[derive(Clone, Debug, Serialize)]
pub struct PoolWorth {
    /// Pool.
    pub pool: String,
    /// Families that are trained on.
    pub families: u64,
    /// Held-out families.
    pub held_out_families: u64,
    /// Families with more than one text.
    pub families_with_variants: u64,
    /// Families without variant 0, whose first text stands in for it.
    pub families_without_original: u64,
    /// Tokens of one sight of every family.
    pub unique_tokens: u64,
    /// Tokens of all texts of all families.
    pub unique_tokens_with_variants: u64,
    /// Samples of the plan.
    pub samples: u64,
    /// Tokens of the plan.
    pub planned_tokens: u64,
    /// Passes, the last one perhaps in part.
    pub passes: f64,
    /// D' when variants count as repeats.
    pub effective_tokens_if_repeats: f64,
    /// D' when variants count as new text.
    pub effective_tokens_if_new: f64,
    /// Worth of the last pass relative to fresh text, when variants count as repeats.
    pub last_pass_value: f64,
    /// The same when variants count as new text.
    pub last_pass_value_if_new: f64,
    /// Share of originals in each pass, among all families.
    pub original_share_per_pass: Vec<f64>,
    /// Texts by how often the passes show them.
    pub sightings: BTreeMap<u32, u64>,
    /// Smallest distance between two sightings of a family, in samples of this pool.
    pub min_gap_samples: Option<u64>,
    /// The same as a share of a pass.
    pub min_gap_passes: Option<f64>,
    /// Windows of a pass.
    pub windows: u64,
    /// Padding as a share of all positions.
    pub padding: f64,
    /// Documents longer than a sequence.
    pub cut_documents: u64,
}

/// Effective tokens after `planned` trained tokens of `unique` ones.
pub fn effective_tokens(unique: f64, planned: f64) -> f64 {
    if unique <= 0.0 || planned <= unique {
        return planned.max(0.0);
    }
    unique + unique * R_STAR * (1.0 - (-(planned / unique - 1.0) / R_STAR).exp())
}

/// Worth of the last `1` pass of `passes`, relative to fresh text.
fn last_pass_value(unique: f64, planned: f64, pass_tokens: f64) -> f64 {
    if pass_tokens <= 0.0 {
        return 0.0;
    }
    let before = (planned - pass_tokens).max(0.0);
    (effective_tokens(unique, planned) - effective_tokens(unique, before)) / (planned - before)
}

impl PoolWorth {
    /// The row of a pool that serves `samples` samples.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn new(builder: &PoolBuilder, samples: u64) -> Result<PoolWorth> {
        let lock = &builder.lock;
        let (unique, unique_all) = builder.unique_tokens()?;
        let (passes, planned) = passes_and_tokens(lock, samples);
        let placed: u64 = lock.passes.iter().map(|pass| pass.placed_tokens).sum();
        let positions: u64 = lock.passes.iter().map(|pass| pass.n_bins() * u64::from(lock.seq_len)).sum();
        let pass_tokens = planned / passes.max(1.0);
        let gap = min_gap(lock);
        let mean_bins = lock.passes.iter().map(|pass| pass.n_bins()).sum::<u64>() as f64
            / lock.passes.len().max(1) as f64;
        Ok(PoolWorth {
            pool: lock.name.clone(),
            families: lock.n_families,
            held_out_families: lock.validation.n_families,
            families_with_variants: lock.n_families_with_variants,
            families_without_original: builder.n_without_original(),
            unique_tokens: unique,
            unique_tokens_with_variants: unique_all,
            samples,
            planned_tokens: planned as u64,
            passes,
            effective_tokens_if_repeats: effective_tokens(unique as f64, planned),
            effective_tokens_if_new: effective_tokens(unique_all as f64, planned),
            last_pass_value: last_pass_value(unique as f64, planned, pass_tokens),
            last_pass_value_if_new: last_pass_value(unique_all as f64, planned, pass_tokens),
            original_share_per_pass: lock
                .passes
                .iter()
                .map(|p| p.originals as f64 / lock.n_families.max(1) as f64)
                .collect(),
            sightings: builder.sightings(),
            min_gap_samples: gap,
            min_gap_passes: gap.map(|gap| gap as f64 / mean_bins),
            windows: lock.windows.len() as u64 - 1,
            padding: 1.0 - placed as f64 / positions.max(1) as f64,
            cut_documents: builder.n_cut()?,
        })
    }

    /// What a reader of the table should worry about.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let most = self.sightings.keys().max().copied().unwrap_or(0);
        if most > 2 {
            let texts: u64 = self.sightings.iter().filter(|&(&uses, _)| uses > 2).map(|(_, n)| n).sum();
            warnings.push(format!(
                "{}: {texts} texts are shown {most} times; in mixture-of-experts models more than two repeats of one text cost quality (arXiv 2506.12119): add variants or lower the epochs",
                self.pool
            ));
        }
        if self.families_without_original > 0 {
            warnings.push(format!(
                "{}: {} families have no original; their first variant stands in for it",
                self.pool, self.families_without_original
            ));
        }
        if self.held_out_families == 0 {
            warnings.push(format!(
                "{}: no family is held out, so it has no validation loss; raise `mix.holdout`",
                self.pool
            ));
        }
        warnings
    }
}

/// Passes begun, in passes, and trained tokens, of the first `samples` bins.
fn passes_and_tokens(lock: &PoolLock, samples: u64) -> (f64, f64) {
    let (mut left, mut passes, mut tokens) = (samples, 0.0, 0.0);
    for pass in &lock.passes {
        let n = pass.n_bins();
        let share = if n == 0 { 0.0 } else { left.min(n) as f64 / n as f64 };
        passes += share;
        tokens += share * pass.trained_tokens as f64;
        left -= left.min(n);
    }
    (passes, tokens)
}

/// Two sightings of a family lie at least as far apart as everything that comes between its window in
/// one pass and the same window in the next.
fn min_gap(lock: &PoolLock) -> Option<u64> {
    let pairs = lock.passes.windows(2).flat_map(|pair| {
        let (this, next) = (&pair[0].bins_per_window, &pair[1].bins_per_window);
        let windows = (0..this.len()).filter(|&w| this[w] > 0 && next[w] > 0);
        windows
            .map(|w| this[w + 1..].iter().sum::<u64>() + next[..w].iter().sum::<u64>() + 1)
            .collect::<Vec<_>>()
    });
    pairs.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_worth_what_the_paper_says() {
        // D'/U after 2, 4, 8 and 40 epochs, and the value of the 4th pass.
        for (epochs, expected) in [(1.0, 1.0), (2.0, 1.968), (4.0, 3.726), (8.0, 6.624), (40.0, 15.17)] {
            let found = effective_tokens(1000.0, epochs * 1000.0) / 1000.0;
            assert!((found - expected).abs() < 0.005, "{epochs} epochs: {found}");
        }
        assert!((last_pass_value(1000.0, 4000.0, 1000.0) - 0.850).abs() < 0.001);
        assert!((last_pass_value(1000.0, 1000.0, 1000.0) - 1.0).abs() < 1e-12);
    }
}
