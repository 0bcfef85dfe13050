//! Applies the marks of one method to a part: joins them, moves the ends of substrings to words, drops documents
//! with too little left.
//!
//! A document that holds the one copy of something is not dropped for being short, so that no text
//! goes out of the corpus because of a cut.
//!
//! Writes `cuts.rows` and `removed.rows` with what earlier methods
//! cut and removed, and `cuts.parquet` and `drops.parquet` where there are any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::audit::{Cut, CutAudit};
use super::cut_rows::MarkRow;
use super::marks;
use crate::document::Count;
use crate::error::{Error, Result};
use crate::stage::inputs::{PlacedDocuments, inputs};
use crate::stage::{Report, Stage};
use crate::tables::audit::{Drop, Drops};
use crate::tables::cuts::{Cuts, Method};
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::rows::{self, CutRow, RemovedRow};
use crate::tables::{CUT_AUDIT, CUTS, DROPS, REMOVED};
use crate::watch::Watch;

/// Reason for a document with too little left after cuts.
pub const REASON: &str = "too_little_left";

/// What to apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyParams {
    /// The part.
    pub part: u32,
    /// Names of the sources of all parts.
    pub sources: Vec<String>,
    /// Number of the method in [`Method::ALL`].
    pub method: u8,
    /// For substrings, the fewest bytes of a match; absent if marks are cut unchanged.
    pub min_bytes: Option<u32>,
    /// Fewest characters of a document, white space at its ends left out.
    pub min_chars_left: u64,
}

inputs! {
    /// A part with its marks.
    pub struct ApplyInputs {
        /// The part.
        part: PlacedDocuments,
        /// The folders of all marks.
        matches: Vec<PathBuf>,
        /// The documents of all parts, for their names.
        documents: Vec<PathBuf>,
    }
}

impl Stage for ApplyParams {
    const NAME: &'static str = "apply_cuts";
    type Inputs = ApplyInputs;

    /// # Errors
    /// A table is damaged or a write fails.
    fn run(&self, inputs: &ApplyInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let ApplyInputs { part, matches, documents: all_documents } = inputs;
        let PlacedDocuments { documents, removed, cuts, .. } = part;
        let unknown = || Error::data(folder, "has a method or a part that is not there");
        let method = *Method::ALL.get(usize::from(self.method)).ok_or_else(unknown)?;
        let source = self.sources.get(self.part as usize).ok_or_else(unknown)?;
        let holders = marks::holders_of_part(matches, self.part)?;
        let marks = marks::of_part(matches, self.part)?;
        let names = Names::find(&marks, all_documents, watch)?;
        let stretches = stretches(&marks, method == Method::Substring);
        let earlier = Cuts::read(cuts)?;
        let mut removed = rows::read::<RemovedRow>(removed)?;
        let mut all_cuts: Vec<CutRow> = earlier.rows().to_vec();
        let mut report = Report::default();
        let mut drops = Drops::default();
        let mut audit = CutAudit::new(&folder.join(CUT_AUDIT));
        let mut stretches = &stretches[..];
        for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                let n_stretches = stretches.iter().take_while(|stretch| stretch.row == row).count();
                if n_stretches == 0 {
                    continue;
                }
                let (mine, rest) = stretches.split_at(n_stretches);
                stretches = rest;
                let text = document.text;
                let before = earlier.of(row);
                let booked: u64 = before.raw_bytes(document.raw_bytes, text.len()).values().sum();
                let mut cut = Vec::with_capacity(n_stretches);
                for stretch in mine {
                    let place = stretch.start as usize..stretch.end as usize;
                    let place = match self.min_bytes {
                        // Anything shorter than a match is the rest of one that overlaps its own copy.
                        Some(min_bytes) if place.len() < min_bytes as usize => to_words(text, place, 0),
                        Some(min_bytes) => to_words(text, place, min_bytes as usize / 4),
                        None => place,
                    };
                    if text.get(place.clone()).is_some_and(|taken| !taken.is_empty()) {
                        cut.push((stretch, place));
                    }
                }
                let mut rows = before.rows().to_vec();
                rows.extend(cut.iter().map(|(_, place)| CutRow {
                    row,
                    start: place.start as u32,
                    end: place.end as u32,
                    method: method.number(),
                }));
                rows.sort_unstable();
                let list = Cuts::of_rows(rows);
                let left = list.of(row).apply(text)?;
                let left = left.trim();
                let n_chars = left.chars().count() as u64;
                // Cuts of earlier methods are already recorded; this is the rest.
                let count = Count::one(u64::from(document.raw_bytes) - booked);
                let is_short = n_chars < self.min_chars_left && holders.binary_search(&row).is_err();
                if left.is_empty() || is_short {
                    removed.push(RemovedRow { row });
                    *report.dropped.entry(REASON.to_owned()).or_default() += count;
                    drops.push(&Drop {
                        id: document.id,
                        document_id: document.document_id,
                        source,
                        stage: method.name(),
                        reason: REASON,
                        measured: n_chars as f64,
                        threshold: self.min_chars_left as f64,
                        raw_bytes: count.bytes,
                    });
                } else if !cut.is_empty() {
                    let total: u64 = list.of(row).raw_bytes(document.raw_bytes, text.len()).values().sum();
                    *report.cut.entry(method.name().to_owned()).or_default() += Count::one(total - booked);
                    all_cuts.extend(list.of(row).rows().iter().filter(|cut| cut.method == method.number()));
                }
                for (stretch, place) in cut {
                    for (mark, start, taken) in stretch.copies(text, place) {
                        let (kept_source, kept) = names.of(mark, &self.sources);
                        audit.push(&Cut {
                            source,
                            id: document.id,
                            document_id: document.document_id,
                            start,
                            end: start + taken.len() as u32,
                            method: method.name(),
                            kept_source,
                            kept,
                            kept_start: mark.kept_start + (start - mark.start),
                            text: taken,
                        })?;
                    }
                }
                watch.advance(count.bytes)?;
            }
        }
        removed.sort_unstable();
        all_cuts.retain(|cut| removed.binary_search(&RemovedRow { row: cut.row }).is_err());
        all_cuts.sort_unstable();
        rows::write(&folder.join(CUTS), &all_cuts)?;
        rows::write(&folder.join(REMOVED), &removed)?;
        drops.write(&folder.join(DROPS))?;
        audit.finish()?;
        Ok(report)
    }
}

