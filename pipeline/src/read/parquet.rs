//! Parquet: one record a row. Only the columns that the recipe names are decoded, one row group
//! after another: damage in one costs the rest of that one.

use std::path::{Path, PathBuf};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use super::columns::Columns;
use super::input::RandomAccess;
use super::{Bad, Cause, FieldPaths, Limits, Reader, Record, Slice, Unit, expansion, guard};
use crate::error::Result;

/// Rows decoded at a time: texts of the longest allowed size still fit in memory.
const BATCH_ROWS: usize = 256;

pub(super) struct ParquetReader {
    path: PathBuf,
    file: RandomAccess,
    metadata: Option<ArrowReaderMetadata>,
    fields: FieldPaths,
    limits: Limits,
    /// Row groups still to come, the next one last.
    groups: Vec<Group>,
    /// The row group under way.
    group: Group,
    /// Bytes of the row groups before it.
    done_bytes: u64,
    /// Rows of the file handed out, given up, or before the slice.
    row: u64,
    state: State,
    seen: u8,
}

/// A row group of the file.
#[derive(Clone, Copy, Default)]
struct Group {
    index: usize,
    first_row: u64,
    end_row: u64,
    n_bytes: u64,
    /// Bytes that may still be decoded.
    left_bytes: u64,
}

enum State {
    /// The next row group has to be opened.
    Between,
    Reading(Box<Reading>),
    /// Nothing can be read: the cause is reported once, with the size of the file.
    Broken(Cause, u64),
}

struct Reading {
    batches: ParquetRecordBatchReader,
    columns: Columns,
    /// Row in the columns.
    at: usize,
}

impl ParquetReader {
    pub fn open(
        path: &Path,
        file: RandomAccess,
        slice: Slice,
        fields: &FieldPaths,
        limits: Limits,
    ) -> Result<ParquetReader> {
        let file_bytes = file.n_bytes(path)?;
        let metadata = metadata_of(path, &file)?;
        let groups = metadata.as_ref().map(|found| groups_of(found.metadata(), file_bytes, limits));
        let mut groups = groups.unwrap_or_default();
        let n_rows = groups.last().map_or(0, |group| group.end_row);
        let state = match metadata {
            None if file_bytes > 0 => State::Broken(Cause::CorruptParquet, file_bytes),
            // Only the first slice reports an empty file.
            _ if n_rows == 0 && !matches!(slice, Slice::RowGroups { start: 1.., .. }) => {
                State::Broken(Cause::EmptyFile, file_bytes)
            }
            _ => State::Between,
        };
        if let Slice::RowGroups { start, end } = slice {
            groups.retain(|group| (start..end).contains(&group.index));
        }
        groups.reverse();
        Ok(ParquetReader {
            path: path.to_owned(),
            file,
            metadata,
            fields: fields.clone(),
            limits,
            groups,
            group: Group::default(),
            done_bytes: 0,
            row: 0,
            state,
            seen: 0,
        })
    }

    /// Starts a row group, if it can be decoded.
    fn read_group(&self, index: usize) -> std::result::Result<ParquetRecordBatchReader, Cause> {
        let corrupt = Cause::CorruptParquet;
        let file = self.file.try_clone().map_err(|_| corrupt)?;
        let metadata = self.metadata.clone().ok_or(corrupt)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let fields = &self.fields;
        let wanted: Vec<&str> = fields.names().map(|name| name.split('.').next().unwrap_or(name)).collect();
        let roots: Vec<usize> = (builder.schema().fields().iter().enumerate())
            .filter(|(_, field)| {
                wanted.contains(&field.name().as_str()) || fields.names().any(|n| n == field.name())
            })
            .map(|(i, _)| i)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let group = builder.metadata().row_group(index);
        let rows = expansion::batch_rows(group, &mask, self.group.left_bytes, BATCH_ROWS);
        let rows = rows.ok_or(Cause::TooMuchExpansion)?;
        let builder = builder.with_row_groups(vec![index]).with_projection(mask).with_batch_size(rows);
        guard::caught(|| builder.build().ok()).flatten().ok_or(corrupt)
    }

