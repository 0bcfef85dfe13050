//! Sealed segments: the lines of a segment in zstd, in frames of whole lines, with a table of keys and zstd's
//! own seek table.
//!
//! ```text
//! frame 0 | frame 1 | ... | skippable frame: keys | skippable frame: seek table
//! ```
//!
//! `zstdcat` shows the lines, since it skips the last two. `docs/completion-cache-format.md` has the bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;

use crate::error::{Error, Result};
use crate::request::Key;

/// Minimum bytes of lines in a frame; a lookup decompresses one frame.
const FRAME_BYTES: usize = 64 << 10;
const LEVEL: i32 = 3;

/// Magic numbers of skippable frames, of zstd's seek table, and of ours.
const KEYS_FRAME: u32 = 0x184D_2A51;
const SEEK_FRAME: u32 = 0x184D_2A5E;
const SEEK_MAGIC: u32 = 0x8F92_EAB1;
const KEYS_MAGIC: &[u8; 8] = b"MOEKEYS1";
/// Bytes of an entry of the table of keys: a key and the place of its line.
const ENTRY_BYTES: usize = 36;

/// A sealed segment, open for reading.
#[derive(Debug)]
pub(crate) struct Sealed {
    path: PathBuf,
    file: File,
    /// Where each frame begins, in the lines and in the file; the last is the end of both.
    frames: Vec<(u32, u64)>,
}

/// Writes lines as a sealed segment. `entries` are the keys with the places of their lines.
pub(crate) fn write(path: &Path, lines: &[u8], entries: &[(Key, u32)]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    let mut table = Vec::new();
    let mut start = 0;
    while start < lines.len() {
        let least = (start + FRAME_BYTES).min(lines.len());
        let end = lines[least - 1..].iter().position(|&b| b == b'\n').map_or(lines.len(), |at| least + at);
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(Error::io(path, "compress"))?;
        compressor.include_checksum(true).map_err(Error::io(path, "compress"))?;
        let frame = compressor.compress(&lines[start..end]).map_err(Error::io(path, "compress"))?;
        file.write(&frame)?;
        table.extend(size(path, frame.len())?.to_le_bytes());
        table.extend(size(path, end - start)?.to_le_bytes());
        start = end;
    }
    let mut keys = KEYS_MAGIC.to_vec();
    keys.extend(size(path, entries.len())?.to_le_bytes());
    for (key, at) in entries {
        keys.extend(key.0.0);
        keys.extend(at.to_le_bytes());
    }
    keys.extend(&blake3::hash(&keys).as_bytes()[..8]);
    file.write(&KEYS_FRAME.to_le_bytes())?;
    file.write(&size(path, keys.len())?.to_le_bytes())?;
    file.write(&keys)?;

    let n_frames = size(path, table.len() / 8)?;
    file.write(&SEEK_FRAME.to_le_bytes())?;
    file.write(&size(path, table.len() + 9)?.to_le_bytes())?;
    file.write(&table)?;
    file.write(&n_frames.to_le_bytes())?;
    // The descriptor: no checksums in the table, since the frames have their own.
    file.write(&[0])?;
    file.write(&SEEK_MAGIC.to_le_bytes())?;
    Ok(file.commit()?)
}

fn size(path: &Path, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::data(path, format!("a part of {n} bytes does not fit a segment")))
}

