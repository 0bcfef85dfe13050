//! One sorted run on the disk: blocks of rows, each followed by its XXH3-64, and a trailer.
//!
//! ```text
//! block    rows, little-endian, as `Row::put` writes them    64 KiB or less; only the last block is shorter
//!          XXH3-64 of these bytes                            u64
//! ...
//! trailer  rows in the run                                   u64
//!          bytes of a row, rows of a full block              u32, u32
//!          magic "MOERUN01"                                  8 bytes
//!          XXH3-64 of the trailer so far                     u64
//! ```
//!
//! The trailer fixes the length of the file to the byte. A reader checks length, trailer and
//! checksums, and that rows ascend, so a truncated, damaged or unsorted run is an error and never
//! a missed duplicate.

use std::cmp::Ordering;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::tables::Sink;
use crate::tables::rows::Row;

/// Bytes of the rows of a full block, at most.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
const HASH_BYTES: usize = 8;
const TRAILER_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"MOERUN01";

/// Rows of a full block.
fn block_rows<R: Row>() -> usize {
    (BLOCK_BYTES / R::BYTES).max(1)
}

/// Bytes of a full block with its checksum.
pub(super) fn block_len<R: Row>() -> usize {
    block_rows::<R>() * R::BYTES + HASH_BYTES
}

/// Writes one run; rows must come in ascending order.
pub struct RunWriter<R, W> {
    path: PathBuf,
    out: W,
    block: Vec<u8>,
    last: Option<R>,
    n_rows: u64,
}

impl<R: Row + Copy> RunWriter<R, Sink> {
    /// A run that outlives the process: it appears at `path` on [`RunWriter::commit`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<RunWriter<R, Sink>> {
        Ok(RunWriter::new(path, Sink::create(path)?))
    }

    /// Makes the run appear and returns its rows.
    ///
    /// # Errors
    /// A write fails.
    pub fn commit(self) -> Result<u64> {
        let (sink, n_rows) = self.finish()?;
        sink.commit()?;
        Ok(n_rows)
    }
}

impl<R: Row + Copy> RunWriter<R, File> {
    /// A run used by this process only, so it is not flushed.
    pub(super) fn temporary(path: &Path) -> Result<RunWriter<R, File>> {
        Ok(RunWriter::new(path, File::create(path).map_err(Error::io(path, "create"))?))
    }
}

impl<R: Row + Copy, W: Write> RunWriter<R, W> {
    fn new(path: &Path, out: W) -> RunWriter<R, W> {
        let block = Vec::with_capacity(block_len::<R>());
        RunWriter { path: path.to_owned(), out, block, last: None, n_rows: 0 }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// The row is lower than the one before it, or a write fails.
    pub fn push(&mut self, row: R) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| *last > row) {
            let message = format!("row {} comes before the row that precedes it; this is a bug", self.n_rows);
            return Err(Error::data(&self.path, message));
        }
        self.last = Some(row);
        row.put(&mut self.block);
        self.n_rows += 1;
        if self.block.len() == block_rows::<R>() * R::BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<()> {
        let hash = xxh3_64(&self.block);
        self.block.extend_from_slice(&hash.to_le_bytes());
        self.out.write_all(&self.block).map_err(Error::io(&self.path, "write"))?;
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(W, u64)> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&self.n_rows.to_le_bytes());
        trailer.extend_from_slice(&(R::BYTES as u32).to_le_bytes());
        trailer.extend_from_slice(&(block_rows::<R>() as u32).to_le_bytes());
        trailer.extend_from_slice(&MAGIC);
        let hash = xxh3_64(&trailer);
        trailer.extend_from_slice(&hash.to_le_bytes());
        self.out.write_all(&trailer).map_err(Error::io(&self.path, "write"))?;
        Ok((self.out, self.n_rows))
    }
}

/// Reads one run from front to back.
#[derive(Debug)]
pub struct RunReader<R> {
    path: PathBuf,
    file: File,
    n_rows: u64,
    /// Number of the next row.
    n_read: u64,
    /// Number of the row at which reading ends.
    end: u64,
    /// Place in the file of the first byte after `buffer`.
    offset: u64,
    /// Whole blocks.
    buffer: Vec<u8>,
    /// Next row in `buffer`, and the end of the rows of its block.
    next: usize,
    block_end: usize,
    buffer_bytes: usize,
    last: Option<R>,
}

