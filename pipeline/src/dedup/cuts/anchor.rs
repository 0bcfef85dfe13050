//! Anchors bring equal windows together without any text leaving its part. A window is `min_bytes` consecutive
//! bytes. Its anchor is the lowest hash of the shorter k-grams in it, so equal windows have equal
//! anchors, and neighbors mostly share theirs: a text of n bytes is a few segments of windows with one anchor
//! each (the minimizers of Roberts et al. 2004, in segments like the super-k-mers of KMC 2). A segment whose
//! anchor is in no other segment holds no window twice; on most text that is nearly all of it, and
//! only the rest is compared byte by byte. The lowest of many hashes is a low number, so rows have a hash of it, by which work is dealt out evenly.
//!
//! `anchors` writes `anchors.run` of a part; `shared_anchors` merges a range of the keys of all parts and writes `shared.run`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cut_rows::{AnchorRow, SharedRow};
use super::{for_each_left, sort_folder};
use crate::error::Result;
use crate::stage::inputs::{PlacedDocuments, inputs};
use crate::stage::{Report, Stage};
use crate::tables::rows::Row;
use crate::tables::sort::Sorter;
use crate::tables::sort::range::KeyRange;
use crate::tables::sort::run::RunWriter;
use crate::tables::{ANCHORS, SHARED};
use crate::watch::Watch;

/// Settings of the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnchorParams {
    /// Bytes of a window.
    pub min_bytes: u32,
    /// Memory for sorting.
    pub memory_bytes: u64,
}

/// Consecutive windows with one anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The anchor.
    pub key: u64,
    /// First byte of the first window.
    pub start: usize,
    /// Byte after the last window.
    pub end: usize,
    /// Whether the anchor occurs at two positions, so that windows of the segment may be equal.
    pub repeats: bool,
}

/// Bytes of the k-grams that anchors are chosen from. Long ones are rare in text without duplicates;
/// short ones make longer segments.
fn gram_bytes(min_bytes: usize) -> usize {
    (min_bytes / 4).clamp(8, 64)
}

/// The segments of a text: every window is in exactly one. Texts shorter than a window have none.
pub fn segments(text: &[u8], min_bytes: usize) -> Vec<Segment> {
    let k = gram_bytes(min_bytes);
    let grams_in_window = min_bytes - k + 1;
    let mut segments: Vec<Segment> = Vec::new();
    // Position of the segment's anchor, to notice a second occurrence.
    let mut anchor_at = 0;
    // Ascending hashes of the window's k-grams that can still become the lowest, including equal ones.
    let mut least: VecDeque<(usize, u64)> = VecDeque::new();
    for (at, hash) in gram_hashes(text, k) {
        while least.back().is_some_and(|&(_, last)| last > hash) {
            least.pop_back();
        }
        least.push_back((at, hash));
        let Some(window) = (at + 1).checked_sub(grams_in_window) else { continue };
        while least.front().is_some_and(|&(first, _)| first < window) {
            least.pop_front();
        }
        // The k-gram just pushed is in the window, so there is a front.
        let Some(&(front, key)) = least.front() else { continue };
        let twice = least.get(1).is_some_and(|&(_, next)| next == key);
        let end = window + min_bytes;
        match segments.last_mut() {
            Some(segment) if segment.key == key => {
                segment.end = end;
                segment.repeats |= twice || front != anchor_at;
            }
            _ => segments.push(Segment { key, start: window, end, repeats: twice }),
        }
        anchor_at = front;
    }
    segments
}

/// Odd, so that no byte of a k-gram is lost modulo 2^64: the multiplier of PCG-64.
const BASE: u64 = 6_364_136_223_846_793_005;

/// A rolling hash of each k-gram, mixed so that the lowest is a random one.
pub(super) fn gram_hashes(text: &[u8], k: usize) -> impl Iterator<Item = (usize, u64)> {
    let top = (1..k).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut hash = 0u64;
    (0..text.len()).filter_map(move |i| {
        if i >= k {
            hash = hash.wrapping_sub((u64::from(text[i - k]) + 1).wrapping_mul(top));
        }
        hash = hash.wrapping_mul(BASE).wrapping_add(u64::from(text[i]) + 1);
        (i + 1 >= k).then(|| (i + 1 - k, mix(hash)))
    })
}

/// The finalizer of SplitMix64.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Kept documents to the anchors of their segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchors(pub AnchorParams);

