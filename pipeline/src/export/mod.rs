//! Shards and plans for other programs: Megatron-LM's index next to the same tokens,
//! NumPy files, a plan as an index that Python reads with `numpy.load`, and the texts themselves. The layouts are in
//! `docs/interop.md`.

mod megatron;
mod npy;
mod plan;
pub mod text;
mod tokens;

pub use self::megatron::{is_index, megatron};
pub use self::plan::{PlanExport, plan, plan_names};
pub use self::tokens::{token_names, tokens};

use std::path::{Path, PathBuf};

use moe_shards::Hash;
use moe_shards::atomic::AtomicFile;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::tables::io_error;

/// A file that an export wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub blake3: Hash,
}

/// A file whose digest is computed while it is written.
struct HashedFile {
    path: PathBuf,
    file: AtomicFile,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashedFile {
    fn create(path: &Path) -> Result<HashedFile> {
        let file = AtomicFile::create(path)?;
        Ok(HashedFile { path: path.to_owned(), file, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(self.file.write(bytes)?)
    }

    fn commit(self) -> Result<Exported> {
        self.file.commit()?;
        Ok(Exported { path: self.path, bytes: self.bytes, blake3: Hash(*self.hasher.finalize().as_bytes()) })
    }
}

impl std::io::Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        HashedFile::write(self, bytes).map_err(|e| match e {
            Error::Shards(e) => io_error(e),
            e => std::io::Error::other(e),
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
