//! The families of one pool and their passes: windows of whole families visited in the same order by every
//! pass, so that two sightings of a family are almost a pass apart; another text in each pass. How much of them a
//! phase takes is in `stream`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use moe_shards::family::{FamilyTable, Holdout, Order, PassRule, PoolDocs};
use moe_shards::pack::{Bins, PackedPiece, write_pack};
use moe_shards::permute::Purpose;
use moe_shards::variant::{Layout, TextRule, Turns};
use moe_shards::{Hash, Manifest, PackRef, Packing, Selection, ShardRef, ValidationLock, proxy_families};
use rayon::prelude::*;

use super::best_fit::{self, OrderKeys};
use super::stitch::StitchedWindow;
use crate::error::Result;
use crate::intact;
use crate::watch::Watch;

/// Fewer sequences per window shuffle too little, so small pools get fewer windows.
const MIN_BINS_PER_WINDOW: u64 = 32;

/// The mixture's settings of a pool.
#[derive(Clone, Debug)]
pub struct PoolWish {
    /// Name.
    pub name: String,
    /// Word of its permutations: XXH3-64 of the name of the first pool in its line of continuations.
    pub key: u64,
    /// Seed of the plan.
    pub seed: u64,
    /// How documents become sequences.
    pub packing: Packing,
    /// Windows of a pass, for pools that are large enough.
    pub max_windows: u64,
    /// Rule for the text that a pass shows.
    pub variants: Turns,
    /// Share of originals, as a fraction, if it applies.
    pub original_share: [u64; 2],
    /// Whether a pass shows one text of a family or all.
    pub layout: Layout,
    /// How the order differs between passes.
    pub order: Order,
    /// Which families; `None` = all.
    pub selection: Option<Selection>,
    /// A family rests in passes that would show one of its texts more often.
    pub max_uses_per_text: Option<u32>,
    /// Held-out families.
    pub holdout: Holdout,
    /// Share of the families kept by a proxy.
    pub proxy: Option<[u64; 2]>,
}

/// Where a plan's files go.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Output folder of the build.
    pub out: &'a Path,
    /// Folder of the plan in it; `None` on a dry run.
    pub folder: Option<&'a str>,
}

impl Site<'_> {
    /// Writes a pack index, or nothing on a dry run.
    pub(super) fn write(&self, name: &str, seq_len: u32, parts: &[Bins]) -> Result<PackRef> {
        let Some(folder) = self.folder else {
            return Ok(PackRef { file: String::new(), blake3: Hash::default() });
        };
        let file = format!("{folder}/{name}");
        Ok(PackRef { blake3: write_pack(&self.out.join(&file), seq_len, parts)?, file })
    }
}

/// Opens the shards that `wanted` accepts, by name and source.
///
/// # Errors
/// A damaged shard.
pub fn open_shards(
    out: &Path,
    manifest: &Manifest,
    wanted: impl Fn(&str, u16) -> bool,
) -> Result<(Arc<PoolDocs>, Vec<ShardRef>)> {
    let (mut shards, mut refs) = (Vec::new(), Vec::new());
    for (i, info) in manifest.shards.iter().enumerate().filter(|(_, info)| wanted(&info.name, info.source)) {
        shards.push((i as u32, intact::open(out, info)?));
        refs.push(ShardRef { name: info.name.clone(), mdx_blake3: info.mdx_blake3 });
    }
    Ok((Arc::new(PoolDocs::new(shards)?), refs))
}

/// The families of a pool, and the settings of their passes.
#[derive(Debug)]
pub struct Families {
    pub(super) wish: PoolWish,
    pub(super) docs: Arc<PoolDocs>,
    pub(super) table: FamilyTable,
    pub(super) rule: PassRule,
    /// First family of each window, and the end.
    pub(super) windows: Vec<u64>,
    /// How often each document was shown so far.
    uses: Vec<AtomicU32>,
    pass_tokens: BTreeMap<u32, u64>,
    /// A pass from which nothing is shown any more, because all texts rest or there do not count.
    end: Option<u32>,
}

