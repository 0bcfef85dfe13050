//! Files that stages leave for each other under `out/work/`: documents as Parquet, and tables of
//! fixed-size rows, sorted so that a later stage can read a range without an index.
//!
//! They are private to one build of this program ([`crate::BUILD_VERSION`] is part of their
//! fingerprints) and may be deleted at any time: what is missing is made again.

pub mod audit;
pub mod documents;
pub mod rows;

use std::io;
use std::path::Path;

use moe_shards::atomic::AtomicFile;

use crate::error::Result;

/// An [`AtomicFile`] that Parquet can write into.
pub struct Sink(AtomicFile);

impl Sink {
    /// Starts a file that appears at `path` on [`Sink::commit`].
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> Result<Sink> {
        Ok(Sink(AtomicFile::create(path)?))
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn commit(self) -> Result<()> {
        Ok(self.0.commit()?)
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
