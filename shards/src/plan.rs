//! A plan with its shards open: [`Plan::sample`] is a pure function of `t`.
//!
//! `t` -> phase (by search) -> pool and its `j`-th bin (interleaving: stored counts and a short
//! replay) -> pass, window, bin (prefix sums) -> pieces (pack index or concatenation) -> tokens.

mod phase;
mod pool;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::phase::Phase;
pub use self::pool::{Pool, proxy_families};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::interleave::Interleaver;
use crate::lock::PlanLock;
use crate::manifest::Manifest;
use crate::pack::PackedPiece;
use crate::reader::Shard;
use crate::sample::{Sample, SampleId};
use crate::variant::Layout;

/// An open plan. It can be shared between threads.
#[derive(Debug)]
pub struct Plan {
    dir: PathBuf,
    lock: PlanLock,
    manifest: Manifest,
    pools: Vec<Pool>,
    phases: Vec<Phase>,
    /// Pool and bin of each held-out sequence.
    validation: Vec<(u16, u64)>,
    /// First sample that no longer shows a document, by shard (as numbered in the manifest) and document.
    taken_down: BTreeMap<(u32, u32), u64>,
    token_bytes: Vec<u16>,
}

impl Plan {
    /// Opens `dir/plan.lock`, the shards it names and its pack indexes. Sizes, headers and the digest of each
    /// index are checked; the tokens of a document when it is read, all of them by [`Shard::verify_tokens`].
    ///
    /// # Errors
    /// Anything missing or damaged, a plan of other shards, shards of another tokenizer.
    pub fn open(dir: &Path) -> Result<Plan> {
        let (manifest, lock) = (Manifest::read(dir)?, PlanLock::read(dir)?);
        let found = manifest.hash()?;
        if found != lock.manifest {
            return Err(Error::Mismatch {
                path: dir.join(PlanLock::FILE),
                key: "manifest",
                expected: found.to_string(),
                found: lock.manifest.to_string(),
                hint: "the plan was made for other shards; run `moe-data mix` again, with --extend to keep its past",
            });
        }
        Plan::assemble(dir, manifest, lock)
    }

    /// Opens a plan whose data set may have gained shards since: the manifest may differ, as long as it still
    /// has every shard of the plan.
    ///
    /// # Errors
    /// As [`Plan::open`], except for the manifest.
    pub fn open_to_extend(dir: &Path) -> Result<Plan> {
        Plan::assemble(dir, Manifest::read(dir)?, PlanLock::read(dir)?)
    }

    fn assemble(dir: &Path, manifest: Manifest, lock: PlanLock) -> Result<Plan> {
        let mut pools = Vec::new();
        for number in 0..lock.pools.len() {
            pools.push(Pool::open(dir, &manifest, &lock, number, &pools)?);
        }
        let n_bins: Vec<u64> = pools.iter().map(Pool::n_bins).collect();
        let phases = phase::open_all(dir, &lock, &n_bins)?;
        let validation = validation_order(&pools)?;
        let taken_down = taken_down(dir, &lock, &manifest)?;
        let token_bytes = read_token_bytes(dir, &manifest)?;
        Ok(Plan { dir: dir.to_owned(), lock, manifest, pools, phases, validation, taken_down, token_bytes })
    }

    /// The plan's identity.
    pub fn id(&self) -> Hash {
        self.lock.id
    }

    /// The folder it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The plan as recorded.
    pub fn lock(&self) -> &PlanLock {
        &self.lock
    }

    /// The shard set it samples from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Training samples.
    pub fn len(&self) -> u64 {
        self.lock.n_samples()
    }

    /// Whether there is nothing to train on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of the longest sequence; phases may differ, see [`Plan::seq_len_at`].
    pub fn seq_len(&self) -> usize {
        self.lock.phases.iter().map(|phase| phase.seq_len as usize).max().unwrap_or(0)
    }

    /// Tokens of sample `t`.
    ///
    /// # Errors
    /// `t` is past the end.
    pub fn seq_len_at(&self, t: u64) -> Result<usize> {
        Ok(self.lock.phases[self.phase_at(t)?].seq_len as usize)
    }

