//! Where the bytes of a file come from: the disk, or an object store when the path is a URL.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::objects::{self, ObjectFile};

const BLOCK_BYTES: usize = 1 << 17;

/// Opens a file at a byte.
pub(super) fn open_at(path: &Path, start: u64) -> Result<Box<dyn BufRead + Send>> {
    if objects::is_url(path) {
        return Ok(Box::new(ObjectFile::open(path)?.read_from(start)));
    }
    let mut file = File::open(path).map_err(Error::io(path, "open"))?;
    if start > 0 {
        file.seek(SeekFrom::Start(start)).map_err(Error::io(path, "read"))?;
    }
    Ok(Box::new(BufReader::with_capacity(BLOCK_BYTES, file)))
}

/// Up to `n` first bytes of a file.
pub(super) fn first_bytes(path: &Path, n: u64) -> Result<Vec<u8>> {
    let mut magic = Vec::new();
    open_at(path, 0)?.take(n).read_to_end(&mut magic).map_err(Error::io(path, "read"))?;
    Ok(magic)
}

/// A file read at arbitrary offsets.
pub(super) enum RandomAccess {
    File(File),
    Object(ObjectFile),
}

impl RandomAccess {
    pub fn open(path: &Path) -> Result<RandomAccess> {
        Ok(match objects::is_url(path) {
            true => RandomAccess::Object(ObjectFile::open(path)?),
            false => RandomAccess::File(File::open(path).map_err(Error::io(path, "open"))?),
        })
    }

    /// Size in bytes.
    pub fn n_bytes(&self, path: &Path) -> Result<u64> {
        match self {
            RandomAccess::File(file) => Ok(file.metadata().map_err(Error::io(path, "read"))?.len()),
            RandomAccess::Object(object) => Ok(object.n_bytes()),
        }
    }

    /// What the library reported as damage may be a failing store.
    pub fn check(&self, path: &Path) -> Result<()> {
        match self {
            RandomAccess::Object(object) => object
                .failure()
                .map_or(Ok(()), |message| Err(Error::io(path, "read")(std::io::Error::other(message)))),
            RandomAccess::File(_) => Ok(()),
        }
    }

    pub fn try_clone(&self) -> std::io::Result<RandomAccess> {
        Ok(match self {
            RandomAccess::File(file) => RandomAccess::File(file.try_clone()?),
            RandomAccess::Object(object) => RandomAccess::Object(object.clone()),
        })
    }
}

impl Length for RandomAccess {
    fn len(&self) -> u64 {
        match self {
            RandomAccess::File(file) => file.len(),
            RandomAccess::Object(object) => object.len(),
        }
    }
}

impl ChunkReader for RandomAccess {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> std::result::Result<Box<dyn Read>, ParquetError> {
        Ok(match self {
            RandomAccess::File(file) => Box::new(file.get_read(start)?),
            RandomAccess::Object(object) => Box::new(object.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        match self {
            RandomAccess::File(file) => file.get_bytes(start, length),
            RandomAccess::Object(object) => object.get_bytes(start, length),
        }
    }
}
