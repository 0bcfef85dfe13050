//! The stream of a pool: its passes laid out as far as phases ask for them. A phase with sequences of another length
//! starts a new stream that continues the pass exactly where the last one stopped.

use moe_shards::concat::ConcatWindow;
use moe_shards::pack::{Bins, PackedPiece};
use moe_shards::permute::Purpose;
use moe_shards::{ContinuesLock, Packing, PassLock, PoolLock, ShardRef};
use rayon::prelude::*;

use super::pool::{Families, LaidWindow, PassFacts, Site};
use super::stitch::joined;
use crate::error::{Error, Result};
use crate::watch::Watch;

/// How much of a pool a phase shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Trained tokens.
    Tokens(u64),
    /// This many passes in all, including those before this plan or extension.
    Passes(f64),
}

impl Amount {
    /// Trained tokens, if the amount gives them.
    pub fn tokens(&self) -> u64 {
        match *self {
            Amount::Tokens(tokens) => tokens,
            Amount::Passes(_) => 0,
        }
    }
}

/// The phase that takes from a pool.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Name.
    pub phase: &'a str,
    /// Tokens of a sequence.
    pub seq_len: u32,
    /// Most passes of the pool over all phases.
    pub max_passes: u32,
}

/// What a phase gets of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Number of the stream that the bins are from.
    pub stream: u32,
    /// Bins.
    pub bins: u64,
    /// Requested trained tokens that the pool does not have.
    pub missing_tokens: u64,
}

/// What a stream leaves of its current window.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Window.
    pub window: usize,
    /// Pieces that it has not shown.
    pub pieces: Vec<PackedPiece>,
    /// Bins of the pass that it has shown, and all of them.
    pub shown: [u64; 2],
}

/// A stream: a pool of the plan that is being laid out.
#[derive(Debug)]
pub struct Stream {
    /// Number in the plan.
    pub number: u32,
    /// The pool as far as it is laid out.
    pub lock: PoolLock,
    /// Bins that phases have taken.
    pub used: u64,
    /// Trained tokens that phases have asked for.
    asked: u64,
    rest: Option<Rest>,
    /// Bins of the last pass, by window.
    last: Vec<Bins>,
    /// Contents of the passes, in order; once the stream ends, only the used bins of the last one.
    pub passes: Vec<PassFacts>,
}

/// A pool with its streams; the last one is current.
#[derive(Debug)]
pub struct PoolBuilder {
    /// Its families.
    pub families: Families,
    /// Its streams.
    pub streams: Vec<Stream>,
    generation: u32,
}

/// Where a pool's first stream starts.
#[derive(Debug, Default)]
pub struct Start {
    /// The stream that it continues.
    pub continues: Option<ContinuesLock>,
    /// What it left of its window.
    pub rest: Option<Rest>,
}

impl PoolBuilder {
    /// Starts the pool's first stream, number `number` in the plan; held-out families are packed at once, unless
    /// the stream continues one that has them.
    ///
    /// # Errors
    /// A damaged shard, or a full disk.
    pub fn start(
        families: Families,
        shards: Vec<ShardRef>,
        generation: u32,
        number: u32,
        seq_len: u32,
        start: Start,
        site: &Site<'_>,
    ) -> Result<PoolBuilder> {
        let mut builder = PoolBuilder { families, streams: Vec::new(), generation };
        let name = builder.families.wish.name.clone();
        builder.open_stream(name, shards, number, seq_len, start, site)?;
        Ok(builder)
    }

    fn open_stream(
        &mut self,
        name: String,
        shards: Vec<ShardRef>,
        number: u32,
        seq_len: u32,
        start: Start,
        site: &Site<'_>,
    ) -> Result<()> {
        let families = &self.families;
        let wish = &families.wish;
        let (mut validation, bins) = families.validation(seq_len)?;
        let bins = if start.continues.is_some() { Bins::default() } else { bins };
        if start.continues.is_some() {
            (validation.n_families, validation.n_bins, validation.trained_tokens) = (0, 0, 0);
        }
        validation.pack = site.write(&format!("{name}-validation.pack"), seq_len, &[bins])?;
        let lock = PoolLock {
            name,
            generation: self.generation,
            shards,
            seq_len,
            packing: wish.packing,
            n_families: families.len(),
            n_families_with_variants: families.table.n_with_variants(),
            original_share: wish.original_share,
            variants: wish.variants,
            layout: wish.layout,
            order: wish.order,
            selection: wish.selection.clone(),
            max_uses_per_text: wish.max_uses_per_text,
            continues: start.continues,
            windows: families.windows.clone(),
            passes: Vec::new(),
            validation,
        };
        let (last, passes) = (Vec::new(), Vec::new());
        self.streams.push(Stream { number, lock, used: 0, asked: 0, rest: start.rest, last, passes });
        Ok(())
    }

