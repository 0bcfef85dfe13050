//! Data too large for memory, in a temporary file that is deleted with its owner.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use moe_shards::atomic;

use crate::error::{Error, Result};
use crate::tables::rows::Blob;

/// A temporary file that grows.
pub(super) struct Heap {
    path: PathBuf,
    file: BufWriter<File>,
    n_bytes: u64,
}

impl Heap {
    /// An empty one, in the folder of `path` and named after it.
    ///
    /// # Errors
    /// A write fails.
    pub fn create(path: &Path) -> Result<Heap> {
        let (path, file) = atomic::create_temporary(path)?;
        Ok(Heap { path, file: BufWriter::new(file), n_bytes: 0 })
    }

    /// Appends bytes and returns where they begin.
    ///
    /// # Errors
    /// A write fails.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))?;
        let start = self.n_bytes;
        self.n_bytes += bytes.len() as u64;
        Ok(start)
    }

    /// The appended data, for reading.
    ///
    /// # Errors
    /// A write fails.
    pub fn blob(&mut self) -> Result<Blob> {
        self.file.flush().map_err(Error::io(&self.path, "write"))?;
        Blob::open(&self.path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // Best effort: the next command removes leftovers.
        fs::remove_file(&self.path).ok();
    }
}
