//! `moe-data mix --extend --from T`: the samples below `T` stay as they are, byte for byte; from `T` on the mixture decides.
//! Pools continue where they stopped, even in the middle of a pass, so repeats count across the extension; new shards
//! of a pool form a stream of their own; documents that are taken down become padding.

use std::collections::BTreeSet;
use std::path::Path;

use moe_shards::family::Order;
use moe_shards::variant::{Layout, Turns};
use moe_shards::{
    ContinuesLock, ExtendsLock, Hash, Manifest, Plan, PlanLock, PoolLock, Selection, TakedownLock,
    TakedownShard,
};
use rayon::prelude::*;

use super::layout::{Common, MixPool, packing_name, plan_path};
use super::mixture::{Mixture, PoolConfig};
use super::pool::{Families, open_shards};
use super::stream::{PoolBuilder, Rest, Start, position};
use super::takedown::find_documents;
use super::{MIXTURE_FILE, MixOptions, folder};
use crate::error::{Error, Result};

/// Settings of an extension.
#[derive(Clone, Debug, Default)]
pub struct Extension {
    /// First sample that may differ from the old plan's.
    pub from: u64,
    /// Documents that become padding from there on, by their names in their sources; with the prefix `family:`, a document with all other
    /// texts of its family, or a family's id.
    pub takedown: Vec<String>,
    /// Whether the mixture decides what follows; otherwise the old phases stay, and only documents are taken down.
    pub new_phases: bool,
}

/// The plan that is extended.
#[derive(Debug)]
pub(super) struct Old {
    /// As recorded.
    pub(super) lock: PlanLock,
    plan: Plan,
    from: u64,
    /// Bins of each pool that are shown before `from`.
    used: Vec<u64>,
    pub(super) takedown: Vec<TakedownShard>,
}

impl Extension {
    /// Opens the plan in `out` and finds where its pools stand at `from`.
    ///
    /// # Errors
    /// There is no plan, its shards are missing or changed, it lacks the sample, or the seed differs.
    pub(super) fn open(
        &self,
        out: &Path,
        manifest: &Manifest,
        mixture: &Mixture,
        options: &MixOptions,
    ) -> Result<Old> {
        let plan = Plan::open_to_extend(out)?;
        let lock = plan.lock().clone();
        if self.from == 0 || self.from > plan.len() {
            return Err(Error::Usage(format!(
                "--from {}: expected 1 to {}, the samples of {}",
                self.from,
                plan.len(),
                plan_path(out)
            )));
        }
        let fixed = [
            ("mix.seed", mixture.mix.seed.to_string(), lock.seed.to_string(), self.new_phases),
            (
                "mix.holdout",
                format!("{} per million", mixture.holdout_ppm()),
                format!("{} per million", lock.holdout_ppm),
                self.new_phases,
            ),
            ("--proxy", share_or_none(options.proxy), share_or_none(lock.proxy), true),
        ];
        let changed = fixed.iter().filter(|(.., applies)| *applies).find(|(_, new, old, _)| new != old);
        if let Some((key, new, old, _)) = changed {
            return Err(Error::Usage(format!("`{key}` is {new}, the plan has {old}: an extension keeps it")));
        }
        let windows = planned_mixture(out).map(|old| old.mix.windows);
        if let Some(old) = windows.filter(|&old| self.new_phases && old != mixture.mix.windows) {
            return Err(Error::Usage(format!(
                "`mix.windows` is {}, the plan has {old}: the windows of a pool are cut when it begins, so an extension keeps them",
                mixture.mix.windows
            )));
        }
        let (phase, counts) = plan.counts_before(self.from)?;
        let mut used = vec![0; lock.pools.len()];
        let earlier = lock.phases[..phase].iter().map(|phase| &phase.quotas);
        for quotas in earlier.chain([&counts]) {
            used.iter_mut().zip(quotas).for_each(|(used, quota)| *used += quota);
        }
        let takedown = find_documents(out, manifest, &self.takedown)?;
        Ok(Old { lock, plan, from: self.from, used, takedown })
    }

