//! Reading objects by ranges: from front to back while the next block loads, or at random with a few blocks
//! kept.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::task::JoinHandle;

use super::{in_words, io, place, runtime};
use crate::error::Result;

/// Bytes of one request.
const BLOCK_BYTES: u64 = 8 << 20;
/// Blocks cached for random access, since the columns of a table are read side by side.
const KEPT_BLOCKS: usize = 6;
/// Attempts to read a range. The library retries single requests; this retries answers that broke off.
const TRIES: u32 = 5;

/// An object, opened: the same content for as long as it is read.
#[derive(Clone)]
pub struct ObjectFile {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    key: Key,
    url: String,
    n_bytes: u64,
    etag: Option<String>,
    kept: Mutex<VecDeque<(u64, Bytes)>>,
    /// Why a block could not be read, since the libraries in between do not distinguish this from damage.
    failure: Mutex<Option<String>>,
}

impl ObjectFile {
    /// Opens the object of a URL.
    ///
    /// # Errors
    /// The store refuses.
    pub fn open(path: &Path) -> Result<ObjectFile> {
        let url = path.to_string_lossy().into_owned();
        let place = place(&url)?;
        let (store, key) = (place.store.clone(), place.exact_key()?);
        let wanted = key.clone();
        let head = runtime()?.block_on(async move { store.head(&wanted).await }).map_err(io(&url, "open"))?;
        let inner = Inner {
            store: place.store,
            key,
            url,
            n_bytes: head.size,
            etag: head.e_tag,
            kept: Mutex::new(VecDeque::new()),
            failure: Mutex::new(None),
        };
        Ok(ObjectFile { inner: Arc::new(inner) })
    }

    /// Size of the object.
    pub fn n_bytes(&self) -> u64 {
        self.inner.n_bytes
    }

    /// Why the store last failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A reader from a byte on.
    pub fn read_from(&self, start: u64) -> BlockReader {
        BlockReader { file: self.clone(), position: start, block: Bytes::new(), next: None }
    }

    /// The block that starts at a byte.
    fn range_from(&self, start: u64) -> Range<u64> {
        start..start.saturating_add(BLOCK_BYTES).min(self.inner.n_bytes)
    }

    /// Bytes at an offset, through the cached blocks.
    fn at(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.inner.n_bytes);
        let end =
            end.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "past the end of the object"))?;
        let mut out = BytesMut::with_capacity(length.min(BLOCK_BYTES as usize));
        let mut at = start;
        while at < end {
            let first = at / BLOCK_BYTES * BLOCK_BYTES;
            let block = self.block(first)?;
            let (from, to) = ((at - first) as usize, ((end - first) as usize).min(block.len()));
            let part = block.slice(from..to);
            if part.len() == length {
                return Ok(part);
            }
            out.extend_from_slice(&part);
            at += part.len() as u64;
        }
        Ok(out.freeze())
    }

    fn block(&self, first: u64) -> io::Result<Bytes> {
        let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = kept.iter().position(|(start, _)| *start == first)
            && let Some(found) = kept.remove(i)
        {
            kept.push_back(found.clone());
            return Ok(found.1);
        }
        let runtime = runtime().map_err(|e| io::Error::other(e.to_string()))?;
        let block = runtime.block_on(get(self.inner.clone(), self.range_from(first))).inspect_err(|e| {
            *self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
        })?;
        if kept.len() >= KEPT_BLOCKS {
            kept.pop_front();
        }
        kept.push_back((first, block.clone()));
        Ok(block)
    }
}

/// Requests a range until it arrives complete.
async fn get(file: Arc<Inner>, range: Range<u64>) -> io::Result<Bytes> {
    let mut tries = 0;
    loop {
        tries += 1;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: file.etag.clone(),
            ..GetOptions::default()
        };
        let found = async { file.store.get_opts(&file.key, options).await?.bytes().await }.await;
        match found {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
            Err(object_store::Error::Precondition { .. }) => {
                return Err(io::Error::other("it changed while it was read; run again"));
            }
            Err(e @ object_store::Error::NotFound { .. }) => return Err(io::Error::other(in_words(&e))),
            Err(e) if tries == TRIES => return Err(io::Error::other(in_words(&e))),
            Ok(_) if tries == TRIES => {
                return Err(io::Error::other(format!("{}: an answer of the wrong length", file.url)));
            }
            _ => tokio::time::sleep(Duration::from_millis(100 << tries)).await,
        }
    }
}

/// An object from front to back. The next block loads while one is used.
pub struct BlockReader {
    file: ObjectFile,
    /// Offset of the first byte of `block` in the object.
    position: u64,
    block: Bytes,
    next: Option<JoinHandle<io::Result<Bytes>>>,
}

impl BlockReader {
    fn start(&self, from: u64) -> io::Result<Option<JoinHandle<io::Result<Bytes>>>> {
        let range = self.file.range_from(from);
        let runtime = runtime().map_err(|e| io::Error::other(e.to_string()))?;
        Ok((!range.is_empty()).then(|| runtime.spawn(get(self.file.inner.clone(), range))))
    }
}

impl BufRead for BlockReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.block.is_empty() {
            let next = match self.next.take() {
                Some(next) => Some(next),
                None => self.start(self.position)?,
            };
            if let Some(next) = next {
                let runtime = runtime().map_err(|e| io::Error::other(e.to_string()))?;
                self.block = runtime.block_on(next).map_err(io::Error::other)??;
                self.next = self.start(self.position + self.block.len() as u64)?;
            }
        }
        Ok(&self.block)
    }

    fn consume(&mut self, n: usize) {
        self.position += n as u64;
        self.block = self.block.slice(n..);
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.block[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl Drop for BlockReader {
    fn drop(&mut self) {
        self.next.take().into_iter().for_each(|next| next.abort());
    }
}

impl Length for ObjectFile {
    fn len(&self) -> u64 {
        self.inner.n_bytes
    }
}

impl ChunkReader for ObjectFile {
    type T = ObjectCursor;

    fn get_read(&self, start: u64) -> std::result::Result<ObjectCursor, ParquetError> {
        Ok(ObjectCursor { file: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        self.at(start, length).map_err(|e| ParquetError::External(Box::new(e)))
    }
}

/// A place in an object.
pub struct ObjectCursor {
    file: ObjectFile,
    position: u64,
}

impl Read for ObjectCursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.inner.n_bytes.saturating_sub(self.position);
        // Only to the end of its block: the rest may not be needed.
        let in_block = BLOCK_BYTES - self.position % BLOCK_BYTES;
        let n = left.min(in_block).min(buffer.len() as u64) as usize;
        if n > 0 {
            buffer[..n].copy_from_slice(&self.file.at(self.position, n)?);
            self.position += n as u64;
        }
        Ok(n)
    }
}
