//! One training sequence: tokens, targets, and what a trainer needs to know about where they come from.

use crate::error::{Error, Result};
use crate::family::PoolDocs;
use crate::ids::FamilyId;
use crate::pack::PackedPiece;
use crate::variant::Layout;

/// Segment number of padding.
pub const IGNORED_SEGMENT: u32 = u32::MAX;

/// Where a sample comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId {
    /// Pool, as numbered in the plan.
    pub pool: u16,
    /// Pass over the pool, from 0.
    pub pass: u32,
    /// Bin in the pass, in the order in which the pass shows them.
    pub bin: u64,
}

/// A run of tokens of one document inside a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First position in the sample.
    pub start: u32,
    /// Tokens.
    pub len: u32,
    /// Shard, as numbered in the manifest.
    pub shard: u32,
    /// Document in the shard.
    pub doc: u32,
    /// First token in the document; above 0 when the document was cut.
    pub offset: u32,
    /// Family of the document.
    pub family: FamilyId,
    /// Which text of the family: 0 = original.
    pub variant: u8,
}

/// One sequence of `seq_len` tokens. All vectors over tokens have that length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where it comes from.
    pub id: SampleId,
    /// Input tokens; padding is EOD.
    pub tokens: Vec<u32>,
    /// The next token of the same document. If there is none (EOD, padding), the value is EOD and the mask is
    /// off. The last token of a cut piece has its target: the document's next token.
    pub targets: Vec<u32>,
    /// Whether the target counts in the loss: there is one, and the shard's mask, if it has one, says so.
    pub loss_mask: Vec<bool>,
    /// Number of the segment, [`IGNORED_SEGMENT`] for padding; attention stays inside a segment. A piece is
    /// one, or the texts of a stitched family that follow each other.
    pub segments: Vec<u32>,
    /// Position in the segment, from 0.
    pub positions: Vec<u32>,
    /// The pieces, in order.
    pub pieces: Vec<Piece>,
}

impl Sample {
    /// Tokens with a target that counts.
    pub fn trained_tokens(&self) -> usize {
        self.loss_mask.iter().filter(|&&counts| counts).count()
    }

    /// Reads the pieces of a bin from their shards. Documents that are `hidden` (shard as numbered in the
    /// manifest, document in it) become padding. In a stitched layout a text continues the segment of the
    /// text of its family that ends before it.
    pub(crate) fn assemble(
        id: SampleId,
        docs: &PoolDocs,
        bin: &[PackedPiece],
        seq_len: usize,
        layout: Layout,
        hidden: impl Fn(u32, u32) -> bool,
    ) -> Result<Sample> {
        let mut sample = Sample {
            id,
            tokens: Vec::with_capacity(seq_len),
            targets: Vec::with_capacity(seq_len),
            loss_mask: Vec::with_capacity(seq_len),
            segments: Vec::with_capacity(seq_len),
            positions: Vec::with_capacity(seq_len),
            pieces: Vec::with_capacity(bin.len()),
        };
        let mut eod = 0;
        // Segments so far, tokens of the last one, and the family whose text ended with it.
        let (mut n_segments, mut position, mut ended) = (0, 0, None);
        for packed in bin {
            let (shard, manifest_shard, doc) = docs.locate(packed.doc)?;
            eod = shard.eod().0;
            if hidden(manifest_shard, doc) {
                sample.pad_to(sample.tokens.len() + packed.len as usize, eod);
                ended = None;
                continue;
            }
            let (offset, len) = (packed.offset as usize, packed.len as usize);
            let document = shard.checked_tokens(doc)?;
            // `checked_sub` also refuses a piece that starts past the end.
            if document.len().checked_sub(offset).is_none_or(|rest| rest < len) {
                let piece = format!("tokens {offset}..{}", offset + len);
                return Err(Error::Quota(format!(
                    "document {} has {} tokens, but the plan requires {piece}",
                    packed.doc,
                    document.len()
                )));
            }
            let meta = shard.meta(doc)?;
            let start = sample.tokens.len();
            document.slice(offset, len).extend_into(&mut sample.tokens);
            document.slice(offset + 1, len).extend_into(&mut sample.targets);
            let with_target = sample.targets.len() - start;
            sample.targets.resize(start + len, eod);
            match shard.mask(doc)? {
                None => sample.loss_mask.resize(start + with_target, true),
                Some(mask) => {
                    let targets = offset as u64 + 1..(offset + 1 + with_target) as u64;
                    sample.loss_mask.extend(targets.map(|target| mask.is_trained(target)));
                }
            }
            sample.loss_mask.resize(start + len, false);
            if packed.offset > 0 || ended != Some(meta.family) {
                n_segments += 1;
                position = 0;
            }
            let ends = layout == Layout::Stitched && offset + len == document.len();
            ended = ends.then_some(meta.family);
            sample.segments.resize(start + len, n_segments - 1);
            sample.positions.extend(position..position + packed.len);
            position += packed.len;
            sample.pieces.push(Piece {
                start: start as u32,
                len: packed.len,
                shard: manifest_shard,
                doc,
                offset: packed.offset,
                family: meta.family,
                variant: meta.variant,
            });
        }
        if sample.tokens.len() > seq_len {
            let found = format!("{} tokens in a sequence of {seq_len}", sample.tokens.len());
            return Err(Error::Quota(found));
        }
        sample.pad_to(seq_len, eod);
        Ok(sample)
    }

    fn pad_to(&mut self, len: usize, eod: u32) {
        self.tokens.resize(len, eod);
        self.targets.resize(len, eod);
        self.loss_mask.resize(len, false);
        self.segments.resize(len, IGNORED_SEGMENT);
        self.positions.resize(len, 0);
    }
}
