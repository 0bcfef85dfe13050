//! Exact repeated substrings of one bucket of anchors, by a suffix array over its segments. Windows with one
//! anchor are all in one bucket, so nothing is lost between buckets, parts or batches.
//!
//! In the suffix array suffixes that share their first `min_bytes` bytes stand together. Of such a group
//! the first window in the order of documents stays and the others are marked. Neighbouring marks
//! become one.
//!
//! Inputs: the folders of all parts' segments. Writes `marks.run` and `holders.run`.

use libsais::SuffixArrayConstruction;
use serde::{Deserialize, Serialize};

use super::segment::bucket_file;
use super::{marks, sort_folder};
use crate::error::{Error, Result};
use crate::stage::{Report, Task};
use crate::watch::Watch;
use crate::work::SEGMENT_BYTES;
use crate::work::passages::{HolderRow, MarkRow, SegmentRow};
use crate::work::rows::Blob;
use crate::work::sort::Sorter;

/// What to compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubstringParams {
    /// Which bucket.
    pub bucket: u64,
    /// Bytes of a window.
    pub min_bytes: u32,
    /// Memory for the suffix array and for sorting.
    pub memory_bytes: u64,
}

/// Memory for each byte of text in a batch: the text, its suffix array, the array of common prefixes and the array
/// of first windows, the latter three of 4 bytes each, and the rows.
const BYTES_PER_BYTE: u64 = 14;
/// Suffix arrays of 32-bit numbers.
const MAX_BATCH_BYTES: u64 = i32::MAX as u64 - 1;
/// No byte of UTF-8, so no window of text holds it.
const SEPARATOR: u8 = 0xff;

/// Runs the stage.
///
/// # Errors
/// A run is damaged, the disk refuses, or one anchor has more text than the memory holds.
pub fn run(task: &Task, params: &SubstringParams, watch: &Watch) -> Result<Report> {
    let quarter = params.memory_bytes / 4;
    let mut sorter = Sorter::<SegmentRow>::new(&sort_folder(task, "segments"), quarter, watch)?;
    task.inputs.iter().for_each(|folder| sorter.add_run(&folder.join(bucket_file(params.bucket))));
    let blobs = task
        .inputs
        .iter()
        .map(|folder| Blob::open(&folder.join(SEGMENT_BYTES)))
        .collect::<Result<Vec<_>>>()?;
    let mut out = marks::Writer::new(task, quarter, watch)?;
    let limit = (quarter * 2 / BYTES_PER_BYTE).min(MAX_BATCH_BYTES);
    let mut groups = sorter.finish()?.groups(|row| row.key);
    let mut batch: Vec<SegmentRow> = Vec::new();
    let mut n_bytes = 0u64;
    while let Some(mut group) = groups.next_group()? {
        let start = batch.len();
        let before = n_bytes;
        while let Some(row) = group.next_row()? {
            n_bytes += u64::from(row.n_bytes) + 1;
            batch.push(row);
            if n_bytes - before > limit {
                return Err(too_large(task, n_bytes - before, params.memory_bytes));
            }
        }
        if n_bytes > limit {
            // A batch ends before the anchor that is too much for it.
            let rest = batch.split_off(start);
            find(&batch, &blobs, params, &mut out, watch)?;
            batch = rest;
            n_bytes -= before;
        }
        watch.advance(0)?;
    }
    find(&batch, &blobs, params, &mut out, watch)?;
    out.finish(task)?;
    Ok(Report::default())
}

/// Compares the segments of a batch; the bar moves by their bytes.
fn find(
    batch: &[SegmentRow],
    blobs: &[Blob],
    params: &SubstringParams,
    out: &mut marks::Writer,
    watch: &Watch,
) -> Result<()> {
    Batch::read(batch, blobs)?.find(params.min_bytes as usize, out)?;
    watch.advance(batch.iter().map(|row| u64::from(row.n_bytes)).sum())
}

fn too_large(task: &Task, n_bytes: u64, memory_bytes: u64) -> Error {
    let needed = n_bytes.saturating_mul(BYTES_PER_BYTE * 2) >> 20;
    let message = format!(
        "one repeated passage has more than {n_bytes} bytes of copies, too many for {} MiB of memory: allow more than \
         {needed} MiB for each thread with --memory, or remove the copies first with [dedup.paragraph]",
        memory_bytes >> 20
    );
    Error::data(&task.output, message)
}

/// Segments that are compared at once.
struct Batch<'a> {
    rows: &'a [SegmentRow],
    /// All segments, each with a separator behind it.
    text: Vec<u8>,
    /// First byte of each segment in `text`.
    starts: Vec<u32>,
    /// Place of each segment in the order of the documents.
    ranks: Vec<u32>,
}

/// A window of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    /// In the order of the documents, and in them of places, the first of equal windows stays.
    rank: u32,
    /// First byte in its document.
    at: u32,
    /// First byte in the batch.
    position: u32,
    /// Its segment.
    segment: u32,
}

/// Documents are equal in this order when they are the same one.
fn order(row: &SegmentRow) -> (u16, u8, u64, u64, u32, u32) {
    (row.source, row.variant, row.document_id, row.text_hash, row.part, row.row)
}