/// A cut: a mark, or marks that touch or overlap.
#[derive(Debug, PartialEq, Eq)]
struct Stretch<'a> {
    row: u32,
    start: u32,
    end: u32,
    marks: &'a [MarkRow],
}

/// The stretches of marks that are sorted by place; those that touch or overlap become one if they are to be `joined`.
fn stretches(marks: &[MarkRow], joined: bool) -> Vec<Stretch<'_>> {
    let mut found: Vec<Stretch<'_>> = Vec::new();
    let mut first = 0;
    for (i, mark) in marks.iter().enumerate() {
        match found.last_mut().filter(|last| joined && last.row == mark.row && mark.start <= last.end) {
            Some(last) => {
                last.end = last.end.max(mark.end);
                last.marks = &marks[first..=i];
            }
            None => {
                first = i;
                found.push(Stretch { row: mark.row, start: mark.start, end: mark.end, marks: &marks[i..=i] });
            }
        }
    }
    found
}

impl<'a> Stretch<'a> {
    /// The runs of what is cut, `place` of `text`, that have one copy each: its mark, the first byte, the run. Between two runs
    /// a character is left out that the joint of their marks tears.
    fn copies<'t>(
        &self,
        text: &'t str,
        place: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (&'a MarkRow, u32, &'t str)> {
        let mut covered = place.start;
        self.marks.iter().filter_map(move |mark| {
            let start = text.ceil_char_boundary(covered.max(mark.start as usize));
            let end = text.floor_char_boundary((mark.end as usize).min(place.end));
            covered = covered.max((mark.end as usize).min(place.end));
            let run = text.get(start..end).filter(|run| !run.is_empty())?;
            Some((mark, start as u32, run))
        })
    }
}