impl Sealed {
    /// Opens a segment and reads its keys with the places of their lines, in the order of the lines.
    ///
    /// # Errors
    /// The file cannot be read, or its tables are not whole.
    pub(crate) fn open(path: &Path) -> Result<(Sealed, Vec<(Key, u32)>)> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let len = file.metadata().map_err(Error::io(path, "look at"))?.len();
        let read = |at: u64, n: u64| -> Result<Vec<u8>> {
            if at.checked_add(n).is_none_or(|end| end > len) {
                return Err(damaged(path, "its tables point past its end"));
            }
            let mut bytes = vec![0; n as usize];
            file.read_exact_at(&mut bytes, at).map_err(Error::io(path, "read"))?;
            Ok(bytes)
        };
        let number = |bytes: &[u8]| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));

        let tail = read(len.checked_sub(9).ok_or_else(|| damaged(path, "it is too short"))?, 9)?;
        if number(&tail[5..]) != u64::from(SEEK_MAGIC) || tail[4] != 0 {
            return Err(damaged(path, "it does not end in a seek table"));
        }
        let table_len = number(&tail) * 8;
        let seek_start = len.checked_sub(table_len + 17);
        let seek_start = seek_start.ok_or_else(|| damaged(path, "its seek table is longer than the file"))?;
        let seek = read(seek_start, table_len + 8)?;
        if number(&seek) != u64::from(SEEK_FRAME) || number(&seek[4..]) != table_len + 9 {
            return Err(damaged(path, "its seek table has a wrong length"));
        }
        let (mut raw, mut at) = (0u64, 0u64);
        let mut frames = vec![(0, 0)];
        for entry in seek[8..].chunks_exact(8) {
            at += number(entry);
            raw += number(&entry[4..]);
            let raw = u32::try_from(raw).map_err(|_| damaged(path, "its frames are too long"))?;
            frames.push((raw, at));
        }
        if at + 8 > seek_start {
            return Err(damaged(path, "its seek table points past its end"));
        }
        let head = read(at, 8)?;
        if number(&head) != u64::from(KEYS_FRAME) || at + 8 + number(&head[4..]) != seek_start {
            return Err(damaged(path, "its table of keys has a wrong length"));
        }
        let keys = read(at + 8, seek_start - at - 8)?;
        let entries =
            entries(&keys).ok_or_else(|| damaged(path, "its table of keys is not as it was written"))?;
        if entries.iter().any(|&(_, at)| u64::from(at) >= raw) {
            return Err(damaged(path, "its table of keys points past its end"));
        }
        Ok((Sealed { path: path.to_owned(), file, frames }, entries))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of frames.
    pub(crate) fn n_frames(&self) -> usize {
        self.frames.len() - 1
    }

    /// The frame that holds a place of the lines, and where in the frame that is.
    pub(crate) fn frame_of(&self, at: u32) -> (usize, usize) {
        let frame = self.frames.partition_point(|&(start, _)| start <= at).saturating_sub(1);
        (frame, (at - self.frames[frame].0) as usize)
    }

    /// Where the lines of a frame begin.
    pub(crate) fn start_of(&self, frame: usize) -> u32 {
        self.frames[frame].0
    }

    /// The lines of a frame.
    pub(crate) fn frame(&self, frame: usize) -> Result<Vec<u8>> {
        let (start, end) = (self.frames[frame], self.frames[frame + 1]);
        let mut bytes = vec![0; (end.1 - start.1) as usize];
        self.file.read_exact_at(&mut bytes, start.1).map_err(Error::io(&self.path, "read"))?;
        let expected = (end.0 - start.0) as usize;
        let lines = zstd::bulk::decompress(&bytes, expected)
            .map_err(|e| damaged(&self.path, &format!("frame {frame}: {e}")))?;
        match lines.len() == expected {
            true => Ok(lines),
            false => {
                Err(damaged(&self.path, &format!("frame {frame} has {} bytes, not {expected}", lines.len())))
            }
        }
    }
}

fn entries(bytes: &[u8]) -> Option<Vec<(Key, u32)>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    if blake3::hash(body).as_bytes()[..8] != *check {
        return None;
    }
    let n: [u8; 4] = body.strip_prefix(KEYS_MAGIC)?.get(..4)?.try_into().ok()?;
    let rows = body.get(12..)?;
    if rows.len() != u32::from_le_bytes(n) as usize * ENTRY_BYTES {
        return None;
    }
    let row = |row: &[u8]| {
        let (key, at) = row.split_at_checked(32)?;
        Some((Key(moe_shards::Hash(key.try_into().ok()?)), u32::from_le_bytes(at.try_into().ok()?)))
    };
    rows.chunks_exact(ENTRY_BYTES).map(row).collect()
}

fn damaged(path: &Path, what: &str) -> Error {
    let hint = "hint: restore it from a copy, or move it away, so that its requests are sent again";
    Error::data(path, format!("damaged: {what}\n  {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moe_shards::Hash;

    fn sample(dir: &Path) -> (PathBuf, Vec<u8>, Vec<(Key, u32)>) {
        let path = dir.join("s.zst");
        let (mut lines, mut entries) = (Vec::new(), Vec::new());
        for i in 0..5000u32 {
            entries.push((Key(Hash::of(&i.to_le_bytes())), lines.len() as u32));
            lines.extend(format!("line {i} {}\n", "x".repeat((i % 97) as usize)).bytes());
        }
        write(&path, &lines, &entries).unwrap();
        (path, lines, entries)
    }

    #[test]
    fn every_line_is_found_and_zstd_reads_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, entries) = sample(dir.path());
        let (sealed, found) = Sealed::open(&path).unwrap();
        assert_eq!(found, entries);
        assert!(sealed.n_frames() > 3);
        for &(_, at) in &entries {
            let (frame, within) = sealed.frame_of(at);
            let expected = &lines[at as usize..];
            assert!(expected.starts_with(&sealed.frame(frame).unwrap()[within..]));
        }
        assert_eq!(zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap(), lines);
    }

    #[test]
    fn every_cut_and_every_changed_byte_of_the_tables_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _, _) = sample(dir.path());
        let whole = std::fs::read(&path).unwrap();
        let (sealed, _) = Sealed::open(&path).unwrap();
        let tables = sealed.frames.last().unwrap().1 as usize;
        for len in (0..whole.len()).step_by(997).chain(whole.len() - 20..whole.len()) {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Sealed::open(&path).is_err(), "{len} bytes");
        }
        for at in (tables..whole.len()).step_by(1499).chain(whole.len() - 17..whole.len()) {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x40;
            std::fs::write(&path, &wrong).unwrap();
            let read_all = Sealed::open(&path)
                .and_then(|(sealed, _)| (0..sealed.n_frames()).try_for_each(|i| sealed.frame(i).map(drop)));
            assert!(read_all.is_err(), "byte {at}");
        }
    }
}
