//! The 64-byte header that the binary files of a plan share: magic, version, one u32 and five u64 that
//! each format fills, and a checksum over them.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::atomic::AtomicFile;
use crate::error::{Error, Result};
use crate::format::{checksum_error, take_u32, take_u64, u64_at};
use crate::hash::Hash;

const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;

/// A format's fields in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub small: u32,
    pub words: [u64; 5],
}

/// Writes header and body; returns the digest of the file.
pub(crate) fn write(path: &Path, magic: [u8; 8], fields: Fields, body: &[u8]) -> Result<Hash> {
    write_with(path, magic, fields, |sink| sink(body))
}

/// Writes the header and what `body` passes on; returns the digest of the file.
pub(crate) fn write_with(
    path: &Path,
    magic: [u8; 8],
    fields: Fields,
    body: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<Hash> {
    let mut header = magic.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&fields.small.to_le_bytes());
    header.extend(fields.words.iter().flat_map(|word| word.to_le_bytes()));
    header.extend_from_slice(&xxh3_64(&header).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    let mut file = AtomicFile::create(path)?;
    let mut sink = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write(bytes)
    };
    sink(&header)?;
    body(&mut sink)?;
    file.commit()?;
    Ok(Hash(*hasher.finalize().as_bytes()))
}

/// Checks magic, version and checksum.
pub(crate) fn parse(path: &Path, bytes: &[u8], magic: [u8; 8]) -> Result<Fields> {
    if bytes.len() < HEADER_BYTES || bytes[..8] != magic {
        let magic = String::from_utf8_lossy(&magic);
        return Err(Error::format(path, "magic", magic, format!("{} other bytes", bytes.len())));
    }
    let mut at = magic.len();
    let version = take_u32(bytes, &mut at);
    if version != VERSION {
        return Err(Error::Version { path: path.to_owned(), found: version, supported: VERSION });
    }
    let (recorded, computed) = (u64_at(bytes, HEADER_BYTES - 8), xxh3_64(&bytes[..HEADER_BYTES - 8]));
    if recorded != computed {
        return Err(checksum_error(path, "header", recorded, computed));
    }
    let small = take_u32(bytes, &mut at);
    Ok(Fields { small, words: std::array::from_fn(|_| take_u64(bytes, &mut at)) })
}
