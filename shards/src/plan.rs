//! A plan with its shards open: [`Plan::sample`] is a pure function of `t`.
//!
//! `t` -> phase (by search) -> pool and its `j`-th bin (interleaving: stored counts and a short
//! replay) -> pass, window, bin (prefix sums) -> pieces (pack index or concatenation) -> tokens.

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::family::{FamilyTable, Holdout, PassRule, PoolDocs};
use crate::hash::Hash;
use crate::interleave::{Counts, Interleaver};
use crate::lock::{PackRef, Packing, PlanLock, PoolLock};
use crate::manifest::Manifest;
use crate::mmap::map_file;
use crate::pack::{PackIndex, PackedPiece};
use crate::permute::{Permutation, Purpose};
use crate::reader::Shard;
use crate::sample::{Sample, SampleId};

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
    token_bytes: Vec<u16>,
}

/// An open pool of a plan.
#[derive(Debug)]
pub struct Pool {
    docs: PoolDocs,
    passes: Vec<Pass>,
    validation: PackIndex<Mmap>,
    concat: Option<Concat>,
}

#[derive(Debug)]
struct Pass {
    /// First bin of the pass in the pool's stream.
    first_bin: u64,
    n_bins: u64,
    pack: Option<PackIndex<Mmap>>,
}

/// What concatenation needs to find the tokens of a bin without an index.
#[derive(Debug)]
struct Concat {
    table: FamilyTable,
    rule: PassRule,
    windows: Cache<(u32, usize), Window>,
}

#[derive(Debug)]
struct Window {
    docs: Vec<u32>,
    /// Stream position at which each document ends.
    ends: Vec<u64>,
    order: Permutation,
}

#[derive(Debug)]
struct Phase {
    rule: Interleaver,
    counts: Counts,
    /// Bins of each pool that earlier phases used.
    used_before: Vec<u64>,
    blocks: Cache<u64, Vec<(u16, u64)>>,
}

