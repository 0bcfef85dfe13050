//! What a plan is worth: the table that `moe-data mix` prints.
//!
//! Repetition is priced with the data-constrained scaling law of Muennighoff et al. (arXiv 2305.16264,
//! equation 5 and appendix A): `D' = U + U R* (1 - exp(-R / R*))` with `R = D / U - 1` repeats and
//! `R* = 15.387756`. For small models that are far larger than their text warrants it held up to four passes and
//! promised too much for eight and sixteen (`docs/experiments/repetition.md`). Whether a rephrasing counts as a
//! repeat or as new text is unknown, so both ends are printed.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::variant::{Layout, Turns};
use moe_shards::{Hash, PhaseLock};
use serde::{Deserialize, Serialize};

use super::folder::WORTH_FILE;
use super::mixture::Mixture;
use super::pool::PassFacts;
use super::stream::PoolBuilder;
use crate::error::{Error, Result};

/// Muennighoff et al., appendix A.
const R_STAR: f64 = 15.387756;
/// Muennighoff et al., section 3: parameters beyond this many per unique token lose value.
const PARAMETERS_PER_TOKEN: f64 = 0.051;
/// After four passes the estimate was right within a factor of 1.2, after eight no longer within 1.5
/// (`docs/experiments/repetition.md`); up to here there is no warning.
const MOST_PASSES: f64 = 4.5;
/// One part rephrased to two parts natural text is the best mixture in arXiv 2510.01631.
const SYNTHETIC_SHARE: f64 = 1.0 / 3.0;

/// The largest share to hold out.
const MOST_HOLDOUT_PPM: u32 = 500_000;

/// The table as a file next to its plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorthFile {
    /// Identity of the plan.
    pub plan: Hash,
    /// Its pools; none if an extension showed nothing new.
    pub pools: Vec<PoolTokens>,
}

impl WorthFile {
    /// Reads the file of a folder; `None` if it is missing, as in earlier versions.
    ///
    /// # Errors
    /// It is damaged, or another program's.
    pub fn read(out: &Path) -> Result<Option<WorthFile>> {
        let path = out.join(WORTH_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let hint = "delete it and run moe-data mix again";
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::data(&path, format!("is damaged: {e}; {hint}")))
    }
}

impl PoolTokens {
    /// What each pass is worth, as a share of as many fresh tokens, by the scaling law: with variants as repeats, and as new text.
    pub fn by_pass(&self) -> Vec<[f64; 2]> {
        let pass = self.planned_tokens as f64 / self.passes.max(1.0);
        let value = |n: u64, unique: u64| last_pass_value(unique as f64, n as f64 * pass, pass);
        let of = |n| [self.unique_tokens, self.unique_tokens_with_variants].map(|unique| value(n, unique));
        (1..=self.passes.ceil() as u64).map(of).collect()
    }
}

