//! Variants written by another program: records of an original's name, a style and a text are judged like a server's answers, and
//! those that pass go into the same files.
//!
//! ```text
//! records -> candidates (texts in a file, places in memory) -> beside their originals -> gates -> accepted | rejected
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use moe_llm::{Completion, Key, Sampling, Usage};
use moe_shards::Hash;
use rayon::prelude::*;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::assemble::{Fate, Origin, Outcome, Spool, accepted, book, rejected};
use super::chunk::Chunk;
use super::distance::Views;
use super::heap::Heap;
use super::job::{Answer, Job, Model};
use super::judge;
use super::parents::{Originals, Parent};
use super::record::{self, Ledger, StyleLedger};
use super::settings;
use super::style::{Prompt, Style};
use crate::error::{Error, Result};
use crate::json;
use crate::normalize::{NormalizeConfig, normalize};
use crate::tables::rows::Blob;
use crate::watch::Watch;

/// Which program wrote the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Fields id, style, text, model
    Plain,
    /// What distilabel's TextGeneration adds to id and style: generation, model_name
    Distilabel,
    /// datatrove's InferenceRunner: id, and metadata.rollout_results
    Datatrove,
}

impl Layout {
    /// The field with text. In datatrove's records it holds the original.
    pub fn text_field(self) -> &'static str {
        match self {
            Layout::Plain | Layout::Datatrove => "text",
            Layout::Distilabel => "generation",
        }
    }

    /// Other fields used by [`Layout::variants`].
    pub fn fields(self) -> Vec<String> {
        let names: &[&str] = match self {
            Layout::Plain => &["source", "style", "model"],
            Layout::Distilabel => &["source", "style", "model_name"],
            Layout::Datatrove => {
                &["metadata.source", "metadata.style", "metadata.model", "metadata.rollout_results"]
            }
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The variants of a record, none if nothing was generated: `text` is its text field, normalized, `kept` the object of the other
    /// ones.
    ///
    /// # Errors
    /// What is wrong with the record, in words.
    pub fn variants(self, text: &str, kept: &str) -> std::result::Result<Vec<Variant>, String> {
        let kept: Value = match kept {
            "" => Value::Null,
            kept => serde_json::from_str(kept).map_err(|e| e.to_string())?,
        };
        let word = |name: &str| kept.get(name).and_then(Value::as_str).map(str::to_owned);
        let (prefix, model) = match self {
            Layout::Plain => ("", "model"),
            Layout::Distilabel => ("", "model_name"),
            Layout::Datatrove => ("metadata.", "metadata.model"),
        };
        let head = Variant {
            source: word(&format!("{prefix}source")),
            style: word(&format!("{prefix}style")),
            model: word(model),
            text: String::new(),
            finish_reason: "stop".to_owned(),
            usage: Usage::default(),
        };
        if self != Layout::Datatrove {
            return Ok(vec![Variant { text: text.to_owned(), ..head }]);
        }
        let Some(Value::Array(rollouts)) = kept.get("metadata.rollout_results") else {
            return Err(
                "has no list `metadata.rollout_results`; datatrove's JsonlWriter writes it".to_owned()
            );
        };
        let read = |rollout: &Value| {
            let text = rollout.as_str().or_else(|| rollout.get("text")?.as_str());
            let text = text.ok_or("has a rollout without `text`")?;
            // Like the text field of other layouts.
            let text = normalize(text, NormalizeConfig::default()).into_owned();
            let finish_reason =
                rollout.get("finish_reason").and_then(Value::as_str).unwrap_or("stop").to_owned();
            let tokens = |name| rollout.get("usage").and_then(|usage| usage.get(name)?.as_u64()).unwrap_or(0);
            let usage = Usage {
                prompt_tokens: tokens("prompt_tokens"),
                completion_tokens: tokens("completion_tokens"),
            };
            Ok(Variant { text, finish_reason, usage, ..head.clone() })
        };
        rollouts.iter().map(read).collect()
    }
}

/// A text that may become a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Source of its original, if the record says.
    pub source: Option<String>,
    /// Its style.
    pub style: Option<String>,
    /// Who wrote it.
    pub model: Option<String>,
    /// The text.
    pub text: String,
    /// Why it ends, in a server's words.
    pub finish_reason: String,
    /// Tokens, if counted.
    pub usage: Usage,
}