/// Moves both ends inwards to the next start of a word, so that no word is torn, but by no more than `most` bytes: in
/// writing without spaces they move to the next character.
fn to_words(text: &str, place: std::ops::Range<usize>, most: usize) -> std::ops::Range<usize> {
    let is_start = |at: usize| {
        text.is_char_boundary(at)
            && (at == 0 || at == text.len() || text[..at].ends_with(char::is_whitespace))
    };
    let most = most.min(MAX_WORD_BYTES);
    let near = (place.start..place.start + most).find(|&at| is_start(at));
    let start = near.or_else(|| (place.start..place.end).find(|&at| text.is_char_boundary(at)));
    let near = (place.end - most.min(place.end)..=place.end).rev().find(|&at| is_start(at));
    let end = near.or_else(|| (place.start..=place.end).rev().find(|&at| text.is_char_boundary(at)));
    let start = start.unwrap_or(place.end);
    start..end.unwrap_or(start).max(start)
}

/// Longer words than this are torn.
const MAX_WORD_BYTES: usize = 64;

/// Names of the documents that hold the copies.
struct Names(BTreeMap<(u32, u32), String>);

impl Names {
    fn find(marks: &[MarkRow], all_documents: &[PathBuf], watch: &Watch) -> Result<Names> {
        let mut names: BTreeMap<(u32, u32), String> =
            marks.iter().map(|mark| ((mark.kept_part, mark.kept_row), String::new())).collect();
        let mut parts: Vec<u32> = names.keys().map(|(part, _)| *part).collect();
        parts.dedup();
        for (part, documents) in
            parts.iter().filter_map(|part| Some((part, all_documents.get(*part as usize)?)))
        {
            for batch in DocumentBatches::open(documents, Columns::Ids)? {
                for (row, document) in batch?.documents() {
                    if let Some(name) = names.get_mut(&(*part, row)) {
                        *name = document.id.to_owned();
                    }
                }
                watch.advance(0)?;
            }
        }
        Ok(Names(names))
    }

    fn of<'a>(&'a self, mark: &MarkRow, sources: &'a [String]) -> (&'a str, &'a str) {
        let source = sources.get(mark.kept_part as usize).map_or("", String::as_str);
        (source, self.0.get(&(mark.kept_part, mark.kept_row)).map_or("", String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_move_inwards_to_words_and_never_into_a_character() {
        let check = |text: &str, place: std::ops::Range<usize>, expected: &str| {
            assert_eq!(&text[to_words(text, place, 8)], expected, "{text:?}");
        };
        check("one two three four", 2..15, "two three ");
        check("one two three four", 4..14, "two three ");
        check("one two three four", 0..18, "one two three four");
        // Without spaces within eight bytes, to the next character.
        check("ééééééééééééééé", 1..29, &"é".repeat(13));
        check("abcdefghijklmnopqrstuvwxyz", 3..23, "defghijklmnopqrstuvw");
        // Inside one character nothing is left.
        check("é", 1..1, "");
    }

    #[test]
    fn touching_marks_become_one() {
        let mark = |row, start, end| MarkRow {
            part: 0,
            row,
            start,
            end,
            kept_part: 0,
            kept_row: 9,
            kept_start: start,
        };
        let marks = [mark(0, 1, 5), mark(0, 5, 8), mark(0, 6, 7), mark(1, 7, 9), mark(1, 10, 11)];
        let places = |joined| -> Vec<(u32, u32, u32, usize)> {
            stretches(&marks, joined).iter().map(|s| (s.row, s.start, s.end, s.marks.len())).collect()
        };
        assert_eq!(places(true), [(0, 1, 8, 3), (1, 7, 9, 1), (1, 10, 11, 1)]);
        assert_eq!(places(false).len(), 5);
    }

    /// A row used to name the copy of the first byte before the ends were moved to words, and one copy for marks with several.
    #[test]
    fn every_run_of_a_cut_names_its_own_copy() {
        let mark = |start, end, kept_start| MarkRow {
            part: 0,
            row: 0,
            start,
            end,
            kept_part: 0,
            kept_row: 9,
            kept_start,
        };
        let text = "one two thrée four five";
        let marks = [mark(1, 12, 100), mark(6, 9, 700), mark(12, 22, 300)];
        let stretch = &stretches(&marks, true)[0];
        let runs: Vec<(u32, u32, &str)> = stretch
            .copies(text, 4..20)
            .map(|(mark, start, run)| (start, mark.kept_start + (start - mark.start), run))
            .collect();
        // Byte 12 is the middle of the é, so neither copy has it.
        assert_eq!(runs, [(4, 103, "two thr"), (13, 301, "e four ")]);
    }
}