    /// Number of the phase that shows sample `t`.
    ///
    /// # Errors
    /// `t` is past the end.
    pub fn phase_at(&self, t: u64) -> Result<usize> {
        if t >= self.len() {
            return Err(Error::PlanExhausted { t, len: self.len() });
        }
        Ok(self.lock.phases.partition_point(|phase| phase.t_end() <= t))
    }

    /// How many samples of each pool there are among the samples `0..t` of the phase that shows `t`, or that
    /// ends at it.
    ///
    /// # Errors
    /// `t` is past the end, or the stored counts are damaged.
    pub fn counts_before(&self, t: u64) -> Result<(usize, Vec<u64>)> {
        let i = if t == self.len() && t > 0 { self.phase_at(t - 1)? } else { self.phase_at(t)? };
        Ok((i, self.phases[i].counts_before(t - self.lock.phases[i].t_start)?))
    }

    /// Names of the pools, in the order of [`SampleId::pool`].
    pub fn pool_names(&self) -> Vec<String> {
        self.lock.pools.iter().map(|pool| pool.name.clone()).collect()
    }

    /// UTF-8 bytes of each token id; special tokens have 0.
    pub fn token_bytes(&self) -> &[u16] {
        &self.token_bytes
    }

    /// The open pools.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Which bin sample `t` is, without reading its tokens.
    ///
    /// # Errors
    /// `t` is past the end.
    pub fn locate(&self, t: u64) -> Result<SampleId> {
        let i = self.phase_at(t)?;
        let (pool, j) = self.phases[i].stream_position(t - self.lock.phases[i].t_start)?;
        let (pass, bin) = self.pools[usize::from(pool)].pass_of(j)?;
        Ok(SampleId { pool, pass, bin })
    }

    /// Sample `t`. Documents that were taken down from an earlier sample on are padding.
    ///
    /// # Errors
    /// `t` is past the end, or a file is damaged.
    pub fn sample(&self, t: u64) -> Result<Sample> {
        let id = self.locate(t)?;
        let pieces = pool::pieces(&self.pools, &self.lock, id)?;
        let (pool, lock) = (&self.pools[usize::from(id.pool)], &self.lock.pools[usize::from(id.pool)]);
        let hidden = |shard, doc| self.taken_down.get(&(shard, doc)).is_some_and(|&from| from <= t);
        Sample::assemble(id, pool.docs(), &pieces, lock.seq_len as usize, lock.layout, hidden)
    }

    /// The rest of a window of a pass of pool number `pool` after its first `shown` bins.
    ///
    /// # Errors
    /// No such window, or a damaged file.
    pub fn rest_of_window(
        &self,
        pool: usize,
        pass: u32,
        window: usize,
        shown: u64,
    ) -> Result<Vec<PackedPiece>> {
        pool::rest_of_window(&self.pools, &self.lock, pool, pass, window, shown)
    }

    /// The samples of `range` that belong to `rank` of `world`: a contiguous slice, so that each rank
    /// sees the mixture (a strided one aliases with the regular interleaving).
    ///
    /// # Errors
    /// As [`Plan::sample`]; also `rank >= world`.
    pub fn batch(&self, range: Range<u64>, rank: u32, world: u32) -> Result<Vec<Sample>> {
        if rank >= world {
            return Err(Error::Quota(format!("rank {rank} of {world} ranks: ranks are numbered from 0")));
        }
        let len = u128::from(range.end.saturating_sub(range.start));
        let cut = |r: u32| range.start + (len * u128::from(r) / u128::from(world)) as u64;
        (cut(rank)..cut(rank + 1)).map(|t| self.sample(t)).collect()
    }

    /// Held-out sequences of all pools.
    pub fn validation_len(&self) -> u64 {
        self.validation.len() as u64
    }

