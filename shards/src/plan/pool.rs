//! An open pool of a plan: from a bin of its stream to the pieces of documents in it.

use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::cache::Cache;
use crate::concat::{ConcatWindow, push_joined};
use crate::error::{Error, Result};
use crate::family::{FamilyTable, Holdout, PassRule, PoolDocs};
use crate::lock::{ContinuesLock, PackRef, Packing, PassLock, PlanLock, PoolLock};
use crate::manifest::Manifest;
use crate::mmap::map_file;
use crate::pack::{PackIndex, PackedPiece};
use crate::permute::{Permutation, Purpose, stream_key};
use crate::reader::Shard;
use crate::sample::SampleId;

/// An open pool of a plan.
#[derive(Debug)]
pub struct Pool {
    docs: Arc<PoolDocs>,
    first_pass: u32,
    passes: Vec<Pass>,
    pub(super) validation: PackIndex<Mmap>,
    concat: Option<Concat>,
}

#[derive(Debug)]
struct Pass {
    /// First bin of the pass in the pool's stream.
    first_bin: u64,
    n_bins: u64,
    pack: Option<PackIndex<Mmap>>,
}

/// Data with which concatenation finds the tokens of a bin without an index.
#[derive(Debug)]
struct Concat {
    families: Arc<(FamilyTable, PassRule)>,
    windows: Cache<(u32, usize), ConcatWindow>,
}

impl PlanLock {
    /// The families that pool number `pool` trains on: not held out, selected, and kept by a proxy.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn families(&self, pool: usize, docs: &PoolDocs) -> Result<FamilyTable> {
        let holdout = Holdout { ppm: self.holdout_ppm, seed: self.seed };
        let selection = self.pools[pool].selection.as_ref();
        let all = FamilyTable::build(docs, selection, |family| !holdout.contains(family))?;
        Ok(match self.proxy {
            None => all,
            Some(share) => proxy_families(&all, self.seed, self.pool_key(pool), share),
        })
    }

    /// The rule of the passes of pool number `pool` over its families.
    pub fn pass_rule(&self, pool: usize, families: &FamilyTable) -> PassRule {
        let lock = &self.pools[pool];
        let (key, uses) = (self.pool_key(pool), lock.max_uses_per_text);
        PassRule::new(self.seed, key, lock.text_rule(), uses, lock.order, families)
    }
}

/// The families of a proxy plan: a fraction of all, by their place in a permutation, so that a smaller proxy
/// is a part of a larger one.
pub fn proxy_families(all: &FamilyTable, seed: u64, pool_key: u64, share: [u64; 2]) -> FamilyTable {
    let n = all.len() as u64;
    let order = Permutation::new(n, stream_key(seed, pool_key, 0, 0, Purpose::Proxy));
    let keep = u128::from(n) * u128::from(share[0]) / u128::from(share[1].max(1));
    all.first_of(&order, keep as u64)
}

