//! Best-fit packing of one window: a document that fits into a sequence is never cut (Ding et al.,
//! "Fewer Truncations Improve Language Modeling", arXiv 2404.10830, section 3).
//!
//! The paper splits long documents first and packs the tails like short documents. Here a long document
//! may be cut anywhere, so its tokens fill the gaps of the short ones; padding remains only
//! where a window runs out of long documents.

use moe_shards::pack::{Bins, PackedPiece};
use moe_shards::permute::{Permutation, mix64};

/// Keys of the two permutations of a window.
#[derive(Clone, Copy, Debug)]
pub struct OrderKeys {
    /// Order of the bins.
    pub bins: u64,
    /// Order of the pieces inside a bin.
    pub pieces: u64,
}

/// Packs documents, given as (document of the pool, tokens with EOD) in the order of the pass, into bins of
/// at most `seq_len` tokens, and shuffles the bins: packing sorts by length, training must not.
pub fn pack(docs: &[(u32, u32)], seq_len: u32, keys: OrderKeys) -> Bins {
    pack_pieces(docs.iter().map(|&(doc, len)| PackedPiece { doc, offset: 0, len }).collect(), seq_len, keys)
}

/// Packs pieces, whole documents and remains of others, in the same way: a piece that fits is not cut.
pub fn pack_pieces(pieces: Vec<PackedPiece>, seq_len: u32, keys: OrderKeys) -> Bins {
    let n_pieces = pieces.len();
    let (short, mut long): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|piece| piece.len <= seq_len);
    // Equal lengths keep the order of the pass, which is random.
    let short = by_falling(&short, |piece| piece.len, seq_len);
    long.sort_by_key(|piece| std::cmp::Reverse(piece.len));

    let mut open = OpenBins::new(seq_len, n_pieces);
    for piece in short {
        open.place_best(piece);
    }
    let mut stream = LongStream { pieces: &long, next: 0, taken: 0 };
    open.fill(&mut stream, min_fragment(seq_len));
    open.append(&mut stream);
    open.shuffled(keys)
}

/// A stable sort by falling `key`, all at most `max`: counts, then places. A comparison sort of a window's
/// documents took a quarter of the time of packing them.
fn by_falling<T: Copy + Default>(items: &[T], key: impl Fn(&T) -> u32, max: u32) -> Vec<T> {
    let mut next = vec![0u32; max as usize + 1];
    for item in items {
        next[(max - key(item)) as usize] += 1;
    }
    let mut start = 0;
    for slot in &mut next {
        start += std::mem::replace(slot, start);
    }
    let mut sorted = vec![T::default(); items.len()];
    for item in items {
        let slot = &mut next[(max - key(item)) as usize];
        sorted[*slot as usize] = *item;
        *slot += 1;
    }
    sorted
}

/// Shortest piece to cut off a long document to fill a gap. Shorter ones would teach nothing and
/// leave at most 1/512 of a sequence as padding.
fn min_fragment(seq_len: u32) -> u32 {
    (seq_len / 512).max(2)
}

/// The long documents, one after another, cut wherever a gap ends.
struct LongStream<'a> {
    pieces: &'a [PackedPiece],
    next: usize,
    /// Tokens of the next piece that are placed.
    taken: u32,
}

impl LongStream<'_> {
    fn take(&mut self, at_most: u32) -> Option<PackedPiece> {
        let &PackedPiece { doc, offset, len } = self.pieces.get(self.next)?;
        let piece = PackedPiece { doc, offset: offset + self.taken, len: at_most.min(len - self.taken) };
        self.taken += piece.len;
        if self.taken == len {
            (self.next, self.taken) = (self.next + 1, 0);
        }
        Some(piece)
    }
}

/// No bin.
const NONE: u32 = u32::MAX;

/// The bins of a window. Nothing is allocated for a bin of its own: pieces lie in the order in which they were placed,
/// each with its bin, and are brought together at the end.
struct OpenBins {
    seq_len: u32,
    /// Room left in each bin.
    room: Vec<u32>,
    /// Pieces with their bins.
    placed: Vec<(u32, PackedPiece)>,
    /// For each room, the newest bin with it; `occupied` has a bit for each room of any bin.
    newest: Vec<u32>,
    /// The next older bin with the same room.
    older: Vec<u32>,
    occupied: Vec<u64>,
}

