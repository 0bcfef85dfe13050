//! From the cache to files: every chosen pair of document and style is replayed from the cache, judged, and written as
//! accepted or rejected, or counted as poisoned or waiting. The server is not asked; the result is a function of the build, the
//! styles and the set of completions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use moe_llm::{Cache, Sampling};
use moe_shards::Hash;
use moe_shards::atomic::AtomicFile;
use rayon::prelude::*;

use super::choice::Selection;
use super::distance::Views;
use super::heap::Heap;
use super::job::{Answer, Job, Model, Replay};
use super::judge::{self, Judged};
use super::parents::{Originals, Parent, Place};
use super::record::{self, Accepted, Ledger, Rejected, StyleLedger};
use super::settings;
use super::style::Style;
use crate::error::{Error, Result};
use crate::json;
use crate::listing::{Entry, Listing};
use crate::watch::Watch;

/// Documents judged at once.
const BATCH: usize = 64;

/// What to assemble.
#[derive(Clone, Copy)]
pub struct Assembly<'a> {
    /// The build.
    pub originals: &'a Originals,
    /// What was chosen of it.
    pub selection: &'a Selection,
    /// The styles of the choice.
    pub styles: &'a [Style],
    /// Who was asked.
    pub model: &'a Model,
    /// License of what it writes.
    pub licence: Option<&'a str>,
    /// Its answers.
    pub cache: &'a Cache,
}

/// What became of a pair.
pub enum Fate {
    /// It was judged.
    Judged(Box<Judged>),
    /// It was given up, for this reason.
    Poisoned(String),
    /// Some answer is missing.
    Waiting,
}

/// A pair of a document and a style with its outcome.
pub struct Outcome<'a> {
    /// The document.
    pub parent: Arc<Parent>,
    /// The style.
    pub style: &'a Style,
    /// The answers, if there are all.
    pub answers: Vec<Answer>,
    /// What became of it.
    pub fate: Fate,
}

impl Assembly<'_> {
    /// Calls `see` with every pair, in the order of the documents' places and of the styles' names.
    ///
    /// # Errors
    /// The build, the cache or the disk cannot be used; [`Error::Interrupted`]; what `see` returns.
    pub fn for_each(&self, watch: &Watch, mut see: impl FnMut(&Outcome<'_>) -> Result<()>) -> Result<()> {
        let places: Vec<Place> = self.selection.chosen.iter().map(|chosen| chosen.place).collect();
        let mut parents = self.originals.at(&places);
        for chosen in self.selection.chosen.chunks(BATCH) {
            let mut families = Vec::with_capacity(chosen.len());
            for chosen in chosen {
                let gone =
                    || Error::Usage("the build changed while it was read; run the command again".to_owned());
                let parent = Arc::new(parents.next().ok_or_else(gone)??);
                let mut jobs = Vec::with_capacity(chosen.styles.len());
                for style in chosen.styles.iter().filter_map(|&i| self.styles.get(i)) {
                    let job = Job::new(self.model, style, parent.clone());
                    let replay = job.replay(self.cache)?;
                    jobs.push((job, replay));
                }
                families.push(jobs);
            }
            let outcomes: Vec<Vec<Outcome<'_>>> = families.into_par_iter().map(judge_family).collect();
            for outcome in outcomes.iter().flatten() {
                see(outcome)?;
                watch.advance(1)?;
            }
        }
        Ok(())
    }

    /// Writes `accepted-SOURCE.jsonl`, `rejected.jsonl` and `ledger.json` into `folder`, and returns the ledger. Lines are sorted by
    /// document and style.
    ///
    /// # Errors
    /// As [`Assembly::for_each`]; [`Error::Check`] when a pair was lost.
    pub fn write(
        &self,
        folder: &Path,
        watch: &Watch,
        mut see: impl FnMut(&Outcome<'_>) -> Result<()>,
    ) -> Result<Ledger> {
        fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))?;
        let mut ledger = Ledger {
            version: record::VERSION,
            originals: self.selection.originals,
            documents: self.selection.chosen.len() as u64,
            unreadable: 0,
            styles: self
                .styles
                .iter()
                .map(|style| (style.name().to_owned(), StyleLedger::default()))
                .collect(),
        };
        // Counted from the choice, so that a lost pair is noticed.
        for style in self.selection.chosen.iter().flat_map(|chosen| &chosen.styles) {
            if let Some(entry) = self.styles.get(*style).and_then(|style| ledger.styles.get_mut(style.name()))
            {
                entry.asked += 1;
            }
        }
        let mut spool = Spool::create(folder)?;
        self.for_each(watch, |outcome| {
            see(outcome)?;
            let entry = ledger.styles.entry(outcome.style.name().to_owned()).or_default();
            book(entry, outcome);
            let Fate::Judged(judged) = &outcome.fate else { return Ok(()) };
            let (kind, line) = match &judged.refusal {
                None => (
                    Some(outcome.parent.source.clone()),
                    accepted(outcome, judged, &self.origin(outcome.style))?,
                ),
                Some(_) => (None, rejected(outcome, judged)?),
            };
            spool.append(kind, outcome.parent.document_id.0, outcome.style.name(), &line)
        })?;
        let mut listing = settings::listing(folder)?;
        let written = spool.finish(folder, &mut listing)?;
        for (style, n) in written {
            ledger.styles.entry(style).or_default().accepted = n;
        }
        ledger.check()?;
        listing.write_file(record::LEDGER, &json::canonical(&ledger))?;
        listing.finish()?;
        Ok(ledger)
    }

    fn origin(&self, style: &Style) -> Origin<'_> {
        let prompt = &style.style;
        Origin {
            model: &self.model.name,
            revision: &self.model.revision,
            template: style.template(),
            sampling: Sampling {
                temperature: Some(prompt.temperature),
                top_p: Some(prompt.top_p),
                max_tokens: Some(prompt.max_tokens),
                ..Sampling::default()
            },
            licence: self.licence,
        }
    }
}

