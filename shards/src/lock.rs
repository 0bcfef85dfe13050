//! `plan.lock`: the plan in full, as canonical JSON with integers only. Everything that determines a sample
//! is in it or in a file whose digest is in it, and a chain of digests over its phases gives the plan's id
//! (`chain`); the part of the chain up to a phase never changes when later phases are added.

mod chain;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result};
use crate::family::Order;
use crate::file_names::{check_below, check_plain};
use crate::hash::Hash;
use crate::manifest::check_version;
use crate::selection::Selection;
use crate::variant::{Layout, TextRule, Turns};

/// Newest version of the schema that this program reads. A plan is written in the lowest version that can
/// represent it ([`PlanLock::lowest_version`]), so that plans without newer features keep their bytes.
pub const PLAN_VERSION: u32 = 4;

/// How documents become sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// Bins filled so that no document that fits is cut (Ding et al., arXiv 2404.10830); needs an index.
    BestFit,
    /// Documents one after the other, cut every `seq_len` tokens; needs no index.
    Concat,
}

/// A file of the plan and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackRef {
    /// Path in the output folder.
    pub file: String,
    /// Digest.
    pub blake3: Hash,
}

/// A shard of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRef {
    /// Name in the manifest.
    pub name: String,
    /// Digest of its index, which holds the digest of its tokens.
    pub mdx_blake3: Hash,
}

/// One pass over a pool: every family once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassLock {
    /// Bins of each window, in visiting order.
    pub bins_per_window: Vec<u64>,
    /// Tokens with a target.
    pub trained_tokens: u64,
    /// Tokens in bins, those without a target included.
    pub placed_tokens: u64,
    /// Families whose original is shown.
    pub originals: u64,
    /// Pack index, for best-fit packing.
    pub pack: Option<PackRef>,
}

impl PassLock {
    /// Bins of the pass.
    pub fn n_bins(&self) -> u64 {
        self.bins_per_window.iter().sum()
    }
}

/// Held-out families of a pool; their originals, packed best-fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationLock {
    /// Families.
    pub n_families: u64,
    /// Bins.
    pub n_bins: u64,
    /// Tokens with a target.
    pub trained_tokens: u64,
    /// Pack index.
    pub pack: PackRef,
}

/// Where a pool continues the stream of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContinuesLock {
    /// The earlier pool, by number.
    pub pool: u32,
    /// Pass that comes next, counted over both.
    pub pass: u32,
    /// Bins of that pass that the earlier pool has shown; the first pass of this one is the rest.
    pub bins: u64,
}

/// A pool: one stream of the mixture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolLock {
    /// Name; its hash keys the pool's permutations.
    pub name: String,
    /// The extension that added it, 0 = the first plan.
    pub generation: u32,
    /// Its shards, in order.
    pub shards: Vec<ShardRef>,
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// How its documents become sequences.
    pub packing: Packing,
    /// Families that are trained on.
    pub n_families: u64,
    /// Those with more than one text.
    pub n_families_with_variants: u64,
    /// Fraction of originals among those, as numerator and denominator, if that rule applies.
    pub original_share: [u64; 2],
    /// The rule for which text a pass shows; absent = the fraction of originals.
    #[serde(default, skip_serializing_if = "Turns::is_share")]
    pub variants: Turns,
    /// Whether a pass shows one text of a family or all of them as one document; absent = one.
    #[serde(default, skip_serializing_if = "Layout::is_separate")]
    pub layout: Layout,
    /// How the passes differ in their order; absent = `gap`.
    #[serde(default, skip_serializing_if = "Order::is_gap")]
    pub order: Order,
    /// Which families of the shards; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// A family rests in the passes that would show one of its texts more often than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses_per_text: Option<u32>,
    /// The pool that this one continues, with other sequences or after an extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<ContinuesLock>,
    /// First family of each window, and the end.
    pub windows: Vec<u64>,
    /// Passes, in order.
    pub passes: Vec<PassLock>,
    /// Held-out families.
    pub validation: ValidationLock,
}

impl PoolLock {
    /// XXH3-64 of the name: the pool's word in permutation keys. A pool that continues another one uses the
    /// key of the first of them: see [`PlanLock::pool_key`].
    pub fn key(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.name.as_bytes())
    }

    /// Number of its first pass: not 0 when it continues another pool.
    pub fn first_pass(&self) -> u32 {
        self.continues.map_or(0, |continues| continues.pass)
    }

    /// The record of a pass, by the number that samples carry.
    pub fn pass(&self, pass: u32) -> Option<&PassLock> {
        self.passes.get(pass.checked_sub(self.first_pass())? as usize)
    }

    /// Which text of a family a pass shows.
    pub fn text_rule(&self) -> TextRule {
        TextRule::new(self.layout, self.variants, self.original_share)
    }
}

