//! Lays out the passes of one pool: windows of whole families visited in the same order by every
//! pass, so that two sightings of a family are almost a pass apart; another text in each pass;
//! packed window by window in parallel.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use moe_shards::family::{FamilyTable, Holdout, PassRule, PoolDocs};
use moe_shards::pack::{Bins, write_pack};
use moe_shards::permute::Purpose;
use moe_shards::{Hash, Manifest, PackRef, Packing, PassLock, PoolLock, Shard, ShardRef, ValidationLock};
use rayon::prelude::*;

use super::best_fit::{self, OrderKeys};
use crate::error::Result;
use crate::watch::Watch;

/// A window below this many sequences shuffles too little; small pools get fewer windows.
const MIN_BINS_PER_WINDOW: u64 = 32;

/// What the mixture says about a pool.
#[derive(Clone, Debug)]
pub struct PoolWish {
    /// Name of the pool and of its source.
    pub name: String,
    /// Seed of the plan.
    pub seed: u64,
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// How documents become sequences.
    pub packing: Packing,
    /// Windows of a pass, for pools that are large enough.
    pub max_windows: u64,
    /// Share of originals, as a fraction.
    pub original_share: [u64; 2],
    /// Held-out families.
    pub holdout: Holdout,
}

/// A pool that is being laid out: its documents, and passes made one at a time.
#[derive(Debug)]
pub struct PoolBuilder {
    wish: PoolWish,
    docs: PoolDocs,
    table: FamilyTable,
    rule: PassRule,
    /// The pool as far as it is laid out.
    pub lock: PoolLock,
    /// How often each document was shown so far.
    uses: Vec<AtomicU32>,
}

impl PoolBuilder {
    /// Opens the shards of source `source` and cuts its families into windows; held-out families are
    /// packed at once. Files go to `folder` under `out`, or nowhere when it is `None`.
    ///
    /// # Errors
    /// A damaged shard, or a full disk.
    pub fn open(
        out: &Path,
        folder: Option<&str>,
        manifest: &Manifest,
        source: u16,
        wish: PoolWish,
    ) -> Result<PoolBuilder> {
        let mut shards = Vec::new();
        let mut refs = Vec::new();
        for (i, info) in manifest.shards.iter().enumerate().filter(|(_, shard)| shard.source == source) {
            shards.push((i as u32, Shard::open(&Manifest::mdx_path(out, &info.name))?));
            refs.push(ShardRef { name: info.name.clone(), mdx_blake3: info.mdx_blake3 });
        }
        let docs = PoolDocs::new(shards)?;
        let table = FamilyTable::build(&docs, |family| !wish.holdout.contains(family))?;
        let held_out = FamilyTable::build(&docs, |family| wish.holdout.contains(family))?;
        let windows = cut_windows(&docs, &table, wish.seq_len, wish.max_windows)?;
        let (validation, bins) = pack_validation(&docs, &held_out, &wish)?;
        let mut lock = PoolLock {
            name: wish.name.clone(),
            generation: 0,
            shards: refs,
            seq_len: wish.seq_len,
            packing: wish.packing,
            n_families: table.len() as u64,
            n_families_with_variants: table.n_with_variants(),
            original_share: wish.original_share,
            windows,
            passes: Vec::new(),
            validation,
        };
        lock.validation.pack =
            write(&[bins], out, folder, &format!("{}-validation.pack", wish.name), wish.seq_len)?;
        let rule = PassRule::new(wish.seed, lock.key(), lock.share(), &table);
        let uses = (0..docs.len()).map(|_| AtomicU32::new(0)).collect();
        Ok(PoolBuilder { wish, docs, table, rule, lock, uses })
    }

    /// Lays out the next pass.
    ///
    /// # Errors
    /// A damaged shard, a full disk, or a wish to stop.
    pub fn add_pass(&mut self, out: &Path, folder: Option<&str>, watch: &Watch) -> Result<()> {
        let pass = self.lock.passes.len() as u32;
        let windows: Vec<(usize, std::ops::Range<u64>)> =
            self.lock.windows.windows(2).map(|w| w[0]..w[1]).enumerate().collect();
        let laid: Vec<LaidWindow> = windows
            .into_par_iter()
            .map(|(window, families)| self.lay_window(pass, window, families, watch))
            .collect::<Result<_>>()?;
        let mut record = PassLock {
            bins_per_window: Vec::new(),
            trained_tokens: 0,
            placed_tokens: 0,
            originals: 0,
            pack: None,
        };
        let mut parts = Vec::with_capacity(laid.len());
        for window in laid {
            record.bins_per_window.push(window.n_bins);
            record.placed_tokens += window.placed_tokens;
            record.trained_tokens += window.trained_tokens;
            record.originals += window.originals;
            parts.push(window.bins);
        }
        if self.wish.packing == Packing::BestFit {
            let name = format!("{}-p{pass:03}.pack", self.wish.name);
            record.pack = Some(write(&parts, out, folder, &name, self.wish.seq_len)?);
        }
        self.lock.passes.push(record);
        Ok(())
    }