/// Anchors of all parts to those that are shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedAnchors {
    /// Those that are counted.
    pub range: KeyRange,
    /// Memory for sorting.
    pub memory_bytes: u64,
}

inputs! {
    /// Where shared anchors are looked for.
    pub struct SharedAnchorsInputs {
        /// The folders of all parts' anchors.
        anchors: Vec<PathBuf>,
    }
}

impl Stage for Anchors {
    const NAME: &'static str = "anchors";
    type Inputs = PlacedDocuments;

    /// Collects the anchors of a part.
    ///
    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &PlacedDocuments, folder: &Path, watch: &Watch) -> Result<Report> {
        let mut sorter = Sorter::new(&sort_folder(folder, "anchors"), self.0.memory_bytes, watch)?;
        for_each_left(inputs, watch, |row, document, cuts| {
            for (first, piece) in cuts.pieces(document.text)? {
                for segment in segments(piece.as_bytes(), self.0.min_bytes as usize) {
                    sorter.push(AnchorRow {
                        key: mix(!segment.key),
                        row,
                        start: first + segment.start as u32,
                        end: first + segment.end as u32,
                        copies: 1 + u8::from(segment.repeats),
                    })?;
                }
            }
            Ok(())
        })?;
        let mut run = RunWriter::create(&folder.join(ANCHORS))?;
        let mut rows = sorter.finish()?;
        while let Some(row) = rows.next_row()? {
            run.push(row)?;
        }
        run.commit()?;
        Ok(Report::default())
    }
}

impl Stage for SharedAnchors {
    const NAME: &'static str = "shared_anchors";
    type Inputs = SharedAnchorsInputs;

    /// Finds the anchors of more than one segment.
    ///
    /// # Errors
    /// A run is damaged or a write fails.
    fn run(&self, inputs: &SharedAnchorsInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let mut sorter = Sorter::<AnchorRow>::new(&sort_folder(folder, "anchors"), self.memory_bytes, watch)?;
        let (runs, range) = (inputs.anchors.iter().map(|folder| folder.join(ANCHORS)), self.range);
        sorter.add_ranges(runs, move |row| range.side(row.key));
        let mut groups = sorter.finish()?.groups(|row| row.key);
        let mut run = RunWriter::create(&folder.join(SHARED))?;
        while let Some(mut group) = groups.next_group()? {
            let (mut copies, mut n_rows) = (0u64, 0);
            while let Some(row) = group.next_row()? {
                copies += u64::from(row.copies);
                n_rows += 1;
            }
            if copies > 1 {
                run.push(SharedRow { key: group.key() })?;
            }
            watch.advance(n_rows * AnchorRow::BYTES as u64)?;
        }
        run.commit()?;
        Ok(Report::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_texts_have_no_segment_and_one_window_is_one() {
        assert_eq!(segments(&[b'a'; 31], 32), []);
        let text: Vec<u8> = (0..32).collect();
        let found = segments(&text, 32);
        assert_eq!((found.len(), found[0].start, found[0].end, found[0].repeats), (1, 0, 32, false));
    }

    #[test]
    fn a_run_of_one_byte_is_one_segment_that_repeats() {
        let found = segments(&[b'-'; 5000], 100);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].start, found[0].end, found[0].repeats), (0, 5000, true));
    }

    proptest! {
        #[test]
        fn every_window_is_in_one_segment_and_equal_windows_share_their_anchor(
            text in proptest::collection::vec(0u8..3, 0..400), min_bytes in 32usize..60
        ) {
            let found = segments(&text, min_bytes);
            let mut next = 0;
            let mut anchors: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
            for (i, segment) in found.iter().enumerate() {
                prop_assert_eq!(segment.start, next);
                next = segment.end - min_bytes + 1;
                for window in segment.start..next {
                    anchors.entry(&text[window..window + min_bytes]).or_default().push(i);
                }
            }
            prop_assert_eq!(next, (text.len() + 1).saturating_sub(min_bytes));
            for places in anchors.values().filter(|places| places.len() > 1) {
                let segment = found[places[0]];
                prop_assert!(places.iter().all(|&i| found[i].key == segment.key));
                // A window that occurs twice in one segment is never taken for a single one.
                prop_assert!(places.iter().any(|&i| i != places[0]) || segment.repeats);
            }
        }
    }
}