impl OpenBins {
    fn new(seq_len: u32, n_docs: usize) -> OpenBins {
        let rooms = seq_len as usize + 1;
        OpenBins {
            seq_len,
            room: Vec::new(),
            placed: Vec::with_capacity(n_docs),
            newest: vec![NONE; rooms],
            older: Vec::new(),
            occupied: vec![0; rooms.div_ceil(64)],
        }
    }

    /// Puts a piece into the fullest bin that has room for it, or into a new one.
    fn place_best(&mut self, piece: PackedPiece) {
        let bin = match self.smallest_room(piece.len) {
            Some(room) => {
                let bin = self.newest[room];
                self.newest[room] = self.older[bin as usize];
                if self.newest[room] == NONE {
                    self.occupied[room / 64] &= !(1 << (room % 64));
                }
                bin
            }
            None => self.new_bin(),
        };
        self.push(bin, piece);
        let room = self.room[bin as usize] as usize;
        self.older[bin as usize] = std::mem::replace(&mut self.newest[room], bin);
        self.occupied[room / 64] |= 1 << (room % 64);
    }

    /// Smallest room of at least `len` in any bin.
    fn smallest_room(&self, len: u32) -> Option<usize> {
        let first = len as usize / 64;
        let mut word = self.occupied.get(first)? & (u64::MAX << (len % 64));
        let mut i = first;
        while word == 0 {
            i += 1;
            word = *self.occupied.get(i)?;
        }
        Some(i * 64 + word.trailing_zeros() as usize)
    }

    /// Fills the gaps, widest first, for the fewest cuts.
    fn fill(&mut self, stream: &mut LongStream<'_>, min_fragment: u32) {
        let gaps: Vec<u32> =
            (0..self.room.len() as u32).filter(|&bin| self.room[bin as usize] >= min_fragment).collect();
        for bin in by_falling(&gaps, |&bin| self.room[bin as usize], self.seq_len) {
            while self.room[bin as usize] >= min_fragment {
                let Some(piece) = stream.take(self.room[bin as usize]) else { return };
                self.push(bin, piece);
            }
        }
    }

    /// Puts the rest of the stream into new bins.
    fn append(&mut self, stream: &mut LongStream<'_>) {
        let mut bin = None;
        while let Some(piece) = stream.take(bin.map_or(self.seq_len, |bin: u32| self.room[bin as usize])) {
            let target = bin.unwrap_or_else(|| self.new_bin());
            self.push(target, piece);
            bin = (self.room[target as usize] > 0).then_some(target);
        }
    }

    /// Bins fit in 32 bits: a window with more would not fit into memory.
    fn new_bin(&mut self) -> u32 {
        self.room.push(self.seq_len);
        self.older.push(NONE);
        (self.room.len() - 1) as u32
    }

    fn push(&mut self, bin: u32, piece: PackedPiece) {
        self.room[bin as usize] -= piece.len;
        self.placed.push((bin, piece));
    }

    fn shuffled(self, keys: OrderKeys) -> Bins {
        let order = Permutation::new(self.room.len() as u64, keys.bins);
        // Where each bin is shown; then the end of each place, as counts and their sums.
        let mut place = vec![0u32; self.room.len()];
        for shown in 0..order.len() {
            place[order.forward(shown) as usize] = shown as u32;
        }
        let mut ends = vec![0u64; self.room.len()];
        for (bin, _) in &self.placed {
            ends[place[*bin as usize] as usize] += 1;
        }
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        let mut pieces = vec![PackedPiece { doc: 0, offset: 0, len: 0 }; self.placed.len()];
        for (bin, piece) in &self.placed {
            let next = &mut ends[place[*bin as usize] as usize];
            pieces[*next as usize] = *piece;
            *next += 1;
        }
        let mut keyed = Vec::new();
        let mut start = 0;
        for &end in &ends {
            let bin = &mut pieces[start..end as usize];
            start = end as usize;
            if bin.len() > 1 {
                keyed.clear();
                keyed.extend(bin.iter().map(|&piece| (order_of(piece, keys.pieces), piece)));
                keyed.sort_by_key(|&(key, _)| key);
                bin.iter_mut().zip(&keyed).for_each(|(slot, &(_, piece))| *slot = piece);
            }
        }
        Bins { ends, pieces }
    }
}