/// A part of the plan with fixed quotas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseLock {
    /// Name.
    pub name: String,
    /// Newest generation of pools that it uses.
    pub generation: u32,
    /// First sample.
    pub t_start: u64,
    /// Samples.
    pub n_samples: u64,
    /// How many of them are shown, where an extension took over before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_samples: Option<u64>,
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// Samples of each pool; pools that a later extension added have none.
    pub quotas: Vec<u64>,
    /// Stored counts of the interleaving.
    pub counts: PackRef,
    /// Digest of everything up to the end of this phase.
    pub chain: Hash,
}

impl PhaseLock {
    /// The sample after its last one.
    pub fn t_end(&self) -> u64 {
        self.t_start + self.shown_samples.unwrap_or(self.n_samples)
    }
}

/// An earlier plan of which this one is an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendsLock {
    /// Its id.
    pub plan: Hash,
    /// Samples below this number are the same in both.
    pub until: u64,
}

/// Documents that are no longer shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakedownLock {
    /// First sample in which they are padding.
    pub from: u64,
    /// The documents, by shard.
    pub shards: Vec<TakedownShard>,
}

/// Documents of a shard that are no longer shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakedownShard {
    /// Shard.
    pub name: String,
    /// Numbers of the documents in it, ascending.
    pub docs: Vec<u32>,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanLock {
    /// Version of the schema, at most [`PLAN_VERSION`].
    pub version: u32,
    /// Seed of all permutations.
    pub seed: u64,
    /// Held-out families per million.
    pub holdout_ppm: u32,
    /// Fraction of the families that a proxy plan keeps, as numerator and denominator; absent = no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<[u64; 2]>,
    /// Digest of the manifest of the shards.
    pub manifest: Hash,
    /// Pools, in order.
    pub pools: Vec<PoolLock>,
    /// Phases, in order.
    pub phases: Vec<PhaseLock>,
    /// Plans of which this one is an extension, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extends: Vec<ExtendsLock>,
    /// Documents that are no longer shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takedowns: Vec<TakedownLock>,
    /// The plan's id: the last chain digest.
    pub id: Hash,
}

impl PlanLock {
    /// File name in the output folder.
    pub const FILE: &'static str = "plan.lock";

    /// Reads and checks `dir/plan.lock`.
    ///
    /// # Errors
    /// Missing, not this schema, newer, edited (the chain does not fit), or with a name that leads out of the
    /// folder.
    pub fn read(dir: &Path) -> Result<PlanLock> {
        let path = dir.join(PlanLock::FILE);
        let bytes = std::fs::read(&path).map_err(Error::unread(&path, "moe-data mix"))?;
        check_version(&path, &bytes, PLAN_VERSION)?;
        let lock: PlanLock =
            serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.clone(), source })?;
        lock.check_names(&path)?;
        let mut sealed = lock.clone();
        sealed.seal()?;
        if sealed != lock {
            return Err(Error::Mismatch {
                path,
                key: "id",
                expected: sealed.id.to_string(),
                found: lock.id.to_string(),
                hint: "the file was edited; run `moe-data mix` again",
            });
        }
        Ok(lock)
    }

    /// Refuses names that lead out of the folder. Those of pools become names of files when a plan is
    /// extended.
    fn check_names(&self, path: &Path) -> Result<()> {
        for pool in &self.pools {
            check_plain(path, "name of a pool", &pool.name)?;
            pool.shards.iter().try_for_each(|shard| check_plain(path, "name of a shard", &shard.name))?;
            let packs = pool.passes.iter().filter_map(|pass| pass.pack.as_ref());
            packs
                .chain([&pool.validation.pack])
                .try_for_each(|pack| check_below(path, "file of a pack index", &pack.file))?;
        }
        let counts = self.phases.iter().map(|phase| &phase.counts.file);
        counts.into_iter().try_for_each(|file| check_below(path, "file of counts", file))?;
        let taken_down = self.takedowns.iter().flat_map(|takedown| &takedown.shards);
        taken_down.into_iter().try_for_each(|shard| check_plain(path, "name of a shard", &shard.name))
    }

    /// Writes `dir/plan.lock`. Call it last: it names the other files of the plan.
    ///
    /// # Errors
    /// A name leads out of the folder, or the disk refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(PlanLock::FILE);
        self.check_names(&path)?;
        atomic::write_file(&path, &self.to_bytes()?)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// Never in practice: the schema has no value that JSON cannot represent.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let unwritable = |source| Error::Json { path: PathBuf::from(PlanLock::FILE), source };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(unwritable)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Samples in all phases.
    pub fn n_samples(&self) -> u64 {
        self.phases.last().map_or(0, PhaseLock::t_end)
    }

    /// The pool's word in permutation keys: that of the first pool in its line of continuations.
    pub fn pool_key(&self, pool: usize) -> u64 {
        self.pools[self.root(pool)].key()
    }

    /// The first pool in a pool's line of continuations.
    pub fn root(&self, mut pool: usize) -> usize {
        // Only earlier pools are continued, which `Plan::open` checks; so this ends.
        while let Some(earlier) = self.pools[pool].continues.map(|c| c.pool as usize).filter(|&i| i < pool) {
            pool = earlier;
        }
        pool
    }
}
