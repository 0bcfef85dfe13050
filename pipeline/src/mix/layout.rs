//! The pools of a mixture, open: one stream for most, one for each quality bucket with a curve, and in an extension one for
//! each generation of shards. Amounts of a pool are split over its parts here.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::family::{FamilyTable, Holdout};
use moe_shards::{Manifest, Packing, Selection};

use super::amounts::{self, Room};
use super::curve;
use super::mixture::{Curve, MAX_EPOCHS, Mixture, PoolConfig};
use super::pool::{Families, PoolWish, Site, open_shards};
use super::stream::{Amount, Ask, PoolBuilder, Start, Taken, too_many_pools};
use crate::error::{Error, Result};
use crate::watch::Watch;

/// A pool of the mixture.
#[derive(Debug)]
pub struct MixPool {
    /// Name.
    pub name: String,
    /// Its streams of families.
    pub parts: Vec<PoolBuilder>,
    /// Passes at most.
    pub max_passes: f64,
    curve: Option<(Curve, BTreeMap<u8, u64>)>,
    /// Quality bucket of each part.
    buckets: Vec<u8>,
    /// Trained tokens of one pass over all families, the discarded ones included.
    total: u64,
    max_uses_per_text: Option<u32>,
}

/// What all pools have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// Where files go.
    pub site: Site<'a>,
    /// Build.
    pub manifest: &'a Manifest,
    /// Mixture.
    pub mixture: &'a Mixture,
    /// Share of the families kept by a proxy.
    pub proxy: Option<[u64; 2]>,
    /// The extension that adds the pools, 0 = the first plan.
    pub generation: u32,
}

