//! `measures.rows`: the rules' measurements of each document of a part, as 64-bit floats.
//!
//! ```text
//! block    values, little-endian, row by row           1024 rows; only the last block is shorter
//!          XXH3-64 of these bytes                      u64
//! ...
//! trailer  rows, values of a row                       u32, u32
//!          magic "MOEMEAS1"                            8 bytes
//!          XXH3-64 of the trailer so far               u64
//! ```
//!
//! The trailer fixes the length of the file to the byte, so damage and truncation are detected.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

const BLOCK_ROWS: usize = 1024;
const VALUE_BYTES: usize = 8;
const HASH_BYTES: usize = 8;
const TRAILER_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"MOEMEAS1";

/// Writes a table, row by row.
pub struct MeasuresWriter {
    path: PathBuf,
    file: AtomicFile,
    n_columns: usize,
    n_rows: u32,
    block: Vec<u8>,
}

impl MeasuresWriter {
    /// A table of `n_columns` values a row, which appears at `path` on [`MeasuresWriter::finish`].
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, n_columns: usize) -> Result<MeasuresWriter> {
        let file = AtomicFile::create(path)?;
        Ok(MeasuresWriter { path: path.to_owned(), file, n_columns, n_rows: 0, block: Vec::new() })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Its length differs from the others, or a write fails.
    pub fn push(&mut self, row: &[f64]) -> Result<()> {
        if row.len() != self.n_columns {
            let message =
                format!("a row of {} values among rows of {}; this is a bug", row.len(), self.n_columns);
            return Err(Error::data(&self.path, message));
        }
        self.block.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        self.n_rows += 1;
        if (self.n_rows as usize).is_multiple_of(BLOCK_ROWS) { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<()> {
        let hash = xxh3_64(&self.block);
        self.block.extend_from_slice(&hash.to_le_bytes());
        self.file.write(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Makes the table appear.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(mut self) -> Result<()> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&self.n_rows.to_le_bytes());
        trailer.extend_from_slice(&(self.n_columns as u32).to_le_bytes());
        trailer.extend_from_slice(&MAGIC);
        trailer.extend_from_slice(&xxh3_64(&trailer).to_le_bytes());
        self.file.write(&trailer)?;
        Ok(self.file.commit()?)
    }
}

/// A table on the disk.
#[derive(Debug)]
pub struct Measures {
    path: PathBuf,
    file: File,
    n_rows: u32,
    n_columns: usize,
    /// The block that was read last.
    block: Vec<f64>,
    block_number: Option<usize>,
}

impl Measures {
    /// Opens a table.
    ///
    /// # Errors
    /// It is missing, truncated or not a table.
    pub fn open(path: &Path) -> Result<Measures> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let n_bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
        let damaged = || Error::data(path, "is damaged; delete this file's folder and rerun");
        let at = n_bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(damaged)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, at).map_err(Error::io(path, "read"))?;
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| trailer[at + i]));
        let (n_rows, n_columns) = (number(0), number(4) as usize);
        let n_blocks = (n_rows as usize).div_ceil(BLOCK_ROWS);
        let values = n_columns.checked_mul(n_rows as usize).and_then(|n| n.checked_mul(VALUE_BYTES));
        let length = values.and_then(|n| n.checked_add(n_blocks * HASH_BYTES));
        let is_whole = trailer[8..16] == MAGIC
            && trailer[16..] == xxh3_64(&trailer[..16]).to_le_bytes()
            && length == usize::try_from(at).ok();
        match is_whole {
            true => Ok(Measures {
                path: path.to_owned(),
                file,
                n_rows,
                n_columns,
                block: Vec::new(),
                block_number: None,
            }),
            false => Err(damaged()),
        }
    }

    /// Rows.
    pub fn n_rows(&self) -> u32 {
        self.n_rows
    }

    /// A row; rows in ascending order read each block once.
    ///
    /// # Errors
    /// There is no such row, or its block is damaged.
    pub fn row(&mut self, row: u32) -> Result<&[f64]> {
        if row >= self.n_rows {
            let message = format!("has {} rows and none with number {row}", self.n_rows);
            return Err(Error::data(&self.path, format!("{message}; delete its folder and rerun")));
        }
        let number = row as usize / BLOCK_ROWS;
        if self.block_number != Some(number) {
            self.read_block(number)?;
        }
        let start = row as usize % BLOCK_ROWS * self.n_columns;
        Ok(&self.block[start..start + self.n_columns])
    }

    fn read_block(&mut self, number: usize) -> Result<()> {
        let n_rows = (self.n_rows as usize - number * BLOCK_ROWS).min(BLOCK_ROWS);
        let row_bytes = self.n_columns * VALUE_BYTES;
        let mut bytes = vec![0; n_rows * row_bytes + HASH_BYTES];
        let at = number * (BLOCK_ROWS * row_bytes + HASH_BYTES);
        self.file.read_exact_at(&mut bytes, at as u64).map_err(Error::io(&self.path, "read"))?;
        let (values, hash) = bytes.split_at(n_rows * row_bytes);
        if *hash != xxh3_64(values).to_le_bytes() {
            let message = format!("block {number} is damaged; delete this file's folder and rerun");
            return Err(Error::data(&self.path, message));
        }
        let (values, _) = values.as_chunks::<VALUE_BYTES>();
        self.block.clear();
        self.block.extend(values.iter().map(|value| f64::from_le_bytes(*value)));
        self.block_number = Some(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, n_rows: usize) {
        let mut writer = MeasuresWriter::create(path, 3).unwrap();
        for i in 0..n_rows {
            writer.push(&[i as f64, -0.5, f64::NAN]).unwrap();
        }
        assert!(writer.push(&[1.0]).is_err());
        writer.finish().unwrap();
    }

    #[test]
    fn rows_survive_the_disk_across_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("measures.rows");
        for n_rows in [0, 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 7] {
            write(&path, n_rows);
            let mut measures = Measures::open(&path).unwrap();
            assert_eq!(measures.n_rows() as usize, n_rows);
            for i in (0..n_rows).chain((0..n_rows).rev().step_by(700)) {
                let row = measures.row(i as u32).unwrap();
                assert_eq!((row[0], row[1], row[2].is_nan()), (i as f64, -0.5, true));
            }
            assert!(measures.row(n_rows as u32).is_err());
        }
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("measures.rows");
        write(&path, 5);
        let good = std::fs::read(&path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let read = Measures::open(&path).and_then(|mut measures| measures.row(4).map(<[f64]>::to_vec));
            assert!(read.is_err(), "byte {i}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(Measures::open(&path).is_err());
    }
}