impl Families {
    /// Finds the families of a pool. `windows` are those of the continued pool, else they are cut for sequences
    /// of `seq_len`.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn open(
        docs: Arc<PoolDocs>,
        wish: PoolWish,
        seq_len: u32,
        windows: Option<Vec<u64>>,
    ) -> Result<Families> {
        let holdout = wish.holdout;
        let mut table =
            FamilyTable::build(&docs, wish.selection.as_ref(), |family| !holdout.contains(family))?;
        if let Some(share) = wish.proxy {
            table = proxy_families(&table, wish.seed, wish.key, share);
        }
        let windows = match windows {
            Some(windows) => windows,
            None => cut_windows(&docs, &table, seq_len, &wish)?,
        };
        let texts = TextRule::new(wish.layout, wish.variants, wish.original_share);
        let rule = PassRule::new(wish.seed, wish.key, texts, wish.max_uses_per_text, wish.order, &table);
        let uses = (0..docs.len()).map(|_| AtomicU32::new(0)).collect();
        let end = rule.end(&table);
        Ok(Families { wish, docs, table, rule, windows, uses, pass_tokens: BTreeMap::new(), end })
    }

    /// Windows of a pass.
    pub(super) fn n_windows(&self) -> usize {
        self.windows.len() - 1
    }

    /// Families of a window.
    pub(super) fn window(&self, window: usize) -> Range<u64> {
        self.windows[window]..self.windows[window + 1]
    }

    /// Packs the originals of the held-out families.
    pub(super) fn validation(&self, seq_len: u32) -> Result<(ValidationLock, Bins)> {
        let (docs, holdout) = (&self.docs, self.wish.holdout);
        let selection = self.wish.selection.as_ref();
        let held_out = FamilyTable::build(docs, selection, |family| holdout.contains(family))?;
        let originals = (0..held_out.len()).map(|i| held_out.texts(i)[0]);
        let shown: Vec<(u32, u32)> =
            originals.map(|doc| Ok((doc, docs.n_tokens(doc)?))).collect::<Result<_>>()?;
        let bins =
            best_fit::pack(&shown, seq_len, OrderKeys { bins: self.wish.seed, pieces: self.wish.seed });
        let lock = ValidationLock {
            n_families: held_out.len() as u64,
            n_bins: bins.len() as u64,
            trained_tokens: (shown.iter().map(|&(doc, _)| docs.trained_tokens(doc)))
                .sum::<moe_shards::Result<u64>>()?,
            pack: PackRef { file: String::new(), blake3: Hash::default() },
        };
        Ok((lock, bins))
    }

    /// Lays out a window of a pass in sequences of `seq_len` and counts its texts as shown. `rest` is what remains of
    /// it if an earlier pool has started it.
    pub(super) fn lay_window(
        &self,
        pass: u32,
        window: usize,
        seq_len: u32,
        rest: Option<&[PackedPiece]>,
        watch: &Watch,
    ) -> Result<LaidWindow> {
        let families = self.window(window);
        watch.advance(families.end - families.start)?;
        let key = |purpose| self.rule.key(pass, window, purpose);
        let keys = OrderKeys { bins: key(Purpose::Bins), pieces: key(Purpose::Pieces) };
        let mut laid = LaidWindow::default();
        let best_fit = self.wish.packing == Packing::BestFit;
        let separate = self.wish.layout == Layout::Separate;
        if let Some(pieces) = rest {
            for &piece in pieces {
                self.count(&mut laid.facts, piece, self.docs.n_tokens(piece.doc)?)?;
            }
            if best_fit && separate {
                laid.bins = best_fit::pack_pieces(pieces.to_vec(), seq_len, keys);
            } else if best_fit {
                let (table, docs) = (&self.table, &self.docs);
                let shown = self.rule.documents(table, docs, families, pass, window, |_, _| Ok(()))?;
                laid.bins = StitchedWindow::new(docs, shown)?.pack(rest, seq_len, keys);
            }
        } else {
            let shown =
                self.rule.documents(&self.table, &self.docs, families, pass, window, |doc, len| {
                    let piece = PackedPiece { doc, offset: 0, len };
                    self.count(&mut laid.facts, piece, len)
                })?;
            if best_fit && separate {
                laid.bins = best_fit::pack(&shown, seq_len, keys);
            } else if best_fit {
                laid.bins = StitchedWindow::new(&self.docs, shown)?.pack(None, seq_len, keys);
            }
        }
        laid.n_bins = match best_fit {
            true => laid.bins.len() as u64,
            false => laid.facts.placed_tokens.div_ceil(u64::from(seq_len)),
        };
        Ok(laid)
    }

    /// Adds a piece of a document of `len` tokens to the counts of its window, and the document to those that are shown.
    fn count(&self, facts: &mut PassFacts, piece: PackedPiece, len: u32) -> moe_shards::Result<()> {
        facts.add(&self.docs, piece)?;
        if piece.len == len {
            self.uses[piece.doc as usize].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Undoes the showing of a piece; `facts` are its properties.
    pub(super) fn uncount(&self, facts: &mut PassFacts, piece: PackedPiece) -> moe_shards::Result<()> {
        let len = self.docs.n_tokens(piece.doc)?;
        facts.add(&self.docs, piece)?;
        if piece.len == len {
            self.unshow(piece.doc);
        }
        Ok(())
    }

    /// Undoes the showing of a document.
    pub(super) fn unshow(&self, doc: u32) {
        self.uses[doc as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts the texts of all families of a window as shown in a pass.
    pub(super) fn replay(&self, pass: u32, window: usize) {
        for family in self.window(window) {
            for doc in self.rule.shown(&self.table, family as usize, pass) {
                self.uses[doc as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Trained tokens of a pass.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn pass_tokens(&mut self, pass: u32) -> Result<u64> {
        let plain = self.table.n_with_variants() == 0 && self.wish.max_uses_per_text.is_none();
        let known = if plain { 0 } else { pass };
        if let Some(&tokens) = self.pass_tokens.get(&known) {
            return Ok(tokens);
        }
        let window_tokens = |window: usize| -> Result<u64> {
            let mut tokens = 0;
            for family in self.window(window) {
                for doc in self.rule.shown(&self.table, family as usize, known) {
                    tokens += self.docs.trained_tokens(doc)?;
                }
            }
            Ok(tokens)
        };
        let windows = (0..self.windows.len() - 1).into_par_iter();
        let tokens = windows.map(window_tokens).collect::<Result<Vec<u64>>>()?.iter().sum();
        self.pass_tokens.insert(known, tokens);
        Ok(tokens)
    }

    /// Trained tokens of the texts due in a pass that rest, because they were shown often enough.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn resting_tokens(&self, pass: u32) -> Result<u64> {
        let Some(max) = self.wish.max_uses_per_text else { return Ok(0) };
        let of_family = |family: usize| -> Result<u64> {
            let (mut docs, uses) = self.rule.turn(&self.table, family, pass);
            if uses < u64::from(max) {
                return Ok(0);
            }
            docs.try_fold(0, |tokens, doc| Ok(tokens + self.docs.trained_tokens(doc)?))
        };
        let tokens = (0..self.table.len()).into_par_iter().map(of_family).collect::<Result<Vec<u64>>>()?;
        Ok(tokens.iter().sum())
    }

    /// Whether pass `pass` or a later one can show anything.
    pub(super) fn may_show(&self, pass: u32) -> bool {
        self.end.is_none_or(|end| pass < end)
    }

    /// Trained tokens of the first text of each family.
    ///
    /// # Errors
    /// A damaged shard.
    pub(super) fn original_tokens(&self) -> Result<u64> {
        let tokens = |family| -> Result<u64> { Ok(self.docs.trained_tokens(self.table.texts(family)[0])?) };
        (0..self.table.len()).map(tokens).sum()
    }

    /// The lowest share of held-out families, per million, that would hold out one of these; `None` without families.
    pub fn least_holdout_ppm(&self) -> Option<u32> {
        (0..self.table.len()).map(|family| self.wish.holdout.least_ppm(self.table.id(family))).min()
    }

    /// Families that are trained on.
    pub fn len(&self) -> u64 {
        self.table.len() as u64
    }

    /// Whether there do not count.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Families whose original is missing.
    pub fn n_without_original(&self) -> u64 {
        self.table.n_without_original()
    }

    /// Trained tokens of showing every family's first text once, and of all texts.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn unique_tokens(&self) -> Result<(u64, u64)> {
        let (mut originals, mut all) = (0, 0);
        for family in 0..self.table.len() {
            for (i, &doc) in self.table.texts(family).iter().enumerate() {
                let trained = self.docs.trained_tokens(doc)?;
                all += trained;
                originals += if i == 0 { trained } else { 0 };
            }
        }
        Ok((originals, all))
    }

    /// Tokens of all texts of a family.
    fn family_tokens(&self, family: usize) -> Result<u64> {
        let texts = self.table.texts(family).iter();
        texts.map(|&doc| Ok(u64::from(self.docs.n_tokens(doc)?))).sum()
    }

    fn uses(&self, doc: u32) -> u32 {
        self.uses[doc as usize].load(Ordering::Relaxed)
    }

    /// How many texts were shown how often.
    pub fn sightings(&self) -> BTreeMap<u32, u64> {
        let mut histogram = BTreeMap::new();
        for family in 0..self.table.len() {
            for &doc in self.table.texts(family) {
                *histogram.entry(self.uses(doc)).or_default() += 1;
            }
        }
        histogram
    }

    /// How many families were shown how often, in whichever text.
    pub fn family_sightings(&self) -> BTreeMap<u32, u64> {
        let mut histogram = BTreeMap::new();
        for family in 0..self.table.len() {
            let uses = self.table.texts(family).iter().map(|&doc| self.uses(doc)).sum::<u32>();
            *histogram.entry(uses).or_default() += 1;
        }
        histogram
    }

    /// Documents longer than a sequence, which are cut; a stitched family counts as one.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn n_cut(&self, seq_len: u32) -> Result<u64> {
        let mut cut = 0;
        if self.wish.layout == Layout::Stitched {
            for family in (0..self.table.len()).filter(|&i| self.uses(self.table.texts(i)[0]) > 0) {
                cut += u64::from(self.family_tokens(family)? > u64::from(seq_len));
            }
            return Ok(cut);
        }
        for doc in (0..self.docs.len()).filter(|&doc| self.uses(doc) > 0) {
            cut += u64::from(self.docs.n_tokens(doc)? > seq_len);
        }
        Ok(cut)
    }
}

/// Contents of a stretch of a pass, counted piece by piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassFacts {
    /// Tokens in bins.
    pub placed_tokens: u64,
    /// Tokens with a target.
    pub trained_tokens: u64,
    /// Texts that begin in it: of each family one, or all where they are stitched.
    pub families: u64,
    /// Originals among them.
    pub originals: u64,
    /// Trained tokens of originals.
    pub original_tokens: u64,
    /// Trained tokens of texts written by a model.
    pub synthetic_tokens: u64,
}

impl PassFacts {
    /// Adds a piece of a document.
    fn add(&mut self, docs: &PoolDocs, piece: PackedPiece) -> moe_shards::Result<()> {
        let trained = docs.trained_targets(piece.doc, piece.offset, piece.len)?;
        self.placed_tokens += u64::from(piece.len);
        self.trained_tokens += trained;
        let meta = docs.meta(piece.doc)?;
        if piece.offset == 0 {
            self.families += 1;
            self.originals += u64::from(meta.variant == 0);
        }
        self.original_tokens += if meta.variant == 0 { trained } else { 0 };
        self.synthetic_tokens += if meta.style != 0 { trained } else { 0 };
        Ok(())
    }

    /// Both together.
    pub(super) fn plus(self, other: PassFacts) -> PassFacts {
        PassFacts {
            placed_tokens: self.placed_tokens + other.placed_tokens,
            trained_tokens: self.trained_tokens + other.trained_tokens,
            families: self.families + other.families,
            originals: self.originals + other.originals,
            original_tokens: self.original_tokens + other.original_tokens,
            synthetic_tokens: self.synthetic_tokens + other.synthetic_tokens,
        }
    }

    /// What is left without a part.
    pub(super) fn minus(self, part: PassFacts) -> PassFacts {
        PassFacts {
            placed_tokens: self.placed_tokens - part.placed_tokens,
            trained_tokens: self.trained_tokens - part.trained_tokens,
            families: self.families - part.families,
            originals: self.originals - part.originals,
            original_tokens: self.original_tokens - part.original_tokens,
            synthetic_tokens: self.synthetic_tokens - part.synthetic_tokens,
        }
    }
}

/// A window of a pass.
#[derive(Debug, Default)]
pub(super) struct LaidWindow {
    pub(super) n_bins: u64,
    pub(super) facts: PassFacts,
    /// Only with best-fit packing.
    pub(super) bins: Bins,
}

/// Boundaries of windows of about equal tokens.
fn cut_windows(docs: &PoolDocs, table: &FamilyTable, seq_len: u32, wish: &PoolWish) -> Result<Vec<u64>> {
    let max_windows = if wish.order == Order::Documents { 1 } else { wish.max_windows };
    let mut ends = Vec::with_capacity(table.len());
    let mut total = 0u64;
    for family in 0..table.len() {
        let texts = table.texts(family);
        let tokens: u64 = texts.iter().map(|&doc| Ok(u64::from(docs.n_tokens(doc)?))).sum::<Result<u64>>()?;
        // If a pass shows one text of the family, count their mean.
        total += if wish.layout == Layout::Stitched { tokens } else { tokens / texts.len() as u64 };
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
