//! The first stage of a build: input files, in slices or several small ones together, to documents.

use std::collections::BTreeSet;

use super::batches;
use super::part::{Part, left};
use super::run::Run;
use super::sources::SourceNotes;
use crate::error::Result;
use crate::ledger::SourceLedger;
use crate::printer::StageLine;
use crate::read::{Slice, slicing};
use crate::recipe::ByteSize;
use crate::stage::{Task, read};
use crate::tables;

impl Run<'_> {
    pub fn read(&mut self) -> Result<Vec<Part>> {
        let line = StageLine::start("read");
        let prepared = self.prepared;
        let limits = &prepared.recipe.limits;
        let (mut tasks, mut parts) = (Vec::new(), Vec::new());
        let (mut n_files, mut n_slices, mut n_parts) = (0, 0, 0);
        for (i, (source, inputs)) in prepared.recipe.source.iter().zip(&prepared.inputs).enumerate() {
            let readers = limits.of_readers();
            for batch in batches::of(inputs, limits.slice_bytes.0, source.max_records) {
                let slices = match batch {
                    [input] if source.max_records.is_none() => slicing::cut(
                        &input.path,
                        source.form(),
                        input.n_bytes,
                        limits.slice_bytes.0,
                        readers,
                    )?,
                    files => vec![(Slice::Whole, files.iter().map(|file| file.n_bytes).sum())],
                };
                let is_cut = slices.len() > 1;
                for (n, (slice, weight)) in slices.into_iter().enumerate() {
                    let in_words = slice.in_words();
                    let params = read::ReadParams {
                        source: source.name.clone(),
                        inputs: batch.to_vec(),
                        slice,
                        format: source.format,
                        encoding: source.encoding,
                        fields: source.fields(),
                        chat: prepared
                            .recipe
                            .chat_template
                            .as_ref()
                            .and_then(|chat| source.chat_params(chat)),
                        variants: source.variants.clone(),
                        normalize: prepared.recipe.normalize,
                        limits: readers,
                        sample: self.sample,
                        limit: source.max_records,
                    };
                    let label = if is_cut { format!("{n_files:05}-{n:04}") } else { format!("{n_files:05}") };
                    parts.push(Part {
                        source: i,
                        label,
                        file: n_files,
                        inputs: batch.iter().map(|input| input.path.clone()).collect(),
                        slice: in_words,
                        ..Part::default()
                    });
                    tasks.push(Task::new(&self.work, tasks.len(), weight, params, ()));
                }
                n_slices += if is_cut { parts.len() - n_parts } else { batch.len() };
                n_parts = parts.len();
                n_files += batch.len();
            }
            if let Some((accepted, task)) = self.rephrased_task(i, tasks.len()) {
                let label = format!("{n_files:05}");
                let (file, inputs) = (n_files, vec![accepted.clone()]);
                parts.push(Part {
                    source: i,
                    label,
                    file,
                    inputs,
                    accepted: Some(accepted),
                    ..Part::default()
                });
                tasks.push(task);
                n_files += 1;
                n_slices += 1;
                n_parts += 1;
            }
        }
        let mut tags = BTreeSet::new();
        let mut notes = SourceNotes::new(prepared);
        for (part, (task, report)) in parts.iter_mut().zip(self.map("read", tasks)?) {
            notes.add(part, &task, &report);
            tags.extend(report.tags);
            read::check_tags(&tags, &self.source_name(part))?;
            part.read = task.file(tables::DOCUMENTS);
            part.documents = part.read.clone();
            part.left = report.kept;
            part.documents_of_files = report.documents_of_files;
            let entry = self.entry(part);
            entry.read += report.read;
            SourceLedger::add(&mut entry.quarantined, &report.quarantined);
            SourceLedger::add(&mut entry.dropped, &report.dropped);
            for (cause, count) in &report.quarantined {
                let place = report.first_bad.get(cause).cloned().unwrap_or_default();
                self.bad.entry(cause.clone()).or_insert((0, place)).0 += count.docs;
            }
            let name = format!("{}-{:05}.jsonl", self.source_name(part), part.file);
            self.results.add_quarantine(task.file(tables::QUARANTINE), name);
            self.results.add_audit(task.file(tables::DROPS), format!("drops-read-{}.parquet", part.label));
        }
        self.tags = tags;
        self.note_sources(notes)?;
        let left = left(&parts);
        let slices = if n_slices > n_files { format!(" in {n_slices} slices") } else { String::new() };
        let what = format!("{n_files} files{slices}, {} documents, {}", left.docs, ByteSize(left.bytes));
        line.done(self.printer, &what);
        Ok(parts)
    }
}
