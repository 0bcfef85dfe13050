//! Best-fit packing of one window: no document that fits into a sequence is ever cut (Ding et al.,
//! "Fewer Truncations Improve Language Modeling", arXiv 2404.10830, section 3).
//!
//! The paper splits long documents first and packs the tails like short documents. Here a long document
//! may be cut anywhere, so its tokens fill what the short ones leave open; padding remains only
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
    let (mut short, mut long): (Vec<_>, Vec<_>) = docs.iter().copied().partition(|&(_, len)| len <= seq_len);
    // Stable sorts: equal lengths keep the order of the pass, which is random.
    short.sort_by_key(|&(_, len)| std::cmp::Reverse(len));
    long.sort_by_key(|&(_, len)| std::cmp::Reverse(len));

    let mut open = OpenBins::new(seq_len);
    for (doc, len) in short {
        open.place_best(PackedPiece { doc, offset: 0, len });
    }
    let mut stream = LongStream { docs: &long, next: 0, offset: 0 };
    open.fill(&mut stream, min_fragment(seq_len));
    open.append(&mut stream);
    open.shuffled(keys)
}

/// Shortest piece that is cut off a long document to fill a gap. Shorter ones would teach nothing and
/// leave at most 1/512 of a sequence as padding.
fn min_fragment(seq_len: u32) -> u32 {
    (seq_len / 512).max(2)
}

/// The long documents, one after the other, cut wherever a gap ends.
struct LongStream<'a> {
    docs: &'a [(u32, u32)],
    next: usize,
    offset: u32,
}

impl LongStream<'_> {
    fn take(&mut self, at_most: u32) -> Option<PackedPiece> {
        let &(doc, len) = self.docs.get(self.next)?;
        let piece = PackedPiece { doc, offset: self.offset, len: at_most.min(len - self.offset) };
        self.offset += piece.len;
        if self.offset == len {
            (self.next, self.offset) = (self.next + 1, 0);
        }
        Some(piece)
    }
}

struct OpenBins {
    seq_len: u32,
    bins: Vec<Vec<PackedPiece>>,
    room: Vec<u32>,
    /// Bins by room left; `occupied` has a bit for each room that some bin has.
    by_room: Vec<Vec<u32>>,
    occupied: Vec<u64>,
}

impl OpenBins {
    fn new(seq_len: u32) -> OpenBins {
        let rooms = seq_len as usize + 1;
        OpenBins {
            seq_len,
            bins: Vec::new(),
            room: Vec::new(),
            by_room: vec![Vec::new(); rooms],
            occupied: vec![0; rooms.div_ceil(64)],
        }
    }

    /// Puts a piece into the fullest bin that has room for it, or into a new one.
    fn place_best(&mut self, piece: PackedPiece) {
        let bin = match self.smallest_room(piece.len) {
            Some(room) => {
                let bin = self.by_room[room].pop();
                if self.by_room[room].is_empty() {
                    self.occupied[room / 64] &= !(1 << (room % 64));
                }
                bin
            }
            None => None,
        };
        let bin = bin.map_or_else(|| self.new_bin(), |bin| bin as usize);
        self.push(bin, piece);
        let room = self.room[bin] as usize;
        self.by_room[room].push(bin as u32);
        self.occupied[room / 64] |= 1 << (room % 64);
    }

    /// Smallest room of at least `len` that some bin has.
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

    /// Fills what is open, the widest gaps first: fewest cuts for the tokens placed.
    fn fill(&mut self, stream: &mut LongStream<'_>, min_fragment: u32) {
        let mut gaps: Vec<usize> =
            (0..self.bins.len()).filter(|&bin| self.room[bin] >= min_fragment).collect();
        gaps.sort_by_key(|&bin| std::cmp::Reverse(self.room[bin]));
        for bin in gaps {
            while self.room[bin] >= min_fragment {
                let Some(piece) = stream.take(self.room[bin]) else { return };
                self.push(bin, piece);
            }
        }
    }

    /// Puts the rest of the stream into new bins.
    fn append(&mut self, stream: &mut LongStream<'_>) {
        let mut bin = None;
        while let Some(piece) = stream.take(bin.map_or(self.seq_len, |bin: usize| self.room[bin])) {
            let target = bin.unwrap_or_else(|| self.new_bin());
            self.push(target, piece);
            bin = (self.room[target] > 0).then_some(target);
        }
    }

    fn new_bin(&mut self) -> usize {
        self.bins.push(Vec::new());
        self.room.push(self.seq_len);
        self.bins.len() - 1
    }

    fn push(&mut self, bin: usize, piece: PackedPiece) {
        self.room[bin] -= piece.len;
        self.bins[bin].push(piece);
    }

    fn shuffled(mut self, keys: OrderKeys) -> Bins {
        let order = Permutation::new(self.bins.len() as u64, keys.bins);
        let mut out = Bins::default();
        for i in 0..order.len() {
            let mut pieces = std::mem::take(&mut self.bins[order.forward(i) as usize]);
            pieces.sort_by_key(|piece| {
                mix64(keys.pieces ^ mix64(u64::from(piece.doc) << 32 | u64::from(piece.offset)))
            });
            out.pieces.extend(pieces);
            out.close();
        }
        out
    }
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
        // 7 and 6 open two bins; 4 fits only beside 6, 3 only beside 7.
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