/// Pieces of a bin are shown in ascending order of this.
fn order_of(piece: PackedPiece, key: u64) -> u64 {
    mix64(key ^ mix64(u64::from(piece.doc) << 32 | u64::from(piece.offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KEYS: OrderKeys = OrderKeys { bins: 1, pieces: 2 };

    /// Sorted bins, each as sorted (doc, offset, len).
    fn packed(lens: &[u32], seq_len: u32) -> Vec<Vec<(u32, u32, u32)>> {
        let docs: Vec<(u32, u32)> = (0..).zip(lens.iter().copied()).collect();
        let bins = pack(&docs, seq_len, KEYS);
        let mut out: Vec<Vec<_>> = (0..bins.len())
            .map(|i| {
                let mut bin: Vec<_> = bins.bin(i).iter().map(|p| (p.doc, p.offset, p.len)).collect();
                bin.sort_unstable();
                bin
            })
            .collect();
        out.sort();
        out
    }

    #[test]
    fn short_documents_go_where_they_fit_best() {
        // 7 and 6 open two bins; 4 fits only next to 6, 3 only next to 7.
        assert_eq!(packed(&[3, 6, 4, 7], 10), [[(0, 0, 3), (3, 0, 7)], [(1, 0, 6), (2, 0, 4)]]);
    }

    #[test]
    fn long_documents_fill_the_gaps() {
        // 6 leaves 4 open; the long document of 17 fills them and takes a full bin and a rest of 3.
        let expected = [vec![(0, 0, 6), (1, 0, 4)], vec![(1, 4, 10)], vec![(1, 14, 3)]];
        assert_eq!(packed(&[6, 17], 10), expected);
    }

    #[test]
    fn an_empty_window_has_no_bins() {
        assert!(pack(&[], 8, KEYS).is_empty());
    }

    proptest! {
        #[test]
        fn every_token_is_placed_once_and_what_fits_is_whole(
            lens in proptest::collection::vec(1u32..400, 0..200), seq_len in 2u32..200,
        ) {
            let mut pieces = BTreeMap::<u32, Vec<(u32, u32)>>::new();
            for bin in packed(&lens, seq_len) {
                prop_assert!(!bin.is_empty());
                prop_assert!(bin.iter().map(|p| p.2).sum::<u32>() <= seq_len);
                for (doc, offset, len) in bin {
                    pieces.entry(doc).or_default().push((offset, len));
                }
            }
            prop_assert_eq!(pieces.len(), lens.len());
            for (doc, mut parts) in pieces {
                let len = lens[doc as usize];
                parts.sort_unstable();
                prop_assert!(len > seq_len || parts == [(0, len)], "document of {} was cut: {:?}", len, parts);
                let mut at = 0;
                for (offset, part) in parts {
                    prop_assert_eq!(offset, at);
                    at += part;
                }
                prop_assert_eq!(at, len);
            }
        }

        /// With enough long documents padding is below half a percent of the tokens.
        #[test]
        fn padding_is_below_half_a_percent(
            short in proptest::collection::vec(8u32..1024, 200..400), long in proptest::collection::vec(1025u32..9000, 60..90),
        ) {
            let lens = [short, long].concat();
            let n_bins = packed(&lens, 1024).len() as u64;
            let tokens: u64 = lens.iter().map(|&len| u64::from(len)).sum();
            prop_assert!((n_bins * 1024 - tokens) * 200 <= n_bins * 1024, "{} of {}", n_bins * 1024 - tokens, n_bins * 1024);
        }
    }
}