/// One row of the table. Token counts are trained tokens: those with a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolTokens {
    /// Pool.
    pub pool: String,
    /// Families that are trained on.
    pub families: u64,
    /// Held-out families.
    pub held_out_families: u64,
    /// The lowest `mix.holdout`, per million, that would hold out a family.
    pub least_holdout_ppm: Option<u32>,
    /// Families with more than one text.
    pub families_with_variants: u64,
    /// Families without variant 0, whose first text replaces it.
    pub families_without_original: u64,
    /// Tokens of showing every family once.
    pub unique_tokens: u64,
    /// Tokens of all texts of all families.
    pub unique_tokens_with_variants: u64,
    /// Samples of the plan.
    pub samples: u64,
    /// Tokens of the plan.
    pub planned_tokens: u64,
    /// Tokens of the plan from originals, and from texts that a model wrote.
    pub planned_original_tokens: u64,
    /// Tokens of the plan from texts that a model wrote.
    pub planned_synthetic_tokens: u64,
    /// Passes, the last one perhaps partial; including those before an extension.
    pub passes: f64,
    /// D' when variants count as repeats.
    pub effective_tokens_if_repeats: f64,
    /// D' when variants count as new text.
    pub effective_tokens_if_new: f64,
    /// Worth of the last pass relative to fresh text, when variants count as repeats.
    pub last_pass_value: f64,
    /// The same when variants count as new text.
    pub last_pass_value_if_new: f64,
    /// Share of originals in each pass, among the families that it shows.
    pub original_share_per_pass: Vec<f64>,
    /// Texts by how often the plan shows them.
    pub sightings: BTreeMap<u32, u64>,
    /// Families by how often the plan shows one of their texts.
    pub family_sightings: BTreeMap<u32, u64>,
    /// Smallest distance between two sightings of a family, in samples of this pool.
    pub min_gap_samples: Option<u64>,
    /// The same as a share of a pass.
    pub min_gap_passes: Option<f64>,
    /// A lower bound of the same in tokens of the whole plan, including other pools.
    pub min_gap_tokens: Option<u64>,
    /// Windows of a pass.
    pub windows: u64,
    /// Padding as a share of all positions.
    pub padding: f64,
    /// Documents longer than a sequence.
    pub cut_documents: u64,
}

/// What the whole plan, or its extension, is worth.
#[derive(Clone, Debug, Serialize)]
pub struct PlanTokens {
    /// Tokens with a target.
    pub planned_tokens: u64,
    /// Tokens of showing every family once.
    pub unique_tokens: u64,
    /// Share of the planned tokens that come from originals.
    pub original_share: f64,
    /// Share of the planned tokens that come from texts that a model wrote.
    pub synthetic_share: f64,
    /// Parameters of the model, if given.
    pub parameters: Option<u64>,
}

impl PlanTokens {
    /// Adds the pools up.
    pub fn new(pools: &[PoolTokens], parameters: Option<u64>) -> PlanTokens {
        let sum = |of: fn(&PoolTokens) -> u64| pools.iter().map(of).sum::<u64>();
        let planned = sum(|pool| pool.planned_tokens);
        let share = |tokens: u64| tokens as f64 / planned.max(1) as f64;
        PlanTokens {
            planned_tokens: planned,
            unique_tokens: sum(|pool| pool.unique_tokens),
            original_share: share(sum(|pool| pool.planned_original_tokens)),
            synthetic_share: share(sum(|pool| pool.planned_synthetic_tokens)),
            parameters,
        }
    }