impl Common<'_> {
    /// The mixture's settings of a stream.
    pub(super) fn wish(&self, pool: &PoolConfig, name: &str, selection: Option<Selection>) -> PoolWish {
        let mix = &self.mixture.mix;
        PoolWish {
            name: name.to_owned(),
            key: xxhash_rust::xxh3::xxh3_64(name.as_bytes()),
            seed: mix.seed,
            packing: pool.packing.unwrap_or(mix.packing),
            max_windows: u64::from(mix.windows),
            variants: self.mixture.variants(pool),
            original_share: self.mixture.original_share(pool).fraction(),
            layout: self.mixture.layout(pool),
            order: self.mixture.order(pool),
            selection,
            max_uses_per_text: self.mixture.max_uses_per_text(pool),
            holdout: Holdout { ppm: self.mixture.holdout_ppm(), seed: mix.seed },
            proxy: self.proxy,
        }
    }

    /// Sequences of the first phase that shows a pool.
    pub(super) fn first_seq_len(&self, pool: &PoolConfig) -> u32 {
        let shows = |phase: &&super::mixture::PhaseConfig| match &phase.weights {
            Some(weights) => weights.contains_key(pool.name()),
            None => pool.weight.is_some(),
        };
        let phase = self.mixture.phase.iter().find(shows);
        phase.and_then(|phase| phase.seq_len).unwrap_or(self.mixture.mix.seq_len)
    }

    fn is_of(&self, pool: &PoolConfig, source: u16) -> bool {
        let name = self.manifest.sources.get(usize::from(source)).map(|source| &source.name);
        name.is_some_and(|name| pool.source.as_slice().contains(name))
    }

    /// Starts a pool with new streams; `taken` are shards already in the plan.
    ///
    /// # Errors
    /// Shards are damaged, the disk is full, or a curve applies to texts without quality.
    pub fn open(
        &self,
        pool: &PoolConfig,
        name: &str,
        taken: &[String],
        next_number: &mut u32,
    ) -> Result<MixPool> {
        let out = self.site.out;
        let wanted =
            |shard: &str, source| self.is_of(pool, source) && !taken.iter().any(|name| name == shard);
        let (docs, shards) = open_shards(out, self.manifest, wanted)?;
        let seq_len = self.first_seq_len(pool);
        let mut mixed = MixPool {
            name: pool.name().to_owned(),
            parts: Vec::new(),
            max_passes: self.mixture.max_epochs(pool),
            curve: None,
            buckets: Vec::new(),
            total: 0,
            max_uses_per_text: self.mixture.max_uses_per_text(pool),
        };
        let mut streams = vec![(name.to_owned(), pool.selection())];
        if let Some(curve) = pool.curve {
            let holdout = Holdout { ppm: self.mixture.holdout_ppm(), seed: self.mixture.mix.seed };
            let selection = pool.selection();
            let all = FamilyTable::build(&docs, selection.as_ref(), |family| !holdout.contains(family))?;
            let mut tokens = BTreeMap::<u8, u64>::new();
            let mut unscored = 0u64;
            for family in 0..all.len() {
                let original = all.texts(family)[0];
                match docs.meta(original)?.quality {
                    Some(bucket) => *tokens.entry(bucket).or_default() += docs.trained_tokens(original)?,
                    None => unscored += 1,
                }
            }
            if unscored > 0 {
                return Err(Error::Usage(format!(
                    "pool `{name}`: {unscored} of {} families have no quality, which its curve needs: name the field in the recipe's [[source]] (`quality`), or leave them out with `quality = [0, 255]`",
                    all.len()
                )));
            }
            let sizes: Vec<u64> = tokens.values().copied().collect();
            let out = curve::discarded(&sizes, curve);
            let kept = tokens.keys().zip(out).filter(|(_, out)| !out).map(|(&bucket, _)| bucket);
            mixed.buckets = kept.collect();
            let of_bucket = |&bucket: &u8| {
                let selection = pool.selection().unwrap_or_default();
                (
                    format!("{name}-q{bucket:03}"),
                    Some(Selection { quality: Some([bucket, bucket]), ..selection }),
                )
            };
            streams = mixed.buckets.iter().map(of_bucket).collect();
            mixed.curve = Some((curve, tokens));
        }
        for (name, selection) in streams {
            let families = Families::open(docs.clone(), self.wish(pool, &name, selection), seq_len, None)?;
            let number = *next_number;
            *next_number += 1;
            let (start, site) = (Start::default(), &self.site);
            let part =
                PoolBuilder::start(families, shards.clone(), self.generation, number, seq_len, start, site)?;
            mixed.parts.push(part);
        }
        if let Some((_, tokens)) = &mut mixed.curve {
            if let Some([num, den]) = self.proxy {
                // A bucket has what the proxy leaves, possibly nothing; only the size of discarded ones counts.
                let scaled =
                    |tokens: u64| (u128::from(tokens) * u128::from(num) / u128::from(den.max(1))) as u64;
                tokens.values_mut().for_each(|tokens| *tokens = scaled(*tokens));
                for (bucket, part) in mixed.buckets.iter().zip(&mixed.parts) {
                    tokens.insert(*bucket, part.families.original_tokens()?);
                }
            }
            mixed.total = tokens.values().sum();
        }
        if *next_number > u32::from(u16::MAX) {
            return Err(too_many_pools(*next_number as usize));
        }
        Ok(mixed)
    }
}

impl MixPool {
    /// A pool of continued and new streams.
    pub(super) fn of_parts(name: &str, max_passes: f64, parts: Vec<PoolBuilder>) -> MixPool {
        let max_uses_per_text = parts.first().and_then(|part| part.families.wish.max_uses_per_text);
        let name = name.to_owned();
        MixPool { name, parts, max_passes, curve: None, buckets: Vec::new(), total: 0, max_uses_per_text }
    }

