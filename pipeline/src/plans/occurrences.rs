//! `moe-data where ID`: every sample that shows a document, or why none does.
//!
//! One walk over the plan: each sample is looked up as the trainer does, on all cores.

use std::path::Path;

use arrow::array::{Array, AsArray};
use moe_shards::family::Holdout;
use moe_shards::{Plan, Sample, TakedownLock};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use serde::Serialize;

use super::{shard_of, window_of};
use crate::error::{Error, Result};
use crate::intact;
use crate::lookup::{self, Place};
use crate::watch::Watch;

/// Samples looked up between checks of the clock.
const BLOCK: u64 = 256;

/// A document of the build, and where it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Occurrences {
    /// Its source.
    pub source: String,
    /// Name of its variant.
    pub variant: String,
    /// Its family.
    pub family: String,
    /// Its name in its source.
    pub name: String,
    /// Its shard.
    pub shard: String,
    /// Its number in the shard, from 0.
    pub document: u32,
    /// How many others of its source and variant have the same name.
    pub alike: u64,
    /// Its tokens, with the end of document.
    pub tokens: u64,
    /// Samples that train on it, in order.
    pub shown: Vec<Occurrence>,
    /// Held-out sequences that show it.
    pub validation: Vec<u64>,
    /// Samples that show another text of its family.
    pub other_texts: u64,
    /// Sample from which it is taken down, and the texts of its family that are not.
    pub taken_down: Option<Takedown>,
    /// Why no sample shows it, if none does.
    pub reason: Option<String>,
}

/// A document that the plan hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Takedown {
    /// First sample that does not show it.
    pub from: u64,
    /// Texts of its family that are not taken down.
    pub texts_left: u64,
}

/// A piece of the document in a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Occurrence {
    /// Sample.
    pub t: u64,
    /// Name of the phase.
    pub phase: String,
    /// Name of the pool.
    pub pool: String,
    /// Pass over the pool, from 0.
    pub pass: u32,
    /// Window of the pass.
    pub window: usize,
    /// Bin of the pass.
    pub bin: u64,
    /// First token of the piece in the document.
    pub offset: u32,
    /// Tokens of the piece.
    pub len: u32,
}

/// A document that the build dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Its source.
    pub source: String,
    /// What happened to it, as in the audit.
    pub reason: String,
}

/// All documents of a name.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The name.
    pub id: String,
    /// Documents in the shards.
    pub documents: Vec<Occurrences>,
    /// Documents that the build dropped.
    pub dropped: Vec<Dropped>,
}

/// Looks for the documents that are called `id`, see [`lookup`]. `watch` advances by one a sample.
///
/// # Errors
/// No document has this name, kept or dropped, there is no plan, or files are damaged.
pub fn find(out: &Path, id: &str, watch: &Watch) -> Result<Answer> {
    let plan = Plan::open(out)?;
    let found = lookup::find(out, plan.manifest(), [id])?.remove(id).unwrap_or_default();
    // The samples below check what they read, but old indexes have no checksum of a document.
    intact::check(plan.shards().into_iter().filter(|shard| !shard.has_document_sums()), &Watch::idle())?;
    let mut documents = Vec::new();
    for wanted in &found {
        let n_alike = found.iter().filter(|other| wanted.is_alike(other)).count();
        documents.push(occurrences(&plan, wanted, n_alike as u64, watch)?);
    }
    let dropped = dropped(&out.join("audit"), id)?;
    if documents.is_empty() && dropped.is_empty() {
        let message = format!(
            "no document of {} is called `{id}`, neither in the shards nor in the audit; names are those of the `id` field of the source, alone or as `source/name`, or `shard:number`",
            out.display()
        );
        return Err(Error::Usage(message));
    }
    Ok(Answer { id: id.to_owned(), documents, dropped })
}

fn occurrences(plan: &Plan, wanted: &Place, n_alike: u64, watch: &Watch) -> Result<Occurrences> {
    let is_it = |piece: &&moe_shards::Piece| (piece.shard, piece.doc) == (wanted.shard, wanted.doc);
    let look = |t: u64| -> Result<(Vec<Occurrence>, bool)> {
        let sample = plan.sample(t)?;
        let pieces = sample.pieces.iter().filter(is_it);
        let shown = pieces.map(|piece| occurrence(plan, t, &sample, piece)).collect();
        let other = sample.pieces.iter().any(|piece| {
            piece.family == wanted.family && !is_it(&piece) && of_source(plan, piece.shard, wanted.source)
        });
        Ok((shown, other))
    };
    let blocks = plan.len().div_ceil(BLOCK);
    let found: Vec<(Vec<Occurrence>, u64)> = (0..blocks)
        .into_par_iter()
        .map(|block| {
            let (mut shown, mut others) = (Vec::new(), 0);
            let samples = block * BLOCK..((block + 1) * BLOCK).min(plan.len());
            watch.advance(samples.end - samples.start)?;
            for t in samples {
                let (found, other) = look(t)?;
                shown.extend(found);
                others += u64::from(other);
            }
            Ok((shown, others))
        })
        .collect::<Result<_>>()?;
    let other_texts = found.iter().map(|(_, others)| others).sum();
    let shown: Vec<Occurrence> = found.into_iter().flat_map(|(shown, _)| shown).collect();
    let mut validation = Vec::new();
    for i in 0..plan.validation_len() {
        if plan.validation_sample(i)?.pieces.iter().any(|piece| is_it(&piece)) {
            validation.push(i);
        }
    }
    let source = plan.manifest().sources.get(usize::from(wanted.source));
    let variant = source.and_then(|source| source.variants.get(usize::from(wanted.variant)));
    let taken_down = taken_down(plan, wanted)?;
    let reason = shown.is_empty().then(|| match taken_down {
        Some(_) => "it is taken down".to_owned(),
        None => reason(plan, wanted, other_texts),
    });
    Ok(Occurrences {
        source: source.map(|source| source.name.clone()).unwrap_or_default(),
        variant: variant.cloned().unwrap_or_default(),
        family: wanted.family.to_string(),
        name: wanted.id.clone(),
        shard: wanted.shard_name.clone(),
        document: wanted.doc,
        alike: n_alike,
        tokens: wanted.n_tokens,
        shown,
        validation,
        other_texts,
        taken_down,
        reason,
    })
}

