//! Stands in for the object stores in a program built without them: every URL is refused, and there are no objects.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{self, BufRead, Read};
use std::path::Path;

use bytes::Bytes;
use moe_shards::Manifest;
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

use super::Object;
use crate::error::{Error, Result};

fn refused(url: &str) -> String {
    format!(
        "{url}: this moe-data was built without object stores; build it with `--features cloud`, or copy the files here"
    )
}

/// Objects at a URL.
///
/// # Errors
/// Always.
pub fn find(url: &str) -> std::result::Result<Vec<Object>, String> {
    Err(refused(url))
}

/// The current object of a URL.
///
/// # Errors
/// Always.
pub fn look(path: &Path) -> Result<Object> {
    Err(Error::Usage(refused(&path.to_string_lossy())))
}

/// Copies a folder to an object store.
///
/// # Errors
/// Always.
pub fn upload(_: &Path, url: &str, _: &BTreeSet<String>, _: impl Fn(&Manifest, &str) -> bool) -> Result<u64> {
    Err(Error::Usage(refused(url)))
}

/// An object, opened; there is none.
#[derive(Clone)]
pub struct ObjectFile(Infallible);

impl ObjectFile {
    /// Opens the object of a URL.
    ///
    /// # Errors
    /// Always.
    pub fn open(path: &Path) -> Result<ObjectFile> {
        Err(Error::Usage(refused(&path.to_string_lossy())))
    }

    /// Size of the object.
    pub fn n_bytes(&self) -> u64 {
        match self.0 {}
    }

    /// Why the store last failed, if it did.
    pub fn failure(&self) -> Option<String> {
        match self.0 {}
    }

    /// A reader from a byte on.
    pub fn read_from(&self, _: u64) -> BlockReader {
        match self.0 {}
    }
}

impl Length for ObjectFile {
    fn len(&self) -> u64 {
        match self.0 {}
    }
}

impl ChunkReader for ObjectFile {
    type T = BlockReader;

    fn get_read(&self, _: u64) -> ParquetResult<BlockReader> {
        match self.0 {}
    }

    fn get_bytes(&self, _: u64, _: usize) -> ParquetResult<Bytes> {
        match self.0 {}
    }
}

/// An object from front to back; there is none.
pub struct BlockReader(Infallible);

impl BufRead for BlockReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.0 {}
    }

    fn consume(&mut self, _: usize) {
        match self.0 {}
    }
}

impl Read for BlockReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}
