//! Zip archives (APPNOTE 6.3.10, with its 64-bit sizes): the directory at the end says where the files are, and each is a
//! stream of its own. Only the directory is parsed here; the decoders are shared with other files.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use parquet::file::reader::ChunkReader;

use super::super::codec::Packing;
use super::super::input::{RandomAccess, open_at};
use super::super::stream::{Bytes, Stream};
use super::super::{Cause, Fault, Limits, magic};
use super::{Member, Members, clean_name};
use crate::error::Result;

/// The end record without its comment.
const END_BYTES: usize = 22;
/// The end record with the longest comment, and the locator of the 64-bit end before it.
const TAIL_BYTES: u64 = END_BYTES as u64 + 0xffff + LOCATOR_BYTES as u64;
const LOCATOR_BYTES: usize = 20;
const END_64_BYTES: usize = 56;
const ENTRY_BYTES: usize = 46;
const HEADER_BYTES: usize = 30;
/// Directories of millions of files are smaller.
const MAX_DIRECTORY_BYTES: u64 = 1 << 30;

pub(super) struct Zip {
    path: PathBuf,
    file: RandomAccess,
    limits: Limits,
    /// Files still to come, the next one last.
    entries: Vec<Entry>,
    done_bytes: u64,
    fault: Option<Fault>,
}

/// A file by the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    method: u16,
    is_encrypted: bool,
    crc: u32,
    packed_bytes: u64,
    n_bytes: u64,
    /// Of its header in the file.
    offset: u64,
}