    /// Bins that serve `amount` for a phase. Passes are laid out as needed; a new stream for other sequence lengths gets the number `next_number`.
    ///
    /// # Errors
    /// A damaged shard, a full disk, or a request to stop.
    pub fn take(
        &mut self,
        amount: Amount,
        ask: &Ask<'_>,
        next_number: &mut u32,
        site: &Site<'_>,
        watch: &Watch,
    ) -> Result<Taken> {
        let &Ask { phase, seq_len, max_passes } = ask;
        let current = self.current();
        if amount == Amount::Tokens(0) {
            return Ok(Taken { stream: current.number, bins: 0, missing_tokens: 0 });
        }
        if current.lock.seq_len != seq_len {
            if current.lock.passes.is_empty() {
                self.reopen(seq_len, site)?;
            } else {
                self.switch(seq_len, phase, *next_number, site)?;
                *next_number += 1;
            }
        }
        let before = self.current().used;
        let mut missing_tokens = 0;
        let used = match amount {
            Amount::Tokens(tokens) => {
                self.current_mut().asked += tokens;
                let asked = self.current().asked;
                // Every round adds a pass, and there is a last one: `max_passes`, or where all texts rest.
                while self.current().trained() < asked && self.has_next_pass(max_passes) {
                    self.add_pass(site, watch)?;
                }
                missing_tokens = asked.saturating_sub(self.current().trained());
                // If sequence lengths change, rounding to whole bins may leave one bin less than requested.
                bins_for(&self.current().lock.passes, asked).unwrap_or_else(|| self.current().n_bins())
            }
            Amount::Passes(passes) => {
                while f64::from(self.next_pass()) < passes {
                    self.add_pass(site, watch)?;
                }
                self.current().bins_until(passes)
            }
        };
        let stream = self.current_mut();
        stream.used = used.max(before);
        Ok(Taken { stream: stream.number, bins: stream.used - before, missing_tokens })
    }