    /// What, besides the mixture, names the folder of the extended plan.
    pub(super) fn identity(&self, old: Hash, takedown: &[TakedownShard]) -> String {
        format!("extend {old} from {} {} {takedown:?}", self.from, self.new_phases)
    }

    /// The plan in `out`, if it is the result of this extension: its last extension has the same start and mixture over the same
    /// shards, or, where documents are only taken down, none of them is shown from there on. Extending it again would
    /// give it another id, and runs that have read beyond the start could not go on.
    pub(super) fn already_made(
        &self,
        out: &Path,
        manifest: &Manifest,
        resolved: &str,
        options: &MixOptions,
    ) -> Result<Option<PlanLock>> {
        let lock = PlanLock::read(out)?;
        let manifest_hash = manifest.hash()?;
        if lock.manifest != manifest_hash {
            return Ok(None);
        }
        let takedown = find_documents(out, manifest, &self.takedown)?;
        let is_made = match (self.new_phases, lock.extends.last()) {
            (true, Some(last)) => {
                let extends = self.identity(last.plan, &takedown);
                let folder = folder::name(manifest_hash, resolved, options.proxy, Some(&extends));
                last.until == self.from && folder::folders(&lock).contains(&folder)
            }
            (true, None) => false,
            (false, _) => takedown.iter().all(|shard| {
                let hidden: BTreeSet<u32> = (lock.takedowns.iter().filter(|down| down.from <= self.from))
                    .flat_map(|down| &down.shards)
                    .filter(|listed| listed.name == shard.name)
                    .flat_map(|listed| listed.docs.iter().copied())
                    .collect();
                shard.docs.iter().all(|doc| hidden.contains(doc))
            }),
        };
        Ok(is_made.then_some(lock))
    }
}

impl Old {
    /// Number of this extension, from 1.
    pub(super) fn generation(&self) -> u32 {
        let pools = self.lock.pools.iter().map(|pool| pool.generation);
        pools.chain(self.lock.phases.iter().map(|phase| phase.generation)).max().unwrap_or(0) + 1
    }

    /// The old plan up to the extension, or all of it if no new phases follow.
    pub(super) fn frozen(&self, manifest: Hash, new_phases: bool) -> Result<PlanLock> {
        let mut lock = self.lock.clone();
        lock.manifest = manifest;
        if new_phases {
            lock.phases.retain(|phase| phase.t_start < self.from);
            if let Some(last) = lock.phases.last_mut().filter(|last| self.from < last.t_end()) {
                last.shown_samples = Some(self.from - last.t_start);
            }
        }
        lock.extends.push(ExtendsLock { plan: self.lock.id, until: self.from });
        if !self.takedown.is_empty() {
            lock.takedowns.push(TakedownLock { from: self.from, shards: self.takedown.clone() });
        }
        Ok(lock)
    }

    /// Proves by the chain that the samples before the extension are those of the old plan.
    pub(super) fn finish(&self, lock: &mut PlanLock) -> Result<()> {
        lock.seal()?;
        let common = lock.common_prefix(&self.lock);
        match common >= self.from {
            true => Ok(()),
            false => Err(Error::Check(format!(
                "the extended plan shares only {common} samples with plan {}, {} were asked for; please report this",
                self.lock.id.short(),
                self.from
            ))),
        }
    }

