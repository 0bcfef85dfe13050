//! Exact repeated substrings of a range of anchors. Windows with one anchor are all in one range, so nothing is lost
//! between ranges, parts or batches, and ranges are compared on all cores.
//!
//! Equal windows have equal anchors, so segments are compared group by group, a group being the segments with one anchor. Its windows
//! are sorted by a hash, and those with equal hashes compared byte by byte: of equal windows the first in the order of documents
//! stays and the others are marked. Neighboring marks become one.
//!
//! Writes `marks.run` and `holders.run`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cut_rows::{HolderRow, MarkRow, SegmentRow};
use super::segment::SEGMENTS;
use super::{anchor, marks, sort_folder};
use crate::error::{Error, Result};
use crate::stage::inputs::inputs;
use crate::stage::{Report, Stage};
use crate::tables::SEGMENT_BYTES;
use crate::tables::rows::Blob;
use crate::tables::sort::Sorter;
use crate::tables::sort::range::KeyRange;
use crate::watch::Watch;

/// What to compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubstringParams {
    /// Which anchors.
    pub range: KeyRange,
    /// Bytes of a window.
    pub min_bytes: u32,
    /// Memory for a group and for sorting.
    pub memory_bytes: u64,
}

/// Memory for each byte of text in a group: the text, the array of first windows, and the windows that are sorted at once.
const BYTES_PER_BYTE: u64 = 10;
/// Windows are numbered in 32 bits.
const MAX_GROUP_BYTES: u64 = u32::MAX as u64 - 1;
/// Hash and place of a window.
const HASHED_BYTES: u64 = 16;
/// The bar moves by this many bytes.
const BAR_BYTES: u64 = 1 << 18;

inputs! {
    /// Where repeated substrings are looked for.
    pub struct SubstringInputs {
        /// The folders of all parts' segments.
        segments: Vec<PathBuf>,
    }
}

impl Stage for SubstringParams {
    const NAME: &'static str = "substring_matches";
    type Inputs = SubstringInputs;

    /// # Errors
    /// A run is damaged, a write fails, or one anchor has more text than the memory holds.
    fn run(&self, inputs: &SubstringInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let quarter = self.memory_bytes / 4;
        let mut sorter = Sorter::<SegmentRow>::new(&sort_folder(folder, "segments"), quarter, watch)?;
        let (runs, range) = (inputs.segments.iter().map(|folder| folder.join(SEGMENTS)), self.range);
        sorter.add_ranges(runs, move |row| range.side(row.key));
        let blobs = inputs
            .segments
            .iter()
            .map(|folder| Blob::open(&folder.join(SEGMENT_BYTES)))
            .collect::<Result<Vec<_>>>()?;
        let mut out = marks::Writer::new(folder, quarter, watch)?;
        let limit = (quarter * 2 / BYTES_PER_BYTE).min(MAX_GROUP_BYTES);
        let most_windows = (limit * (BYTES_PER_BYTE - 5) / HASHED_BYTES).max(1) as usize;
        let mut groups = sorter.finish()?.groups(|row| row.key);
        let (mut group, mut done) = (Group::default(), 0);
        while let Some(mut rows) = groups.next_group()? {
            group.clear();
            while let Some(row) = rows.next_row()? {
                if group.text.len() as u64 + u64::from(row.n_bytes) > limit {
                    return Err(too_large(folder, limit, self.memory_bytes));
                }
                group.push(row, &blobs)?;
            }
            group.find(self.min_bytes as usize, most_windows, &mut out)?;
            done += group.text.len() as u64;
            if done >= BAR_BYTES {
                watch.advance(std::mem::take(&mut done))?;
            }
        }
        watch.advance(done)?;
        out.finish(folder)?;
        Ok(Report::default())
    }
}

fn too_large(folder: &Path, n_bytes: u64, memory_bytes: u64) -> Error {
    let needed = n_bytes.saturating_mul(BYTES_PER_BYTE * 2) >> 20;
    let message = format!(
        "one repeated passage has more than {n_bytes} bytes of copies, too many for {} MiB of memory: allow more than \
         {needed} MiB for each thread with --memory, or remove the copies first with [dedup.paragraph]",
        memory_bytes >> 20
    );
    Error::data(folder, message)
}

/// Segments with one anchor.
#[derive(Default)]
struct Group {
    rows: Vec<SegmentRow>,
    /// All segments, one after another.
    text: Vec<u8>,
    /// First byte of each segment in `text`.
    starts: Vec<u32>,
    /// Place of each segment in the order of the documents.
    ranks: Vec<u32>,
    /// Hash and first byte in `text` of the windows that are sorted at once.
    hashed: Vec<(u64, u32)>,
    /// For each byte the first window equal to the one that starts there, plus one; 0 where the window is itself
    /// the first, or no window starts.
    firsts: Vec<u32>,
    /// Equal windows.
    equal: Vec<Window>,
}