    /// Trained tokens that it can still give in `max_passes` passes, including those before this plan.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn tokens_left(&mut self, max_passes: f64) -> Result<u64> {
        let first = self.next_pass();
        let mut left = 0;
        for pass in (first..u32::MAX).take_while(|&pass| f64::from(pass) < max_passes) {
            if !self.families.may_show(pass) {
                break;
            }
            let tokens = self.families.pass_tokens(pass)?;
            let begun = self.current().rest.as_ref().filter(|_| pass == first);
            let shown = begun.map_or([0, 1], |rest| rest.shown);
            let whole =
                (u128::from(tokens) * u128::from(shown[1] - shown[0]) / u128::from(shown[1].max(1))) as u64;
            // The last pass may be a part of one.
            let cut = (1.0 - (max_passes - f64::from(pass))).max(0.0);
            left += whole.saturating_sub((tokens as f64 * cut) as u64);
        }
        Ok(left)
    }

    /// Trained tokens of the passes up to `passes` in all, without those already shown: how many the texts have that
    /// are due, and how many of these do not rest (`max_uses_per_text`).
    ///
    /// # Errors
    /// A damaged shard.
    pub fn asked_and_given(&mut self, passes: f64) -> Result<[u64; 2]> {
        let (mut asked, mut given) = (0.0, 0.0);
        for pass in (self.next_pass()..u32::MAX).take_while(|&pass| f64::from(pass) < passes) {
            let share = (passes - f64::from(pass)).min(1.0);
            let shown = self.families.pass_tokens(pass)?;
            given += share * shown as f64;
            asked += share * (shown + self.families.resting_tokens(pass)?) as f64;
        }
        Ok([asked, given].map(|tokens| tokens as u64))
    }

    /// The stream that goes on.
    pub fn current(&self) -> &Stream {
        &self.streams[self.streams.len() - 1]
    }

    fn current_mut(&mut self) -> &mut Stream {
        let last = self.streams.len() - 1;
        &mut self.streams[last]
    }

    fn has_next_pass(&self, max_passes: u32) -> bool {
        self.next_pass() < max_passes && self.families.may_show(self.next_pass())
    }

    fn next_pass(&self) -> u32 {
        let stream = self.current();
        stream.lock.first_pass() + stream.lock.passes.len() as u32
    }

    /// Changes the sequence length of an unused stream.
    fn reopen(&mut self, seq_len: u32, site: &Site<'_>) -> Result<()> {
        let Some(Stream { number, lock, rest, .. }) = self.streams.pop() else { return Ok(()) };
        let start = Start { continues: lock.continues, rest };
        self.open_stream(lock.name, lock.shards, number, seq_len, start, site)
    }

    /// Continues in a new stream with another sequence length.
    fn switch(&mut self, seq_len: u32, phase: &str, number: u32, site: &Site<'_>) -> Result<()> {
        self.forget_unshown()?;
        let stream = self.current();
        let rest = self.rest()?;
        let (pass, bins) = match &rest {
            Some(rest) => (self.next_pass() - 1, rest.shown[0]),
            None => (self.next_pass(), 0),
        };
        let continues = Some(ContinuesLock { pool: stream.number, pass, bins });
        let shards = stream.lock.shards.clone();
        let name = format!("{}@{phase}", self.families.wish.name);
        self.open_stream(name, shards, number, seq_len, Start { continues, rest }, site)
    }

    /// Lays out the next pass of the current stream.
    fn add_pass(&mut self, site: &Site<'_>, watch: &Watch) -> Result<()> {
        let (families, stream, pass) = (&self.families, self.current(), self.next_pass());
        let seq_len = stream.lock.seq_len;
        let begun = stream.rest.as_ref().filter(|_| stream.lock.passes.is_empty());
        let lay = |window: usize| match begun {
            Some(rest) if window < rest.window => Ok(LaidWindow::default()),
            Some(rest) if window == rest.window => {
                families.lay_window(pass, window, seq_len, Some(&rest.pieces), watch)
            }
            _ => families.lay_window(pass, window, seq_len, None, watch),
        };
        let windows = 0..families.windows.len() - 1;
        let laid: Vec<LaidWindow> = windows.into_par_iter().map(lay).collect::<Result<_>>()?;
        let mut record = PassLock {
            bins_per_window: Vec::new(),
            trained_tokens: 0,
            placed_tokens: 0,
            originals: 0,
            pack: None,
        };
        let mut facts = PassFacts::default();
        let mut parts = Vec::with_capacity(laid.len());
        for window in laid {
            record.bins_per_window.push(window.n_bins);
            facts = facts.plus(window.facts);
            parts.push(window.bins);
        }
        record.placed_tokens = facts.placed_tokens;
        record.trained_tokens = facts.trained_tokens;
        record.originals = facts.originals;
        if stream.lock.packing == Packing::BestFit {
            record.pack =
                Some(site.write(&format!("{}-p{pass:03}.pack", stream.lock.name), seq_len, &parts)?);
        }
        let stream = self.current_mut();
        stream.lock.passes.push(record);
        stream.passes.push(facts);
        stream.last = parts;
        Ok(())
    }

    /// What the current stream leaves of its window; `None` at the end of a pass.
    fn rest(&self) -> Result<Option<Rest>> {
        let stream = self.current();
        let Some(pass) = stream.lock.passes.last() else { return Ok(stream.rest.clone()) };
        let shown = stream.used - (stream.n_bins() - pass.n_bins());
        let Some((window, shown_here)) = position(&pass.bins_per_window, shown) else { return Ok(None) };
        let pieces = match stream.last.get(window).filter(|_| stream.lock.packing == Packing::BestFit) {
            Some(bins) => joined((shown_here as usize..bins.len()).flat_map(|i| bins.bin(i).iter().copied())),
            None => self.concat_window(window)?.rest(shown_here),
        };
        Ok(Some(Rest { window, pieces, shown: [shown, pass.n_bins()] }))
    }

    /// A window of the current stream's last pass.
    fn concat_window(&self, window: usize) -> Result<ConcatWindow> {
        let (families, stream) = (&self.families, self.current());
        let pass = self.next_pass() - 1;
        let key = families.rule.key(pass, window, Purpose::Bins);
        let first = stream.lock.passes.len() == 1;
        if let Some(rest) = stream.rest.as_ref().filter(|rest| first && rest.window == window) {
            return Ok(ConcatWindow::of_pieces(rest.pieces.clone(), stream.lock.seq_len, key));
        }
        let (table, docs, range) = (&families.table, &families.docs, families.window(window));
        let shown = families.rule.documents(table, docs, range, pass, window, |_, _| Ok(()))?;
        Ok(ConcatWindow::of_documents(&shown, stream.lock.seq_len, key))
    }

    /// Undoes the texts that were laid out in the last pass but are not shown, and their counts. Call it once
    /// a stream ends.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn forget_unshown(&mut self) -> Result<()> {
        let stream = self.current();
        let (Some(rest), Some(pass)) = (self.rest()?, stream.lock.passes.last()) else { return Ok(()) };
        let families = &self.families;
        let mut unshown = PassFacts::default();
        for &piece in &rest.pieces {
            families.uncount(&mut unshown, piece)?;
        }
        for window in rest.window + 1..pass.bins_per_window.len() {
            let pass = self.next_pass() - 1;
            for family in families.window(window) {
                for doc in families.rule.shown(&families.table, family as usize, pass) {
                    let len = families.docs.n_tokens(doc)?;
                    families.uncount(&mut unshown, PackedPiece { doc, offset: 0, len })?;
                }
            }
        }
        if let Some(facts) = self.current_mut().passes.last_mut() {
            *facts = facts.minus(unshown);
        }
        Ok(())
    }
}