impl Plan {
    /// Opens `dir/plan.lock`, the shards it names and its pack indexes. Sizes, headers, index
    /// checksums and the identity of each shard are checked; the tokens themselves by `moe-data verify`.
    ///
    /// # Errors
    /// Anything missing or damaged, a plan of other shards, shards of another tokenizer.
    pub fn open(dir: &Path) -> Result<Plan> {
        let manifest = Manifest::read(dir)?;
        let lock = PlanLock::read(dir)?;
        let found = manifest.hash()?;
        if found != lock.manifest {
            return Err(Error::Mismatch {
                path: dir.join(PlanLock::FILE),
                key: "manifest",
                expected: found.to_string(),
                found: lock.manifest.to_string(),
                hint: "the plan was made for other shards; run `moe-data mix` again",
            });
        }
        let pools = lock
            .pools
            .iter()
            .map(|pool| Pool::open(dir, &manifest, &lock, pool))
            .collect::<Result<Vec<_>>>()?;
        let mut used = vec![0; pools.len()];
        let mut phases = Vec::new();
        for (i, phase) in lock.phases.iter().enumerate() {
            let rule = Interleaver::new(&phase.quotas)?;
            let enough =
                pools.iter().map(Pool::n_bins).zip(&used).zip(&phase.quotas).all(|((n, u), q)| u + q <= n);
            if phase.quotas.len() != pools.len() || rule.total() != phase.n_samples || !enough {
                let found = format!("quotas {:?} for {} samples", phase.quotas, phase.n_samples);
                return Err(Error::format(
                    &dir.join(PlanLock::FILE),
                    "phase",
                    "quotas that the pools can serve",
                    found,
                ));
            }
            let counts = Counts::open(&dir.join(&phase.counts.file), &rule)?;
            let used_before = used.clone();
            used.iter_mut().zip(&phase.quotas).for_each(|(u, q)| *u += q);
            let expected_start =
                if i == 0 { 0 } else { lock.phases[i - 1].t_start + lock.phases[i - 1].n_samples };
            if phase.t_start != expected_start {
                return Err(Error::format(
                    &dir.join(PlanLock::FILE),
                    "t_start",
                    expected_start,
                    phase.t_start,
                ));
            }
            phases.push(Phase { rule, counts, used_before, blocks: Cache::default() });
        }
        let validation = validation_order(&pools)?;
        let token_bytes = read_token_bytes(dir, &manifest)?;
        Ok(Plan { dir: dir.to_owned(), lock, manifest, pools, phases, validation, token_bytes })
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

    /// Tokens of a sequence; all phases of a version-1 plan have the same.
    pub fn seq_len(&self) -> usize {
        self.lock.pools.first().map_or(0, |pool| pool.seq_len as usize)
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
        if t >= self.len() {
            return Err(Error::PlanExhausted { t, len: self.len() });
        }
        let i = self.lock.phases.partition_point(|phase| phase.t_start + phase.n_samples <= t);
        let (pool, j) = self.phases[i].stream_position(t - self.lock.phases[i].t_start)?;
        let (pass, bin) = self.pools[usize::from(pool)].pass_of(j)?;
        Ok(SampleId { pool, pass, bin })
    }

    /// Sample `t`.
    ///
    /// # Errors
    /// `t` is past the end, or a file is damaged.
    pub fn sample(&self, t: u64) -> Result<Sample> {
        let id = self.locate(t)?;
        let pool = usize::from(id.pool);
        let pieces = self.pools[pool].pieces(&self.lock.pools[pool], id)?;
        Sample::assemble(id, &self.pools[pool].docs, &pieces, self.lock.pools[pool].seq_len as usize)
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
        Sample::assemble(id, &pool.docs, &pool.validation.bin(bin)?, lock.seq_len as usize)
    }

    /// Compares every file of the plan with its digest, and says how many there are; the shards are
    /// verified by [`Shard::verify`].
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

impl Pool {
    fn open(dir: &Path, manifest: &Manifest, lock: &PlanLock, pool: &PoolLock) -> Result<Pool> {
        let mut shards = Vec::new();
        for wanted in &pool.shards {
            let listed = manifest.shards.iter().position(|shard| shard.name == wanted.name);
            let path = Manifest::mdx_path(dir, &wanted.name);
            let missing = || Error::format(&path, "shard", "a shard of the manifest", "none of that name");
            let i = listed.ok_or_else(missing)?;
            let shard = Shard::open(&path)?;
            shard.verify_sections()?;
            let info = &manifest.shards[i];
            let identity = [
                ("mdx_blake3", info.mdx_blake3, wanted.mdx_blake3),
                ("bin_blake3", info.bin_blake3, shard.bin_blake3()),
                ("tokenizer", manifest.tokenizer.blake3, shard.tokenizer()),
                ("build", manifest.build, shard.build()),
            ];
            for (key, expected, found) in identity {
                if expected != found {
                    let (expected, found) = (expected.to_string(), found.to_string());
                    let hint = "the shard is of another build; run `moe-data build` again";
                    return Err(Error::Mismatch { path, key, expected, found, hint });
                }
            }
            shards.push((i as u32, shard));
        }
        let docs = PoolDocs::new(shards)?;
        let open_pack = |file: &PackRef| -> Result<PackIndex<Mmap>> {
            let path = dir.join(&file.file);
            let index = PackIndex::parse(&path, map_file(&path)?)?;
            index.verify()?;
            if index.seq_len() != pool.seq_len {
                return Err(Error::format(&path, "seq_len", pool.seq_len, index.seq_len()));
            }
            Ok(index)
        };
        let mut first_bin = 0;
        let mut passes = Vec::new();
        let ascending = pool.windows.is_sorted();
        for pass in &pool.passes {
            if !ascending || pass.bins_per_window.len() + 1 != pool.windows.len() {
                let found = format!("{:?} for {:?}", pass.bins_per_window, pool.windows);
                return Err(Error::format(
                    &dir.join(PlanLock::FILE),
                    "windows",
                    "bins of ascending windows",
                    found,
                ));
            }
            let pack = pass.pack.as_ref().map(open_pack).transpose()?;
            let n_bins = pass.n_bins();
            if pack.as_ref().is_some_and(|pack| pack.n_bins() != n_bins)
                || pack.is_some() != (pool.packing == Packing::BestFit)
            {
                let path = dir.join(PlanLock::FILE);
                return Err(Error::format(
                    &path,
                    "pack index",
                    format!("{n_bins} bins"),
                    format!("{:?}", pass.pack),
                ));
            }
            passes.push(Pass { first_bin, n_bins, pack });
            first_bin += n_bins;
        }
        let concat = match pool.packing {
            Packing::BestFit => None,
            Packing::Concat => {
                let holdout = Holdout { ppm: lock.holdout_ppm, seed: lock.seed };
                let table = FamilyTable::build(&docs, |family| !holdout.contains(family))?;
                if table.len() as u64 != pool.n_families || pool.windows.last() != Some(&pool.n_families) {
                    let path = dir.join(PlanLock::FILE);
                    return Err(Error::format(&path, "families", pool.n_families, table.len()));
                }
                let rule = PassRule::new(lock.seed, pool.key(), pool.share(), &table);
                Some(Concat { table, rule, windows: Cache::default() })
            }
        };
        Ok(Pool { validation: open_pack(&pool.validation.pack)?, docs, passes, concat })
    }

    /// Its documents.
    pub fn docs(&self) -> &PoolDocs {
        &self.docs
    }

    /// Bins of all passes.
    pub fn n_bins(&self) -> u64 {
        self.passes.last().map_or(0, |pass| pass.first_bin + pass.n_bins)
    }

    /// Pass and bin in it of the stream's `j`-th bin.
    fn pass_of(&self, j: u64) -> Result<(u32, u64)> {
        let i = self.passes.partition_point(|pass| pass.first_bin + pass.n_bins <= j);
        // Only stored counts that are not those of the rule lead past the last pass.
        let pass = self.passes.get(i).ok_or_else(|| Error::Quota(format!("the pool has no bin {j}")))?;
        Ok((i as u32, j - pass.first_bin))
    }

    fn pieces(&self, lock: &PoolLock, id: SampleId) -> Result<Vec<PackedPiece>> {
        match (&self.passes[id.pass as usize].pack, &self.concat) {
            (Some(pack), _) => pack.bin(id.bin),
            (None, Some(concat)) => concat.pieces(&self.docs, lock, id),
            (None, None) => {
                Err(Error::Quota("a pool has neither a pack index nor a family table".to_owned()))
            }
        }
    }
}

impl Concat {
    fn pieces(&self, docs: &PoolDocs, lock: &PoolLock, id: SampleId) -> Result<Vec<PackedPiece>> {
        let mut bin = id.bin;
        let bins = &lock.passes[id.pass as usize].bins_per_window;
        let mut window = 0;
        while bin >= bins[window] {
            bin -= bins[window];
            window += 1;
        }
        let stream =
            self.windows.get((id.pass, window), || self.window(docs, lock, id.pass, window, bins[window]))?;
        let seq_len = u64::from(lock.seq_len);
        let mut at = stream.order.forward(bin) * seq_len;
        let end = (at + seq_len).min(stream.ends.last().copied().unwrap_or(0));
        let mut i = stream.ends.partition_point(|&doc_end| doc_end <= at);
        let mut pieces = Vec::new();
        while at < end {
            let doc_start = if i == 0 { 0 } else { stream.ends[i - 1] };
            let until = end.min(stream.ends[i]);
            pieces.push(PackedPiece {
                doc: stream.docs[i],
                offset: (at - doc_start) as u32,
                len: (until - at) as u32,
            });
            at = until;
            i += 1;
        }
        Ok(pieces)
    }

    fn window(
        &self,
        docs: &PoolDocs,
        lock: &PoolLock,
        pass: u32,
        window: usize,
        n_bins: u64,
    ) -> Result<Window> {
        let families = lock.windows[window]..lock.windows[window + 1];
        let order = Permutation::new(n_bins, self.rule.key(pass, window, Purpose::Bins));
        let shown = self.rule.documents(&self.table, docs, families, pass, window, |_, _| Ok(()))?;
        let mut end = 0;
        let ends = shown.iter().map(|&(_, len)| {
            end += u64::from(len);
            end
        });
        Ok(Window { ends: ends.collect(), docs: shown.iter().map(|&(doc, _)| doc).collect(), order })
    }
}

impl Phase {
    /// Pool of step `t` of the phase, and the position in that pool's stream.
    fn stream_position(&self, t: u64) -> Result<(u16, u64)> {
        let every = self.counts.every();
        let block = self.blocks.get(t / every, || self.block(t / every))?;
        Ok(block[(t % every) as usize])
    }

    fn block(&self, block: u64) -> Result<Vec<(u16, u64)>> {
        let mut counts = self.counts.row(block)?;
        let start = block * self.counts.every();
        let end = (start + self.counts.every()).min(self.rule.total());
        if counts.iter().sum::<u64>() != start {
            return Err(Error::Quota(format!("stored counts {counts:?} do not sum to step {start}")));
        }
        let steps = (start..end).map(|t| {
            let pool = self.rule.next(t, &mut counts)?;
            Ok((pool as u16, self.used_before[pool] + counts[pool] - 1))
        });
        steps.collect()
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