    fn lay_window(
        &self,
        pass: u32,
        window: usize,
        families: std::ops::Range<u64>,
        watch: &Watch,
    ) -> Result<LaidWindow> {
        let n_families = families.end - families.start;
        let (mut placed_tokens, mut originals) = (0, 0);
        let shown = self.rule.documents(&self.table, &self.docs, families, pass, window, |doc, len| {
            placed_tokens += u64::from(len);
            self.uses[doc as usize].fetch_add(1, Ordering::Relaxed);
            let (shard, _, local) = self.docs.locate(doc)?;
            originals += u64::from(shard.meta(local)?.variant == 0);
            Ok(())
        })?;
        watch.advance(n_families)?;
        let seq_len = self.wish.seq_len;
        let bins = match self.wish.packing {
            Packing::BestFit => {
                let key = |purpose| self.rule.key(pass, window, purpose);
                let keys = OrderKeys { bins: key(Purpose::Bins), pieces: key(Purpose::Pieces) };
                best_fit::pack(&shown, seq_len, keys)
            }
            Packing::Concat => Bins::default(),
        };
        let n_bins = match self.wish.packing {
            Packing::BestFit => bins.len() as u64,
            Packing::Concat => placed_tokens.div_ceil(u64::from(seq_len)),
        };
        // The first token of a document has nothing before it that could predict it.
        let trained_tokens = placed_tokens - n_families;
        Ok(LaidWindow { n_bins, placed_tokens, trained_tokens, originals, bins })
    }

    /// Families that are trained on.
    pub fn n_families(&self) -> u64 {
        self.table.len() as u64
    }

    /// Families whose original is missing.
    pub fn n_without_original(&self) -> u64 {
        self.table.n_without_original()
    }

    /// Trained tokens of one sight of every family's first text, and of all texts.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn unique_tokens(&self) -> Result<(u64, u64)> {
        let (mut originals, mut all) = (0, 0);
        for family in 0..self.table.len() {
            for (i, &doc) in self.table.texts(family).iter().enumerate() {
                let trained = u64::from(self.docs.n_tokens(doc)?) - 1;
                all += trained;
                originals += if i == 0 { trained } else { 0 };
            }
        }
        Ok((originals, all))
    }

    fn uses(&self, doc: u32) -> u32 {
        self.uses[doc as usize].load(Ordering::Relaxed)
    }

    /// How many texts were shown how often, over all passes laid out so far.
    pub fn sightings(&self) -> BTreeMap<u32, u64> {
        let mut histogram = BTreeMap::new();
        for family in 0..self.table.len() {
            for &doc in self.table.texts(family) {
                *histogram.entry(self.uses(doc)).or_default() += 1;
            }
        }
        histogram
    }

    /// Documents longer than a sequence, which are cut.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn n_cut(&self) -> Result<u64> {
        let mut cut = 0;
        for doc in 0..self.docs.len() {
            cut += u64::from(self.docs.n_tokens(doc)? > self.wish.seq_len && self.uses(doc) > 0);
        }
        Ok(cut)
    }
}

struct LaidWindow {
    n_bins: u64,
    placed_tokens: u64,
    trained_tokens: u64,
    originals: u64,
    bins: Bins,
}

/// Boundaries of windows of about equal tokens.
fn cut_windows(docs: &PoolDocs, table: &FamilyTable, seq_len: u32, max_windows: u64) -> Result<Vec<u64>> {
    let mut ends = Vec::with_capacity(table.len());
    let mut total = 0u64;
    for family in 0..table.len() {
        let texts = table.texts(family);
        let tokens: u64 = texts.iter().map(|&doc| Ok(u64::from(docs.n_tokens(doc)?))).sum::<Result<u64>>()?;
        // A pass shows one text of the family: count their mean.
        total += tokens / texts.len() as u64;
        ends.push(total);
    }
    let n = (total / u64::from(seq_len) / MIN_BINS_PER_WINDOW).clamp(1, max_windows.max(1));
    let mut windows: Vec<u64> = (0..n)
        .map(|i| {
            ends.partition_point(|&end| u128::from(end) * u128::from(n) <= u128::from(total) * u128::from(i))
                as u64
        })
        .collect();
    windows.push(table.len() as u64);
    Ok(windows)
}

fn pack_validation(
    docs: &PoolDocs,
    held_out: &FamilyTable,
    wish: &PoolWish,
) -> Result<(ValidationLock, Bins)> {
    let originals = (0..held_out.len()).map(|i| held_out.texts(i)[0]);
    let shown: Vec<(u32, u32)> =
        originals.map(|doc| Ok((doc, docs.n_tokens(doc)?))).collect::<Result<_>>()?;
    let bins = best_fit::pack(&shown, wish.seq_len, OrderKeys { bins: wish.seed, pieces: wish.seed });
    let lock = ValidationLock {
        n_families: held_out.len() as u64,
        n_bins: bins.len() as u64,
        trained_tokens: shown.iter().map(|&(_, len)| u64::from(len) - 1).sum(),
        pack: PackRef { file: String::new(), blake3: Hash::default() },
    };
    Ok((lock, bins))
}

fn write(parts: &[Bins], out: &Path, folder: Option<&str>, name: &str, seq_len: u32) -> Result<PackRef> {
    let Some(folder) = folder else {
        return Ok(PackRef { file: String::new(), blake3: Hash::default() });
    };
    let file = format!("{folder}/{name}");
    Ok(PackRef { blake3: write_pack(&out.join(&file), seq_len, parts)?, file })
}
