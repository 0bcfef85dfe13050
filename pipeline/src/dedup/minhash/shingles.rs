//! Sets of shingles on the disk, one after another: ascending little-endian u64. The table that
//! locates a set holds its XXH3-64, which is checked whenever the set is read.

use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::tables::rows::Blob;

/// Where a set lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// First shingle.
    pub start: u64,
    /// Shingles.
    pub n_shingles: u32,
    /// XXH3-64 of their bytes.
    pub hash: u64,
}

/// Writes sets.
pub struct ShingleWriter {
    path: PathBuf,
    file: AtomicFile,
    n_shingles: u64,
    bytes: Vec<u8>,
}

impl ShingleWriter {
    /// Starts a file that appears at `path` on [`ShingleWriter::finish`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<ShingleWriter> {
        let file = AtomicFile::create(path)?;
        Ok(ShingleWriter { path: path.to_owned(), file, n_shingles: 0, bytes: Vec::new() })
    }

    /// Appends an ascending set.
    ///
    /// # Errors
    /// A write fails, or the set has 2^32 shingles.
    pub fn append(&mut self, set: &[u64]) -> Result<Extent> {
        let n_shingles = u32::try_from(set.len())
            .map_err(|_| Error::data(&self.path, "a document has more than 2^32 - 1 shingles"))?;
        self.bytes.clear();
        set.iter().for_each(|shingle| self.bytes.extend_from_slice(&shingle.to_le_bytes()));
        self.file.write(&self.bytes)?;
        let extent = Extent { start: self.n_shingles, n_shingles, hash: xxh3_64(&self.bytes) };
        self.n_shingles += u64::from(n_shingles);
        Ok(extent)
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(self) -> Result<()> {
        Ok(self.file.commit()?)
    }
}

/// Reads a set of the file at `path` into `set`.
///
/// # Errors
/// The file is shorter, or the set is not the one that was written.
pub fn read(path: &Path, blob: &Blob, extent: Extent, set: &mut Vec<u64>) -> Result<()> {
    let mut bytes = vec![0; extent.n_shingles as usize * 8];
    blob.read_at(extent.start * 8, &mut bytes)?;
    if xxh3_64(&bytes) != extent.hash {
        let (from, n) = (extent.start, extent.n_shingles);
        let message = format!(
            "shingles {from} to {from} + {n} do not match their checksum; delete this file's folder and rerun"
        );
        return Err(Error::data(path, message));
    }
    set.clear();
    let numbers = bytes.chunks_exact(8).map(|b| {
        let mut number = [0; 8];
        number.copy_from_slice(b);
        u64::from_le_bytes(number)
    });
    set.extend(numbers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_the_disk_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shingles");
        let sets: [&[u64]; 4] = [&[1, 5, u64::MAX], &[], &[7], &[0, 2]];
        let mut writer = ShingleWriter::create(&path).unwrap();
        let extents = sets.map(|set| writer.append(set).unwrap());
        writer.finish().unwrap();
        let blob = Blob::open(&path).unwrap();
        let mut found = vec![9];
        for (set, extent) in sets.iter().zip(extents) {
            read(&path, &blob, extent, &mut found).unwrap();
            assert_eq!(found, *set);
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, &Blob::open(&path).unwrap(), extents[0], &mut found).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
