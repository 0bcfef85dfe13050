//! A file as a stream of decompressed bytes, and the guess of its format. Damage of the compressed
//! data is told apart from a failing disk by watching the file underneath.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::{Cause, Format};
use crate::error::{Error, Result};

const BLOCK_BYTES: usize = 1 << 17;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const PARQUET_MAGIC: &[u8] = b"PAR1";
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An opened file of known format.
pub(super) enum Sniffed {
    Parquet(File),
    Jsonl(Stream),
    Text(Stream),
}

/// Decompressed bytes of a file.
pub(super) struct Stream {
    path: PathBuf,
    inner: Box<dyn BufRead>,
    tracker: Tracker,
    is_plain: bool,
}

impl Stream {
    /// A plain file from a byte on.
    pub fn plain_from(path: &Path, start: u64) -> Result<Stream> {
        let mut file = File::open(path).map_err(Error::io(path, "open"))?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io(path, "read"))?;
        let tracker = Tracker::default();
        let raw = BufReader::with_capacity(BLOCK_BYTES, Tracked { file, tracker: tracker.clone() });
        Ok(Stream { path: path.to_owned(), inner: Box::new(raw), tracker, is_plain: true })
    }

    /// Whether the file is not compressed.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The next bytes, empty at the end; the inner error is damage of the data.
    pub fn fill(&mut self) -> Result<std::result::Result<&[u8], Cause>> {
        match self.inner.fill_buf() {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(source) if self.tracker.failed.load(Ordering::Relaxed) => {
                Err(Error::Io { path: self.path.clone(), action: "read", source })
            }
            Err(damage) if damage.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Cause::TruncatedStream)),
            Err(_) => Ok(Err(Cause::CorruptStream)),
        }
    }

    /// Marks `n` of the bytes of [`Stream::fill`] as used.
    pub fn consume(&mut self, n: usize) {
        self.inner.consume(n);
    }

    /// Bytes read from the disk.
    pub fn consumed_bytes(&self) -> u64 {
        self.tracker.bytes.load(Ordering::Relaxed)
    }
}

/// What is known about the file underneath the decoder.
#[derive(Clone, Default)]
struct Tracker {
    failed: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

struct Tracked {
    file: File,
    tracker: Tracker,
}

impl Read for Tracked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.file.read(buffer);
        match &result {
            Ok(n) => {
                self.tracker.bytes.fetch_add(*n as u64, Ordering::Relaxed);
            }
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                self.tracker.failed.store(true, Ordering::Relaxed)
            }
            Err(_) => {}
        }
        result
    }
}

/// Opens a file and finds out what it is.
pub(super) fn sniff(path: &Path, format: Option<Format>) -> Result<Sniffed> {
    let mut file = File::open(path).map_err(Error::io(path, "open"))?;
    let magic = first_bytes(&mut file).map_err(Error::io(path, "read"))?;
    let is_parquet = magic.starts_with(PARQUET_MAGIC);
    if format == Some(Format::Parquet)
        || (format.is_none() && (is_parquet || has_extension(path, &["parquet"])))
    {
        return Ok(Sniffed::Parquet(file));
    }
    let tracker = Tracker::default();
    let raw = BufReader::with_capacity(BLOCK_BYTES, Tracked { file, tracker: tracker.clone() });
    let is_plain = !magic.starts_with(GZIP_MAGIC) && !magic.starts_with(ZSTD_MAGIC);
    let inner: Box<dyn BufRead> = if magic.starts_with(GZIP_MAGIC) {
        Box::new(BufReader::with_capacity(BLOCK_BYTES, MultiGzDecoder::new(raw)))
    } else if magic.starts_with(ZSTD_MAGIC) {
        let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(Error::io(path, "read"))?;
        Box::new(BufReader::with_capacity(BLOCK_BYTES, decoder))
    } else {
        Box::new(raw)
    };
    let mut stream = Stream { path: path.to_owned(), inner, tracker, is_plain };
    let is_jsonl = match format {
        Some(format) => format == Format::Jsonl,
        None => {
            let by_name = has_extension(path, &["jsonl", "ndjson", "json"]);
            by_name || stream.fill()?.is_ok_and(starts_like_json)
        }
    };
    Ok(if is_jsonl { Sniffed::Jsonl(stream) } else { Sniffed::Text(stream) })
}

fn first_bytes(file: &mut File) -> io::Result<Vec<u8>> {
    let mut magic = Vec::new();
    Read::by_ref(file).take(4).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(magic)
}

/// Whether the name ends in one of the extensions, compression suffixes aside.
fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let stem = [".gz", ".zst", ".zstd"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    extensions.iter().any(|extension| stem.strip_suffix(extension).is_some_and(|rest| rest.ends_with('.')))
}

/// `{`, then a key or the end of the object: `{% templates %}` are text.
fn starts_like_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut solid = bytes.iter().filter(|b| !b.is_ascii_whitespace());
    solid.next() == Some(&b'{') && matches!(solid.next(), Some(b'"' | b'}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_are_told_apart() {
        for (bytes, json) in [
            (&b"{\"a\":1}"[..], true),
            (b"\xef\xbb\xbf \n{ \"a\":1}", true),
            (b"{}", true),
            (b"{% extends %}", false),
            (b"Some {\"text\"}", false),
            (b"", false),
        ] {
            assert_eq!(starts_like_json(bytes), json, "{bytes:?}");
        }
    }

    #[test]
    fn extensions_ignore_compression() {
        assert!(has_extension(Path::new("a/b.jsonl.gz"), &["jsonl"]));
        assert!(has_extension(Path::new("B.JSONL"), &["jsonl"]));
        assert!(!has_extension(Path::new("jsonl"), &["jsonl"]));
        assert!(!has_extension(Path::new("a.jsonl.txt"), &["jsonl"]));
    }
}