impl Zip {
    /// Opens an archive; the inner error says what it is instead.
    pub fn open(path: &Path, limits: Limits) -> Result<std::result::Result<Zip, &'static str>> {
        let file = RandomAccess::open(path)?;
        let n_bytes = file.n_bytes(path)?;
        let (mut entries, fault) = match directory(&file, n_bytes) {
            Some(entries) => (entries, None),
            None => {
                // A failing store does not mean damage.
                file.check(path)?;
                (
                    Vec::new(),
                    Some(Fault::new(
                        Cause::CorruptArchive,
                        "the directory at the end of the zip archive is damaged",
                    )),
                )
            }
        };
        let names = entries.iter().filter_map(|entry| std::str::from_utf8(&entry.name).ok());
        if let Some(what) = magic::document_of_zip(names) {
            return Ok(Err(what));
        }
        entries.reverse();
        Ok(Ok(Zip { path: path.to_owned(), file, limits, entries, done_bytes: 0, fault }))
    }

    /// Where the bytes of a file begin.
    fn start_of(&self, entry: &Entry) -> Option<u64> {
        let header = self.file.get_bytes(entry.offset, HEADER_BYTES).ok()?;
        let is_header = header.starts_with(b"PK\x03\x04");
        let n = HEADER_BYTES as u64 + u64::from(u16_at(&header, 26)?) + u64::from(u16_at(&header, 28)?);
        entry.offset.checked_add(n).filter(|_| is_header)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// The files of an archive in the order of its directory; `None` when that cannot be read.
fn directory(file: &RandomAccess, file_bytes: u64) -> Option<Vec<Entry>> {
    let tail_start = file_bytes.saturating_sub(TAIL_BYTES);
    let tail = file.get_bytes(tail_start, (file_bytes - tail_start) as usize).ok()?;
    let is_end = |at: &usize| {
        tail[*at..].starts_with(b"PK\x05\x06")
            && u16_at(&tail, at + 20)
                .is_some_and(|comment| at + END_BYTES + usize::from(comment) <= tail.len())
    };
    let at = (0..=tail.len().checked_sub(END_BYTES)?).rev().find(is_end)?;
    let (mut n_bytes, mut offset) = (u64::from(u32_at(&tail, at + 12)?), u64::from(u32_at(&tail, at + 16)?));
    let mut end = tail_start + at as u64;
    if let Some(locator) = at.checked_sub(LOCATOR_BYTES).filter(|at| tail[*at..].starts_with(b"PK\x06\x07")) {
        let at = u64_at(&tail, locator + 8)?;
        let record =
            file.get_bytes(at, END_64_BYTES).ok().filter(|record| record.starts_with(b"PK\x06\x06"))?;
        (n_bytes, offset, end) = (u64_at(&record, 40)?, u64_at(&record, 48)?, at);
    }
    // A self-extracting program may precede the archive; then all offsets are too low by its size.
    let start = end.checked_sub(n_bytes).filter(|_| n_bytes <= MAX_DIRECTORY_BYTES)?;
    let before = start.checked_sub(offset)?;
    let bytes = file.get_bytes(start, n_bytes as usize).ok()?;
    let (mut entries, mut rest) = (Vec::new(), &bytes[..]);
    while rest.starts_with(b"PK\x01\x02") {
        let (entry, n) = entry(rest, before)?;
        entries.push(entry);
        rest = &rest[n..];
    }
    Some(entries)
}

/// The entry at the start of the directory, and its length.
fn entry(bytes: &[u8], before: u64) -> Option<(Entry, usize)> {
    let lengths = [28, 30, 32].map(|at| u16_at(bytes, at).map(usize::from));
    let (name, extra, comment) = (lengths[0]?, lengths[1]?, lengths[2]?);
    let n = ENTRY_BYTES + name + extra + comment;
    let bytes = bytes.get(..n)?;
    let extra = &bytes[ENTRY_BYTES + name..ENTRY_BYTES + name + extra];
    let wide = wide_fields(extra);
    let mut at = 0;
    // Those that do not fit into 32 bits are in the extra field, in this order.
    let mut size = |value: u32| match value {
        u32::MAX => {
            at += 8;
            u64_at(wide, at - 8)
        }
        value => Some(value.into()),
    };
    let n_bytes = size(u32_at(bytes, 24)?)?;
    let packed_bytes = size(u32_at(bytes, 20)?)?;
    let offset = size(u32_at(bytes, 42)?)?.checked_add(before)?;
    let entry = Entry {
        name: bytes[ENTRY_BYTES..ENTRY_BYTES + name].to_vec(),
        method: u16_at(bytes, 10)?,
        is_encrypted: u16_at(bytes, 8)? & 1 != 0,
        crc: u32_at(bytes, 16)?,
        packed_bytes,
        n_bytes,
        offset,
    };
    Some((entry, n))
}

/// The extra field with sizes of 64 bits; empty when there is none.
fn wide_fields(mut extra: &[u8]) -> &[u8] {
    while let (Some(id), Some(n)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(field) = extra.get(4..4 + usize::from(n)) else { break };
        if id == 1 {
            return field;
        }
        extra = &extra[4 + usize::from(n)..];
    }
    &[]
}

impl Members for Zip {
    fn next_member(&mut self) -> Result<Member> {
        if let Some(fault) = self.fault.take() {
            return Ok(Member::Bad(fault));
        }
        let is_folder = |entry: &Entry| entry.name.ends_with(b"/") && entry.n_bytes == 0;
        let Some(entry) = std::iter::from_fn(|| self.entries.pop()).find(|entry| !is_folder(entry)) else {
            return Ok(Member::End);
        };
        let (name, n_bytes) = (clean_name(&entry.name), entry.n_bytes);
        let skipped = |what| Ok(Member::Skipped { name: name.clone(), n_bytes, what });
        if entry.is_encrypted {
            return skipped("encrypted; unpack the archive with its password");
        }
        let packing = match entry.method {
            0 => None,
            8 => Some(Packing::Deflate(entry.crc)),
            12 => Some(Packing::Bzip2),
            93 => Some(Packing::Zstd),
            95 => Some(Packing::Xz),
            _ => return skipped("compressed in a way we do not read; unpack the archive"),
        };
        let Some(start) = self.start_of(&entry) else {
            self.file.check(&self.path)?;
            self.entries.clear();
            let message = format!("the header of `{name}` in the zip archive is damaged");
            return Ok(Member::Bad(Fault::new(Cause::CorruptArchive, message)));
        };
        self.done_bytes += entry.packed_bytes;
        let mut stream =
            Stream::of(&self.path, Box::new(open_at(&self.path, start)?.take(entry.packed_bytes)));
        if let Some(packing) = packing {
            stream = stream.packed_as(packing, self.limits)?;
            stream = Stream::of(&self.path, Box::new(BufReader::new(Bytes(stream))));
        }
        Ok(Member::File { name, n_bytes, stream: Box::new(stream.unpacked(self.limits)?) })
    }

    fn consumed_bytes(&self) -> u64 {
        self.done_bytes
    }
}