/// Whether the plan hides a document, and what it leaves of its family.
fn taken_down(plan: &Plan, wanted: &Place) -> Result<Option<Takedown>> {
    let takedowns = &plan.lock().takedowns;
    let from = |shard: &str, doc: u32| {
        let lists = |down: &&TakedownLock| {
            down.shards.iter().any(|listed| listed.name == shard && listed.docs.contains(&doc))
        };
        takedowns.iter().filter(lists).map(|down| down.from).min()
    };
    let Some(first) = from(&wanted.shard_name, wanted.doc) else { return Ok(None) };
    let mut texts_left = 0;
    for shard in plan.shards() {
        let name = shard.path().file_stem().unwrap_or_default().to_string_lossy();
        for doc in 0..shard.n_docs() {
            texts_left += u64::from(shard.meta(doc)?.family == wanted.family && from(&name, doc).is_none());
        }
    }
    Ok(Some(Takedown { from: first, texts_left }))
}

/// Family ids of one source never mean another source's families, unless their texts are equal.
fn of_source(plan: &Plan, shard: u32, source: u16) -> bool {
    plan.manifest().shards.get(shard as usize).is_some_and(|info| info.source == source)
}

fn occurrence(plan: &Plan, t: u64, sample: &Sample, piece: &moe_shards::Piece) -> Occurrence {
    let phase = plan.lock().phases.iter().rev().find(|phase| phase.t_start <= t);
    Occurrence {
        t,
        phase: phase.map(|phase| phase.name.clone()).unwrap_or_default(),
        pool: plan.lock().pools[usize::from(sample.id.pool)].name.clone(),
        pass: sample.id.pass,
        window: window_of(plan, sample.id).unwrap_or_default(),
        bin: sample.id.bin,
        offset: piece.offset,
        len: piece.len,
    }
}

/// Why no sample trains on a document.
fn reason(plan: &Plan, wanted: &Place, other_texts: u64) -> String {
    let (lock, shard) = (plan.lock(), &wanted.shard_name);
    let pools: Vec<u16> = (0..)
        .zip(&lock.pools)
        .filter(|(_, pool)| pool.shards.iter().any(|listed| listed.name == *shard))
        .map(|(number, _)| number)
        .collect();
    if !pools.iter().any(|&pool| shard_of(plan, pool, wanted.shard).is_some()) {
        return "no pool of the plan draws from its source".to_owned();
    }
    if (Holdout { ppm: lock.holdout_ppm, seed: lock.seed }).contains(wanted.family) {
        return match wanted.variant {
            0 => "its family is held out for validation".to_owned(),
            _ => "its family is held out for validation, which shows originals only".to_owned(),
        };
    }
    if other_texts > 0 {
        return format!(
            "the passes show other texts of its family, in {other_texts} samples; more passes show more texts"
        );
    }
    let budget: Vec<String> = pools
        .iter()
        .map(|&number| {
            let quota: u64 =
                lock.phases.iter().filter_map(|phase| phase.quotas.get(usize::from(number))).sum();
            let bins: u64 = lock.pools[usize::from(number)].passes.iter().map(|pass| pass.n_bins()).sum();
            format!("pool `{}` shows {quota} of its {bins} bins", lock.pools[usize::from(number)].name)
        })
        .collect();
    format!("the plan ends before its turn, or leaves it out: {}", budget.join(", "))
}

/// Rows of the audit tables with this name.
fn dropped(audit: &Path, id: &str) -> Result<Vec<Dropped>> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(audit) else { return Ok(found) };
    let mut tables: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    tables.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    tables.sort();
    for table in tables {
        let file = std::fs::File::open(&table).map_err(Error::io(&table, "open"))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
        for batch in reader.map_err(Error::parquet(&table))? {
            let batch = batch.map_err(Error::parquet(&table))?;
            let text = |name: &str, row: usize| {
                let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            for row in 0..batch.num_rows() {
                let called = |source: &str, name: &str| {
                    let name = text(name, row).filter(|name| !name.is_empty());
                    let full = || Some(format!("{}/{}", text(source, row)?, name.as_ref()?));
                    name.as_deref() == Some(id) || full().as_deref() == Some(id)
                };
                if called("source", "id") {
                    let (stage, why) = (text("stage", row).unwrap_or_default(), text("reason", row));
                    let reason = format!("dropped by {stage}: {}", why.unwrap_or_default());
                    found.push(Dropped { source: text("source", row).unwrap_or_default(), reason });
                } else if called("removed_source", "removed") {
                    let kept =
                        (text("kept", row).unwrap_or_default(), text("kept_source", row).unwrap_or_default());
                    let method = text("method", row).unwrap_or_default();
                    let reason =
                        format!("{method} duplicate of `{}` of source {}, which stays", kept.0, kept.1);
                    found.push(Dropped { source: text("removed_source", row).unwrap_or_default(), reason });
                }
            }
        }
    }
    Ok(found)
}
