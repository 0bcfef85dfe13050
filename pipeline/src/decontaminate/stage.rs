//! Looks for text of evaluation sets in the documents of a part, after deduplication.
//!
//! The files of the benchmarks are among the parameters. Writes `removed.rows` and `cuts.rows` with what earlier stages removed and cut, `matches.jsonl`, and audit tables where there
//! is something to say. With the action to tag, it writes the tags of the part with its own among them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::audit::{ContaminationAudit, Match};
use super::config::Action;
use super::load::{self, Benchmark};
use crate::decontaminate::{Found, Index, Scanner, Settings};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::stage::inputs::{CutDocuments, inputs};
use crate::stage::{Report, Stage};
use crate::tables::audit::{Drop, Drops};
use crate::tables::cuts::{Cuts, DocumentCuts, Method};
use crate::tables::documents::{Columns, Document, DocumentBatches};
use crate::tables::rows::{self, CutRow, RemovedRow};
use crate::tables::tags::{Tags, TagsWriter, too_many_tags};
use crate::tables::{CONTAMINATION_AUDIT, CUTS, DROPS, MATCHES, REMOVED};
use crate::watch::Watch;

/// Reason to drop a document for its contents.
pub const REASON: &str = "contaminated";

/// What to look for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecontaminateParams {
    /// Name of the source.
    pub source: String,
    /// How to look.
    pub settings: Settings,
    /// What happens to documents that hold something.
    pub action: Action,
    /// The tag of documents that hold something, where they are tagged.
    pub tag: Option<String>,
    /// Fewest characters that cuts must leave.
    pub min_chars_left: u64,
    /// The evaluation sets.
    pub benchmarks: Vec<Benchmark>,
}

inputs! {
    /// Where evaluation text is looked for.
    pub struct DecontaminateInputs {
        /// The part.
        part: CutDocuments,
        /// The folder of the tags of filters, where documents are to be tagged and there are any.
        tags: Option<PathBuf>,
    }
}

impl Stage for DecontaminateParams {
    const NAME: &'static str = "decontaminate";
    type Inputs = DecontaminateInputs;

    /// # Errors
    /// A table is damaged, an evaluation set cannot be read, or a write fails.
    fn run(&self, inputs: &DecontaminateInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let CutDocuments { documents, kept, removed, cuts } = &inputs.part;
        let loaded = load::shared(&self.benchmarks, &self.settings)?;
        let mut left = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
        let earlier = Cuts::read(cuts)?;
        let mut part = Part {
            params: self,
            index: &loaded.index,
            report: Report::default(),
            removed: rows::read::<RemovedRow>(removed)?,
            cuts: earlier.rows().to_vec(),
            drops: Drops::default(),
            audit: ContaminationAudit::new(&folder.join(CONTAMINATION_AUDIT)),
            matches: AtomicFile::create(&folder.join(MATCHES))?,
        };
        let filter_tags =
            inputs.tags.as_ref().map_or_else(|| Ok(Tags::default()), |folder| Tags::read(folder))?;
        let mut tags = TagsWriter::default();
        let mut scanner = Scanner::default();
        for batch in DocumentBatches::open(documents, Columns::All)? {
            for (row, document) in batch?.documents() {
                if left.next_if_eq(&row).is_none() {
                    continue;
                }
                let before = earlier.of(row);
                let text = before.apply(document.text)?;
                let found = scanner.scan(&loaded.index, &text);
                if !found.is_empty() {
                    part.take(row, &document, before, &text, &found)?;
                }
                if let Some(tag) = &self.tag {
                    let own = (!found.is_empty()).then(|| tag.clone());
                    let all: Vec<String> = filter_tags.of(row).map(str::to_owned).chain(own).collect();
                    tags.add(row, &all).map_err(|tags| too_many_tags(&self.source, &tags))?;
                    part.report.tags.extend(all);
                }
                watch.advance_by_document(u64::from(document.raw_bytes))?;
            }
        }
        tags.write(folder)?;
        part.finish(folder)
    }
}

/// What is being written.
struct Part<'a> {
    params: &'a DecontaminateParams,
    index: &'a Index,
    report: Report,
    removed: Vec<RemovedRow>,
    cuts: Vec<CutRow>,
    drops: Drops,
    audit: ContaminationAudit,
    matches: AtomicFile,
}