    /// Compares the plan with the mixture's shares of originals and of synthetic text.
    ///
    /// # Errors
    /// A share that is out of bounds.
    pub fn check(&self, mixture: &Mixture) -> Result<()> {
        let mut problems = Vec::new();
        let more_originals = match (mixture.mix.layout, mixture.mix.variants) {
            (Some(Layout::Stitched), _) => {
                "leave out `layout = \"stitched\"`, which shows all texts in every pass".to_owned()
            }
            (_, Some(Turns::EachOnce)) => {
                "leave out `variants = \"each-once\"`, which shows all texts equally often".to_owned()
            }
            _ => format!("raise `original_share` (now {})", mixture.mix.original_share),
        };
        if let Some(most) = mixture.mix.max_synthetic_share.filter(|most| self.synthetic_share > most.value())
        {
            problems.push(format!(
                "{:.4} of the planned tokens were written by a model, `mix.max_synthetic_share` allows {most}: {more_originals}, give synthetic pools less, or allow more",
                self.synthetic_share
            ));
        }
        if let Some(least) =
            mixture.mix.min_original_share.filter(|least| self.original_share < least.value())
        {
            problems.push(format!(
                "{:.4} of the planned tokens are from originals, `mix.min_original_share` asks for {least}: {more_originals}, or ask for less",
                self.original_share
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Usage(problems.join("\n"))) }
    }

    /// Parameters of the model, if given, for each unique token (N/U).
    pub fn parameters_per_token(&self) -> Option<f64> {
        self.parameters.map(|parameters| parameters as f64 / self.unique_tokens.max(1) as f64)
    }

    /// Warnings for readers of the table.
    pub fn warnings(&self, mixture: &Mixture) -> Vec<String> {
        let mut warnings = Vec::new();
        if mixture.mix.max_synthetic_share.is_none() && self.synthetic_share > SYNTHETIC_SHARE {
            warnings.push(format!(
                "{:.1} % of the planned tokens were written by a model; about a third worked best in arXiv 2510.01631: set `mix.max_synthetic_share` to allow this",
                self.synthetic_share * 100.0
            ));
        }
        if let Some(ratio) = self.parameters_per_token().filter(|&ratio| ratio > PARAMETERS_PER_TOKEN) {
            warnings.push(format!(
                "{ratio:.3} parameters for each unique token (N/U): beyond {PARAMETERS_PER_TOKEN} more parameters lose value (arXiv 2305.16264), and larger models overfit repeats sooner (arXiv 2605.01640): add text"
            ));
        }
        warnings
    }
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

impl PoolTokens {
    /// The row of a pool that is laid out; `phases` are those of the plan.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn new(builder: &PoolBuilder, phases: &[PhaseLock]) -> Result<PoolTokens> {
        let families = &builder.families;
        let (unique, unique_all) = families.unique_tokens()?;
        let shown = Shown::of(builder);
        let planned = shown.facts.trained_tokens as f64;
        let first = &builder.streams[0].lock;
        let passes_before = shown.passes_before;
        let passes = passes_before + shown.passes;
        // Text shown before an extension is no longer fresh.
        let per_pass = if first.layout == Layout::Stitched { unique_all } else { unique };
        let before = passes_before * per_pass as f64;
        let worth =
            |unique: f64| effective_tokens(unique, before + planned) - effective_tokens(unique, before);
        let pass_tokens = planned / shown.passes.max(1.0);
        let gap = min_gap(builder, phases);
        let mean_bins = shown.bins as f64 / shown.full_passes.max(1.0);
        let shortest =
            builder.streams.iter().map(|stream| stream.lock.seq_len).min().unwrap_or(first.seq_len);
        Ok(PoolTokens {
            pool: first.name.clone(),
            families: first.n_families,
            held_out_families: first.validation.n_families,
            least_holdout_ppm: families.least_holdout_ppm(),
            families_with_variants: first.n_families_with_variants,
            families_without_original: families.n_without_original(),
            unique_tokens: unique,
            unique_tokens_with_variants: unique_all,
            samples: builder.streams.iter().map(|stream| stream.used).sum(),
            planned_tokens: shown.facts.trained_tokens,
            planned_original_tokens: shown.facts.original_tokens,
            planned_synthetic_tokens: shown.facts.synthetic_tokens,
            passes,
            effective_tokens_if_repeats: worth(unique as f64),
            effective_tokens_if_new: worth(unique_all as f64),
            last_pass_value: last_pass_value(unique as f64, before + planned, pass_tokens),
            last_pass_value_if_new: last_pass_value(unique_all as f64, before + planned, pass_tokens),
            original_share_per_pass: shown.originals,
            sightings: families.sightings(),
            family_sightings: families.family_sightings(),
            min_gap_samples: gap.map(|gap| gap.0),
            min_gap_passes: gap.map(|gap| gap.0 as f64 / mean_bins),
            min_gap_tokens: gap.map(|gap| gap.1),
            windows: first.windows.len() as u64 - 1,
            padding: 1.0 - shown.facts.placed_tokens as f64 / shown.positions.max(1) as f64,
            cut_documents: families.n_cut(shortest)?,
        })
    }

    /// Warnings for readers of the table; `holdout` is the share of families that is to be held out, and
    /// `parameters_per_token` that of the plan.
    pub fn warnings(&self, holdout: f64, parameters_per_token: Option<f64>) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(untrained(&self.pool, self.samples, self.planned_tokens));
        let most = self.sightings.keys().max().copied().unwrap_or(0);
        if most > 2 {
            let texts: u64 = self.sightings.iter().filter(|&(&uses, _)| uses > 2).map(|(_, n)| n).sum();
            warnings.push(format!(
                "{}: {texts} texts are shown {most} times; in mixture-of-experts models more than two repeats of one text cost quality (arXiv 2506.12119): add variants or lower the epochs",
                self.pool
            ));
        }
        if self.passes > MOST_PASSES && parameters_per_token.is_none_or(|ratio| ratio > PARAMETERS_PER_TOKEN)
        {
            warnings.push(format!(
                "{}: {:.1} passes may be worth less than the table says, which assumes few parameters for each unique token (arXiv 2305.16264): in small models with 17 of them, 8 passes were worth 0.55 of as many fresh tokens instead of 0.83, and with 34, 16 passes 0.19 instead of 0.66 (docs/experiments/repetition.md)",
                self.pool, self.passes
            ));
        }
        if self.families_without_original > 0 {
            warnings.push(format!(
                "{}: {} families have no original; their first variant stands in for it",
                self.pool, self.families_without_original
            ));
        }
        // Holding out nothing on purpose needs no warning.
        if holdout > 0.0 && self.held_out_families == 0 && !self.pool.contains('@') {
            let remedy = match self.least_holdout_ppm.filter(|&ppm| ppm <= MOST_HOLDOUT_PPM) {
                Some(ppm) => {
                    format!("`holdout = {}` in [mix] is the least that holds one out", f64::from(ppm) / 1e6)
                }
                None => "add families".to_owned(),
            };
            warnings.push(format!(
                "{}: none of its {} families is held out (`mix.holdout` = {holdout}), so it has no validation loss: {remedy}",
                self.pool, self.families
            ));
        }
        warnings
    }
}