/// A window of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    /// In the order of the documents, and in them of places, the first of equal windows stays.
    rank: u32,
    /// First byte in its document.
    at: u32,
    /// First byte in the group.
    position: u32,
    /// Its segment.
    segment: u32,
}

/// Documents are equal in this order when they are the same one.
fn order(row: &SegmentRow) -> (u16, u8, u64, u64, u32, u32) {
    (row.source, row.variant, row.document_id, row.text_hash, row.part, row.row)
}

impl Group {
    fn clear(&mut self) {
        self.rows.clear();
        self.text.clear();
        self.starts.clear();
    }

    fn push(&mut self, row: SegmentRow, blobs: &[Blob]) -> Result<()> {
        let start = self.text.len();
        self.starts.push(start as u32);
        self.text.resize(start + row.n_bytes as usize, 0);
        blobs[row.part as usize].read_at(row.offset, &mut self.text[start..])?;
        self.rows.push(row);
        Ok(())
    }

    fn find(&mut self, min_bytes: usize, most_windows: usize, out: &mut marks::Writer) -> Result<()> {
        self.rank();
        self.firsts.clear();
        self.firsts.resize(self.text.len(), 0);
        let windows = |row: &SegmentRow| (row.n_bytes as usize + 1).saturating_sub(min_bytes);
        // Where there are too many windows to sort, some of the hashes are looked at at a time.
        let rounds = self.rows.iter().map(windows).sum::<usize>().div_ceil(most_windows).max(1) as u64;
        for round in 0..rounds {
            self.hash(min_bytes, round, rounds);
            let hashed = std::mem::take(&mut self.hashed);
            hashed.chunk_by(|a, b| a.0 == b.0).for_each(|same| self.compare(same, min_bytes));
            self.hashed = hashed;
        }
        self.write(min_bytes, out)
    }

    fn rank(&mut self) {
        let mut by_document: Vec<u32> = (0..self.rows.len() as u32).collect();
        by_document.sort_unstable_by_key(|&i| order(&self.rows[i as usize]));
        self.ranks.clear();
        self.ranks.resize(self.rows.len(), 0);
        let mut rank = 0;
        for pair in by_document.windows(2) {
            rank += u32::from(order(&self.rows[pair[0] as usize]) != order(&self.rows[pair[1] as usize]));
            self.ranks[pair[1] as usize] = rank;
        }
    }

    /// The windows of a round, by hash and place.
    fn hash(&mut self, min_bytes: usize, round: u64, rounds: u64) {
        self.hashed.clear();
        for (row, &start) in self.rows.iter().zip(&self.starts) {
            let segment = &self.text[start as usize..start as usize + row.n_bytes as usize];
            let windows = anchor::gram_hashes(segment, min_bytes)
                .filter(|(_, hash)| (u128::from(*hash) * u128::from(rounds)) >> 64 == u128::from(round));
            self.hashed.extend(windows.map(|(at, hash)| (hash, start + at as u32)));
        }
        self.hashed.sort_unstable();
    }

    /// Decides over windows with one hash, which are equal but for a chance of one in 2^64.
    fn compare(&mut self, same: &[(u64, u32)], min_bytes: usize) {
        let mut equal = std::mem::take(&mut self.equal);
        let mut left = Cow::Borrowed(same);
        while left.len() > 1 {
            let mut others = Vec::new();
            let first = self.text_at(left[0].1, min_bytes);
            for &(hash, position) in left.iter() {
                match self.text_at(position, min_bytes) == first {
                    true => equal.push(self.window(position)),
                    false => others.push((hash, position)),
                }
            }
            self.settle(&mut equal);
            left = Cow::Owned(others);
        }
        self.equal = equal;
    }

    fn text_at(&self, position: u32, min_bytes: usize) -> &[u8] {
        &self.text[position as usize..position as usize + min_bytes]
    }

    fn window(&self, position: u32) -> Window {
        let segment = self.segment_at(position);
        let at = self.rows[segment].start + (position - self.starts[segment]);
        Window { rank: self.ranks[segment], at, position, segment: segment as u32 }
    }

    fn segment_at(&self, position: u32) -> usize {
        self.starts.partition_point(|&start| start <= position) - 1
    }