impl Part<'_> {
    /// Books a document that holds evaluation text. Places of `found` are in `text`, which earlier cuts have left.
    fn take(
        &mut self,
        row: u32,
        document: &Document<'_>,
        before: DocumentCuts<'_>,
        text: &str,
        found: &[Found],
    ) -> Result<()> {
        let pieces = before.pieces(document.text)?;
        for one in found {
            let eval = &self.index.texts()[one.text as usize];
            let benchmark = &self.params.benchmarks[usize::from(eval.benchmark)];
            let place = in_document(&pieces, one.start, one.end);
            let found = Match {
                source: self.params.source.clone(),
                id: document.id.to_owned(),
                document_id: document.document_id.0,
                benchmark: benchmark.name.clone(),
                record: eval.record,
                field: benchmark.fields[usize::from(eval.field)].clone(),
                start: place.first().map_or(0, |(start, _)| *start),
                end: place.last().map_or(0, |(_, end)| *end),
                n_words: one.n_words,
                score: one.score,
                text: text[one.start as usize..one.end as usize].chars().take(SAMPLE_CHARS).collect(),
            };
            self.audit.push(&found)?;
            self.matches.write(&[&serde_json::to_vec(&found).unwrap_or_default()[..], b"\n"].concat())?;
        }
        let raw_bytes = document.raw_bytes;
        let n_bytes = document.text.len();
        let booked: u64 = before.raw_bytes(raw_bytes, n_bytes).values().sum();
        let count = Count::one(u64::from(raw_bytes) - booked);
        let score = found.iter().map(|one| one.score).fold(0.0, f64::max);
        match self.params.action {
            Action::Tag => self.report.kept += count,
            Action::Drop => self.drop(row, document, REASON, score, self.params.settings.threshold, count),
            Action::Cut => {
                let mut all = before.rows().to_vec();
                for (start, end) in union(found).into_iter().flat_map(|(a, b)| in_document(&pieces, a, b)) {
                    all.push(CutRow { row, start, end, method: Method::Contamination.number() });
                }
                all.sort_unstable();
                let list = Cuts::of_rows(all);
                let left = list.of(row).apply(document.text)?;
                let n_chars = left.trim().chars().count() as u64;
                if n_chars < self.params.min_chars_left.max(1) {
                    let limit = self.params.min_chars_left as f64;
                    self.drop(row, document, crate::dedup::cuts::apply::REASON, n_chars as f64, limit, count);
                } else {
                    let total: u64 = list.of(row).raw_bytes(raw_bytes, n_bytes).values().sum();
                    let cut = Count::one(total - booked);
                    *self.report.cut.entry(Method::Contamination.name().to_owned()).or_default() += cut;
                    let mine = |cut: &&CutRow| cut.method == Method::Contamination.number();
                    self.cuts.extend(list.rows().iter().filter(mine));
                }
            }
        }
        Ok(())
    }

    fn drop(
        &mut self,
        row: u32,
        document: &Document<'_>,
        reason: &'static str,
        measured: f64,
        threshold: f64,
        count: Count,
    ) {
        self.removed.push(RemovedRow { row });
        *self.report.dropped.entry(reason.to_owned()).or_default() += count;
        self.drops.push(&Drop {
            id: document.id,
            document_id: document.document_id,
            source: &self.params.source,
            stage: "decontaminate",
            reason,
            measured,
            threshold,
            raw_bytes: count.bytes,
        });
    }

    fn finish(mut self, folder: &Path) -> Result<Report> {
        self.removed.sort_unstable();
        self.cuts.retain(|cut| self.removed.binary_search(&RemovedRow { row: cut.row }).is_err());
        self.cuts.sort_unstable();
        rows::write(&folder.join(CUTS), &self.cuts)?;
        rows::write(&folder.join(REMOVED), &self.removed)?;
        self.drops.write(&folder.join(DROPS))?;
        self.audit.finish()?;
        self.matches.commit()?;
        Ok(self.report)
    }
}

/// Characters of a span that reports show.
pub const SAMPLE_CHARS: usize = 200;

/// Spans that touch or overlap as one.
fn union(found: &[Found]) -> Vec<(u32, u32)> {
    let mut spans: Vec<(u32, u32)> = found.iter().map(|one| (one.start, one.end)).collect();
    spans.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (start, end) in spans {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// From a span of the text left by cuts to stretches of the document, one for each of its `pieces` that the span touches.
fn in_document(pieces: &[(u32, &str)], start: u32, end: u32) -> Vec<(u32, u32)> {
    let mut stretches = Vec::new();
    let mut before = 0;
    for (offset, piece) in pieces {
        let n_bytes = piece.len() as u32;
        let (from, to) = (start.max(before), end.min(before + n_bytes));
        if from < to {
            stretches.push((offset + from - before, offset + to - before));
        }
        before += n_bytes;
    }
    stretches
}

/// The matches that a task found, in the order of the documents.
///
/// # Errors
/// The file is missing or damaged.
pub fn read_matches(path: &Path) -> Result<Vec<Match>> {
    let file = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
    let lines = BufReader::new(file).lines();
    lines
        .map(|line| {
            let line = line.map_err(Error::io(path, "read"))?;
            serde_json::from_str(&line)
                .map_err(|e| Error::data(path, format!("{e}; delete this file's folder and rerun")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_map_back_over_earlier_cuts() {
        // "0123456789abcdef" without 4..6 and 10..12: "0123" "6789" "cdef".
        let pieces = [(0, "0123"), (6, "6789"), (12, "cdef")];
        assert_eq!(in_document(&pieces, 1, 3), [(1, 3)]);
        assert_eq!(in_document(&pieces, 2, 10), [(2, 4), (6, 10), (12, 14)]);
        assert_eq!(in_document(&pieces, 4, 8), [(6, 10)]);
        assert_eq!(in_document(&pieces, 12, 12), []);
    }

    #[test]
    fn overlapping_spans_are_cut_once() {
        let found = |start, end| Found { text: 0, start, end, n_words: 5, score: 1.0 };
        assert_eq!(union(&[found(5, 9), found(1, 3), found(8, 12), found(3, 4)]), [(1, 4), (5, 12)]);
    }
}
