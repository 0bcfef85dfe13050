//! `plan.lock`: the plan in full, as canonical JSON with integers only. Everything that decides a
//! sample is in it or in a file whose digest is in it, and a chain of digests over its phases gives the
//! plan's id; the part of the chain up to a phase never changes when later phases are added.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::manifest::check_version;
use crate::variant::OriginalShare;

/// Version of the schema, of the permutation and of the interleaving rule, which belong together.
pub const PLAN_VERSION: u32 = 1;

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

/// A pool: one stream of the mixture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolLock {
    /// Name; its hash keys the pool's permutations.
    pub name: String,
    /// The extension that brought it, 0 = the first plan.
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
    /// Share of originals among those, as numerator and denominator.
    pub original_share: [u64; 2],
    /// First family of each window, and the end.
    pub windows: Vec<u64>,
    /// Passes, in order.
    pub passes: Vec<PassLock>,
    /// Held-out families.
    pub validation: ValidationLock,
}

impl PoolLock {
    /// XXH3-64 of the name: the pool's word in permutation keys.
    pub fn key(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.name.as_bytes())
    }

    /// The share of originals.
    pub fn share(&self) -> OriginalShare {
        OriginalShare { num: self.original_share[0], den: self.original_share[1] }
    }
}

/// A stretch of the plan with fixed quotas.
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
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// Samples of each pool.
    pub quotas: Vec<u64>,
    /// Stored counts of the interleaving.
    pub counts: PackRef,
    /// Digest of everything up to the end of this phase.
    pub chain: Hash,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanLock {
    /// [`PLAN_VERSION`] of the program that made it.
    pub version: u32,
    /// Seed of all permutations.
    pub seed: u64,
    /// Held-out families per million.
    pub holdout_ppm: u32,
    /// Digest of the manifest of the shards.
    pub manifest: Hash,
    /// Pools, in order.
    pub pools: Vec<PoolLock>,
    /// Phases, in order.
    pub phases: Vec<PhaseLock>,
    /// The plan's id: the last chain digest.
    pub id: Hash,
}

impl PlanLock {
    /// File name in the output folder.
    pub const FILE: &'static str = "plan.lock";

    /// Reads and checks `dir/plan.lock`.
    ///
    /// # Errors
    /// Missing, not this schema, newer, or edited (the chain does not fit).
    pub fn read(dir: &Path) -> Result<PlanLock> {
        let path = dir.join(PlanLock::FILE);
        let bytes = std::fs::read(&path).map_err(Error::unread(&path, "moe-data mix"))?;
        check_version(&path, &bytes, PLAN_VERSION)?;
        let lock: PlanLock =
            serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.clone(), source })?;
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

    /// Writes `dir/plan.lock`. Call it last: it names the other files of the plan.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(PlanLock::FILE);
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|source| Error::Json { path: path.clone(), source })?;
        bytes.push(b'\n');
        atomic::write_file(&path, &bytes)
    }

    /// Computes the chain and the id: `chain_i = H(chain_{i-1}, pools that phase i brought, phase i)`,
    /// starting from `H(version, seed, holdout)`.
    ///
    /// # Errors
    /// Never in practice: the schema has no value that JSON cannot hold.
    pub fn seal(&mut self) -> Result<()> {
        let json_error = |source| Error::Json { path: PathBuf::from(PlanLock::FILE), source };
        let head = serde_json::to_vec(&(self.version, self.seed, self.holdout_ppm)).map_err(json_error)?;
        let mut chain = Hash::of(&head);
        let mut first_pool = 0;
        for phase in &mut self.phases {
            phase.chain = Hash::default();
            let end = self.pools.partition_point(|pool| pool.generation <= phase.generation);
            let brought = &self.pools[first_pool.min(end)..end];
            let body = serde_json::to_vec(&(chain, brought, &*phase)).map_err(json_error)?;
            chain = Hash::of(&body);
            phase.chain = chain;
            first_pool = end;
        }
        self.id = chain;
        Ok(())
    }

    /// Samples in all phases.
    pub fn n_samples(&self) -> u64 {
        self.phases.last().map_or(0, |phase| phase.t_start + phase.n_samples)
    }
}