impl<R: Row + Copy> RunReader<R> {
    /// Opens a run, to be read through a buffer of about `buffer_bytes`, one block at least.
    ///
    /// # Errors
    /// The file is missing, truncated, or holds other rows.
    pub fn open(path: &Path, buffer_bytes: usize) -> Result<RunReader<R>> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let len = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut trailer = [0; TRAILER_BYTES];
        let end = len.checked_sub(TRAILER_BYTES as u64);
        let end = end.ok_or_else(|| damaged(path, format!("{len} bytes are too few for a run")))?;
        file.read_exact_at(&mut trailer, end).map_err(Error::io(path, "read"))?;
        let (fields, hash) = trailer.split_at(TRAILER_BYTES - HASH_BYTES);
        if fields[16..] != MAGIC || xxh3_64(fields).to_le_bytes() != *hash {
            return Err(damaged(path, "its last 32 bytes are not the trailer of a run".to_owned()));
        }
        let n_rows = u64::from_le_bytes(fields[..8].try_into().unwrap_or_default());
        let number = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().unwrap_or_default());
        let (row_bytes, rows) = (number(8) as usize, number(12) as usize);
        if (row_bytes, rows) != (R::BYTES, block_rows::<R>()) {
            let (bytes, expected) = (R::BYTES, block_rows::<R>());
            let found = format!("rows of {row_bytes} bytes in blocks of {rows}");
            return Err(damaged(path, format!("{found}, expected {bytes} bytes in blocks of {expected}")));
        }
        let n_blocks = n_rows.div_ceil(rows as u64);
        let rows_bytes = n_rows.saturating_mul(row_bytes as u64);
        if rows_bytes.saturating_add(n_blocks.saturating_mul(HASH_BYTES as u64)) != end {
            return Err(damaged(path, format!("{len} bytes do not fit the {n_rows} rows it should hold")));
        }
        let buffer_bytes = (buffer_bytes / block_len::<R>()).max(1) * block_len::<R>();
        Ok(RunReader {
            path: path.to_owned(),
            file,
            n_rows,
            n_read: 0,
            end: n_rows,
            offset: 0,
            buffer: Vec::new(),
            next: 0,
            block_end: 0,
            buffer_bytes,
            last: None,
        })
    }

    /// Opens a run as [`RunReader::open`] does, to read only the rows that `side` finds equal: it says whether a row comes before them, is
    /// one of them, or comes after them. Little else is read, and what is read is checked.
    ///
    /// # Errors
    /// As [`RunReader::open`] and [`RunReader::next_row`].
    pub fn open_range(
        path: &Path,
        buffer_bytes: usize,
        side: impl Fn(&R) -> Ordering,
    ) -> Result<RunReader<R>> {
        let mut run = RunReader::open(path, buffer_bytes)?;
        let start = run.partition_point(|row| side(row).is_lt())?;
        run.end = run.partition_point(|row| side(row).is_le())?.max(start);
        if start < run.end {
            // From the beginning of its block.
            let n_before = start % block_rows::<R>() as u64;
            run.n_read = start - n_before;
            run.offset = run.n_read / block_rows::<R>() as u64 * block_len::<R>() as u64;
            run.next_block()?;
            run.next += n_before as usize * R::BYTES;
        }
        run.n_read = start;
        Ok(run)
    }

    /// Number of rows, all of them at the start, of which `is_before` is true.
    fn partition_point(&self, is_before: impl Fn(&R) -> bool) -> Result<u64> {
        let block_rows = block_rows::<R>() as u64;
        let (mut low, mut high) = (0, self.n_rows.div_ceil(block_rows));
        // Rows of blocks before `low` are counted in `point` as far as they are before; those from `high` on are not.
        let mut point = 0;
        while low < high {
            let middle = low + (high - low) / 2;
            let n_rows = block_rows.min(self.n_rows - middle * block_rows) as usize;
            let mut block = vec![0; n_rows * R::BYTES + HASH_BYTES];
            let offset = middle * block_len::<R>() as u64;
            self.file.read_exact_at(&mut block, offset).map_err(Error::io(&self.path, "read"))?;
            let rows = self.checked(&block, offset)?;
            let n_before = rows.chunks_exact(R::BYTES).take_while(|row| is_before(&R::get(row))).count();
            match n_before {
                0 => high = middle,
                n => {
                    point = middle * block_rows + n as u64;
                    low = if n == n_rows { middle + 1 } else { high };
                }
            }
        }
        Ok(point)
    }

    /// Rows to be read.
    pub fn len(&self) -> u64 {
        self.end - self.n_read
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// A write fails, a block is damaged, or a row is less than the one before it.
    pub fn next_row(&mut self) -> Result<Option<R>> {
        if self.n_read == self.end || self.next == self.block_end && !self.next_block()? {
            return Ok(None);
        }
        let row = R::get(&self.buffer[self.next..self.next + R::BYTES]);
        self.next += R::BYTES;
        if self.last.as_ref().is_some_and(|last| *last > row) {
            return Err(damaged(&self.path, format!("row {} is out of order", self.n_read)));
        }
        self.last = Some(row);
        self.n_read += 1;
        Ok(Some(row))
    }

    /// Moves to the next block and checks it; false after the last.
    fn next_block(&mut self) -> Result<bool> {
        let rows_left = self.n_rows - self.n_read;
        if rows_left == 0 {
            return Ok(false);
        }
        let start = if self.block_end == 0 { 0 } else { self.block_end + HASH_BYTES };
        let start = if start == self.buffer.len() { self.fill(rows_left)? } else { start };
        let n_bytes = rows_left.min(block_rows::<R>() as u64) as usize * R::BYTES;
        let place = self.offset - (self.buffer.len() - start) as u64;
        self.checked(&self.buffer[start..start + n_bytes + HASH_BYTES], place)?;
        (self.next, self.block_end) = (start, start + n_bytes);
        Ok(true)
    }

    /// The rows of a block that is at `offset` of the file.
    fn checked<'a>(&self, block: &'a [u8], offset: u64) -> Result<&'a [u8]> {
        let (rows, hash) = block.split_at(block.len() - HASH_BYTES);
        if xxh3_64(rows).to_le_bytes() != *hash {
            let to = offset + rows.len() as u64;
            return Err(damaged(&self.path, format!("bytes {offset}..{to} do not match their checksum")));
        }
        Ok(rows)
    }

    /// Reads the next blocks into the buffer; returns their start in it.
    fn fill(&mut self, rows_left: u64) -> Result<usize> {
        // As many as it takes to reach the end.
        let wanted = (self.end - self.n_read).next_multiple_of(block_rows::<R>() as u64);
        let rows_left = rows_left.min(wanted);
        let blocks_left = rows_left.div_ceil(block_rows::<R>() as u64);
        let bytes_left = rows_left * R::BYTES as u64 + blocks_left * HASH_BYTES as u64;
        self.buffer.resize(bytes_left.min(self.buffer_bytes as u64) as usize, 0);
        self.file.read_exact_at(&mut self.buffer, self.offset).map_err(Error::io(&self.path, "read"))?;
        self.offset += self.buffer.len() as u64;
        Ok(0)
    }
}

