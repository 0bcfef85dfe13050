//! Marks on their way from the stages that find copies to the parts that hold them: sorted by
//! part and place, checked by checksums, cut into one file a part.
//!
//! The matching stages write `marks.run` and `holders.run`. `marks` merges them and writes `marks-N.run`
//! and `holders-N.run` for every part N that has any.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cut_rows::{HolderRow, MarkRow};
use super::sort_folder;
use crate::error::Result;
use crate::stage::inputs::inputs;
use crate::stage::{Report, Stage};
use crate::tables::rows::Row;
use crate::tables::sort::run::{RunReader, RunWriter};
use crate::tables::sort::{Sorted, Sorter};
use crate::watch::Watch;

const MARKS: &str = "marks.run";
const HOLDERS: &str = "holders.run";
/// Bytes of a run of one part that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Settings of the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarksParams {
    /// Memory for merging.
    pub memory_bytes: u64,
}

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

inputs! {
    /// Marks of all parts.
    pub struct MarksInputs {
        /// The folders of the matching stage.
        matches: Vec<PathBuf>,
    }
}

impl Stage for MarksParams {
    const NAME: &'static str = "marks";
    type Inputs = MarksInputs;

    /// # Errors
    /// A run is damaged or a write fails.
    fn run(&self, inputs: &MarksInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        self.split::<MarkRow>(inputs, folder, MARKS, watch, |row| row.part)?;
        self.split::<HolderRow>(inputs, folder, HOLDERS, watch, |row| row.part)?;
        Ok(Report::default())
    }
}

impl MarksParams {
    fn split<R: Row + Copy + Send + 'static>(
        &self,
        inputs: &MarksInputs,
        folder: &Path,
        name: &str,
        watch: &Watch,
        part_of: impl Fn(&R) -> u32,
    ) -> Result<()> {
        let mut sorter = Sorter::<R>::new(&sort_folder(folder, "merge"), self.memory_bytes, watch)?;
        inputs.matches.iter().for_each(|folder| sorter.add_run(&folder.join(name)));
        let mut rows = sorter.finish()?;
        let mut open: Option<(u32, RunWriter<R, crate::tables::Sink>)> = None;
        let mut last = None;
        while let Some(row) = rows.next_row()? {
            let part = part_of(&row);
            let mut writer = match open.take() {
                Some((current, writer)) if current == part => writer,
                other => {
                    other.map_or(Ok(0), |(_, writer)| writer.commit())?;
                    RunWriter::create(&part_file(folder, name, part))?
                }
            };
            if last != Some(row) {
                writer.push(row)?;
            }
            last = Some(row);
            open = Some((part, writer));
        }
        open.map_or(Ok(0), |(_, writer)| writer.commit())?;
        Ok(())
    }
}

fn part_file(folder: &Path, name: &str, part: u32) -> PathBuf {
    folder.join(name.replace(".run", &format!("-{part:05}.run")))
}

/// Marks of a part, sorted by place.
///
/// # Errors
/// The run is damaged.
pub fn of_part(folder: &Path, part: u32) -> Result<Vec<MarkRow>> {
    read(&part_file(folder, MARKS, part))
}

/// Rows of the documents of a part that hold a copy that stays, ascending.
///
/// # Errors
/// The run is damaged.
pub fn holders_of_part(folder: &Path, part: u32) -> Result<Vec<u32>> {
    Ok(read::<HolderRow>(&part_file(folder, HOLDERS, part))?.into_iter().map(|row| row.row).collect())
}

/// A part without any row has no file.
fn read<R: Row + Copy>(path: &Path) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    if path.exists() {
        let mut run = RunReader::open(path, READ_BYTES)?;
        while let Some(row) = run.next_row()? {
            rows.push(row);
        }
    }
    Ok(rows)
}