    /// Gives up the rest of the row group: its rows are counted, since the footer says how many
    /// there are.
    fn broken_group(&mut self, cause: Cause) -> Result<Option<Record>> {
        // A failing store does not mean damage.
        self.file.check(&self.path)?;
        let n_records = self.group.end_row.saturating_sub(self.row).max(1);
        // The size of part of a row group is unknown.
        let n_bytes = if self.row == self.group.first_row { self.group.n_bytes } else { 0 };
        let content = Err(Bad::new(cause, b""));
        let record = Record { offset: self.row, n_bytes, n_records, content };
        self.end_group();
        Ok(Some(record))
    }

    fn end_group(&mut self) {
        self.row = self.group.end_row;
        self.done_bytes += self.group.n_bytes;
        self.group.n_bytes = 0;
        self.state = State::Between;
    }
}

/// The footer; `None` when it cannot be decoded.
pub(super) fn metadata_of(path: &Path, file: &RandomAccess) -> Result<Option<ArrowReaderMetadata>> {
    let metadata = guard::caught(|| ArrowReaderMetadata::load(file, Default::default()).ok()).flatten();
    if metadata.is_none() {
        file.check(path)?;
    }
    Ok(metadata)
}

/// The row groups with their positions, from the footer.
fn groups_of(metadata: &ParquetMetaData, file_bytes: u64, limits: Limits) -> Vec<Group> {
    let mut first_row = 0u64;
    let allowed = expansion::of_groups(metadata, file_bytes, limits);
    let groups = metadata.row_groups().iter().zip(allowed).enumerate().map(|(index, (group, left_bytes))| {
        let end_row = first_row.saturating_add(group.num_rows().max(0) as u64);
        let n_bytes = group.compressed_size().max(0) as u64;
        let group = Group { index, first_row, end_row, n_bytes, left_bytes };
        first_row = end_row;
        group
    });
    groups.collect()
}

impl Reader for ParquetReader {
    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            let reading = match &mut self.state {
                State::Reading(reading) => reading.as_mut(),
                State::Broken(cause, n_bytes) => {
                    let content = Err(Bad::new(*cause, b""));
                    let record = Record { offset: 0, n_bytes: *n_bytes, n_records: 1, content };
                    self.state = State::Between;
                    self.groups.clear();
                    return Ok(Some(record));
                }
                State::Between => {
                    let Some(group) = self.groups.pop() else { return Ok(None) };
                    (self.group, self.row) = (group, group.first_row);
                    match self.read_group(group.index) {
                        Ok(batches) => {
                            let reading = Reading { batches, columns: Columns::default(), at: 0 };
                            self.state = State::Reading(Box::new(reading));
                        }
                        Err(cause) => return self.broken_group(cause),
                    }
                    continue;
                }
            };
            let Reading { batches, columns, at } = reading;
            if *at < columns.n_rows() {
                let content = columns.row(*at, &self.fields, self.limits.max_doc_bytes);
                let of_bad = |_: &Bad| columns.text_bytes(*at);
                let n_bytes = content.as_ref().map_or_else(of_bad, |raw| raw.text.len() as u64);
                *at += 1;
                let record = Record { offset: self.row, n_bytes, n_records: 1, content };
                self.row += 1;
                return Ok(Some(record));
            }
            let (fields, left) = (&self.fields, self.group.left_bytes);
            let next = guard::caught(|| {
                let batch = batches.next()?.map_err(|_| Cause::CorruptParquet);
                Some(batch.and_then(|batch| {
                    let left = left.checked_sub(expansion::decoded_bytes(&batch));
                    Ok((left.ok_or(Cause::TooMuchExpansion)?, Columns::of(&batch, fields)))
                }))
            });
            match next.unwrap_or(Some(Err(Cause::CorruptParquet))) {
                Some(Ok((left, next))) => {
                    self.seen |= next.present;
                    (self.group.left_bytes, *columns, *at) = (left, next, 0);
                }
                None if self.row >= self.group.end_row => self.end_group(),
                Some(Err(cause)) => return self.broken_group(cause),
                // The row group holds fewer rows than the footer says.
                None => return self.broken_group(Cause::CorruptParquet),
            }
        }
    }

    fn consumed_bytes(&self) -> u64 {
        let n_rows = self.group.end_row - self.group.first_row;
        let share = (self.row - self.group.first_row.min(self.row)) as f64 / n_rows.max(1) as f64;
        self.done_bytes + (self.group.n_bytes as f64 * share.min(1.0)) as u64
    }

    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn seen(&self) -> u8 {
        self.seen
    }
}

#[cfg(test)]
mod tests;
