//! Repeated paragraphs. Two paragraphs are the same when their simplified forms are: lower case, white space
//! collapsed to single spaces, none at the ends. They are compared by their XXH3-128.
//!
//! `paragraphs` writes the sorted `paragraphs.run` of a part; `paragraph_matches` merges a range of the keys of all
//! parts and writes `marks.run` and `holders.run`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::config::{KeepCopy, Split};
use super::cut_rows::{HolderRow, MarkRow, ParagraphRow};
use super::{PartParams, for_each_left, marks, sort_folder};
use crate::error::Result;
use crate::stage::inputs::{PlacedDocuments, inputs};
use crate::stage::{Report, Stage};
use crate::tables::PARAGRAPHS;
use crate::tables::sort::Sorter;
use crate::tables::sort::range::KeyRange;
use crate::tables::sort::run::RunWriter;
use crate::watch::Watch;

/// Which paragraphs of a part to collect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParagraphParams {
    /// The part.
    pub part: PartParams,
    /// Where a paragraph ends.
    pub split: Split,
    /// Fewest characters of the simplified paragraph.
    pub min_chars: u64,
    /// Memory for sorting.
    pub memory_bytes: u64,
}

/// Which paragraphs to cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParagraphMatchParams {
    /// Documents that must hold the paragraph.
    pub min_documents: u32,
    /// Which copy stays.
    pub keep: KeepCopy,
    /// Those with which keys are compared.
    pub range: KeyRange,
    /// Memory for sorting.
    pub memory_bytes: u64,
}

impl Stage for ParagraphParams {
    const NAME: &'static str = "paragraphs";
    type Inputs = PlacedDocuments;

    /// Collects the paragraphs of a part.
    ///
    /// # Errors
    /// The part is damaged or a write fails.
    fn run(&self, inputs: &PlacedDocuments, folder: &Path, watch: &Watch) -> Result<Report> {
        let mut sorter = Sorter::new(&sort_folder(folder, "paragraphs"), self.memory_bytes, watch)?;
        let mut simple = String::new();
        for_each_left(inputs, watch, |row, document, cuts| {
            for (first, piece) in cuts.pieces(document.text)? {
                for place in paragraphs(piece, self.split) {
                    simplify(&piece[place.clone()], &mut simple);
                    if (simple.chars().count() as u64) < self.min_chars {
                        continue;
                    }
                    sorter.push(ParagraphRow {
                        key: xxh3_128(simple.as_bytes()),
                        source: self.part.source,
                        variant: document.variant,
                        document_id: document.document_id.0,
                        text_hash: document.text_hash.0 as u64,
                        part: self.part.part,
                        row,
                        start: first + place.start as u32,
                        end: first + place.end as u32,
                        group: self.part.group(document),
                    })?;
                }
            }
            Ok(())
        })?;
        let mut run = RunWriter::create(&folder.join(PARAGRAPHS))?;
        let mut rows = sorter.finish()?;
        while let Some(row) = rows.next_row()? {
            run.push(row)?;
        }
        run.commit()?;
        Ok(Report::default())
    }
}

/// Places of the paragraphs of a text, each with the line end and the blank lines that follow it, so that
/// cutting one leaves no gap.
fn paragraphs(text: &str, split: Split) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut end = 0;
    let mut after_blank = true;
    for line in text.split_inclusive('\n') {
        let place = end..end + line.len();
        end = place.end;
        let is_blank = line.trim().is_empty();
        let starts = !is_blank && (split == Split::Line || after_blank);
        match found.last_mut() {
            _ if starts => found.push(place),
            Some(last) => last.end = place.end,
            // Blank lines at the start belong to nothing.
            None => {}
        }
        after_blank = is_blank;
    }
    found
}

/// Lower case, single spaces.
fn simplify(paragraph: &str, out: &mut String) {
    out.clear();
    for word in paragraph.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
}