/// Who wrote a variant, and how.
pub(super) struct Origin<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Its revision.
    pub revision: &'a str,
    /// Digest of the template.
    pub template: Hash,
    /// How answers were drawn.
    pub sampling: Sampling,
    /// License of what it writes.
    pub licence: Option<&'a str>,
}

/// The line of an accepted variant.
pub(super) fn accepted(outcome: &Outcome<'_>, judged: &Judged, origin: &Origin<'_>) -> Result<Vec<u8>> {
    let Outcome { parent, style, answers, .. } = outcome;
    let mut served_by: Vec<String> = answers.iter().map(|answer| answer.completion.model.clone()).collect();
    served_by.sort();
    served_by.dedup();
    let metadata = &parent.metadata;
    line(&Accepted {
        version: record::VERSION,
        source: parent.source.clone(),
        parent: parent.id.clone(),
        parent_document: parent.document_id.to_string(),
        parent_text: format!("{:032x}", parent.text_hash.0),
        family: format!("{:016x}", parent.family.0),
        style: style.name().to_owned(),
        text: judged.text.clone(),
        quality: metadata.quality,
        language: metadata.language.clone(),
        tags: metadata.tags.lines().map(str::to_owned).collect(),
        date: metadata.date.clone(),
        score: metadata.score,
        url: metadata.url.clone(),
        model: origin.model.to_owned(),
        revision: origin.revision.to_owned(),
        served_by,
        template: origin.template,
        sampling: origin.sampling.clone(),
        keys: answers.iter().map(|answer| answer.key).collect(),
        gates: judged.worst(),
        prompt_tokens: answers.iter().map(|answer| answer.completion.usage.prompt_tokens).sum(),
        completion_tokens: answers.iter().map(|answer| answer.completion.usage.completion_tokens).sum(),
        licence: origin.licence.map(str::to_owned),
    })
}

/// Judges the variants of one document in the order of their styles; each is compared with those accepted before it.
fn judge_family<'a>(jobs: Vec<(Job<'a>, Replay)>) -> Vec<Outcome<'a>> {
    let mut views = jobs.first().map(|(job, _)| Views::new(&job.parent.text));
    let mut outcomes = Vec::with_capacity(jobs.len());
    for (job, replay) in jobs {
        let (answers, fate) = match replay {
            Replay::Waiting => (Vec::new(), Fate::Waiting),
            Replay::Poisoned(reason) => (Vec::new(), Fate::Poisoned(reason)),
            Replay::Complete(answers) => {
                let mut judged = judge::judge(&job, &answers);
                if let Some(views) = &mut views {
                    judge::compare(&mut judged, job.style, views);
                }
                (answers, Fate::Judged(Box::new(judged)))
            }
        };
        outcomes.push(Outcome { parent: job.parent, style: job.style, answers, fate });
    }
    outcomes
}

