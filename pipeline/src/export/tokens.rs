//! A shard's tokens as NumPy files: `NAME.npy` with all tokens and `NAME.ends.npy` with the end of
//! each document. A `.npy` file starts with its header, so the tokens are copied; without a copy
//! they are `numpy.memmap("NAME.bin", dtype="<u2")` (`"<u4"` from 65,500 tokens on).

use std::path::Path;

use moe_shards::{Shard, TokenWidth};

use super::Exported;
use super::npy::{Kind, NpyWriter};
use crate::error::{Error, Result};
use crate::watch::Watch;

/// Bytes copied at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Names of both files of a shard.
pub fn token_names(shard: &str) -> [String; 2] {
    [format!("{shard}.npy"), format!("{shard}.ends.npy")]
}

/// Writes both files to the folder `to`.
///
/// # Errors
/// [`Error::Interrupted`], a damaged shard, or a write fails.
pub fn tokens(mdx: &Path, shard: &Shard, to: &Path, watch: &Watch) -> Result<[Exported; 2]> {
    let kind = match TokenWidth::for_vocab(shard.vocab_size()) {
        TokenWidth::U16 => Kind::U16,
        TokenWidth::U32 => Kind::U32,
    };
    let [values_name, ends_name] = token_names(&mdx.file_stem().unwrap_or_default().to_string_lossy());
    let bin = mdx.with_extension("bin");
    let mut from = std::fs::File::open(&bin).map_err(Error::io(&bin, "open"))?;
    let mut values = NpyWriter::create(&to.join(values_name), kind, &[shard.n_tokens()])?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let n = std::io::Read::read(&mut from, &mut block).map_err(Error::io(&bin, "read"))?;
        if n == 0 {
            break;
        }
        values.write(&block[..n])?;
        watch.advance(n as u64)?;
    }
    let values = values.finish()?;
    let n_docs = u64::from(shard.n_docs());
    let mut ends = NpyWriter::create(&to.join(ends_name), Kind::U64, &[n_docs])?;
    for doc in 0..shard.n_docs() {
        let (start, len) = shard.span(doc)?;
        ends.write(&(start + len).to_le_bytes())?;
    }
    Ok([values, ends.finish()?])
}