    /// A pool of the mixture: the streams of the old plan with its name, and its new shards.
    pub(super) fn continue_pool(
        &self,
        common: &Common<'_>,
        pool: &PoolConfig,
        next_number: &mut u32,
    ) -> Result<MixPool> {
        let name = pool.name();
        let of_pool = |root: &PoolLock| {
            root.name == name || root.name.strip_prefix(name).is_some_and(|rest| rest.starts_with("@g"))
        };
        let roots: Vec<usize> = (0..self.lock.pools.len())
            .filter(|&i| self.lock.root(i) == i && of_pool(&self.lock.pools[i]))
            .collect();
        let shards = |keep: &dyn Fn(usize) -> bool| -> Vec<String> {
            let pools = self.lock.pools.iter().enumerate().filter(|(i, _)| keep(*i));
            pools.flat_map(|(_, pool)| &pool.shards).map(|shard| shard.name.clone()).collect()
        };
        let taken = match roots.is_empty() {
            true => shards(&|_| true),
            false => shards(&|i| roots.contains(&i)),
        };
        let source_of =
            |shard: &moe_shards::ShardInfo| common.manifest.sources.get(usize::from(shard.source));
        let wanted = |shard: &&moe_shards::ShardInfo| {
            source_of(shard).is_some_and(|source| pool.source.as_slice().contains(&source.name))
        };
        let of_sources: Vec<_> = common.manifest.shards.iter().filter(wanted).collect();
        let has_new = of_sources.iter().any(|shard| !taken.contains(&shard.name));
        let has_old = of_sources.iter().any(|shard| taken.contains(&shard.name));
        if pool.curve.is_some() && has_old {
            return Err(Error::Usage(format!(
                "pool `{name}`: the curve of a plan is fixed; in an extension name its buckets as pools, such as `{name}-q003` with `quality = [3, 3]`"
            )));
        }
        if roots.is_empty() && !has_new {
            return Err(Error::Usage(format!(
                "pool `{name}` is not in the plan and has no new shards; the plan has the pools {}",
                self.lock.pools.iter().map(|pool| format!("`{}`", pool.name)).collect::<Vec<_>>().join(", ")
            )));
        }
        let mut parts = Vec::new();
        for root in roots {
            parts.push(self.continue_line(common, pool, root, next_number)?);
        }
        if has_new {
            let stream = match parts.is_empty() {
                true => name.to_owned(),
                false => format!("{name}@g{}", common.generation),
            };
            let fresh = common.open(pool, &stream, &taken, next_number)?;
            if parts.is_empty() {
                return Ok(fresh);
            }
            parts.extend(fresh.parts);
        }
        Ok(MixPool::of_parts(name, common.mixture.max_epochs(pool), parts))
    }

    /// Continues a pool of the old plan where it stopped.
    fn continue_line(
        &self,
        common: &Common<'_>,
        pool: &PoolConfig,
        root: usize,
        next_number: &mut u32,
    ) -> Result<PoolBuilder> {
        let line: Vec<usize> = (root..self.lock.pools.len()).filter(|&i| self.lock.root(i) == root).collect();
        let last = line.iter().rev().find(|&&i| self.used[i] > 0).copied().unwrap_or(root);
        let old = &self.lock.pools[last];
        let name = format!("{}@t{}", self.lock.pools[root].name, self.from);
        let mut wish = common.wish(pool, &name, pool.selection());
        wish.key = self.lock.pools[root].key();
        if old.original_share == common.mixture.original_share(pool).per_million() {
            // An older program rounded the same share.
            wish.original_share = old.original_share;
        }
        let share = |[num, den]: [u64; 2]| format!("{num}/{den}");
        let count = |count: Option<u32>| count.map_or_else(|| "not set".to_owned(), |n| n.to_string());
        let fixed = [
            ("packing", packing_name(wish.packing).to_owned(), packing_name(old.packing).to_owned()),
            ("variants", turns_name(wish.variants).to_owned(), turns_name(old.variants).to_owned()),
            ("layout", layout_name(wish.layout).to_owned(), layout_name(old.layout).to_owned()),
            ("order", order_name(wish.order).to_owned(), order_name(old.order).to_owned()),
            ("original_share", share(wish.original_share), share(old.original_share)),
            (
                "quality, language and tag",
                selected(wish.selection.as_ref()),
                selected(old.selection.as_ref()),
            ),
            ("max_uses_per_text", count(wish.max_uses_per_text), count(old.max_uses_per_text)),
        ];
        if let Some((key, new, old)) = fixed.iter().find(|(_, new, old)| new != old) {
            return Err(Error::Usage(format!(
                "pool `{}`: `{key}` is {new}, the plan has {old}: an extension keeps it",
                pool.name()
            )));
        }
        let (pass, shown) = stands_at(old, self.used[last]);
        let rest = match shown {
            0 => None,
            _ => Some(self.rest(last, pass, shown)?),
        };
        let is_old = |shard: &str, _| old.shards.iter().any(|old| old.name == shard);
        let (docs, shards) = open_shards(common.site.out, common.manifest, is_old)?;
        let seq_len = common.first_seq_len(pool);
        let families = Families::open(docs, wish, seq_len, Some(old.windows.clone()))?;
        count_past(&families, pass, rest.as_ref())?;
        let continues = Some(ContinuesLock { pool: last as u32, pass, bins: shown });
        let number = *next_number;
        *next_number += 1;
        let start = Start { continues, rest };
        PoolBuilder::start(families, shards, common.generation, number, seq_len, start, &common.site)
    }

