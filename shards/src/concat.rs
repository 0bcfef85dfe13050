//! Concatenation without an index: the texts of a window form one stream, cut every `seq_len` tokens; the
//! sequences are shown in the order of a permutation. What a continued pool has not shown of a window forms
//! the window of the pool that continues it.

use crate::pack::PackedPiece;
use crate::permute::Permutation;

/// The stream of a window of a pass.
#[derive(Debug)]
pub struct ConcatWindow {
    pieces: Vec<PackedPiece>,
    /// Stream position at which each piece ends.
    ends: Vec<u64>,
    seq_len: u64,
    order: Permutation,
}

impl ConcatWindow {
    /// Whole texts, given as (document of the pool, tokens), in this order; `key` shuffles the bins.
    pub fn of_documents(shown: &[(u32, u32)], seq_len: u32, key: u64) -> ConcatWindow {
        let whole = |&(doc, len)| PackedPiece { doc, offset: 0, len };
        ConcatWindow::of_pieces(shown.iter().map(whole).collect(), seq_len, key)
    }

    /// These pieces, in this order.
    pub fn of_pieces(pieces: Vec<PackedPiece>, seq_len: u32, key: u64) -> ConcatWindow {
        let mut end = 0;
        let ends: Vec<u64> = pieces
            .iter()
            .map(|piece| {
                end += u64::from(piece.len);
                end
            })
            .collect();
        let seq_len = u64::from(seq_len);
        ConcatWindow { pieces, ends, seq_len, order: Permutation::new(end.div_ceil(seq_len), key) }
    }

    /// Bins.
    pub fn n_bins(&self) -> u64 {
        self.order.len()
    }

    /// The pieces of the whole stream.
    pub fn pieces(&self) -> &[PackedPiece] {
        &self.pieces
    }

    /// Pieces of the `i`-th bin that is shown; none past the end.
    pub fn bin(&self, i: u64) -> Vec<PackedPiece> {
        let mut pieces = Vec::new();
        if i < self.order.len() {
            self.cut(self.order.forward(i), &mut pieces);
        }
        pieces
    }

    /// What is left after the first `shown` bins, in the order of the stream. Neighbors are joined, so that a
    /// text of which nothing was shown is whole.
    pub fn rest(&self, shown: u64) -> Vec<PackedPiece> {
        let mut pieces = Vec::new();
        for bin in (0..self.order.len()).filter(|&bin| self.order.inverse(bin) >= shown) {
            self.cut(bin, &mut pieces);
        }
        pieces
    }

    /// Appends the pieces of bin `bin` of the stream.
    fn cut(&self, bin: u64, pieces: &mut Vec<PackedPiece>) {
        let mut at = bin * self.seq_len;
        let end = (at + self.seq_len).min(self.ends.last().copied().unwrap_or(0));
        let mut i = self.ends.partition_point(|&piece_end| piece_end <= at);
        while at < end {
            let source = self.pieces[i];
            let start = self.ends[i] - u64::from(source.len);
            let until = end.min(self.ends[i]);
            let piece = PackedPiece {
                doc: source.doc,
                offset: source.offset + (at - start) as u32,
                len: (until - at) as u32,
            };
            push_joined(pieces, piece);
            at = until;
            i += 1;
        }
    }
}

/// Appends a piece, or lengthens the last one if it continues exactly there.
pub fn push_joined(pieces: &mut Vec<PackedPiece>, piece: PackedPiece) {
    match pieces.last_mut() {
        Some(last) if last.doc == piece.doc && last.offset + last.len == piece.offset => {
            last.len += piece.len
        }
        _ => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(lens: &[u32], seq_len: u32) -> ConcatWindow {
        let pieces = (0..).zip(lens).map(|(doc, &len)| PackedPiece { doc, offset: 0, len }).collect();
        ConcatWindow::of_pieces(pieces, seq_len, 5)
    }

    #[test]
    fn bins_are_cuts_of_the_stream() {
        let window = window(&[3, 6, 2], 4); // aaab bbbb bcc
        let mut bins: Vec<Vec<(u32, u32, u32)>> =
            (0..3).map(|i| window.bin(i).into_iter().map(|p| (p.doc, p.offset, p.len)).collect()).collect();
        bins.sort();
        assert_eq!(bins, [vec![(0, 0, 3), (1, 0, 1)], vec![(1, 1, 4)], vec![(1, 5, 1), (2, 0, 2)]]);
        assert!(window.bin(3).is_empty());
    }

    proptest! {
        /// What was shown and what is left are everything, once, also after a second change of length.
        #[test]
        fn nothing_is_lost_between_two_lengths(
            lens in proptest::collection::vec(1u32..60, 0..40), seq_lens in [1u32..40, 1u32..40, 1u32..40],
            shares in [0u64..=4, 0u64..=4],
        ) {
            let mut seen: Vec<Vec<u32>> = lens.iter().map(|&len| vec![0; len as usize]).collect();
            let mut count = |piece: PackedPiece| {
                let range = piece.offset as usize..(piece.offset + piece.len) as usize;
                seen[piece.doc as usize][range].iter_mut().for_each(|n| *n += 1);
            };
            let mut stream = window(&lens, seq_lens[0]);
            for (share, &seq_len) in shares.into_iter().zip(&seq_lens[1..]) {
                let shown = stream.n_bins() * share / 4;
                (0..shown).flat_map(|i| stream.bin(i)).for_each(&mut count);
                stream = ConcatWindow::of_pieces(stream.rest(shown), seq_len, 6);
            }
            (0..stream.n_bins()).flat_map(|i| stream.bin(i)).for_each(&mut count);
            prop_assert!(seen.iter().flatten().all(|&n| n == 1));
        }
    }
}