    /// Decides over equal windows. The first one stays, and in each other document of its family the
    /// first one there: they are other texts of the same thing, and training shows one at a time.
    fn settle(&mut self, group: &mut Vec<Window>) {
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
                    self.firsts[window.position as usize] = from.position + 1;
                }
            }
        }
        group.clear();
    }

    /// Marks, neighbors joined.
    fn write(&self, min_bytes: usize, out: &mut marks::Writer) -> Result<()> {
        let mut holders = vec![false; self.rows.len()];
        let length = min_bytes as u32;
        for (segment, row) in self.rows.iter().enumerate() {
            let base = self.starts[segment];
            let mut open: Option<MarkRow> = None;
            for inside in 0..(row.n_bytes + 1).saturating_sub(length) {
                let Some(first) = self.firsts[(base + inside) as usize].checked_sub(1) else { continue };
                let holder = self.segment_at(first);
                holders[holder] = true;
                let kept = &self.rows[holder];
                let kept_start = kept.start + (first - self.starts[holder]);
                let at = row.start + inside;
                // A window that overlaps its own first copy loses only what lies after that copy.
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

/// Whether `next` continues `last`: in the copy too, or over the same bytes.
fn joins(last: &MarkRow, next: &MarkRow) -> bool {
    let same_copy = (last.kept_part, last.kept_row) == (next.kept_part, next.kept_row);
    let parallel = i64::from(next.start) - i64::from(next.kept_start)
        == i64::from(last.start) - i64::from(last.kept_start);
    same_copy && next.start <= last.end && (parallel || next.start == last.start)
}

#[cfg(test)]
mod tests {
    use libsais::SuffixArrayConstruction;
    use moe_shards::permute::mix64;

    use super::*;

    fn group(texts: &[Vec<u8>]) -> Group {
        let mut group = Group::default();
        for (i, text) in texts.iter().enumerate() {
            group.starts.push(group.text.len() as u32);
            group.text.extend(text);
            group.rows.push(SegmentRow {
                key: 1,
                source: 0,
                variant: 0,
                // Segments of a few documents, and a family of two of them.
                document_id: i as u64 % 5,
                text_hash: i as u64 % 5,
                part: 0,
                row: i as u32 % 5,
                start: 1000 * i as u32,
                n_bytes: text.len() as u32,
                group: [7, 7, 8, 9, 10][i % 5],
                offset: 0,
            });
        }
        group
    }

    fn firsts(group: &mut Group, min_bytes: usize, rounds: u64) -> Vec<u32> {
        group.rank();
        group.firsts = vec![0; group.text.len()];
        for round in 0..rounds {
            group.hash(min_bytes, round, rounds);
            let hashed = group.hashed.clone();
            hashed.chunk_by(|a, b| a.0 == b.0).for_each(|same| group.compare(same, min_bytes));
        }
        std::mem::take(&mut group.firsts)
    }

    /// The same with windows that a suffix array brings together.
    fn by_suffix_array(group: &mut Group, min_bytes: usize) -> Vec<u32> {
        let (mut text, mut places) = (Vec::new(), Vec::new());
        for (row, &start) in group.rows.iter().zip(&group.starts) {
            text.extend(&group.text[start as usize..(start + row.n_bytes) as usize]);
            let windows = (row.n_bytes as usize + 1).saturating_sub(min_bytes) as u32;
            places.extend((0..=row.n_bytes).map(|i| (i < windows).then_some(start + i)));
            // No byte of UTF-8, so no window of text holds it.
            text.push(0xff);
        }
        let sorted = SuffixArrayConstruction::for_text(&text).in_owned_buffer32().single_threaded().run();
        let sorted = sorted.unwrap().plcp_construction().single_threaded().run().unwrap();
        group.rank();
        group.firsts = vec![0; group.text.len()];
        let mut equal = Vec::new();
        for &suffix in sorted.suffix_array() {
            if (sorted.plcp()[suffix as usize] as usize) < min_bytes {
                group.settle(&mut equal);
            }
            equal.extend(places[suffix as usize].map(|position| group.window(position)));
        }
        group.settle(&mut equal);
        std::mem::take(&mut group.firsts)
    }

    #[test]
    fn equal_windows_are_those_that_a_suffix_array_brings_together() {
        for seed in 0..30u64 {
            let draw = |i: u64| mix64(seed << 32 | i) >> 7;
            // Few letters and copied stretches make windows that repeat in one segment and in several.
            let letters = 1 + draw(1) % 3;
            let mut texts: Vec<Vec<u8>> = Vec::new();
            for i in 0..8 {
                let mut text: Vec<u8> =
                    (0..20 + draw(i) % 60).map(|k| b'a' + (draw(100 * i + k) % letters) as u8).collect();
                if let Some(other) = texts.last() {
                    text.extend(&other[other.len() / 3..]);
                }
                texts.push(text);
            }
            let mut group = group(&texts);
            let expected = by_suffix_array(&mut group, 12);
            assert!(expected.iter().any(|&first| first > 0));
            for rounds in [1, 3] {
                assert_eq!(firsts(&mut group, 12, rounds), expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn windows_of_one_hash_that_differ_are_told_apart() {
        let mut group = group(&[b"abcdabceabcdabce".to_vec()]);
        group.rank();
        group.firsts = vec![0; 16];
        group.compare(&[(5, 0), (5, 4), (5, 8), (5, 12)], 4);
        assert_eq!(
            group.firsts.iter().map(|&f| f as usize).collect::<Vec<_>>(),
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0]
        );
    }
}