impl<'a> Batch<'a> {
    fn read(rows: &'a [SegmentRow], blobs: &[Blob]) -> Result<Batch<'a>> {
        let mut text = Vec::new();
        let mut starts = Vec::with_capacity(rows.len());
        for row in rows {
            let start = text.len();
            starts.push(start as u32);
            text.resize(start + row.n_bytes as usize, 0);
            blobs[row.part as usize].read_at(row.offset, &mut text[start..])?;
            text.push(SEPARATOR);
        }
        let mut by_document: Vec<u32> = (0..rows.len() as u32).collect();
        by_document.sort_unstable_by_key(|&i| order(&rows[i as usize]));
        let mut ranks = vec![0; rows.len()];
        let mut rank = 0;
        for pair in by_document.windows(2) {
            rank += u32::from(order(&rows[pair[0] as usize]) != order(&rows[pair[1] as usize]));
            ranks[pair[1] as usize] = rank;
        }
        Ok(Batch { rows, text, starts, ranks })
    }

    fn find(&self, min_bytes: usize, out: &mut marks::Writer) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let firsts = self.firsts(min_bytes)?;
        self.write(min_bytes, &firsts, out)
    }

    /// For each position the first window equal to the one that starts there, plus one; 0 where the window is itself
    /// the first, or no window starts.
    fn firsts(&self, min_bytes: usize) -> Result<Vec<u32>> {
        let failed = |e: libsais::LibsaisError| Error::Usage(format!("the suffix array cannot be made: {e}"));
        let sorted = SuffixArrayConstruction::for_text(&self.text)
            .in_owned_buffer32()
            .single_threaded()
            .run()
            .map_err(failed)?;
        let sorted = sorted.plcp_construction().single_threaded().run().map_err(failed)?;
        let (suffixes, common) = (sorted.suffix_array(), sorted.plcp());
        let mut firsts = vec![0; self.text.len()];
        let mut group: Vec<Window> = Vec::new();
        for &position in suffixes {
            // `common[p]`: bytes that the suffix at p shares with the one before it in the array.
            if (common[position as usize] as usize) < min_bytes {
                self.settle(&mut group, &mut firsts);
            }
            group.extend(self.window(position as u32, min_bytes));
        }
        self.settle(&mut group, &mut firsts);
        Ok(firsts)
    }

    /// The window at a position, if it ends within its segment.
    fn window(&self, position: u32, min_bytes: usize) -> Option<Window> {
        let segment = self.starts.partition_point(|&start| start <= position) - 1;
        let row = &self.rows[segment];
        let inside = position - self.starts[segment];
        (inside as usize + min_bytes <= row.n_bytes as usize).then_some(Window {
            rank: self.ranks[segment],
            at: row.start + inside,
            position,
            segment: segment as u32,
        })
    }

    /// Decides over equal windows. The first one stays, and in each other document of its family the
    /// first one there: they are other texts of the same thing, of which training shows one at a time.
    fn settle(&self, group: &mut Vec<Window>, firsts: &mut [u32]) {
        if group.len() > 1 {
            group.sort_unstable();
            let first = group[0];
            let family = self.rows[first.segment as usize].group;
            let mut kept = first;
            for window in &group[1..] {
                if window.rank != kept.rank && self.rows[window.segment as usize].group == family {
                    kept = *window;
                } else {
                    let from = if window.rank == kept.rank { kept } else { first };
                    firsts[window.position as usize] = from.position + 1;
                }
            }
        }
        group.clear();
    }

    /// Marks, neighbours joined.
    fn write(&self, min_bytes: usize, firsts: &[u32], out: &mut marks::Writer) -> Result<()> {
        let mut holders = vec![false; self.rows.len()];
        let length = min_bytes as u32;
        for (segment, row) in self.rows.iter().enumerate() {
            let base = self.starts[segment];
            let mut open: Option<MarkRow> = None;
            for inside in 0..(row.n_bytes + 1).saturating_sub(length) {
                let Some(first) = firsts[(base + inside) as usize].checked_sub(1) else { continue };
                let holder = self.starts.partition_point(|&start| start <= first) - 1;
                holders[holder] = true;
                let kept = &self.rows[holder];
                let kept_start = kept.start + (first - self.starts[holder]);
                let at = row.start + inside;
                // A window that overlaps its own first copy loses only what lies behind that copy.
                let same = (kept.part, kept.row) == (row.part, row.row);
                let start = if same { at.max(kept_start + length) } else { at };
                let mark = MarkRow {
                    part: row.part,
                    row: row.row,
                    start,
                    end: at + length,
                    kept_part: kept.part,
                    kept_row: kept.row,
                    kept_start: kept_start + (start - at),
                };
                match &mut open {
                    Some(last) if joins(last, &mark) => last.end = mark.end,
                    _ => {
                        open.replace(mark).map_or(Ok(()), |done| out.mark(done))?;
                    }
                }
            }
            open.map_or(Ok(()), |done| out.mark(done))?;
        }
        for (row, _) in self.rows.iter().zip(holders).filter(|(_, holds)| *holds) {
            out.hold(HolderRow { part: row.part, row: row.row })?;
        }
        Ok(())
    }
}

/// Whether `next` goes on where `last` is: in the copy too, or over the same bytes.
fn joins(last: &MarkRow, next: &MarkRow) -> bool {
    let same_copy = (last.kept_part, last.kept_row) == (next.kept_part, next.kept_row);
    let parallel = i64::from(next.start) - i64::from(next.kept_start)
        == i64::from(last.start) - i64::from(last.kept_start);
    same_copy && next.start <= last.end && (parallel || next.start == last.start)
}
