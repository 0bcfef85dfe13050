//! Megatron-LM's index (`.idx`, version 1) for a shard. The tokens stay where they are: our `.bin`
//! has the bytes of theirs. The layout follows the reader of Megatron-Core 0.16,
//! `megatron/core/datasets/indexed_dataset.py`: every document is one sequence.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use moe_shards::Shard;

use super::{Exported, HashedFile};
use crate::error::{Error, Result};

const MAGIC: &[u8; 9] = b"MMIDIDX\x00\x00";
const VERSION: u64 = 1;
/// Megatron's codes of token types.
const INT32: u8 = 4;
const UINT16: u8 = 8;

/// Writes `NAME.idx` next to the shard's `NAME.bin`.
///
/// # Errors
/// A document of 2^31 tokens or more, a vocabulary beyond a signed 32-bit number, a damaged shard, or
/// the disk refuses.
pub fn megatron(mdx: &Path, shard: &Shard) -> Result<Exported> {
    let path = mdx.with_extension("idx");
    let n_docs = u64::from(shard.n_docs());
    // Two bytes below 65,500 tokens, as in Megatron, whose four-byte tokens are signed.
    let (code, width) = match moe_shards::TokenWidth::for_vocab(shard.vocab_size()) {
        moe_shards::TokenWidth::U16 => (UINT16, 2),
        moe_shards::TokenWidth::U32 => (INT32, 4),
    };
    if i32::try_from(shard.vocab_size()).is_err() {
        let message =
            format!("{} tokens in the vocabulary do not fit into Megatron's int32", shard.vocab_size());
        return Err(Error::data(mdx, message));
    }
    let mut file = HashedFile::create(&path)?;
    file.write(MAGIC)?;
    file.write(&VERSION.to_le_bytes())?;
    file.write(&[code])?;
    file.write(&n_docs.to_le_bytes())?;
    // Megatron lists documents by their ends, including the 0 before the first.
    file.write(&(n_docs + 1).to_le_bytes())?;
    for doc in 0..shard.n_docs() {
        let (_, len) = shard.span(doc)?;
        let too_long =
            || Error::data(mdx, format!("document {doc} has {len} tokens, Megatron allows 2^31 - 1"));
        file.write(&i32::try_from(len).map_err(|_| too_long())?.to_le_bytes())?;
    }
    for doc in 0..shard.n_docs() {
        file.write(&(shard.span(doc)?.0 * width).to_le_bytes())?;
    }
    for end in 0..=n_docs {
        file.write(&end.to_le_bytes())?;
    }
    file.commit()
}

/// Whether a file is a Megatron-LM index.
pub fn is_index(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *MAGIC
}

#[cfg(test)]
mod tests {
    use moe_shards::{DocumentMeta, Hash, ShardSpec, ShardWriter, TokenId};

    use super::*;

    fn index(vocab_size: u32) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let spec =
            ShardSpec { vocab_size, eod: TokenId(0), tokenizer: Hash::of(b"t"), build: Hash::of(b"b") };
        let mut writer = ShardWriter::create(dir.path(), "s", spec).unwrap();
        for tokens in [&[5, 6, 7][..], &[9]] {
            let tokens: Vec<TokenId> = tokens.iter().map(|&t| TokenId(t)).collect();
            writer.append("d", &DocumentMeta::default(), &tokens).unwrap();
        }
        writer.finish().unwrap();
        let mdx = dir.path().join("s.mdx");
        let file = megatron(&mdx, &Shard::open(&mdx).unwrap()).unwrap();
        let bytes = std::fs::read(&file.path).unwrap();
        assert_eq!(file.bytes, bytes.len() as u64);
        bytes
    }

    /// Two documents of 4 and 2 tokens, their ends of document included.
    #[test]
    fn the_bytes_are_those_of_their_layout() {
        for (vocab_size, code, width) in [(300, 8u8, 2u64), (70_000, 4, 4)] {
            let mut expected = b"MMIDIDX\0\0".to_vec();
            expected.extend(1u64.to_le_bytes());
            expected.push(code);
            expected.extend([2u64, 3].iter().flat_map(|n| n.to_le_bytes()));
            expected.extend([4i32, 2].iter().flat_map(|n| n.to_le_bytes()));
            expected.extend([0, 4 * width].iter().flat_map(|n| n.to_le_bytes()));
            expected.extend([0u64, 1, 2].iter().flat_map(|n| n.to_le_bytes()));
            assert_eq!(index(vocab_size), expected);
        }
    }
}
