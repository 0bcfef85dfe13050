//! The pack index: which pieces of which documents make up each bin of a pass, in the order in
//! which the pass shows them. Only `best-fit` packing needs one; `concat` is computed.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::{Error, Result};
use crate::format::{checksum_error, take_u32, u64_at};
use crate::hash::Hash;
use crate::plan_file::{self, Fields, HEADER_BYTES};

const MAGIC: [u8; 8] = *b"MOEPCK01";
const PIECE_BYTES: usize = 12;
const BLOCK_BYTES: usize = 1 << 18;

/// A run of tokens of one document of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedPiece {
    /// Document of the pool.
    pub doc: u32,
    /// First token.
    pub offset: u32,
    /// Tokens, at least 1.
    pub len: u32,
}

/// Bins under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bins {
    /// End of each bin in `pieces`.
    pub ends: Vec<u64>,
    /// Pieces of all bins.
    pub pieces: Vec<PackedPiece>,
}

impl Bins {
    /// Bins.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Pieces of bin `i`.
    pub fn bin(&self, i: usize) -> &[PackedPiece] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.pieces[start as usize..self.ends[i] as usize]
    }

    /// Closes a bin that holds all pieces since the last one.
    pub fn close(&mut self) {
        self.ends.push(self.pieces.len() as u64);
    }

    /// Writes a pack index; returns the digest of the file.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, path: &Path, seq_len: u32) -> Result<Hash> {
        write_pack(path, seq_len, std::slice::from_ref(self))
    }

    /// The entries of the bin table after the bins and pieces of earlier parts: little-endian.
    fn end_bytes(&self, base: u64) -> impl Iterator<Item = [u8; 8]> + '_ {
        self.ends.iter().map(move |end| (base + end).to_le_bytes())
    }

    fn piece_bytes(&self) -> impl Iterator<Item = [u8; PIECE_BYTES]> + '_ {
        self.pieces.iter().map(|piece| {
            let mut bytes = [0; PIECE_BYTES];
            for (slot, word) in bytes.chunks_exact_mut(4).zip([piece.doc, piece.offset, piece.len]) {
                slot.copy_from_slice(&word.to_le_bytes());
            }
            bytes
        })
    }
}

/// Writes the pack index of a pass whose windows are `parts`, one after the other; returns the digest of the
/// file. The parts are read twice, for the checksums and for the disk, and never copied as a whole.
///
/// # Errors
/// The disk refuses.
pub fn write_pack(path: &Path, seq_len: u32, parts: &[Bins]) -> Result<Hash> {
    let bases: Vec<u64> = parts
        .iter()
        .scan(0, |next, part| Some(std::mem::replace(next, *next + part.pieces.len() as u64)))
        .collect();
    let table = |sink: &mut dyn FnMut(&[u8]) -> Result<()>| {
        sink(&0u64.to_le_bytes())?;
        parts.iter().zip(&bases).try_for_each(|(part, &base)| in_blocks(part.end_bytes(base), sink))
    };
    let pieces = |sink: &mut dyn FnMut(&[u8]) -> Result<()>| {
        parts.iter().try_for_each(|part| in_blocks(part.piece_bytes(), sink))
    };
    let mut checksums = [Xxh3::new(), Xxh3::new()];
    table(&mut |bytes| {
        checksums[0].update(bytes);
        Ok(())
    })?;
    pieces(&mut |bytes| {
        checksums[1].update(bytes);
        Ok(())
    })?;
    let count = |of: fn(&Bins) -> usize| parts.iter().map(|part| of(part) as u64).sum();
    let [table_sum, piece_sum] = checksums.map(|sum| sum.digest());
    let words = [count(Bins::len), count(|part| part.pieces.len()), table_sum, piece_sum, 0];
    plan_file::write_with(path, MAGIC, Fields { small: seq_len, words }, |sink| {
        table(sink)?;
        pieces(sink)
    })
}

/// Passes records on in blocks, since a call for each of them costs more than its bytes.
fn in_blocks<const N: usize>(
    records: impl Iterator<Item = [u8; N]>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for record in records {
        block.extend_from_slice(&record);
        if block.len() + N > BLOCK_BYTES {
            sink(&block)?;
            block.clear();
        }
    }
    sink(&block)
}

/// A pack index over any bytes.
#[derive(Debug)]
pub struct PackIndex<D> {
    path: PathBuf,
    data: D,
    seq_len: u32,
    n_bins: u64,
    n_pieces: u64,
    checksums: [u64; 2],
}

