//! The stages of one build: makes their tasks, hands them to the engine, and records the reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_shards::{Hash, Shard, TokenId, TokenWidth, TokenizerInfo, atomic};

use super::part::{Part, left};
use crate::cluster::BuildEngine;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger::{EncoderNote, Ledger, SourceLedger};
use crate::prepare::Prepared;
use crate::printer::{Printer, StageLine};
use crate::publish::{Results, StoredTokenizer, TOKEN_BYTES};
use crate::recipe::ByteSize;
use crate::stage::{Job, Report, Task, shard, tokenize, train};
use crate::tables;
use crate::tables::parts::{FileOfPart, PartPlace, Parts};
use crate::tokenizer::{Encoder, EngineChoice, Verdict};
use crate::watch::Watch;

/// A build under way.
pub(super) struct Run<'a> {
    pub prepared: &'a Prepared,
    /// The work folder.
    pub work: PathBuf,
    pub engine: BuildEngine,
    pub printer: &'a Printer,
    /// Set when the user asks to stop.
    pub stop: Arc<AtomicBool>,
    /// Where every record went so far.
    pub ledger: Ledger,
    /// Files to publish.
    pub results: Results,
    /// Share of the texts that is read, per million; all when absent.
    pub sample: Option<u32>,
    /// Bad records by cause: how many, and where the first is.
    pub bad: BTreeMap<String, (u64, String)>,
    /// Tags of the data set, so far.
    pub tags: BTreeSet<String>,
    /// Edges of the buckets of scores.
    pub quality_edges: Vec<f64>,
}

