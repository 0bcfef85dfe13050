//! Stitched families for best-fit packing: the texts of a family are packed as one document, and split into texts afterward.

use std::collections::BTreeMap;

use moe_shards::concat::push_joined;
use moe_shards::family::PoolDocs;
use moe_shards::pack::{Bins, PackedPiece};

use super::best_fit::{self, OrderKeys};
use crate::error::{Error, Result};

/// The families of a window of a pass, each as one document numbered by its position.
#[derive(Debug, Default)]
pub(super) struct StitchedWindow {
    /// Texts as (document of the pool, tokens), family after family.
    texts: Vec<(u32, u32)>,
    /// First text of each family, and the end.
    starts: Vec<usize>,
}

impl StitchedWindow {
    /// Finds the families in `texts`, which are in the order of a pass.
    ///
    /// # Errors
    /// A damaged shard, or a family of 2^32 tokens.
    pub(super) fn new(docs: &PoolDocs, texts: Vec<(u32, u32)>) -> Result<StitchedWindow> {
        let mut starts = Vec::new();
        let (mut last, mut tokens) = (None, 0u32);
        for (i, &(doc, len)) in texts.iter().enumerate() {
            let family = docs.meta(doc)?.family;
            if last != Some(family) {
                starts.push(i);
                (last, tokens) = (Some(family), 0);
            }
            tokens = tokens.checked_add(len).ok_or_else(|| {
                Error::Usage(format!(
                    "the texts of family {family} have 2^32 tokens or more: a stitched document may have fewer; set `layout = \"separate\"`"
                ))
            })?;
        }
        starts.push(texts.len());
        Ok(StitchedWindow { texts, starts })
    }

    /// Packs the families, or only those pieces of their texts in `rest`.
    pub(super) fn pack(&self, rest: Option<&[PackedPiece]>, seq_len: u32, keys: OrderKeys) -> Bins {
        let whole = |family: usize| PackedPiece {
            doc: family as u32,
            offset: 0,
            len: self.of_family(family).iter().map(|text| text.1).sum(),
        };
        let pieces = match rest {
            None => (0..self.starts.len() - 1).map(whole).collect(),
            Some(rest) => self.stitch(rest),
        };
        let packed = best_fit::pack_pieces(pieces, seq_len, keys);
        let mut bins = Bins::default();
        for bin in 0..packed.len() {
            packed.bin(bin).iter().for_each(|&piece| self.cut(piece, &mut bins.pieces));
            bins.close();
        }
        bins
    }

    fn of_family(&self, family: usize) -> &[(u32, u32)] {
        &self.texts[self.starts[family]..self.starts[family + 1]]
    }

    /// Pieces of texts as pieces of families, with neighbors merged.
    fn stitch(&self, pieces: &[PackedPiece]) -> Vec<PackedPiece> {
        let mut places = BTreeMap::new();
        for family in 0..self.starts.len() - 1 {
            let mut start = 0;
            for &(doc, len) in self.of_family(family) {
                places.insert(doc, (family as u32, start));
                start += len;
            }
        }
        let place = |piece: &PackedPiece| {
            let &(family, start) = places.get(&piece.doc)?;
            Some(PackedPiece { doc: family, offset: start + piece.offset, len: piece.len })
        };
        joined(pieces.iter().filter_map(place))
    }

    /// Appends the pieces of texts that make up a piece of a family.
    fn cut(&self, piece: PackedPiece, pieces: &mut Vec<PackedPiece>) {
        let (mut start, end) = (0, piece.offset + piece.len);
        for &(doc, len) in self.of_family(piece.doc as usize) {
            let (from, until) = (piece.offset.max(start), end.min(start + len));
            if from < until {
                pieces.push(PackedPiece { doc, offset: from - start, len: until - from });
            }
            start += len;
        }
    }
}

/// Pieces by document and offset, with neighbors merged.
pub(super) fn joined(pieces: impl Iterator<Item = PackedPiece>) -> Vec<PackedPiece> {
    let mut sorted: Vec<PackedPiece> = pieces.collect();
    sorted.sort_unstable_by_key(|piece| (piece.doc, piece.offset));
    let mut out = Vec::new();
    sorted.into_iter().for_each(|piece| push_joined(&mut out, piece));
    out
}