fn damaged(path: &Path, what: String) -> Error {
    let hint = "delete this file's folder and rerun; if it happens again, check the disk";
    Error::data(path, format!("{what}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::rows::BandRow;

    fn row(key: u64) -> BandRow {
        BandRow { key, document: !key }
    }

    fn written(path: &Path, keys: std::ops::Range<u64>) {
        let mut run = RunWriter::create(path).unwrap();
        keys.for_each(|key| run.push(row(key)).unwrap());
        run.commit().unwrap();
    }

    fn read(path: &Path, buffer_bytes: usize) -> Result<Vec<BandRow>> {
        let mut run = RunReader::open(path, buffer_bytes)?;
        let mut rows = Vec::new();
        while let Some(row) = run.next_row()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn a_run_survives_the_disk_through_any_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        // A block has 4,096 rows of 16 bytes.
        for n_rows in [0, 1, 4095, 4096, 4097, 20_000] {
            written(&path, 0..n_rows);
            let n_blocks = n_rows.div_ceil(4096);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), n_rows * 16 + n_blocks * 8 + 32);
            let expected: Vec<BandRow> = (0..n_rows).map(row).collect();
            for buffer_bytes in [0, 70_000, 140_000, 1 << 20] {
                assert_eq!(read(&path, buffer_bytes).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_range_has_the_rows_that_it_asks_for_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        for n_rows in [0, 1, 4096, 4097, 20_000] {
            // Each key twice.
            let mut run = RunWriter::create(&path).unwrap();
            (0..n_rows).for_each(|i| run.push(BandRow { key: i / 2, document: i }).unwrap());
            run.commit().unwrap();
            for (from, to) in [
                (0, 0),
                (0, 1),
                (7, 7),
                (2048, 2049),
                (2047, 5000),
                (9999, 10_000),
                (0, 20_000),
                (30_000, 30_001),
            ] {
                let side = |row: &BandRow| match row.key {
                    key if key < from => Ordering::Less,
                    key if key < to => Ordering::Equal,
                    _ => Ordering::Greater,
                };
                for buffer_bytes in [0, 1 << 20] {
                    let mut run = RunReader::open_range(&path, buffer_bytes, side).unwrap();
                    let expected: Vec<u64> = (0..n_rows).filter(|i| (from..to).contains(&(i / 2))).collect();
                    assert_eq!((run.len(), run.is_empty()), (expected.len() as u64, expected.is_empty()));
                    let mut found = Vec::new();
                    while let Some(row) = run.next_row().unwrap() {
                        found.push(row.document);
                    }
                    assert_eq!(found, expected, "{from}..{to} of {n_rows}");
                }
            }
        }
        // Damage that the search meets, and damage in what is read.
        let good = std::fs::read(&path).unwrap();
        for (at, key) in [(2 * 65_544 + 9, 6000), (9, 10)] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let error = RunReader::open_range(&path, 0, |row: &BandRow| row.key.cmp(&key)).unwrap_err();
            assert!(error.to_string().contains("do not match their checksum"), "{error}");
        }
    }

    #[test]
    fn every_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        written(&path, 0..5000);
        let good = std::fs::read(&path).unwrap();
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path, 1 << 20).unwrap_err().to_string()
        };
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let len = good.len();
        assert!(message(&flipped(10)).contains("bytes 0..65536 do not match their checksum"));
        assert!(message(&flipped(65_540)).contains("bytes 0..65536 do not match their checksum"));
        assert!(message(&flipped(65_550)).contains("bytes 65544..80008 do not match their checksum"));
        for at in len - 32..len {
            assert!(message(&flipped(at)).contains("trailer"), "{at}");
        }
        assert!(message(&good[..len - 1]).contains("trailer"));
        assert!(message(&good[..20]).contains("20 bytes are too few"));
        assert!(
            message(&[&good[..100], &good[len - 32..]].concat())
                .contains("132 bytes do not fit the 5000 rows")
        );
        let text = message(&flipped(0));
        assert!(
            text.contains("run: bytes") && text.contains("delete this file's folder and rerun"),
            "{text}"
        );
    }

    #[test]
    fn unsorted_rows_are_refused_by_writer_and_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let mut run = RunWriter::create(&path).unwrap();
        run.push(row(2)).unwrap();
        assert!(run.push(row(1)).unwrap_err().to_string().contains("row 1 comes before"));
        drop(run);
        assert!(!path.exists());

        // A file with right checksums whose rows are out of order.
        let mut bytes = Vec::new();
        [row(2), row(1)].iter().for_each(|row| row.put(&mut bytes));
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        let mut trailer = Vec::new();
        trailer.extend_from_slice(&2u64.to_le_bytes());
        trailer.extend_from_slice(&16u32.to_le_bytes());
        trailer.extend_from_slice(&4096u32.to_le_bytes());
        trailer.extend_from_slice(&MAGIC);
        trailer.extend_from_slice(&xxh3_64(&trailer).to_le_bytes());
        std::fs::write(&path, [bytes, trailer].concat()).unwrap();
        assert!(read(&path, 0).unwrap_err().to_string().contains("row 1 is out of order"));
    }

    #[test]
    fn rows_of_another_kind_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        written(&path, 0..3);
        let error = RunReader::<crate::tables::rows::KeyRow>::open(&path, 0).unwrap_err().to_string();
        assert!(error.contains("rows of 16 bytes in blocks of 4096"), "{error}");
    }
}