impl<'a> Run<'a> {
    pub fn new(
        prepared: &'a Prepared,
        out: &Path,
        engine: BuildEngine,
        printer: &'a Printer,
        stop: Arc<AtomicBool>,
    ) -> Result<Run<'a>> {
        let names = prepared.recipe.source.iter().map(|source| source.name.as_str());
        Ok(Run {
            prepared,
            work: out.join("work"),
            engine,
            printer,
            stop,
            ledger: Ledger::new(names),
            results: Results::default(),
            sample: None,
            bad: BTreeMap::new(),
            tags: BTreeSet::new(),
            quality_edges: Vec::new(),
        })
    }

    /// Records where every part came from and where its tables are, for commands that inspect single documents.
    pub fn write_parts(&self, parts: &[Part]) -> Result<()> {
        let inside = |path: &Path| path.strip_prefix(&self.work).unwrap_or(path).to_owned();
        let places = parts.iter().map(|part| PartPlace {
            source: self.source_name(part),
            file: part.inputs.first().cloned().unwrap_or_default(),
            files: (part.inputs.iter().zip(&part.documents_of_files))
                .map(|(file, &documents)| FileOfPart { file: file.clone(), documents })
                .collect(),
            slice: part.slice.clone(),
            read: inside(&part.read),
            documents: inside(&part.documents),
            measures: part.measures.as_deref().map(inside),
            filters: self.filters(part),
            kept: inside(&part.kept),
            removed: inside(&part.removed),
            scores: part.scores.as_deref().map(inside),
            tags: part.tags.as_deref().map(inside),
            tokens: part.tokens.as_deref().map(inside),
            is_rephrased: part.accepted.is_some(),
            cuts: inside(&part.cuts),
            families: inside(&part.families),
        });
        Parts::new(places.collect(), self.quality_edges.clone()).write(&self.work)
    }

    /// Runs the tasks of a stage, and returns them with their reports.
    pub fn map(&mut self, name: &'static str, tasks: Vec<Task>) -> Result<Vec<(Task, Report)>> {
        let total = tasks.iter().map(|task| task.weight).sum();
        let watch = Watch::new(self.stop.clone(), self.printer.bar(name, total));
        let reports = self.engine.map(&tasks, &watch);
        watch.finish();
        let done: Vec<(Task, Report)> = tasks.into_iter().zip(reports?).collect();
        for (task, report) in &done {
            let (part, docs) = (task.part, report.kept.docs);
            self.printer
                .detail(&format!("  {name} part {part}: {docs} documents, {}", task.output.display()));
            self.results.used.push(task.output.clone());
        }
        Ok(done)
    }

    /// Bad records by cause with examples, in words: the most frequent cause first, each other one on a line of its own.
    pub fn bad_causes(&self) -> Option<String> {
        let mut causes: Vec<(&String, &(u64, String))> = self.bad.iter().collect();
        causes.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
        let (first, (_, place)) = causes.first()?;
        let mut words = format!("{first} in {place}");
        if causes.len() > 1 {
            words.extend(
                causes.iter().map(|(cause, (n, place))| format!("\n  {cause}: {n}, such as {place}")),
            );
        }
        Some(words)
    }

    pub fn source_name(&self, part: &Part) -> String {
        self.prepared.recipe.source[part.source].name.clone()
    }

    pub fn entry(&mut self, part: &Part) -> &mut SourceLedger {
        self.ledger.source(&self.prepared.recipe.source[part.source].name)
    }

    pub fn tokenizer(&mut self, parts: &[Part]) -> Result<StoredTokenizer> {
        let line = StageLine::start("tokenizer");
        let prepared = self.prepared;
        let config = &prepared.recipe.tokenizer;
        let (file, origin) = match (&prepared.tokenizer, &config.train) {
            (Some(file), _) => (file.path.clone(), "read".to_owned()),
            (None, train) => {
                let train = train.clone().unwrap_or_default();
                let inputs = train::TrainInputs { parts: parts.iter().map(Part::cut_documents).collect() };
                let weight = left(parts).bytes.min(train.sample_bytes.0);
                let params = train::TrainParams {
                    vocab_size: train.vocab_size,
                    sample_bytes: train.sample_bytes.0,
                    special_tokens: train.special_tokens,
                };
                let task = Task::new(&self.work, 0, weight, params, inputs);
                let file = task.file(tables::TOKENIZER);
                let done = self.map("train", vec![task])?;
                let sample = done.iter().map(|(_, report)| report.kept.bytes).sum();
                (file, format!("trained on {}", ByteSize(sample)))
            }
        };
        let bytes = std::fs::read(&file).map_err(Error::io(&file, "read"))?;
        let blake3 = Hash::of(&bytes);
        // Named by its content: an identical tokenizer changes no later task.
        let folder = self.work.join("tokenizer").join(&blake3.to_string()[..24]);
        let path = folder.join(tables::TOKENIZER);
        if !path.exists() {
            atomic::write_file(&path, &bytes)?;
        }
        self.results.used.push(folder);
        let mut options = config.encoder_options();
        let of_original = |e: Error| match e {
            // The user knows the original, not the copy.
            Error::Tokenizer { message, .. } => Error::Tokenizer { path: file.clone(), message },
            other => other,
        };
        let encoder = Encoder::shared(&path, &options).map_err(of_original)?;
        if prepared.recipe.chat_template.is_some() {
            encoder.check_marked().map_err(of_original)?;
        }
        let token_bytes: Vec<u8> =
            encoder.vocabulary().token_bytes().iter().flat_map(|n| n.to_le_bytes()).collect();
        let info = TokenizerInfo {
            file: tables::TOKENIZER.to_owned(),
            blake3,
            vocab_size: encoder.vocab_size(),
            eod_id: encoder.eod().0,
            token_bytes_file: TOKEN_BYTES.to_owned(),
            token_bytes_blake3: Hash::of(&token_bytes),
        };
        let what = format!("{origin}, {} tokens, end of document is {}", info.vocab_size, info.eod_id);
        line.done(self.printer, &what);
        let mut verdict = encoder.verdict().clone();
        if let Some(difference) = first_difference(&encoder, parts)? {
            options.engine = EngineChoice::Reference;
            verdict = Verdict::reference(format!("the fast engine differs: {difference}"));
        }
        self.printer.note(&format!("          encoder: {verdict}"));
        self.ledger.encoder = Some(EncoderNote { engine: verdict.engine, reason: verdict.reason });
        Ok(StoredTokenizer { path, info, token_bytes, options })
    }

    pub fn tokenize(&mut self, parts: &mut [Part], tokenizer: &StoredTokenizer) -> Result<()> {
        let line = StageLine::start("tokenize");
        let tasks = parts.iter().enumerate().map(|(i, part)| {
            let inputs = tokenize::TokenizeInputs {
                part: part.placed_documents(),
                tokenizer: tokenizer.path.clone(),
                tags: part.tags.clone(),
                scores: part.scores.clone(),
            };
            let params = tokenize::TokenizeParams {
                source: self.source_name(part),
                options: tokenizer.options.clone(),
                verify_every: self.prepared.recipe.tokenizer.verify_every,
                has_scores: part.scores.is_some(),
            };
            Task::new(&self.work, i, part.left.bytes, params, inputs)
        });
        let tasks = tasks.collect();
        let (mut n_unknown, mut n_changed, mut n_refused, mut first_refused) = (0, 0, 0, None);
        for (part, (task, report)) in parts.iter_mut().zip(self.map("tokenize", tasks)?) {
            part.left = report.kept;
            part.n_tokens = report.tokens;
            let entry = self.entry(part);
            SourceLedger::add(&mut entry.dropped, &report.dropped);
            entry.unknown_tokens += report.unknown_tokens;
            entry.not_given_back += report.not_given_back;
            n_unknown += report.unknown_tokens;
            n_changed += report.not_given_back;
            n_refused += report.dropped.get(tokenize::REFUSED).map_or(0, |count| count.docs);
            let first = report.first_bad.get(tokenize::REFUSED);
            first_refused = first_refused.or_else(|| first.cloned());
            let audit = format!("drops-tokenize-{}.parquet", part.label);
            self.results.add_audit(task.file(tables::DROPS), audit);
            part.tokens = Some(task.output);
        }
        let left = left(parts);
        let tokens: u64 = parts.iter().flat_map(|part| part.n_tokens.values()).sum();
        let rate = left.bytes as f64 / tokens.max(1) as f64;
        line.done(
            self.printer,
            &format!("{} documents, {tokens} tokens, {rate:.2} bytes a token", left.docs),
        );
        if n_unknown > 0 {
            self.printer.warn(&format!(
                "{n_unknown} of {tokens} tokens are unknown tokens: the tokenizer has none for this text;                  the ledger counts them by source"
            ));
        }
        if n_changed > 0 {
            self.printer.warn(&format!(
                "the tokenizer does not give back {n_changed} of {} texts: it is lossy (case, accents, white space or \
                 unknown characters); the model will see them as it changes them",
                left.docs
            ));
        }
        if let Some(first) = first_refused {
            self.printer.warn(&format!(
                "{n_refused} documents cannot be encoded and are dropped as {}; the first is {first}",
                tokenize::REFUSED
            ));
        }
        Ok(())
    }

    pub fn shard(&mut self, parts: &[Part], tokenizer: &StoredTokenizer) -> Result<()> {
        let line = StageLine::start("shard");
        let mut tasks = Vec::new();
        for source in 0..self.prepared.recipe.source.len() {
            self.shard_tasks(source, parts, tokenizer, &mut tasks);
        }
        for (task, report) in self.map("shard", tasks)? {
            let Job::Shard(call) = &task.job else { continue };
            let params = &call.params;
            let entry = self.ledger.source(&params.source);
            SourceLedger::add(&mut entry.dropped, &report.dropped);
            let audit = format!("drops-shard-{}.parquet", params.name);
            self.results.add_audit(task.file(tables::DROPS), audit);
            if let Some(info) = report.shard {
                // Counted from the file itself, so that the ledger's check is meaningful.
                let shard = Shard::open(&task.file(&format!("{}.mdx", info.name)))?;
                entry.kept.docs += u64::from(shard.n_docs());
                entry.kept.bytes += shard.n_text_bytes();
                entry.kept.tokens += shard.n_tokens();
                self.results.languages.extend(shard.names().languages().iter().cloned());
                self.results.tags.extend(shard.names().tags().iter().cloned());
                self.results.shards.push((task.output, info));
            }
        }
        self.results.shards.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        let n_bytes = self.results.shards.iter().map(|(_, shard)| shard.bin_bytes + shard.mdx_bytes).sum();
        line.done(self.printer, &format!("{} shards, {}", self.results.shards.len(), ByteSize(n_bytes)));
        Ok(())
    }

    /// All variants of a source are cut at the same families, into a power of two of shards
    /// that keeps the largest variant's shards below the target size.
    fn shard_tasks(
        &self,
        source_index: usize,
        parts: &[Part],
        tokenizer: &StoredTokenizer,
        tasks: &mut Vec<Task>,
    ) {
        let recipe = &self.prepared.recipe;
        let source = &recipe.source[source_index];
        let parts: Vec<&Part> = parts.iter().filter(|part| part.source == source_index).collect();
        let inputs =
            shard::ShardInputs { parts: parts.iter().filter_map(|part| part.tokens.clone()).collect() };
        // Deduplication may have made more variants than the source declares.
        let largest = parts.iter().filter_map(|part| part.n_tokens.keys().max()).max().copied().unwrap_or(0);
        let n_variants = self.prepared.variants(source_index).len().max(usize::from(largest) + 1);
        let tokens =
            |variant: u8| -> u64 { parts.iter().filter_map(|part| part.n_tokens.get(&variant)).sum() };
        // The recipe allows 256 variants, so their numbers fit in a byte.
        let by_variant: Vec<u64> = (0..n_variants).map(|variant| tokens(variant as u8)).collect();
        let width = TokenWidth::for_vocab(tokenizer.info.vocab_size).bytes() as u64;
        let largest = by_variant.iter().max().copied().unwrap_or(0) * width;
        let n_prefixes = largest.div_ceil(recipe.shard.target_bytes.0).max(1).next_power_of_two();
        for (variant, tokens) in by_variant.iter().enumerate() {
            for prefix in 0..n_prefixes {
                let params = shard::ShardParams {
                    name: format!("{}-v{variant}-{prefix:05}", source.name),
                    source: source.name.clone(),
                    source_index: source_index as u16,
                    variant: variant as u8,
                    prefix_bits: n_prefixes.trailing_zeros(),
                    prefix,
                    vocab_size: tokenizer.info.vocab_size,
                    eod: TokenId(tokenizer.info.eod_id),
                    tokenizer: tokenizer.info.blake3,
                    build: recipe.source_identity(source, tokenizer.info.blake3),
                    quality_edges: self.quality_edges.clone(),
                    masked: source.chat.is_some(),
                };
                let weight = tokens / n_prefixes;
                tasks.push(Task::new(&self.work, tasks.len(), weight, params, inputs.clone()));
            }
        }
    }
}

/// Compares the engines on the first remaining documents, and reports the first difference.
fn first_difference(encoder: &Encoder, parts: &[Part]) -> Result<Option<String>> {
    if encoder.verdict().reason.is_some() {
        return Ok(None);
    }
    for part in parts.iter().filter(|part| part.left.docs > 0).take(1) {
        for text in tokenize::first_texts(&part.documents, &part.kept, &part.removed, &part.cuts)? {
            let difference = encoder.difference(&text, &encoder.encode(&text)?)?;
            if difference.is_some() {
                return Ok(difference);
            }
        }
    }
    Ok(None)
}
