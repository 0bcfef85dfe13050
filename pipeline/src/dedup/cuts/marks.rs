//! Marks on their way from the stages that find copies to the parts that hold them: sorted by
//! part and place, checked by checksums.
//!
//! Each task of the matching stages writes `marks.run` and `holders.run`, of which each part reads its own rows.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::cut_rows::{HolderRow, MarkRow};
use super::sort_folder;
use crate::error::Result;
use crate::tables::rows::Row;
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::tables::sort::{Sorted, Sorter};
use crate::watch::Watch;

const MARKS: &str = "marks.run";
const HOLDERS: &str = "holders.run";
/// Bytes of a run that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Collects what a matching stage finds.
pub struct Writer {
    marks: Sorter<MarkRow>,
    holders: Sorter<HolderRow>,
}

impl Writer {
    /// A writer that sorts within `memory_bytes`.
    ///
    /// # Errors
    /// The task's folder cannot be used.
    pub fn new(folder: &Path, memory_bytes: u64, watch: &Watch) -> Result<Writer> {
        Ok(Writer {
            marks: Sorter::new(&sort_folder(folder, "marks"), memory_bytes / 4 * 3, watch)?,
            holders: Sorter::new(&sort_folder(folder, "holders"), memory_bytes / 4, watch)?,
        })
    }

    /// Notes what is to be cut.
    ///
    /// # Errors
    /// A write fails.
    pub fn mark(&mut self, row: MarkRow) -> Result<()> {
        self.marks.push(row)
    }

    /// Notes a document that holds the copy that stays.
    ///
    /// # Errors
    /// A write fails.
    pub fn hold(&mut self, row: HolderRow) -> Result<()> {
        self.holders.push(row)
    }

    /// Writes both files of the task.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(self, folder: &Path) -> Result<()> {
        write_all(self.marks.finish()?, &folder.join(MARKS))?;
        write_all(self.holders.finish()?, &folder.join(HOLDERS))
    }
}

/// Equal rows are written once.
fn write_all<R: Row + Copy + Send + 'static>(mut rows: Sorted<R>, path: &Path) -> Result<()> {
    let mut run = RunWriter::create(path)?;
    let mut last = None;
    while let Some(row) = rows.next_row()? {
        if last != Some(row) {
            run.push(row)?;
        }
        last = Some(row);
    }
    run.commit().map(drop)
}

/// Marks of a part, sorted by place, from the folders of all matching tasks.
///
/// # Errors
/// A run is damaged.
pub fn of_part(matches: &[PathBuf], part: u32) -> Result<Vec<MarkRow>> {
    read(matches, MARKS, move |row: &MarkRow| row.part.cmp(&part))
}

/// Rows of the documents of a part that hold a copy that stays, ascending, from the folders of all matching tasks.
///
/// # Errors
/// A run is damaged.
pub fn holders_of_part(matches: &[PathBuf], part: u32) -> Result<Vec<u32>> {
    let holders = read(matches, HOLDERS, move |row: &HolderRow| row.part.cmp(&part))?;
    Ok(holders.into_iter().map(|row| row.row).collect())
}

/// The rows of a part, each once.
fn read<R: Row + Copy>(matches: &[PathBuf], name: &str, side: impl Fn(&R) -> Ordering) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    for folder in matches {
        let mut run = RunReader::open_range(&folder.join(name), READ_BYTES, &side)?;
        while let Some(row) = run.next_row()? {
            rows.push(row);
        }
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}
