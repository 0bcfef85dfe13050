//! A file that is hashed while it is written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use moe_shards::Hash;

use super::FileEntry;
use crate::error::{Error, Result};

/// A new file, and the digest of what was written to it.
pub(super) struct HashedFile {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashedFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(Error::io(path, "create"))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path: path.to_path_buf(), file, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))
    }

    /// Flushes the file to disk, and returns its expected size and hash.
    pub(super) fn finish(mut self) -> Result<FileEntry> {
        self.file.flush().map_err(Error::io(&self.path, "write"))?;
        self.file.get_ref().sync_all().map_err(Error::io(&self.path, "flush"))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileEntry { name, bytes: self.bytes, blake3: Hash(*self.hasher.finalize().as_bytes()) })
    }
}