/// Samples without trained tokens, as in conversations whose answers are in other samples.
fn untrained(pool: &str, samples: u64, trained: u64) -> Option<String> {
    (trained == 0 && samples > 0).then(|| {
        format!("{pool}: no token of its {samples} samples is trained, so they teach nothing: let the plan show more of it, or longer sequences")
    })
}

/// The phases' use of a pool's passes.
#[derive(Default)]
struct Shown {
    /// In passes, by their bins.
    passes_before: f64,
    passes: f64,
    /// Bins of the passes that are laid out, and the number of these passes; the last may be partial.
    bins: u64,
    full_passes: f64,
    /// Counted only in bins that are shown.
    facts: PassFacts,
    positions: u64,
    /// Share of originals among the families that a pass shows.
    originals: Vec<f64>,
}

impl Shown {
    fn of(builder: &PoolBuilder) -> Shown {
        let mut shown = Shown::default();
        for (number, stream) in builder.streams.iter().enumerate() {
            let begun = stream.share_begun();
            if number == 0 {
                shown.passes_before = f64::from(stream.lock.first_pass()) + begun;
            }
            let mut left = stream.used;
            for (i, (pass, facts)) in stream.lock.passes.iter().zip(&stream.passes).enumerate() {
                let n = pass.n_bins();
                let taken = left.min(n);
                left -= taken;
                let weight = if i == 0 { 1.0 - begun } else { 1.0 };
                shown.passes += if n == 0 { 0.0 } else { taken as f64 / n as f64 * weight };
                shown.bins += n;
                shown.full_passes += weight;
                shown.facts = shown.facts.plus(*facts);
                shown.positions += taken * u64::from(stream.lock.seq_len);
                shown.originals.push(facts.originals as f64 / facts.families.max(1) as f64);
            }
        }
        shown
    }
}