/// Position of a text, and its properties.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    /// Hash of the original's name.
    name: u64,
    /// Number of the style.
    style: usize,
    /// Digest of the text.
    text: Hash,
    /// Number of the source, if it is known.
    source: Option<usize>,
    model: usize,
    finish_reason: usize,
    prompt_tokens: u64,
    completion_tokens: u64,
    start: u64,
    n_bytes: usize,
}

/// Strings that repeat, as numbers.
#[derive(Default)]
struct Interned(Vec<String>, BTreeMap<String, usize>);

impl Interned {
    fn number(&mut self, text: &str) -> usize {
        if let Some(&number) = self.1.get(text) {
            return number;
        }
        self.0.push(text.to_owned());
        self.1.insert(text.to_owned(), self.0.len() - 1);
        self.0.len() - 1
    }
}

/// The texts of all records. Only their places are in memory.
pub struct Candidates {
    texts: Heap,
    rows: Vec<Candidate>,
    sources: Interned,
    styles: Interned,
    models: Interned,
    reasons: Interned,
}

impl Candidates {
    /// Starts empty; texts go to a file in `folder`, which is created.
    ///
    /// # Errors
    /// The folder holds what `moe-data rephrase` asked for, or cannot be written to.
    pub fn create(folder: &Path) -> Result<Candidates> {
        if folder.join(super::settings::FILE).exists() {
            return Err(Error::Usage(format!(
                "{} holds what moe-data rephrase asked a server for; give another folder with --to",
                folder.display()
            )));
        }
        fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))?;
        let texts = Heap::create(&folder.join("texts"))?;
        let [sources, styles, models, reasons] = std::array::from_fn(|_| Interned::default());
        Ok(Candidates { texts, rows: Vec::new(), sources, styles, models, reasons })
    }

    /// Adds a text for the original `id`. The variant must have a style.
    ///
    /// # Errors
    /// A write fails.
    pub fn add(&mut self, id: &str, style: &str, variant: &Variant) -> Result<()> {
        let start = self.texts.append(variant.text.as_bytes())?;
        self.rows.push(Candidate {
            name: xxh3_64(id.as_bytes()),
            style: self.styles.number(style),
            text: Hash::of(variant.text.as_bytes()),
            source: variant.source.as_deref().map(|source| self.sources.number(source)),
            model: self.models.number(variant.model.as_deref().unwrap_or_default()),
            finish_reason: self.reasons.number(&variant.finish_reason),
            prompt_tokens: variant.usage.prompt_tokens,
            completion_tokens: variant.usage.completion_tokens,
            start,
            n_bytes: variant.text.len(),
        });
        Ok(())
    }

    /// Names of all styles.
    pub fn styles(&self) -> &[String] {
        &self.styles.0
    }

    /// How many texts there are.
    pub fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Whether there do not count.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Judges all texts and writes what `moe-data rephrase` writes: `accepted-SOURCE.jsonl`, `rejected.jsonl`, `ledger.json`. `styles` are
    /// those of [`Candidates::styles`], in that order.
    ///
    /// # Errors
    /// The build or the disk cannot be used; a name that several sources have; [`Error::Check`] when a text was lost.
    pub fn judge(
        mut self,
        originals: &Originals,
        styles: &[Style],
        licence: Option<&str>,
        unreadable: u64,
        folder: &Path,
        watch: &Watch,
    ) -> Result<Ledger> {
        self.sort();
        let blob = self.texts.blob()?;
        let mut ledger = Ledger { version: record::VERSION, unreadable, ..Ledger::default() };
        for row in &self.rows {
            ledger.styles.entry(self.styles.0[row.style].clone()).or_default().asked += 1;
        }
        let mut run = Run {
            candidates: &self,
            styles,
            blob: &blob,
            licence,
            families: Vec::new(),
            spool: Spool::create(folder)?,
            ledger,
        };
        // Source of the original that each row was taken for.
        let mut taken: Vec<Option<String>> = vec![None; self.rows.len()];
        originals.for_each(|_, parent| {
            run.ledger.originals += 1;
            let rows = self.rows_of(&parent, &mut taken)?;
            if !rows.is_empty() {
                run.ledger.documents += 1;
                run.families.push((Arc::new(parent), rows));
            }
            if run.families.len() >= BATCH { run.finish_batch(watch) } else { Ok(()) }
        })?;
        run.finish_batch(watch)?;
        let Run { mut ledger, spool, .. } = run;
        for (row, _) in self.rows.iter().zip(&taken).filter(|(_, taken)| taken.is_none()) {
            let style = ledger.styles.entry(self.styles.0[row.style].clone()).or_default();
            *style.poisoned.entry(UNKNOWN.to_owned()).or_default() += 1;
        }
        let mut listing = settings::listing(folder)?;
        for (style, n) in spool.finish(folder, &mut listing)? {
            ledger.styles.entry(style).or_default().accepted = n;
        }
        ledger.check()?;
        listing.write_file(record::LEDGER, &json::canonical(&ledger))?;
        listing.finish()?;
        Ok(ledger)
    }

    /// By original, then style, text and everything else by name: numbers reflect the order of the files, which must not decide which of two
    /// texts is taken.
    fn sort(&mut self) {
        let Candidates { rows, sources, styles, models, reasons, .. } = self;
        let key = |row: &Candidate| {
            let what = (&styles.0[row.style], row.text, row.source.map(|source| &sources.0[source]));
            let how = (&models.0[row.model], &reasons.0[row.finish_reason]);
            (row.name, what, how, row.prompt_tokens, row.completion_tokens)
        };
        rows.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    }

    /// The rows for an original that no other original took.
    fn rows_of(&self, parent: &Parent, taken: &mut [Option<String>]) -> Result<Vec<usize>> {
        let name = xxh3_64(parent.id.as_bytes());
        let first = self.rows.partition_point(|row| row.name < name);
        let mut rows = Vec::new();
        for (number, row) in self.rows.iter().enumerate().skip(first).take_while(|(_, row)| row.name == name)
        {
            if row.source.is_some_and(|source| self.sources.0[source] != parent.source) {
                continue;
            }
            match &taken[number] {
                Some(other) if *other != parent.source => {
                    return Err(Error::Usage(format!(
                        "the sources `{other}` and `{}` both have a document `{}`; records must name theirs in `source`",
                        parent.source, parent.id
                    )));
                }
                // If a source has two documents of one name, the first one gets them.
                Some(_) => {}
                None => {
                    taken[number] = Some(parent.source.clone());
                    rows.push(number);
                }
            }
        }
        Ok(rows)
    }
}

