//! Which tokens of a shard are trained, and the checksums of documents, which cover it.

use xxhash_rust::xxh3::Xxh3;

use super::ShardIndex;
use crate::error::{Error, Result};
use crate::format::{n_sections, u64_at};

/// Place of the checksums of documents among the sections.
pub(super) const SUM: usize = 5;
/// Place of the mask.
const MASK: usize = 6;

/// Which tokens of a document are trained.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// For all tokens of the shard, bit `i % 8` of byte `i / 8`.
    bits: &'a [u8],
    /// First token of the document.
    start: u64,
    /// Its tokens, EOD included.
    len: u64,
}

impl Mask<'_> {
    /// Whether token `i` of the document is trained; the last one is the EOD. `false` past the end.
    pub fn is_trained(&self, i: u64) -> bool {
        let at = self.start + i;
        i < self.len && self.bits.get((at / 8) as usize).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    }

    /// A flag for each token, EOD included.
    pub fn to_vec(&self) -> Vec<bool> {
        (0..self.len).map(|i| self.is_trained(i)).collect()
    }

    /// How many of these tokens are trained.
    pub fn count(&self, tokens: std::ops::Range<u64>) -> u64 {
        let (from, to) = (self.start + tokens.start, self.start + tokens.end.min(self.len));
        let of_byte = |byte: u64| {
            let bits = self.bits.get(byte as usize).copied().unwrap_or(0);
            let below = |end: u64| (1u16 << (end.saturating_sub(byte * 8)).min(8)) - 1;
            u64::from((u16::from(bits) & below(to) & !below(from)).count_ones())
        };
        (from / 8..to.div_ceil(8)).map(of_byte).sum()
    }
}

/// Flags as bits, the first one lowest, as a document's mask enters its checksum.
pub(crate) fn packed(flags: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| eight.iter().rev().fold(0, |byte, &flag| byte << 1 | u8::from(flag));
    flags.chunks(8).map(byte).collect()
}

/// Checksum of a document: XXH3-64 of its tokens as in the file and, with a mask, of its packed flags.
pub(crate) fn document_sum(tokens: &[u8], flags: Option<&[bool]>) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(tokens);
    if let Some(flags) = flags {
        hasher.update(&packed(flags));
    }
    hasher.digest()
}

impl<D: AsRef<[u8]>> ShardIndex<D> {
    /// Whether the shard says which of its tokens are trained (version 4); otherwise all are.
    pub fn has_mask(&self) -> bool {
        n_sections(self.header.version) > MASK
    }

    /// Which tokens of a document are trained; `None` in a shard without a mask, where all are.
    ///
    /// # Errors
    /// No such document, or a damaged index.
    pub fn mask(&self, doc: u32) -> Result<Option<Mask<'_>>> {
        let (start, len) = self.span(doc)?;
        Ok(self.has_mask().then(|| Mask { bits: self.section(MASK), start, len }))
    }

    /// The tokens among `offset..offset + len` of a document whose next token exists and is trained: the
    /// targets of a piece in the loss.
    ///
    /// # Errors
    /// As [`ShardIndex::mask`].
    pub fn trained_targets(&self, doc: u32, offset: u32, len: u32) -> Result<u64> {
        let (_, n_tokens) = self.span(doc)?;
        let first = u64::from(offset) + 1;
        let end = (first + u64::from(len)).min(n_tokens);
        Ok(match self.mask(doc)? {
            Some(mask) => mask.count(first..end),
            None => end.saturating_sub(first),
        })
    }

    /// Trained tokens of all documents; those that are first in theirs are never a target.
    pub fn n_trained_tokens(&self) -> u64 {
        match self.has_mask() {
            true => self.section(MASK).iter().map(|byte| u64::from(byte.count_ones())).sum(),
            false => self.n_tokens(),
        }
    }

    /// Checksum of a document as it is recorded; absent before version 3.
    pub(super) fn sum(&self, doc: u32) -> Result<Option<u64>> {
        self.check(doc)?;
        Ok((n_sections(self.header.version) > SUM).then(|| u64_at(self.section(SUM), doc as usize * 8)))
    }

    /// The same, computed from its tokens as in the file.
    pub(super) fn computed_sum(&self, doc: u32, tokens: &[u8]) -> Result<u64> {
        let flags = self.mask(doc)?.map(|mask| mask.to_vec());
        Ok(document_sum(tokens, flags.as_deref()))
    }

    /// Checks that no bit after the last token is set.
    pub(super) fn verify_mask(&self) -> Result<()> {
        let free = self.section(MASK).last().map_or(0, |last| {
            let used = self.n_tokens() % 8;
            if used == 0 { 0 } else { last >> used }
        });
        match self.has_mask() && free != 0 {
            true => Err(Error::format(&self.path, "section `mask`", "no bit after the last token", free)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_packed_from_the_lowest_bit() {
        let flags = [true, false, false, true, false, false, false, true, true];
        assert_eq!(packed(&flags), [0b1000_1001, 1]);
        assert_eq!(packed(&[]), [0; 0]);
    }

    #[test]
    fn a_document_is_found_among_the_bits_of_all() {
        // Tokens 3 to 11 of the shard.
        let mask = Mask { bits: &[0b0101_1000, 0b1111_0001], start: 3, len: 9 };
        let expected = [true, true, false, true, false, true, false, false, false];
        assert_eq!(mask.to_vec(), expected);
        assert_eq!((mask.count(0..9), mask.count(1..4), mask.is_trained(9)), (4, 2, false));
        for (from, to) in (0..9).flat_map(|from| (from..12).map(move |to| (from, to))) {
            let one_by_one = (from..to).filter(|&i| mask.is_trained(i)).count() as u64;
            assert_eq!(mask.count(from..to), one_by_one, "{from}..{to}");
        }
    }
}
