//! The cuts of a build: repeated paragraphs first, then repeated substrings in what they leave.

use std::path::PathBuf;

use super::part::Part;
use super::run::Run;
use crate::dedup;
use crate::dedup::cuts::config::{ParagraphConfig, SubstringConfig};
use crate::dedup::cuts::{PartParams, anchor, apply, paragraph, segment, substring};
use crate::document::Count;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger::SourceLedger;
use crate::printer::StageLine;
use crate::recipe::ByteSize;
use crate::recipe::dedup::Action;
use crate::stage::inputs::PlacedDocuments;
use crate::stage::{Call, Job, Report, Stage, Task};
use crate::tables;
use crate::tables::cuts::{Cuts, Method};
use crate::tables::rows::{self, CutRow, RemovedRow};
use crate::tables::sort::range::KeyRange;

impl Run<'_> {
    /// Gives every part an empty list of cuts.
    pub fn no_cuts(&mut self, parts: &mut [Part]) -> Result<()> {
        let no_cuts = Cuts::write(&self.work, &[])?;
        for part in parts.iter_mut() {
            part.cuts = self.work.join(&no_cuts);
            self.results.used.push(part.cuts.clone());
        }
        Ok(())
    }

    pub fn cut(&mut self, parts: &mut [Part]) -> Result<()> {
        self.no_cuts(parts)?;
        if let Some(config) = self.prepared.recipe.dedup.paragraph {
            self.cut_paragraphs(parts, &config)?;
        }
        if let Some(config) = self.prepared.recipe.dedup.substring {
            self.cut_substrings(parts, &config)?;
        }
        Ok(())
    }

    /// Memory of each of the tasks that run at once.
    fn memory_of_a_task(&self) -> u64 {
        self.engine.memory_bytes() / self.engine.threads().max(1) as u64
    }

    /// A task for each part.
    fn part_tasks<S: Stage>(
        &self,
        parts: &[Part],
        params: impl Fn(PartParams) -> S,
        inputs: impl Fn(usize, PlacedDocuments) -> S::Inputs,
    ) -> Vec<Task>
    where
        Job: From<Call<S>>,
    {
        let tasks = parts.iter().enumerate().map(|(i, part)| {
            let minhash = self.prepared.recipe.dedup.minhash;
            let joins = minhash.is_some_and(|minhash| minhash.action == Action::Family);
            let has_families = self.prepared.has_families(part.source) || joins;
            let number = PartParams { part: i as u32, source: part.source as u16, has_families };
            Task::new(&self.work, i, part.left.bytes, params(number), inputs(i, part.placed_documents()))
        });
        tasks.collect()
    }

    /// Runs tasks for their folders.
    fn folders(&mut self, name: &'static str, tasks: Vec<Task>) -> Result<Vec<PathBuf>> {
        Ok(self.map(name, tasks)?.into_iter().map(|(task, _)| task.output).collect())
    }

    fn cut_paragraphs(&mut self, parts: &mut [Part], config: &ParagraphConfig) -> Result<()> {
        let line = StageLine::start("paragraph");
        let memory_bytes = self.memory_of_a_task();
        let collect = |part| {
            let (split, min_chars) = (config.split, config.min_chars);
            paragraph::ParagraphParams { part, split, min_chars, memory_bytes }
        };
        let tasks = self.part_tasks(parts, collect, |_, part| part);
        let inputs = paragraph::ParagraphMatchInputs { paragraphs: self.folders("paragraph", tasks)? };
        let tasks = KeyRange::all(parts.len()).map(|range| {
            let (min_documents, keep) = (config.min_documents, config.keep);
            let params = paragraph::ParagraphMatchParams { min_documents, keep, range, memory_bytes };
            Task::new(&self.work, range.index(), 0, params, inputs.clone())
        });
        let tasks = tasks.collect();
        let matches = self.folders("paragraph", tasks)?;
        self.apply(parts, line, matches, Method::Paragraph, None, config.min_chars_left)
    }

    fn cut_substrings(&mut self, parts: &mut [Part], config: &SubstringConfig) -> Result<()> {
        let line = StageLine::start("substring");
        let memory_bytes = self.memory_of_a_task();
        let min_bytes = config.min_bytes;
        let collect = |_| anchor::Anchors(anchor::AnchorParams { min_bytes, memory_bytes });
        let tasks = self.part_tasks(parts, collect, |_, part| part);
        let anchors = self.folders("substring", tasks)?;
        // Keys are hashes, so ranges of them are of about equal size.
        let ranges = KeyRange::all(parts.len());
        let n_ranges = ranges.len() as u64;
        let weight = bytes_of(anchors.iter().map(|folder| folder.join(tables::ANCHORS)))? / n_ranges;
        let inputs = anchor::SharedAnchorsInputs { anchors: anchors.clone() };
        let tasks = ranges.map(|range| {
            let params = anchor::SharedAnchors { range, memory_bytes };
            Task::new(&self.work, range.index(), weight, params, inputs.clone())
        });
        let tasks = tasks.collect();
        let shared = self.folders("substring", tasks)?;
        let gather = |part| segment::SegmentParams { part };
        let tasks = self.part_tasks(parts, gather, |i, part| {
            let (anchors, shared) = (anchors[i].clone(), shared.clone());
            segment::SegmentInputs { part, anchors, shared }
        });
        let segments = self.folders("substring", tasks)?;
        let weight = bytes_of(segments.iter().map(|folder| folder.join(tables::SEGMENT_BYTES)))? / n_ranges;
        let inputs = substring::SubstringInputs { segments };
        let tasks = KeyRange::all(parts.len()).map(|range| {
            let params = substring::SubstringParams { range, min_bytes, memory_bytes };
            Task::new(&self.work, range.index(), weight, params, inputs.clone())
        });
        let tasks = tasks.collect();
        let matches = self.folders("substring", tasks)?;
        self.apply(parts, line, matches, Method::Substring, Some(min_bytes), config.min_chars_left)
    }

    /// Cuts what `matches` marked and books it.
    fn apply(
        &mut self,
        parts: &mut [Part],
        line: StageLine,
        matches: Vec<PathBuf>,
        method: Method,
        min_bytes: Option<u32>,
        min_chars_left: u64,
    ) -> Result<()> {
        let documents: Vec<PathBuf> = parts.iter().map(|part| part.documents.clone()).collect();
        let sources: Vec<String> = parts.iter().map(|part| self.source_name(part)).collect();
        let apply = |part: PartParams| {
            let (part, sources, method) = (part.part, sources.clone(), method.number());
            apply::ApplyParams { part, sources, method, min_bytes, min_chars_left }
        };
        let tasks = self.part_tasks(parts, apply, |_, part| {
            let (matches, documents) = (matches.clone(), documents.clone());
            apply::ApplyInputs { part, matches, documents }
        });
        let (mut n_cut, mut n_dropped) = (Count::default(), 0);
        for (part, (task, report)) in parts.iter_mut().zip(self.map(method.name(), tasks)?) {
            let (cut, dropped) = self.book_cuts(part, &task, &report)?;
            n_cut += cut;
            n_dropped += dropped;
            let name = format!("{}-{}.parquet", method.name(), part.label);
            self.results.add_audit(task.file(tables::CUT_AUDIT), format!("cuts-{name}"));
            self.results.add_audit(task.file(tables::DROPS), format!("drops-{name}"));
        }
        let size = ByteSize(n_cut.bytes);
        let what = format!("{size} cut from {} documents, {n_dropped} documents dropped", n_cut.docs);
        line.done(self.printer, &what);
        Ok(())
    }

    /// Records what a task cut from a part and removed from it. Returns what was cut, and how many documents
    /// were dropped.
    pub fn book_cuts(&mut self, part: &mut Part, task: &Task, report: &Report) -> Result<(Count, u64)> {
        let (mut n_cut, mut n_dropped) = (Count::default(), 0);
        let cuts = Cuts::write(&self.work, &rows::read::<CutRow>(&task.file(tables::CUTS))?)?;
        let removed: Vec<u32> =
            rows::read::<RemovedRow>(&task.file(tables::REMOVED))?.into_iter().map(|row| row.row).collect();
        let removed = dedup::write_list(&self.work, &removed)?;
        (part.cuts, part.removed) = (self.work.join(cuts), self.work.join(removed));
        self.results.used.extend([part.cuts.clone(), part.removed.clone()]);
        for dropped in report.dropped.values() {
            part.left = part.left.minus(*dropped);
            n_dropped += dropped.docs;
        }
        for cut in report.cut.values() {
            part.left.bytes -= cut.bytes;
            n_cut += *cut;
        }
        let entry = self.entry(part);
        SourceLedger::add(&mut entry.dropped, &report.dropped);
        SourceLedger::add(&mut entry.cut, &report.cut);
        Ok((n_cut, n_dropped))
    }
}

/// Total bytes of some files.
fn bytes_of(paths: impl Iterator<Item = PathBuf>) -> Result<u64> {
    let size =
        |path: PathBuf| std::fs::metadata(&path).map(|data| data.len()).map_err(Error::io(&path, "read"));
    paths.map(size).sum()
}