pub(super) fn book(entry: &mut StyleLedger, outcome: &Outcome<'_>) {
    match &outcome.fate {
        Fate::Waiting => entry.waiting += 1,
        Fate::Poisoned(reason) => *entry.poisoned.entry(reason.clone()).or_default() += 1,
        Fate::Judged(judged) => {
            let tokens = |of: fn(&Answer) -> u64| outcome.answers.iter().map(of).sum::<u64>();
            let written = tokens(|answer| answer.completion.usage.completion_tokens);
            entry.chunks += outcome.answers.len() as u64;
            entry.prompt_tokens += tokens(|answer| answer.completion.usage.prompt_tokens);
            entry.completion_tokens += written;
            match &judged.refusal {
                Some(refusal) => *entry.rejected.entry(refusal.rule.clone()).or_default() += 1,
                None => entry.accepted_tokens += written,
            }
        }
    }
}

/// The line of a rejected variant.
pub(super) fn rejected(outcome: &Outcome<'_>, judged: &Judged) -> Result<Vec<u8>> {
    let Some(refusal) = judged.refusal.clone() else { return Ok(Vec::new()) };
    let chunk = judged.chunks.get(refusal.chunk);
    line(&Rejected {
        source: outcome.parent.source.clone(),
        parent: outcome.parent.id.clone(),
        parent_document: outcome.parent.document_id.to_string(),
        style: outcome.style.name().to_owned(),
        chunk: chunk.map(|chunk| chunk.source.clone()).unwrap_or_default(),
        answer: chunk.map(|chunk| chunk.answer.clone()).unwrap_or_default(),
        keys: outcome.answers.iter().map(|answer| answer.key).collect(),
        refusal,
    })
}

fn line<T: serde::Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut line =
        serde_json::to_vec(record).map_err(|e| Error::Usage(format!("a record cannot be written: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

/// Lines in the order in which they come, to be written in the order of their documents: only their places are in memory.
pub(super) struct Spool {
    heap: Heap,
    lines: Vec<SpoolLine>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SpoolLine {
    /// Source of an accepted line; `None` for a rejected one.
    source: Option<String>,
    document: u64,
    style: String,
    start: u64,
    n_bytes: u64,
}

impl Spool {
    pub fn create(folder: &Path) -> Result<Spool> {
        Ok(Spool { heap: Heap::create(&folder.join("lines"))?, lines: Vec::new() })
    }

    pub fn append(&mut self, source: Option<String>, document: u64, style: &str, line: &[u8]) -> Result<()> {
        let (start, n_bytes) = (self.heap.append(line)?, line.len() as u64);
        self.lines.push(SpoolLine { source, document, style: style.to_owned(), start, n_bytes });
        Ok(())
    }

    /// Writes all files and deletes those of sources without any line. Returns the accepted lines of each style.
    pub fn finish(mut self, folder: &Path, listing: &mut Listing) -> Result<BTreeMap<String, u64>> {
        let blob = self.heap.blob()?;
        self.lines.sort_unstable();
        let name_of =
            |source: Option<&str>| source.map_or(record::REJECTED.to_owned(), record::accepted_name);
        let mut names: BTreeSet<String> =
            self.lines.iter().map(|line| name_of(line.source.as_deref())).collect();
        names.extend([record::REJECTED, record::LEDGER].map(str::to_owned));
        listing.claim(names.iter().cloned())?;
        listing.remove(|name| name == settings::FILE || names.contains(name))?;
        let mut written = BTreeMap::new();
        let mut bytes = Vec::new();
        let has_rejected = self.lines.first().is_some_and(|line| line.source.is_none());
        if !has_rejected {
            listing.write_file(record::REJECTED, b"")?;
        }
        for same in self.lines.chunk_by(|a, b| a.source == b.source) {
            let name = name_of(same[0].source.as_deref());
            let path = folder.join(&name);
            let mut file = AtomicFile::create(&path)?;
            for line in same {
                bytes.resize(line.n_bytes as usize, 0);
                blob.read_at(line.start, &mut bytes)?;
                file.write(&bytes)?;
                if line.source.is_some() {
                    *written.entry(line.style.clone()).or_default() += 1;
                }
            }
            file.commit()?;
            listing.note(&name, Entry::of_file(&path)?);
        }
        Ok(written)
    }
}