    /// What the pool can still give.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn room(&mut self) -> Result<Room> {
        let uses = self
            .max_uses_per_text
            .map_or_else(String::new, |max| format!(" with `max_uses_per_text = {max}`"));
        let keys = match (self.curve.is_some(), self.max_uses_per_text.is_some()) {
            (false, false) => "`max_epochs`",
            (false, true) => "`max_epochs` or `max_uses_per_text`",
            (true, false) => "`max_factor`",
            (true, true) => "`max_factor` or `max_uses_per_text`",
        };
        let (tokens, cap) = match &self.curve {
            Some((curve, tokens)) => {
                let most = (curve::most(*curve) * self.total as f64) as u64;
                let cap = format!("the buckets of its curve, each at most {} times,{uses}", curve.max_factor);
                let left = match self.max_uses_per_text {
                    None => return Ok(Room { pool: self.name.clone(), tokens: most, cap, keys }),
                    Some(_) => self.parts.iter_mut().map(|part| part.tokens_left(f64::from(MAX_EPOCHS))),
                };
                let left = left.collect::<Result<Vec<u64>>>()?;
                (self.most_within(*curve, tokens, &left, most), cap)
            }
            None => {
                let max = self.max_passes;
                let left = self.parts.iter_mut().map(|part| part.tokens_left(max));
                (left.sum::<Result<u64>>()?, format!("{max} epochs{uses}"))
            }
        };
        Ok(Room { pool: self.name.clone(), tokens, cap, keys })
    }

    /// The largest budget, up to `most`, that gives no bucket more than it has `left`.
    fn most_within(&self, curve: Curve, tokens: &BTreeMap<u8, u64>, left: &[u64], most: u64) -> u64 {
        let fits = |budget: u64| {
            let mean = budget as f64 / self.total.max(1) as f64;
            let shares = self
                .factors(curve, tokens, mean)
                .map(|factors| amounts::largest_remainder(budget, &self.weights(tokens, &factors)));
            shares.is_some_and(|shares| shares.iter().zip(left).all(|(share, left)| share <= left))
        };
        // A larger budget gives no bucket less, so the budgets that fit are the smaller ones.
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = high - (high - low) / 2;
            match fits(middle) {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        low
    }

    /// How often each kept bucket is shown; `None` beyond what the curve allows.
    fn factors(&self, curve: Curve, tokens: &BTreeMap<u8, u64>, mean: f64) -> Option<Vec<f64>> {
        let sizes: Vec<u64> = tokens.values().copied().collect();
        let factors = match mean > 0.0 {
            true => curve::factors(&sizes, curve, mean)?,
            false => vec![0.0; sizes.len()],
        };
        let of_bucket: BTreeMap<u8, f64> = tokens.keys().copied().zip(factors).collect();
        Some(self.buckets.iter().map(|bucket| of_bucket[bucket]).collect())
    }

    /// Relative shares of the kept buckets in a budget.
    fn weights(&self, tokens: &BTreeMap<u8, u64>, factors: &[f64]) -> Vec<f64> {
        self.buckets.iter().zip(factors).map(|(bucket, factor)| factor * tokens[bucket] as f64).collect()
    }

    /// Trained tokens of the passes that `parts` ask for, and of what their texts give, which may have been shown often enough
    /// before.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn asked_and_given(&mut self, parts: &[Amount]) -> Result<[u64; 2]> {
        let mut sum = [0; 2];
        for (part, amount) in self.parts.iter_mut().zip(parts) {
            if let (Amount::Passes(passes), Some(_)) = (amount, self.max_uses_per_text) {
                let [asked, given] = part.asked_and_given(*passes)?;
                sum = [sum[0] + asked, sum[1] + given];
            }
        }
        Ok(sum)
    }

    /// Splits the phases' use of the pool over its parts, by phase and part.
    ///
    /// # Errors
    /// More than a curve allows, or a damaged shard.
    pub fn split(&mut self, amounts: &[Amount]) -> Result<Vec<Vec<Amount>>> {
        if let Some((curve, tokens)) = &self.curve {
            return self.by_curve(*curve, tokens, amounts);
        }
        let max = self.max_passes;
        let mut split = Vec::new();
        let mut left = self.parts.iter_mut().map(|part| part.tokens_left(max)).collect::<Result<Vec<u64>>>();
        for &amount in amounts {
            split.push(match amount {
                Amount::Tokens(tokens) if self.parts.len() > 1 => {
                    let left = left.as_mut().map_err(|e| Error::Usage(e.to_string()))?;
                    let sizes: Vec<f64> = left.iter().map(|&n| n as f64).collect();
                    let shares = amounts::fill(tokens, &sizes, left);
                    left.iter_mut().zip(&shares).for_each(|(left, share)| *left -= share);
                    shares.into_iter().map(Amount::Tokens).collect()
                }
                amount => vec![amount; self.parts.len()],
            });
        }
        Ok(split)
    }

    fn by_curve(
        &self,
        curve: Curve,
        tokens: &BTreeMap<u8, u64>,
        amounts: &[Amount],
    ) -> Result<Vec<Vec<Amount>>> {
        let passes = |amount: &Amount| match *amount {
            Amount::Tokens(tokens) => tokens as f64 / self.total.max(1) as f64,
            Amount::Passes(passes) => passes,
        };
        let mean: f64 = amounts.iter().map(passes).sum();
        let factors = self.factors(curve, tokens, mean).ok_or_else(|| {
            Error::Usage(format!(
                "pool `{}`: {mean:.3} passes on average are asked for, its curve allows {:.3} (max_factor {} of the {:.0} % that are kept): lower the amount, raise `max_factor` or lower `discard`",
                self.name,
                curve::most(curve),
                curve.max_factor,
                (1.0 - curve.discard) * 100.0
            ))
        })?;
        let weights = self.weights(tokens, &factors);
        let part = |amount: &Amount| match *amount {
            Amount::Passes(_) => factors.iter().map(|&factor| Amount::Passes(factor)).collect(),
            Amount::Tokens(tokens) => {
                amounts::largest_remainder(tokens, &weights).into_iter().map(Amount::Tokens).collect()
            }
        };
        Ok(amounts.iter().map(part).collect())
    }

    /// Lets the parts serve a phase.
    ///
    /// # Errors
    /// A damaged shard, a full disk, or a request to stop.
    pub fn serve(
        &mut self,
        parts: &[Amount],
        seq_len: u32,
        phase: &str,
        next_number: &mut u32,
        site: &Site<'_>,
        watch: &Watch,
    ) -> Result<Vec<Taken>> {
        // A bucket may be repeated more often than its curve says, where passes over variants are short; but not endlessly.
        let max_passes = if self.curve.is_some() { MAX_EPOCHS } else { self.max_passes.ceil() as u32 };
        let ask = Ask { phase, seq_len, max_passes };
        let parts = self.parts.iter_mut().zip(parts);
        parts.map(|(part, &amount)| part.take(amount, &ask, next_number, site, watch)).collect()
    }
}