inputs! {
    /// Where repeated paragraphs are looked for.
    pub struct ParagraphMatchInputs {
        /// The folders of all parts' paragraphs.
        paragraphs: Vec<PathBuf>,
    }
}

impl Stage for ParagraphMatchParams {
    const NAME: &'static str = "paragraph_matches";
    type Inputs = ParagraphMatchInputs;

    /// Finds the paragraphs that enough documents share.
    ///
    /// # Errors
    /// A run is damaged or a write fails.
    fn run(&self, inputs: &ParagraphMatchInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        // Three sorts share the memory: this one is read while the other two are filled.
        let mut sorter =
            Sorter::<ParagraphRow>::new(&sort_folder(folder, "paragraphs"), self.memory_bytes / 2, watch)?;
        let (runs, range) = (inputs.paragraphs.iter().map(|folder| folder.join(PARAGRAPHS)), self.range);
        sorter.add_ranges(runs, move |row| range.side((row.key >> 64) as u64));
        let mut out = marks::Writer::new(folder, self.memory_bytes / 2, watch)?;
        let mut groups = sorter.finish()?.groups(|row| row.key);
        let mut held: Vec<ParagraphRow> = Vec::new();
        while let Some(mut group) = groups.next_group()? {
            // Rows are held back until enough documents were seen; then they only flow through.
            held.clear();
            let mut documents = BTreeSet::new();
            while documents.len() < self.min_documents as usize
                && let Some(row) = group.next_row()?
            {
                documents.insert(row.group);
                held.push(row);
            }
            if documents.len() < self.min_documents as usize {
                continue;
            }
            let mut copies = Copies::new(held[0], self.keep);
            held.iter().try_for_each(|row| copies.see(row, &mut out))?;
            while let Some(row) = group.next_row()? {
                copies.see(&row, &mut out)?;
            }
            watch.advance(0)?;
        }
        out.finish(folder)?;
        Ok(Report::default())
    }
}

/// The copies of one paragraph, in ascending order.
struct Copies {
    keep: KeepCopy,
    first: ParagraphRow,
    /// The last copy that stays.
    last_kept: Option<ParagraphRow>,
}

impl Copies {
    fn new(first: ParagraphRow, keep: KeepCopy) -> Copies {
        Copies { keep, first, last_kept: None }
    }

    /// The first document keeps its first copy, and so does each document of its family: they are other texts
    /// of the same thing, and training shows one at a time.
    fn see(&mut self, row: &ParagraphRow, out: &mut marks::Writer) -> Result<()> {
        let in_last = self.last_kept.is_some_and(|kept| (kept.part, kept.row) == (row.part, row.row));
        if self.keep == KeepCopy::First && row.group == self.first.group && !in_last {
            self.last_kept = Some(*row);
            return out.hold(HolderRow { part: row.part, row: row.row });
        }
        let kept = self.last_kept.filter(|_| in_last).unwrap_or(self.first);
        out.mark(MarkRow {
            part: row.part,
            row: row.row,
            start: row.start,
            end: row.end,
            kept_part: kept.part,
            kept_row: kept.row,
            kept_start: kept.start,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, split: Split, expected: &[&str]) {
        let found: Vec<&str> = paragraphs(text, split).into_iter().map(|place| &text[place]).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn lines_and_blocks_take_their_white_space_along() {
        check("a\nb\n\nc", Split::Line, &["a\n", "b\n\n", "c"]);
        check("a\nb\n\n \nc\n", Split::BlankLine, &["a\nb\n\n \n", "c\n"]);
        check("\n\na\n\n", Split::BlankLine, &["a\n\n"]);
        check("\n a", Split::Line, &[" a"]);
        check("", Split::Line, &[]);
        check(" \n\n", Split::BlankLine, &[]);
    }

    #[test]
    fn case_and_white_space_do_not_count() {
        let mut simple = String::new();
        simplify("  All  RIGHTS\treserved É\n", &mut simple);
        assert_eq!(simple, "all rights reserved é");
    }
}