    fn rest(&self, pool: usize, pass: u32, shown: u64) -> Result<Rest> {
        let bins =
            self.lock.pools[pool].pass(pass).map(|pass| pass.bins_per_window.as_slice()).unwrap_or_default();
        let (window, in_window) = position(bins, shown)
            .ok_or_else(|| Error::Usage(format!("pass {pass} of pool {pool} has no bin {shown}")))?;
        let pieces = self.plan.rest_of_window(pool, pass, window, in_window)?;
        Ok(Rest { window, pieces, shown: [shown, bins.iter().sum()] })
    }
}

/// The mixture of the plan in `out`; `None` if it is missing or this version cannot read it.
fn planned_mixture(out: &Path) -> Option<Mixture> {
    let file = out.join(MIXTURE_FILE);
    let text = std::fs::read_to_string(&file).ok()?;
    Mixture::decode(&text, &file).ok()
}

fn share_or_none(share: Option<[u64; 2]>) -> String {
    share.map_or_else(|| "not set".to_owned(), |[num, den]| format!("{num}/{den}"))
}

fn turns_name(turns: Turns) -> &'static str {
    match turns {
        Turns::Share => "\"share\"",
        Turns::EachOnce => "\"each-once\"",
    }
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Separate => "\"separate\"",
        Layout::Stitched => "\"stitched\"",
    }
}

fn order_name(order: Order) -> &'static str {
    match order {
        Order::Gap => "\"gap\"",
        Order::Fixed => "\"fixed\"",
        Order::Reshuffle => "\"reshuffle\"",
        Order::Documents => "\"documents\"",
    }
}

/// A selection in words: `quality 3 to 9, language en`.
fn selected(selection: Option<&Selection>) -> String {
    let Some(selection) = selection else { return "everything".to_owned() };
    let mut words = Vec::new();
    words.extend(selection.quality.map(|[low, high]| format!("quality {low} to {high}")));
    for (kind, names) in [("language", &selection.languages), ("tag", &selection.tags)] {
        if !names.is_empty() {
            words.push(format!("{kind} {}", names.join(" or ")));
        }
    }
    words.join(", ")
}

/// Pass that a pool is in after `used` bins, and the bins of it that are shown.
fn stands_at(pool: &PoolLock, mut used: u64) -> (u32, u64) {
    let mut pass = pool.first_pass();
    for record in &pool.passes {
        if used < record.n_bins() {
            return (pass, used);
        }
        used -= record.n_bins();
        pass += 1;
    }
    (pass, 0)
}

/// Counts the texts that the old plan has shown.
fn count_past(families: &Families, pass: u32, rest: Option<&Rest>) -> Result<()> {
    let windows = families.n_windows();
    (0..windows).into_par_iter().for_each(|window| {
        let begun = rest.is_some_and(|rest| window <= rest.window);
        (0..pass + u32::from(begun)).for_each(|pass| families.replay(pass, window));
    });
    for piece in rest.iter().flat_map(|rest| &rest.pieces) {
        if piece.len == families.docs.n_tokens(piece.doc)? {
            families.unshow(piece.doc);
        }
    }
    Ok(())
}