impl Pool {
    /// Opens pool number `number`; `earlier` are the pools before it, one of which it may continue.
    pub(super) fn open(
        dir: &Path,
        manifest: &Manifest,
        lock: &PlanLock,
        number: usize,
        earlier: &[Pool],
    ) -> Result<Pool> {
        let pool = &lock.pools[number];
        check_continuation(dir, lock, number)?;
        let root = lock.root(number);
        let docs = match earlier.get(root) {
            Some(root) => root.docs.clone(),
            None => Arc::new(PoolDocs::new(open_shards(dir, manifest, pool)?)?),
        };
        let open_pack = |file: &PackRef| -> Result<PackIndex<Mmap>> {
            let path = dir.join(&file.file);
            let index = PackIndex::parse(&path, map_file(&path)?)?;
            index.verify()?;
            if index.seq_len() != pool.seq_len {
                return Err(Error::format(&path, "seq_len", pool.seq_len, index.seq_len()));
            }
            Ok(index)
        };
        let path = dir.join(PlanLock::FILE);
        let mut first_bin = 0;
        let mut passes = Vec::new();
        let ascending = pool.windows.is_sorted();
        for pass in &pool.passes {
            if !ascending || pass.bins_per_window.len() + 1 != pool.windows.len() {
                let found = format!("{:?} for {:?}", pass.bins_per_window, pool.windows);
                return Err(Error::format(&path, "windows", "bins of ascending windows", found));
            }
            let pack = pass.pack.as_ref().map(open_pack).transpose()?;
            let n_bins = pass.n_bins();
            if pack.as_ref().is_some_and(|pack| pack.n_bins() != n_bins)
                || pack.is_some() != (pool.packing == Packing::BestFit)
            {
                let (expected, found) = (format!("{n_bins} bins"), format!("{:?}", pass.pack));
                return Err(Error::format(&path, "pack index", expected, found));
            }
            passes.push(Pass { first_bin, n_bins, pack });
            first_bin += n_bins;
        }
        let concat = match (pool.packing, earlier.get(root).and_then(|pool| pool.concat.as_ref())) {
            (Packing::BestFit, _) => None,
            (Packing::Concat, Some(root)) => {
                Some(Concat { families: root.families.clone(), windows: Cache::default() })
            }
            (Packing::Concat, None) => {
                let table = lock.families(number, &docs)?;
                let rule = lock.pass_rule(number, &table);
                Some(Concat { families: Arc::new((table, rule)), windows: Cache::default() })
            }
        };
        if let Some(Concat { families, .. }) = &concat {
            let found = families.0.len() as u64;
            if found != pool.n_families || pool.windows.last() != Some(&pool.n_families) {
                return Err(Error::format(&path, "families", pool.n_families, found));
            }
        }
        let validation = open_pack(&pool.validation.pack)?;
        Ok(Pool { docs, first_pass: pool.first_pass(), passes, validation, concat })
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
    ///
    /// # Errors
    /// No such bin.
    pub fn pass_of(&self, j: u64) -> Result<(u32, u64)> {
        let i = self.passes.partition_point(|pass| pass.first_bin + pass.n_bins <= j);
        // Only stored counts that do not follow the rule lead past the last pass.
        let pass = self.passes.get(i).ok_or_else(|| Error::Quota(format!("the pool has no bin {j}")))?;
        Ok((self.first_pass + i as u32, j - pass.first_bin))
    }

    fn pass(&self, pass: u32) -> Result<&Pass> {
        let i = pass.checked_sub(self.first_pass).map(|i| i as usize);
        i.and_then(|i| self.passes.get(i)).ok_or_else(|| Error::Quota(format!("the pool has no pass {pass}")))
    }
}

/// Pieces of a bin.
pub(super) fn pieces(pools: &[Pool], lock: &PlanLock, id: SampleId) -> Result<Vec<PackedPiece>> {
    let number = usize::from(id.pool);
    let pass = pools[number].pass(id.pass)?;
    if let Some(pack) = &pass.pack {
        return pack.bin(id.bin);
    }
    let bins = bins_per_window(lock, number, id.pass)?;
    let (mut window, mut bin) = (0, id.bin);
    while let Some(&n) = bins.get(window).filter(|&&n| bin >= n) {
        bin -= n;
        window += 1;
    }
    Ok(concat_window(pools, lock, number, id.pass, window)?.bin(bin))
}

/// The rest of a window after its first `shown` bins, neighbors as one piece: best-fit by document,
/// concatenation in the order of its stream.
pub(super) fn rest_of_window(
    pools: &[Pool],
    lock: &PlanLock,
    number: usize,
    pass: u32,
    window: usize,
    shown: u64,
) -> Result<Vec<PackedPiece>> {
    let Some(pack) = &pools[number].pass(pass)?.pack else {
        return Ok(concat_window(pools, lock, number, pass, window)?.rest(shown));
    };
    let bins = bins_per_window(lock, number, pass)?;
    let first: u64 = bins[..window.min(bins.len())].iter().sum();
    let n_bins = bins.get(window).copied().unwrap_or(0);
    let mut pieces = Vec::new();
    for bin in first + shown.min(n_bins)..first + n_bins {
        pieces.extend(pack.bin(bin)?);
    }
    pieces.sort_unstable_by_key(|piece| (piece.doc, piece.offset));
    let mut rest = Vec::new();
    pieces.into_iter().for_each(|piece| push_joined(&mut rest, piece));
    Ok(rest)
}

/// A window of a pass of a pool that concatenates; only its rest if the pool continues another one in the
/// middle of this window.
fn concat_window(
    pools: &[Pool],
    lock: &PlanLock,
    number: usize,
    pass: u32,
    window: usize,
) -> Result<Arc<ConcatWindow>> {
    let (pool, plan) = (&pools[number], &lock.pools[number]);
    let none = || Error::Quota("a pool has neither a pack index nor a family table".to_owned());
    let Concat { families, windows } = pool.concat.as_ref().ok_or_else(none)?;
    windows.get((pass, window), || {
        let (table, rule) = &**families;
        let key = rule.key(pass, window, Purpose::Bins);
        if let Some(earlier) = plan.continues.filter(|earlier| earlier.pass == pass && earlier.bins > 0) {
            let number = earlier.pool as usize;
            let bins = bins_per_window(lock, number, pass)?;
            let before: u64 = bins[..window.min(bins.len())].iter().sum();
            let rest =
                concat_window(pools, lock, number, pass, window)?.rest(earlier.bins.saturating_sub(before));
            return Ok(ConcatWindow::of_pieces(rest, plan.seq_len, key));
        }
        let out_of_range = || Error::Quota(format!("the pool has no window {window}"));
        let bounds = plan.windows.get(window..window + 2).ok_or_else(out_of_range)?;
        let shown = rule.documents(table, &pool.docs, bounds[0]..bounds[1], pass, window, |_, _| Ok(()))?;
        Ok(ConcatWindow::of_documents(&shown, plan.seq_len, key))
    })
}

fn bins_per_window(lock: &PlanLock, pool: usize, pass: u32) -> Result<&[u64]> {
    let none = || Error::Quota(format!("pool {pool} has no pass {pass}"));
    Ok(&lock.pools[pool].pass(pass).ok_or_else(none)?.bins_per_window)
}

/// A pool continues an earlier one over the same families, in a pass that the earlier one has begun or would
/// begin next.
fn check_continuation(dir: &Path, lock: &PlanLock, number: usize) -> Result<()> {
    let pool = &lock.pools[number];
    let Some(continues) = pool.continues else { return Ok(()) };
    let earlier = lock.pools.get(continues.pool as usize).filter(|_| (continues.pool as usize) < number);
    let fits = earlier.is_some_and(|earlier| {
        let same = earlier.shards == pool.shards
            && earlier.selection == pool.selection
            && earlier.packing == pool.packing
            && earlier.windows == pool.windows
            && earlier.original_share == pool.original_share
            && earlier.variants == pool.variants
            && earlier.layout == pool.layout
            && earlier.order == pool.order
            && earlier.max_uses_per_text == pool.max_uses_per_text;
        let n_bins = earlier.pass(continues.pass).map_or(0, PassLock::n_bins);
        same && continues.bins <= n_bins && continues.pass >= earlier.first_pass()
    });
    if fits {
        return Ok(());
    }
    let ContinuesLock { pool: earlier, pass, bins } = continues;
    let found = format!("pool `{}` continues pool {earlier} in pass {pass} after {bins} bins", pool.name);
    Err(Error::format(&dir.join(PlanLock::FILE), "continues", "an earlier pool of the same families", found))
}

/// The remedy for a shard that is not the one that the plan was made for.
const CHANGED: &str = "a build has changed the documents of this shard since the plan was made; build from the old input again and add \
    documents as docs/extending.md says, or make a new plan with `moe-data mix --force`";

fn open_shards(dir: &Path, manifest: &Manifest, pool: &PoolLock) -> Result<Vec<(u32, Shard)>> {
    let mut shards = Vec::new();
    for wanted in &pool.shards {
        let listed = manifest.shards.iter().position(|shard| shard.name == wanted.name);
        let path = Manifest::mdx_path(dir, &wanted.name);
        let missing = || Error::format(&path, "shard", "a shard of the manifest", "no shard of that name");
        let i = listed.ok_or_else(missing)?;
        let info = &manifest.shards[i];
        if info.mdx_blake3 != wanted.mdx_blake3 {
            return Err(Error::Mismatch {
                path,
                key: "mdx_blake3",
                expected: wanted.mdx_blake3.to_string(),
                found: info.mdx_blake3.to_string(),
                hint: CHANGED,
            });
        }
        let shard = Shard::open(&path)?;
        shard.verify_index(info.mdx_blake3)?;
        let identity = [
            ("bin_blake3", info.bin_blake3, shard.bin_blake3()),
            ("tokenizer", manifest.tokenizer.blake3, shard.tokenizer()),
        ];
        for (key, expected, found) in identity {
            if expected != found {
                let (expected, found) = (expected.to_string(), found.to_string());
                let hint = "the shard is from another build; run `moe-data build` again";
                return Err(Error::Mismatch { path, key, expected, found, hint });
            }
        }
        shards.push((i as u32, shard));
    }
    Ok(shards)
}