impl<D: AsRef<[u8]>> PackIndex<D> {
    /// Checks header and sizes; `path` is for messages.
    ///
    /// # Errors
    /// Anything the format forbids.
    pub fn parse(path: &Path, data: D) -> Result<PackIndex<D>> {
        let bytes = data.as_ref();
        let Fields { small: seq_len, words: [n_bins, n_pieces, starts, pieces, _] } =
            plan_file::parse(path, bytes, MAGIC)?;
        let expected =
            u128::from(n_bins) * 8 + 8 + u128::from(n_pieces) * PIECE_BYTES as u128 + HEADER_BYTES as u128;
        if expected != bytes.len() as u128 {
            return Err(Error::format(path, "file size", format!("{expected} bytes"), bytes.len()));
        }
        Ok(PackIndex { path: path.to_owned(), data, seq_len, n_bins, n_pieces, checksums: [starts, pieces] })
    }

    /// Bins.
    pub fn n_bins(&self) -> u64 {
        self.n_bins
    }

    /// Pieces in all bins.
    pub fn n_pieces(&self) -> u64 {
        self.n_pieces
    }

    /// Capacity of a bin in tokens.
    pub fn seq_len(&self) -> u32 {
        self.seq_len
    }

    /// Pieces of a bin.
    ///
    /// # Errors
    /// No such bin, or pieces that overfill it or are outside the file.
    pub fn bin(&self, bin: u64) -> Result<Vec<PackedPiece>> {
        if bin >= self.n_bins {
            return Err(Error::OutOfRange {
                path: self.path.clone(),
                what: "bin",
                index: bin,
                len: self.n_bins,
            });
        }
        let bytes = self.data.as_ref();
        let at = HEADER_BYTES + bin as usize * 8;
        let (start, end) = (u64_at(bytes, at), u64_at(bytes, at + 8));
        if start > end || end > self.n_pieces {
            let expected = format!("ascending up to {}", self.n_pieces);
            return Err(Error::format(&self.path, "bins", expected, format!("{start} then {end}")));
        }
        let base = HEADER_BYTES + (self.n_bins as usize + 1) * 8;
        let pieces = &bytes[base + start as usize * PIECE_BYTES..base + end as usize * PIECE_BYTES];
        let mut filled = 0u64;
        let mut out = Vec::with_capacity((end - start) as usize);
        for piece in pieces.chunks_exact(PIECE_BYTES) {
            let mut at = 0;
            let piece = PackedPiece {
                doc: take_u32(piece, &mut at),
                offset: take_u32(piece, &mut at),
                len: take_u32(piece, &mut at),
            };
            filled += u64::from(piece.len);
            out.push(piece);
        }
        if filled > u64::from(self.seq_len) {
            return Err(Error::format(&self.path, "bin", format!("at most {} tokens", self.seq_len), filled));
        }
        Ok(out)
    }

    /// Checks both sections against their checksums.
    ///
    /// # Errors
    /// The damaged section.
    pub fn verify(&self) -> Result<()> {
        let split = HEADER_BYTES + (self.n_bins as usize + 1) * 8;
        let (starts, pieces) = self.data.as_ref()[HEADER_BYTES..].split_at(split - HEADER_BYTES);
        for (name, bytes, recorded) in
            [("bins", starts, self.checksums[0]), ("pieces", pieces, self.checksums[1])]
        {
            let computed = xxh3_64(bytes);
            if computed != recorded {
                return Err(checksum_error(&self.path, &format!("section `{name}`"), recorded, computed));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Bins {
        let mut bins = Bins::default();
        for pieces in [vec![(3, 0, 5), (1, 7, 3)], vec![], vec![(0, 0, 8)]] {
            bins.pieces.extend(pieces.into_iter().map(|(doc, offset, len)| PackedPiece { doc, offset, len }));
            bins.close();
        }
        bins
    }

    fn written(bins: &Bins) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.pack");
        bins.write(&path, 8).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn reads_back_what_was_written() {
        let bins = example();
        let index = PackIndex::parse(Path::new("p"), written(&bins)).unwrap();
        assert_eq!((index.n_bins(), index.n_pieces(), index.seq_len()), (3, 3, 8));
        for i in 0..3 {
            assert_eq!(index.bin(i as u64).unwrap(), bins.bin(i));
        }
        assert!(index.bin(3).is_err());
        index.verify().unwrap();
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let bytes = written(&example());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let outcome = PackIndex::parse(Path::new("p"), damaged).and_then(|index| index.verify());
            assert!(outcome.is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_or_bins(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), patch in any::<bool>()) {
            if patch && bytes.len() >= HEADER_BYTES {
                // A valid checksum lets the fuzzer reach the code after the check.
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
                let checksum = xxh3_64(&bytes[..56]);
                bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
            }
            if let Ok(index) = PackIndex::parse(Path::new("fuzz"), bytes) {
                for bin in 0..index.n_bins() {
                    if let Ok(pieces) = index.bin(bin) {
                        prop_assert!(pieces.iter().map(|p| u64::from(p.len)).sum::<u64>() <= u64::from(index.seq_len()));
                    }
                }
            }
        }
    }
}
