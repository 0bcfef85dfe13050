//! Tar archives (POSIX.1-2001 with GNU extensions), read from front to back as a stream, compressed or not.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::tar::{EntryType, Header, PaxExtensions};

use super::super::stream::{Stream, damage};
use super::super::{Cause, Fault, Limits, magic};
use super::{Member, Members, clean_name};
use crate::error::Result;

const BLOCK_BYTES: usize = 512;
/// A header with a longer name or more attributes is treated as damage.
const MAX_EXTRA_BYTES: u64 = 1 << 20;

pub(super) struct Tar {
    path: PathBuf,
    limits: Limits,
    archive: Arc<Mutex<Position>>,
}

/// Position in the archive; shared with the current file.
struct Position {
    stream: Stream,
    /// Bytes of the file under way.
    left: u64,
    /// Padding after it, up to the next block.
    padding: u64,
    /// Bytes of the archive so far.
    offset: u64,
    /// Whether the archive broke off inside a file, which that file's reader reports.
    broken: bool,
}

impl Tar {
    pub fn new(path: &Path, stream: Stream, limits: Limits) -> Tar {
        let position = Position { stream, left: 0, padding: 0, offset: 0, broken: false };
        Tar { path: path.to_owned(), limits, archive: Arc::new(Mutex::new(position)) }
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.archive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Position {
    /// Reads up to `n` bytes; fewer at the end. The inner error is damage.
    fn take(&mut self, n: usize) -> Result<std::result::Result<Vec<u8>, Cause>> {
        let mut bytes = Vec::new();
        while bytes.len() < n {
            let part = match self.stream.fill()? {
                Ok([]) => break,
                Ok(part) => &part[..part.len().min(n - bytes.len())],
                Err(damage) => return Ok(Err(damage)),
            };
            bytes.extend_from_slice(part);
            let used = part.len();
            self.stream.consume(used);
            self.offset += used as u64;
        }
        Ok(Ok(bytes))
    }

    /// Skips the rest of the current file.
    fn skip_file(&mut self) -> Result<std::result::Result<(), Cause>> {
        let mut left = std::mem::take(&mut self.left).saturating_add(std::mem::take(&mut self.padding));
        while left > 0 {
            let used = match self.stream.fill()? {
                Ok([]) => return Ok(Err(Cause::TruncatedStream)),
                Ok(part) => usize::try_from(left).map_or(part.len(), |left| part.len().min(left)),
                Err(damage) => return Ok(Err(damage)),
            };
            self.stream.consume(used);
            self.offset += used as u64;
            left -= used as u64;
        }
        Ok(Ok(()))
    }

    /// Starts a file of `n_bytes`.
    fn start(&mut self, n_bytes: u64) {
        let block = BLOCK_BYTES as u64;
        (self.left, self.padding) = (n_bytes, (block - n_bytes % block) % block);
    }

    /// The contents of a header that describes the next one.
    fn extra(&mut self, n_bytes: u64) -> Result<std::result::Result<Vec<u8>, Cause>> {
        if n_bytes > MAX_EXTRA_BYTES {
            return Ok(Err(Cause::CorruptArchive));
        }
        self.start(n_bytes);
        // Bounded above.
        let bytes = self.take(n_bytes as usize)?;
        self.left = 0;
        Ok(match (bytes, self.skip_file()?) {
            (Ok(bytes), Ok(())) if bytes.len() as u64 == n_bytes => Ok(bytes),
            (Ok(_), Ok(())) => Err(Cause::TruncatedStream),
            (Err(cause), _) | (_, Err(cause)) => Err(cause),
        })
    }

    fn next_header(&mut self) -> Result<std::result::Result<Option<Found>, Fault>> {
        let (mut name, mut size) = (None, None);
        loop {
            let offset = self.offset;
            let block = match self.take(BLOCK_BYTES)? {
                Ok(block) => block,
                Err(damage) => return Ok(Err(damage.into())),
            };
            if block.is_empty() {
                return Ok(Ok(None));
            }
            // Two blocks of zeros are the end; another archive may follow.
            if block.iter().all(|b| *b == 0) {
                continue;
            }
            if !magic::is_tar(&block) {
                let message = format!("the header at byte {offset} of the archive is damaged");
                return Ok(Err(Fault::new(Cause::CorruptArchive, message)));
            }
            let header = Header::from_byte_slice(&block);
            let Ok(own_size) = header.entry_size() else {
                let message = format!("the size in the header at byte {offset} of the archive is damaged");
                return Ok(Err(Fault::new(Cause::CorruptArchive, message)));
            };
            let kind = header.entry_type();
            if kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
            {
                let extra = match self.extra(own_size)? {
                    Ok(extra) => extra,
                    Err(cause) => return Ok(Err(cause.into())),
                };
                if kind.is_gnu_longname() {
                    let end = memchr::memchr(0, &extra).unwrap_or(extra.len());
                    name = Some(extra[..end].to_vec());
                } else if kind.is_pax_local_extensions() {
                    for entry in PaxExtensions::new(&extra).flatten() {
                        match entry.key_bytes() {
                            b"path" => name = Some(entry.value_bytes().to_vec()),
                            b"size" => size = entry.value().ok().and_then(|value| value.parse().ok()),
                            _ => {}
                        }
                    }
                }
                continue;
            }
            let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
            return Ok(Ok(Some(Found { name: clean_name(&name), n_bytes: size.unwrap_or(own_size), kind })));
        }
    }
}

/// The next header that describes a member.
struct Found {
    name: String,
    n_bytes: u64,
    kind: EntryType,
}

impl Members for Tar {
    fn next_member(&mut self) -> Result<Member> {
        let found = {
            let mut position = self.position();
            loop {
                if position.broken {
                    return Ok(Member::End);
                }
                if let Err(cause) = position.skip_file()? {
                    position.broken = true;
                    return Ok(Member::Bad(cause.into()));
                }
                match position.next_header()? {
                    Err(fault) => {
                        position.broken = true;
                        return Ok(Member::Bad(fault));
                    }
                    Ok(None) => return Ok(Member::End),
                    Ok(Some(found)) => {
                        // A link has no bytes; its target is a member of its own.
                        if found.kind.is_symlink() || found.kind.is_hard_link() {
                            continue;
                        }
                        position.start(found.n_bytes);
                        if !found.kind.is_dir() {
                            break found;
                        }
                    }
                }
            }
        };
        let Found { name, n_bytes, kind } = found;
        if !(kind.is_file() || kind.is_contiguous()) {
            return Ok(Member::Skipped { name, n_bytes, what: "no regular file of the archive" });
        }
        let bytes = FileBytes { archive: self.archive.clone() };
        let stream = Stream::of(&self.path, Box::new(BufReader::new(bytes))).unpacked(self.limits)?;
        Ok(Member::File { name, n_bytes, stream: Box::new(stream) })
    }

    fn consumed_bytes(&self) -> u64 {
        self.position().stream.consumed_bytes()
    }
}

/// The bytes of the current file.
struct FileBytes {
    archive: Arc<Mutex<Position>>,
}

impl Read for FileBytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut position = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = usize::try_from(position.left).map_or(out.len(), |left| out.len().min(left));
        if wanted == 0 {
            return Ok(0);
        }
        match position.stream.read_full(&mut out[..wanted]) {
            Ok(0) => {
                position.broken = true;
                Err(damage(Cause::TruncatedStream))
            }
            Ok(n) => {
                position.left -= n as u64;
                position.offset += n as u64;
                Ok(n)
            }
            Err(error) => {
                position.broken = true;
                Err(error)
            }
        }
    }
}