impl Stream {
    /// Bins of all passes laid out so far.
    pub fn n_bins(&self) -> u64 {
        self.lock.passes.iter().map(PassLock::n_bins).sum()
    }

    /// Share of the first pass that the stream before it has shown.
    pub fn share_begun(&self) -> f64 {
        self.rest.as_ref().map_or(0.0, |rest| rest.shown[0] as f64 / rest.shown[1].max(1) as f64)
    }

    /// Trained tokens of all passes laid out so far.
    pub fn trained(&self) -> u64 {
        self.lock.passes.iter().map(|pass| pass.trained_tokens).sum()
    }

    /// Bins until this many passes are shown, including those that the stream continues.
    fn bins_until(&self, passes: f64) -> u64 {
        let (mut bins, mut number) = (0, f64::from(self.lock.first_pass()));
        for (i, pass) in self.lock.passes.iter().enumerate() {
            let before = if i == 0 { self.share_begun() } else { 0.0 };
            let share = ((passes - number - before) / (1.0 - before)).clamp(0.0, 1.0);
            bins += (share * pass.n_bins() as f64).ceil() as u64;
            number += 1.0;
        }
        bins
    }
}

/// Window of bin `bin` and its number in it; `None` past the end.
pub(super) fn position(bins_per_window: &[u64], mut bin: u64) -> Option<(usize, u64)> {
    for (window, &n) in bins_per_window.iter().enumerate() {
        if bin < n {
            return Some((window, bin));
        }
        bin -= n;
    }
    None
}

/// Bins that hold `target` trained tokens: whole passes, then a share of the next by its mean fill.
fn bins_for(passes: &[PassLock], target: u64) -> Option<u64> {
    let (mut left, mut bins) = (target, 0);
    for pass in passes {
        if left >= pass.trained_tokens {
            left -= pass.trained_tokens;
            bins += pass.n_bins();
        } else {
            let share = u128::from(left) * u128::from(pass.n_bins());
            return Some(bins + share.div_ceil(u128::from(pass.trained_tokens)) as u64);
        }
    }
    (left == 0).then_some(bins)
}

/// Error for a plan that cannot hold the request.
pub(super) fn too_many_pools(n: usize) -> Error {
    Error::Usage(format!(
        "{n} pools: at most {} are possible; use fewer or coarser quality buckets",
        u16::MAX
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(bins: u64, trained_tokens: u64) -> PassLock {
        PassLock {
            bins_per_window: vec![bins],
            trained_tokens,
            placed_tokens: trained_tokens,
            originals: 0,
            pack: None,
        }
    }

    #[test]
    fn a_budget_ends_inside_a_pass() {
        let passes = [pass(10, 1000), pass(11, 1100)];
        assert_eq!(bins_for(&passes, 500), Some(5));
        assert_eq!(bins_for(&passes, 1000), Some(10));
        assert_eq!(bins_for(&passes, 1101), Some(12)); // 101 of 1100 tokens: 1.01 bins
        assert_eq!(bins_for(&passes, 2100), Some(21));
        assert_eq!(bins_for(&passes, 2101), None);
    }

    #[test]
    fn a_bin_has_a_window() {
        let windows = [2, 0, 3];
        let found: Vec<_> = (0..6).map(|bin| position(&windows, bin)).collect();
        let expected = [Some((0, 0)), Some((0, 1)), Some((2, 0)), Some((2, 1)), Some((2, 2)), None];
        assert_eq!(found, expected);
    }
}