/// Refuses a family in two pools of the mixture, since neither would count its repeats.
///
/// # Errors
/// Two pools that share families, or streams of one name.
pub fn check_disjoint(mixture: &Mixture, pools: &[MixPool]) -> Result<()> {
    let mut names: Vec<&str> =
        pools.iter().flat_map(|pool| &pool.parts).map(|part| part.families.wish.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Usage(format!("two pools are called `{}`: give one another `name`", pair[0])));
    }
    let sources = |pool: &MixPool| {
        let config = mixture.pool.iter().find(|config| config.name() == pool.name);
        config.map(|config| config.source.as_slice()).unwrap_or_default()
    };
    let ids = |pool: &MixPool| {
        let tables = pool.parts.iter().map(|part| &part.families.table);
        let mut ids: Vec<u64> =
            tables.flat_map(|table| (0..table.len()).map(|family| table.id(family).0)).collect();
        ids.sort_unstable();
        ids
    };
    for (i, a) in pools.iter().enumerate() {
        for b in pools[..i].iter().filter(|b| sources(b).iter().any(|source| sources(a).contains(source))) {
            let (ids_a, ids_b) = (ids(a), ids(b));
            let shared = ids_a.iter().filter(|id| ids_b.binary_search(id).is_ok()).count();
            if shared > 0 {
                return Err(Error::Usage(format!(
                    "pools `{}` and `{}` share {shared} families, whose repeats neither would count: make their `quality`, `language` or `tag` exclude each other",
                    b.name, a.name
                )));
            }
        }
    }
    Ok(())
}

/// Packing of a stream, for messages.
pub(super) fn packing_name(packing: Packing) -> &'static str {
    match packing {
        Packing::BestFit => "best-fit",
        Packing::Concat => "concat",
    }
}

/// The path of the plan, for messages.
pub(super) fn plan_path(out: &Path) -> String {
    out.join(moe_shards::PlanLock::FILE).display().to_string()
}