    /// Held-out sequence `i`: originals of families that no training sample shows in any variant. The
    /// pools are interleaved, so the first `n` sequences represent all of them.
    ///
    /// # Errors
    /// `i` is past the end, or a file is damaged.
    pub fn validation_sample(&self, i: u64) -> Result<Sample> {
        let Some(&(number, bin)) = usize::try_from(i).ok().and_then(|i| self.validation.get(i)) else {
            let path = self.dir.join(PlanLock::FILE);
            return Err(Error::OutOfRange {
                path,
                what: "validation sample",
                index: i,
                len: self.validation_len(),
            });
        };
        let (pool, lock) = (&self.pools[usize::from(number)], &self.lock.pools[usize::from(number)]);
        let id = SampleId { pool: number, pass: 0, bin };
        let hidden = |shard, doc| self.taken_down.contains_key(&(shard, doc));
        let pieces = pool.validation.bin(bin)?;
        Sample::assemble(id, pool.docs(), &pieces, lock.seq_len as usize, Layout::Separate, hidden)
    }

    /// The shards that it reads, each once. [`Shard::verify_tokens`] of each, on any number of threads,
    /// proves that their tokens are those that were written; [`Plan::sample`] checks the documents that it
    /// reads.
    pub fn shards(&self) -> Vec<&Shard> {
        let all = self.pools.iter().flat_map(|pool| pool.docs().shards());
        all.map(|shard| (shard.path(), shard)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Compares every file of the plan with its digest, and returns how many there are; the shards are
    /// verified by [`Shard::verify`](crate::Shard::verify).
    ///
    /// # Errors
    /// The first file whose bytes are not the recorded ones.
    pub fn verify(&self) -> Result<u64> {
        let packs = self.lock.pools.iter().flat_map(|pool| {
            pool.passes.iter().filter_map(|pass| pass.pack.as_ref()).chain([&pool.validation.pack])
        });
        let mut n_files = 0;
        for file in packs.chain(self.lock.phases.iter().map(|phase| &phase.counts)) {
            let path = self.dir.join(&file.file);
            let found = Hash::of_file(&path)?;
            if found != file.blake3 {
                let (what, expected) = ("file".to_owned(), file.blake3.to_string());
                return Err(Error::Checksum { path, what, expected, found: found.to_string() });
            }
            n_files += 1;
        }
        Ok(n_files)
    }
}

fn validation_order(pools: &[Pool]) -> Result<Vec<(u16, u64)>> {
    let quotas: Vec<u64> = pools.iter().map(|pool| pool.validation.n_bins()).collect();
    let rule = Interleaver::new(&quotas)?;
    let mut counts = vec![0; quotas.len()];
    let order = (0..rule.total()).map(|t| {
        let pool = rule.next(t, &mut counts)?;
        Ok((pool as u16, counts[pool] - 1))
    });
    order.collect()
}

/// First sample that no longer shows a document.
fn taken_down(dir: &Path, lock: &PlanLock, manifest: &Manifest) -> Result<BTreeMap<(u32, u32), u64>> {
    let mut down = BTreeMap::new();
    for takedown in &lock.takedowns {
        for listed in &takedown.shards {
            let shard = manifest.shards.iter().position(|shard| shard.name == listed.name);
            let Some(shard) = shard else {
                let path = dir.join(PlanLock::FILE);
                return Err(Error::format(&path, "takedown", "a shard of the manifest", &listed.name));
            };
            for &doc in &listed.docs {
                let from = down.entry((shard as u32, doc)).or_insert(takedown.from);
                *from = takedown.from.min(*from);
            }
        }
    }
    Ok(down)
}

fn read_token_bytes(dir: &Path, manifest: &Manifest) -> Result<Vec<u16>> {
    let info = &manifest.tokenizer;
    let path = dir.join(&info.token_bytes_file);
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let found = Hash::of(&bytes);
    if found != info.token_bytes_blake3 || bytes.len() != info.vocab_size as usize * 2 {
        let (expected, found) = (info.token_bytes_blake3.to_string(), found.to_string());
        return Err(Error::Checksum { path, what: "file".to_owned(), expected, found });
    }
    Ok(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect())
}