/// Originals whose variants are judged at once.
const BATCH: usize = 64;
/// Reason for a text without a kept original in the build.
pub const UNKNOWN: &str = "unknown_document";
/// Reason for a text when another one of its original and style was already taken.
pub const REPEATED: &str = "repeated";

/// A style without a file: its name and the default limits.
pub fn plain_style(name: &str) -> Style {
    Style { style: Prompt { name: name.to_owned(), ..Prompt::default() }, ..Style::default() }
}

struct Run<'a> {
    candidates: &'a Candidates,
    styles: &'a [Style],
    blob: &'a Blob,
    licence: Option<&'a str>,
    families: Vec<(Arc<Parent>, Vec<usize>)>,
    spool: Spool,
    ledger: Ledger,
}

impl Run<'_> {
    fn finish_batch(&mut self, watch: &Watch) -> Result<()> {
        let families = std::mem::take(&mut self.families);
        let this = &*self;
        let judged = families.into_par_iter().map(|(parent, rows)| this.judge_family(&parent, &rows));
        let judged: Vec<Result<Vec<Outcome<'_>>>> = judged.collect();
        let mut lines = Vec::new();
        let mut books: Vec<(String, StyleLedger)> = Vec::new();
        for family in judged {
            for outcome in family? {
                let mut entry = StyleLedger::default();
                book(&mut entry, &outcome);
                books.push((outcome.style.name().to_owned(), entry));
                watch.advance(1)?;
                let Fate::Judged(judged) = &outcome.fate else { continue };
                let model = outcome.answers.first().map_or("", |answer| answer.completion.model.as_str());
                let (template, sampling) = (Hash::default(), Sampling::default());
                let origin = Origin { model, revision: "", template, sampling, licence: self.licence };
                let (kind, line) = match &judged.refusal {
                    None => (Some(outcome.parent.source.clone()), accepted(&outcome, judged, &origin)?),
                    Some(_) => (None, rejected(&outcome, judged)?),
                };
                lines.push((kind, outcome.parent.document_id.0, outcome.style.name().to_owned(), line));
            }
        }
        for (style, entry) in books {
            self.ledger.styles.entry(style).or_default().add(&entry);
        }
        lines.into_iter().try_for_each(|(kind, id, style, line)| self.spool.append(kind, id, &style, &line))
    }

    /// Judges the texts of one original by style and text; each is compared with those accepted before it.
    fn judge_family(&self, parent: &Arc<Parent>, rows: &[usize]) -> Result<Vec<Outcome<'_>>> {
        let mut views = Views::new(&parent.text);
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut last_accepted = None;
        for &number in rows {
            let row = &self.candidates.rows[number];
            let Some(style) = self.styles.get(row.style) else { continue };
            let (parent, answers) = (parent.clone(), Vec::new());
            if last_accepted == Some(row.style) {
                let fate = Fate::Poisoned(REPEATED.to_owned());
                outcomes.push(Outcome { parent, style, answers, fate });
                continue;
            }
            let answers = vec![self.answer(row)?];
            let model = Model { name: answers[0].completion.model.clone(), revision: String::new() };
            let n = parent.text.len();
            let chunks = vec![Chunk { body: 0..n, tail: n..n }];
            let mut judged =
                judge::judge(&Job { model: &model, style, parent: parent.clone(), chunks }, &answers);
            judge::compare(&mut judged, style, &mut views);
            if judged.refusal.is_none() {
                last_accepted = Some(row.style);
            }
            outcomes.push(Outcome { parent, style, answers, fate: Fate::Judged(Box::new(judged)) });
        }
        Ok(outcomes)
    }

    fn answer(&self, row: &Candidate) -> Result<Answer> {
        let mut bytes = vec![0; row.n_bytes];
        self.blob.read_at(row.start, &mut bytes)?;
        let changed =
            |_| Error::data(self.candidates.texts.path(), "changed while it was read; run the command again");
        let completion = Completion {
            text: String::from_utf8(bytes).map_err(changed)?,
            finish_reason: self.candidates.reasons.0[row.finish_reason].clone(),
            usage: Usage { prompt_tokens: row.prompt_tokens, completion_tokens: row.completion_tokens },
            model: self.candidates.models.0[row.model].clone(),
            time: 0,
        };
        Ok(Answer { key: Key(row.text), completion })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_of_three_programs_are_read() {
        let kept = json!({ "style": "plain", "model": "m", "source": "s" }).to_string();
        let [variant] = &Layout::Plain.variants("a text", &kept).unwrap()[..] else { panic!("not one") };
        assert_eq!((variant.style.as_deref(), variant.model.as_deref()), (Some("plain"), Some("m")));
        assert_eq!((variant.source.as_deref(), variant.text.as_str()), (Some("s"), "a text"));

        let kept = json!({ "model_name": "m" }).to_string();
        let [variant] = &Layout::Distilabel.variants("a text", &kept).unwrap()[..] else { panic!("not one") };
        assert_eq!((variant.style.as_deref(), variant.model.as_deref()), (None, Some("m")));

        let usage = json!({ "prompt_tokens": 5, "completion_tokens": 7 });
        let rollouts = json!([{ "text": "one", "finish_reason": "length", "usage": usage }, "two"]);
        let kept = json!({ "metadata.rollout_results": rollouts, "metadata.style": "faq" }).to_string();
        let variants = Layout::Datatrove.variants("the original", &kept).unwrap();
        let found: Vec<_> = variants.iter().map(|v| (v.text.as_str(), v.finish_reason.as_str())).collect();
        assert_eq!(found, [("one", "length"), ("two", "stop")]);
        assert_eq!((variants[0].usage.prompt_tokens, variants[0].usage.completion_tokens), (5, 7));
        assert!(variants.iter().all(|variant| variant.style.as_deref() == Some("faq")));
        let kept = json!({ "metadata.rollout_results": ["one\r\ntwo"] }).to_string();
        assert_eq!(Layout::Datatrove.variants("the original", &kept).unwrap()[0].text, "one\ntwo");
        for kept in ["", r#"{"metadata.rollout_results":"[]"}"#, r#"{"metadata.rollout_results":[{}]}"#] {
            assert!(Layout::Datatrove.variants("the original", kept).is_err(), "{kept}");
        }
    }
}