/// Two sightings of a family are at least as far apart as everything between its window in one pass and the
/// same window in the next: in samples of the pool, and in tokens of the plan as a lower bound.
fn min_gap(builder: &PoolBuilder, phases: &[PhaseLock]) -> Option<(u64, u64)> {
    // First and last sample of each window of each pass.
    let mut spans = BTreeMap::<(usize, u32), (u64, u64)>::new();
    let mut at = 0;
    for stream in &builder.streams {
        let mut left = stream.used;
        for (pass, record) in (stream.lock.first_pass()..).zip(&stream.lock.passes) {
            for (window, &bins) in record.bins_per_window.iter().enumerate() {
                let bins = bins.min(left);
                if bins > 0 {
                    let span = spans.entry((window, pass)).or_insert((at, at));
                    span.1 = at + bins - 1;
                }
                at += bins;
                left -= bins;
            }
        }
    }
    let next = |(&(window, pass), &(_, last)): (&(usize, u32), &(u64, u64))| {
        spans.get(&(window, pass + 1)).map(|&(first, _)| first - last)
    };
    let samples = spans.iter().filter_map(next).min()?;
    // The interleaving keeps each count within one sample of its share, so between two samples of a pool that are n
    // apart lie at least (n - 2) / share samples; a gap over several phases loses two at each of them.
    let numbers: Vec<usize> = builder.streams.iter().map(|stream| stream.number as usize).collect();
    let quota = |phase: &PhaseLock| numbers.iter().filter_map(|&i| phase.quotas.get(i)).sum::<u64>();
    let shown: Vec<&PhaseLock> = phases.iter().filter(|phase| quota(phase) > 0).collect();
    let sure = u128::from(samples.saturating_sub(2 * shown.len() as u64));
    let tokens = |phase: &&PhaseLock| {
        let samples = sure * u128::from(phase.n_samples) / u128::from(quota(phase));
        u64::try_from(samples * u128::from(phase.seq_len)).unwrap_or(u64::MAX)
    };
    Some((samples, shown.iter().map(tokens).min().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_teach_nothing_are_warned_of() {
        assert_eq!(untrained("talk", 0, 0), None);
        assert_eq!(untrained("talk", 3, 1), None);
        assert!(untrained("talk", 3, 0).unwrap().starts_with("talk: no token of its 3 samples is trained"));
    }

    #[test]
    fn epochs_are_worth_what_the_paper_says() {
        // D'/U after 2, 4, 8 and 40 epochs, and the value of the 4th pass.
        for (epochs, expected) in [(1.0, 1.0), (2.0, 1.968), (4.0, 3.726), (8.0, 6.624), (40.0, 15.17)] {
            let found = effective_tokens(1000.0, epochs * 1000.0) / 1000.0;
            assert!((found - expected).abs() < 0.005, "{epochs} epochs: {found}");
        }
        assert!((last_pass_value(1000.0, 4000.0, 1000.0) - 0.850).abs() < 0.001);
        assert!((last_pass_value(1000.0, 1000.0, 1000.0) - 1.0).abs() < 1e-12);
        let pool = PoolTokens {
            unique_tokens: 1000,
            unique_tokens_with_variants: 4000,
            planned_tokens: 4000,
            passes: 4.0,
            ..PoolTokens::default()
        };
        let values = pool.by_pass();
        assert_eq!((values.len(), values[0][0], values[3][1]), (4, 1.0, 1.0));
        assert!((values[3][0] - 0.850).abs() < 0.001, "{values:?}");
    }

    #[test]
    fn many_passes_are_warned_of_unless_the_model_is_small_for_its_text() {
        let pool = |passes| PoolTokens { pool: "web".to_owned(), passes, ..PoolTokens::default() };
        let found = |passes, ratio| PoolTokens::warnings(&pool(passes), 0.0, ratio).join("\n");
        assert_eq!((found(4.0, None), found(8.0, Some(0.05))), (String::new(), String::new()));
        for ratio in [None, Some(0.06)] {
            let said = found(8.0, ratio);
            assert!(said.starts_with("web: 8.0 passes may be worth less than the table says"), "{said}");
        }
    }
}
