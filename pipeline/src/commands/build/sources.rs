//! What reading the sources revealed besides the records: files that hold no text, encodings that were guessed, fields that no
//! record has, names that several documents share. It is printed at once and kept in the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::part::Part;
use super::run::Run;
use crate::document::DocumentId;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger::RepeatedIds;
use crate::prepare::Prepared;
use crate::stage::{Report, Tally, Task};
use crate::tables;
use crate::tables::documents::{Columns, DocumentBatches};
use crate::tables::rows::{IdRow, Row, Table};
use crate::watch::Watch;

/// Files and names to show; the rest are counted.
const SHOWN: usize = 3;

/// Findings of the read stage for each source.
pub(super) struct SourceNotes {
    sources: Vec<SourceNote>,
}

#[derive(Default)]
struct SourceNote {
    guessed: BTreeMap<String, Tally>,
    unreadable: BTreeMap<String, Tally>,
    fields_seen: u8,
    has_documents: bool,
    /// Tables of the ids, with the documents that have them.
    ids: Vec<(PathBuf, PathBuf)>,
}

impl SourceNotes {
    pub fn new(prepared: &Prepared) -> SourceNotes {
        SourceNotes { sources: prepared.recipe.source.iter().map(|_| SourceNote::default()).collect() }
    }

    /// Adds the report of a part. Variants that were made by rephrasing are not the source's own.
    pub fn add(&mut self, part: &Part, task: &Task, report: &Report) {
        let Some(note) = self.sources.get_mut(part.source).filter(|_| part.accepted.is_none()) else {
            return;
        };
        for (sums, more) in [(&mut note.guessed, &report.guessed), (&mut note.unreadable, &report.unreadable)]
        {
            more.iter().for_each(|(name, tally)| sums.entry(name.clone()).or_default().merge(tally));
        }
        note.fields_seen |= report.fields_seen;
        note.has_documents |= report.kept.docs > 0;
        note.ids.push((task.file(tables::DOCUMENT_IDS), task.file(tables::DOCUMENTS)));
    }
}

impl Run<'_> {
    /// Prints the findings and records them.
    pub fn note_sources(&mut self, notes: SourceNotes) -> Result<()> {
        let watch = Watch::new(self.stop.clone(), self.printer.bar("ids", 0));
        let mut problems = Vec::new();
        for (i, note) in notes.sources.into_iter().enumerate() {
            let name = self.prepared.recipe.source[i].name.clone();
            let repeated = match self.sample {
                None => repeated_ids(&note.ids, self.engine.memory_bytes(), &watch)?,
                Some(_) => None,
            };
            if note.has_documents {
                problems.extend(self.prepared.missing_fields(i, note.fields_seen));
            }
            let entry = self.ledger.source(&name);
            for skipped in self.prepared.skipped.get(i).into_iter().flatten() {
                *entry.skipped_files.entry(skipped.kind.to_owned()).or_default() += 1;
            }
            for (what, tally) in &note.unreadable {
                let kind = what.split(';').next().unwrap_or(what);
                *entry.skipped_files.entry(kind.to_owned()).or_default() += tally.n;
                let Tally { n, example } = tally;
                let files = if *n == 1 { "file was".to_owned() } else { "files were".to_owned() };
                self.printer
                    .warn(&format!("source `{name}`: {n} {files} skipped, such as {example}: {what}"));
            }
            for (encoding, Tally { n, example }) in &note.guessed {
                entry.guessed_encodings.insert(encoding.clone(), *n);
                self.printer.warn(&format!(
                    "source `{name}`: {n} documents are not UTF-8 and name no encoding, such as one of {example}; they were \
                     taken for {encoding}. If that is wrong, name it by `encoding` in the [[source]]"
                ));
            }
            if let Some(RepeatedIds { ids, documents, examples }) = &repeated {
                let examples = examples.join("`, `");
                self.printer.warn(&format!(
                    "source `{name}`: {ids} ids are not unique: {documents} documents share them, such as `{examples}`. \
                     `why`, `where` and takedowns by such an id mean all of them"
                ));
            }
            entry.repeated_ids = repeated;
        }
        watch.finish();
        if problems.is_empty() { Ok(()) } else { Err(Error::Recipe { problems }) }
    }
}

/// The ids that several rows of these tables share. Processed in ranges that fit into memory.
fn repeated_ids(
    tables: &[(PathBuf, PathBuf)],
    memory_bytes: u64,
    watch: &Watch,
) -> Result<Option<RepeatedIds>> {
    let opened = tables.iter().map(|(ids, _)| Table::<IdRow>::open(ids)).collect::<Result<Vec<_>>>()?;
    let n_bytes = opened.iter().map(Table::len).sum::<u64>() * IdRow::BYTES as u64;
    let n_ranges = (n_bytes / (memory_bytes / 2).max(1) + 1).next_power_of_two();
    drop(opened);
    let bits = n_ranges.trailing_zeros();
    let prefix = |id: u64| id.checked_shr(u64::BITS - bits).unwrap_or(0);
    let (mut repeated, mut examples) = (RepeatedIds::default(), Vec::new());
    for range in 0..n_ranges {
        watch.advance(0)?;
        let mut rows = Vec::new();
        for (ids, _) in tables {
            let table = Table::<IdRow>::open(ids)?;
            let start = table.bisect(|row| prefix(row.document_id) < range)?;
            let end = table.bisect(|row| prefix(row.document_id) <= range)?;
            rows.extend(table.read(start, end)?);
        }
        rows.sort_unstable();
        for group in rows.chunk_by(|a, b| a == b).filter(|group| group.len() > 1) {
            repeated.ids += 1;
            repeated.documents += group.len() as u64;
            if examples.len() < SHOWN {
                examples.push(group[0].document_id);
            }
        }
    }
    if repeated.ids == 0 {
        return Ok(None);
    }
    for id in examples {
        repeated.examples.extend(name_of(tables, id)?);
    }
    Ok(Some(repeated))
}

/// The name of a document in the first table that has it.
fn name_of(tables: &[(PathBuf, PathBuf)], id: u64) -> Result<Option<String>> {
    for (ids, documents) in tables {
        let table = Table::<IdRow>::open(ids)?;
        let at = table.bisect(|row| row.document_id < id)?;
        if table.read(at, (at + 1).min(table.len()))?.first().is_none_or(|row| row.document_id != id) {
            continue;
        }
        for batch in DocumentBatches::open(documents, Columns::Ids)? {
            let batch = batch?;
            let found = batch.documents().find(|(_, document)| document.document_id == DocumentId(id));
            if let Some((_, document)) = found {
                return Ok(Some(document.id.to_owned()));
            }
        }
    }
    Ok(None)
}
