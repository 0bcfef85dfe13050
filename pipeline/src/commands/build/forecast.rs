//! `moe-data build --dry-run`: runs the first stages on a sample and predicts what a build would make of everything. The
//! prediction is kept in the work folder, and the next build prints it next to the result.
//!
//! A document is in the sample by the hash of its *text*, so either all documents with a text are in it or none: exact
//! duplicates, here and in other builds, are as frequent in the sample as in the whole. A near-duplicate pair is not kept together, so
//! fuzzy deduplication and cuts, which need both sides, are reported as not predicted, unless the sample is everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use moe_shards::{Hash, Manifest, TokenWidth, atomic};
use serde::{Deserialize, Serialize};

use super::part::Part;
use super::run::Run;
use crate::cluster::BuildEngine;
use crate::document::Count;
use crate::engine::LocalEngine;
use crate::error::{Error, Result};
use crate::json;
use crate::ledger::Ledger;
use crate::prepare::Prepared;
use crate::printer::Printer;
use crate::recipe::ByteSize;
use crate::tables::{DRY_RUN, PREDICTION, remove_dry_run};

const VERSION: u32 = 1;
/// A smaller sample is redrawn with a larger share.
const MIN_SAMPLE: u64 = 300;
/// Bytes of a shard's index and table of texts for each document, besides its name (docs/shard-format.md, docs/dedup-format.md).
const INDEX_BYTES: f64 = 56.0;

/// What a sample says about a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Prediction {
    version: u32,
    /// Identity of the build.
    fingerprint: Hash,
    /// Share of the texts that is in the sample, per million.
    per_million: u32,
    /// Documents of the sample.
    sampled: u64,
    /// By name of the source.
    sources: BTreeMap<String, SourcePrediction>,
    /// Bytes of the output folder without `work/`.
    output_bytes: u64,
    /// Largest size of `work/` in bytes, without what is not predicted.
    work_bytes: u64,
    /// Seconds, with the threads of the dry run, without what is not predicted.
    seconds: f64,
    /// What the sample cannot predict.
    not_predicted: Vec<String>,
}

/// What a sample says about a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SourcePrediction {
    /// Records; not estimated, since all were read.
    read: Count,
    /// Records that are not documents; not estimated.
    bad: Count,
    /// Documents of the sample.
    sampled: Count,
    /// Share of the documents that is kept, and its 95 % interval as for independent documents (Wilson 1927).
    kept_share: f64,
    kept_share_from: f64,
    kept_share_to: f64,
    /// Documents that are kept.
    kept_docs: u64,
    /// Their bytes as read.
    kept_bytes: u64,
    /// Their tokens, with ends of document.
    tokens: u64,
    /// Share of the documents that is dropped, by reason.
    dropped: BTreeMap<String, f64>,
}

/// What the sample did, by source.
#[derive(Clone, Copy, Default)]
struct Seen {
    sampled: Count,
    left: Count,
    tokens: u64,
}

/// Runs the command.
pub(super) fn run(
    out: &Path,
    prepared: &Prepared,
    share: f64,
    engine: impl Fn() -> Result<LocalEngine>,
    printer: &Printer,
    stop: &Arc<AtomicBool>,
) -> Result<Prediction> {
    let mut per_million = (share * 1e6).ceil().clamp(1.0, 1e6) as u32;
    let work = out.join("work");
    let folder = work.join(DRY_RUN);
    loop {
        // Leftovers of another dry run would be counted as this one's.
        remove_dry_run(&work)?;
        let start = Instant::now();
        let mut run = Run::new(prepared, &folder, BuildEngine::Here(engine()?), printer, stop.clone())?;
        run.sample = Some(per_million);
        let parts = run.read()?;
        let n: u64 = parts.iter().map(|part| part.left.docs).sum();
        if n >= MIN_SAMPLE || per_million == 1_000_000 {
            let read_seconds = start.elapsed().as_secs_f64();
            let prediction = predict(out, prepared, run, parts, per_million, read_seconds)?;
            atomic::write_file(&work.join(PREDICTION), &json::canonical(&prediction))?;
            remove_dry_run(&work)?;
            return Ok(prediction);
        }
        // Half more than would have been enough; everything if there were none at all.
        let wanted = f64::from(per_million) * 1.5 * MIN_SAMPLE as f64 / n as f64;
        per_million = if n == 0 { 1_000_000 } else { wanted.min(1e6) as u32 };
        printer.note(&format!(
            "{n} documents are too few for a sample; taking {:.2} %",
            f64::from(per_million) / 1e4
        ));
    }
}

fn predict(
    out: &Path,
    prepared: &Prepared,
    mut run: Run<'_>,
    mut parts: Vec<Part>,
    per_million: u32,
    read_seconds: f64,
) -> Result<Prediction> {
    let is_all = per_million == 1_000_000;
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    // Skipped records are counted over all records, not over the sample.
    let skipped: BTreeMap<String, BTreeMap<String, Count>> =
        run.ledger.sources.iter().map(|(name, source)| (name.clone(), source.dropped.clone())).collect();
    for part in &parts {
        seen.entry(run.source_name(part)).or_default().sampled += part.left;
    }
    let start = Instant::now();
    run.decontamination_self_test()?;
    run.filter(&mut parts)?;
    run.dedup(&mut parts, is_all)?;
    run.no_cuts(&mut parts)?;
    if is_all {
        run.cut(&mut parts)?;
    }
    run.decontaminate(&mut parts)?;
    run.quality(&mut parts)?;
    let mut vocab_size = 0;
    if parts.iter().any(|part| part.left.docs > 0) {
        let tokenizer = run.tokenizer(&parts)?;
        vocab_size = tokenizer.info.vocab_size;
        run.tokenize(&mut parts, &tokenizer)?;
    }
    let scaled_seconds = start.elapsed().as_secs_f64();
    for part in &parts {
        let seen = seen.entry(run.source_name(part)).or_default();
        seen.left += part.left;
        seen.tokens += part.n_tokens.values().sum::<u64>();
    }
    let mut prediction = Prediction {
        version: VERSION,
        fingerprint: prepared.fingerprint(),
        per_million,
        sampled: seen.values().map(|seen| seen.sampled.docs).sum(),
        sources: BTreeMap::new(),
        output_bytes: 0,
        work_bytes: 0,
        seconds: 0.0,
        not_predicted: not_predicted(prepared, is_all),
    };
    let (mut all, mut sampled) = (0.0, 0.0);
    for (name, seen) in &seen {
        let entry = run.ledger.source(name);
        let mut bad = Count::default();
        entry.quarantined.values().for_each(|count| bad += *count);
        let mut not_good = bad;
        let skipped = skipped.get(name).cloned().unwrap_or_default();
        skipped.values().for_each(|count| not_good += *count);
        let good = entry.read.minus(not_good);
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let kept_share = share(seen.left.docs, seen.sampled.docs);
        let (kept_share_from, kept_share_to) = match is_all {
            true => (kept_share, kept_share),
            false => wilson(seen.left.docs, seen.sampled.docs),
        };
        let times = |of: u64| share(of, seen.sampled.bytes) * good.bytes as f64;
        prediction.sources.insert(
            name.clone(),
            SourcePrediction {
                read: entry.read,
                bad,
                sampled: seen.sampled,
                kept_share,
                kept_share_from,
                kept_share_to,
                kept_docs: (kept_share * good.docs as f64).round() as u64,
                kept_bytes: times(seen.left.bytes).round() as u64,
                tokens: times(seen.tokens).round() as u64,
                dropped: (entry.dropped.iter())
                    .map(|(reason, count)| match skipped.get(reason) {
                        Some(count) => (reason.clone(), share(count.docs, entry.read.docs)),
                        None => (reason.clone(), share(count.docs, seen.sampled.docs)),
                    })
                    .collect(),
            },
        );
        all += good.bytes as f64;
        sampled += seen.sampled.bytes as f64;
    }
    let factor = if sampled == 0.0 { 0.0 } else { all / sampled };
    let width = TokenWidth::for_vocab(vocab_size).bytes() as f64;
    let sum = |of: fn(&SourcePrediction) -> u64| prediction.sources.values().map(of).sum::<u64>() as f64;
    prediction.output_bytes =
        (sum(|source| source.tokens) * width + sum(|source| source.kept_docs) * INDEX_BYTES) as u64;
    prediction.work_bytes =
        (folder_bytes(&out.join("work").join(DRY_RUN))? as f64 * factor) as u64 + prediction.output_bytes;
    prediction.seconds = read_seconds + scaled_seconds * factor;
    Ok(prediction)
}

fn not_predicted(prepared: &Prepared, is_all: bool) -> Vec<String> {
    let dedup = &prepared.recipe.dedup;
    let methods = [
        (dedup.minhash.is_some(), "near-duplicates"),
        (dedup.paragraph.is_some(), "repeated paragraphs"),
        (dedup.substring.is_some(), "repeated substrings"),
    ];
    methods.into_iter().filter(|(is_on, _)| *is_on && !is_all).map(|(_, name)| name.to_owned()).collect()
}

/// The 95 % interval of a share when `n` of `of` were seen.
fn wilson(n: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, of, z) = (n as f64, of as f64, 1.96f64);
    let share = n / of;
    let middle = (share + z * z / (2.0 * of)) / (1.0 + z * z / of);
    let half = z / (1.0 + z * z / of) * (share * (1.0 - share) / of + z * z / (4.0 * of * of)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let (mut sum, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "read"))? {
            let entry = entry.map_err(Error::io(&folder, "read"))?;
            let path: PathBuf = entry.path();
            let data = entry.metadata().map_err(Error::io(&path, "read"))?;
            match data.is_dir() {
                true => folders.push(path),
                false => sum += data.len(),
            }
        }
    }
    Ok(sum)
}

impl Prediction {
    /// The prediction for people.
    pub(super) fn table(&self) -> String {
        let head = format!(
            "sample of {} documents, {:.2} % by hash of the text\n{:<20}{:>10} {:>10} {:>16} {:>10} {:>12}",
            self.sampled,
            f64::from(self.per_million) / 1e4,
            "predicted",
            "read",
            "kept",
            "95 %",
            "text",
            "tokens"
        );
        let mut lines = vec![head];
        for (name, source) in &self.sources {
            lines.push(format!(
                "{:<20}{:>10} {:>10} {:>16} {:>10} {:>12}",
                format!("  {name}"),
                source.read.docs,
                source.kept_docs,
                format!("{:.3} to {:.3}", source.kept_share_from, source.kept_share_to),
                ByteSize(source.kept_bytes).to_string(),
                source.tokens
            ));
            if source.bad.docs > 0 {
                lines.push(format!("    bad: {}", source.bad.docs));
            }
            lines.extend(
                source.dropped.iter().map(|(reason, share)| format!("    {reason}: {:.2} %", share * 100.0)),
            );
        }
        lines.push(format!(
            "disk: {} of output, {} of work; time: {:.0} s with the same threads",
            ByteSize(self.output_bytes),
            ByteSize(self.work_bytes),
            self.seconds
        ));
        if !self.not_predicted.is_empty() {
            lines.push(format!(
                "a sample cannot predict {}: fewer documents will be kept, and the build takes longer",
                self.not_predicted.join(", ")
            ));
        }
        lines.join("\n") + "\n"
    }
}

/// What the last dry run predicted for this build, next to the result; nothing without a dry run.
pub(super) fn compare(
    out: &Path,
    prepared: &Prepared,
    ledger: &Ledger,
    seconds: f64,
) -> Result<Option<String>> {
    let path = out.join("work").join(PREDICTION);
    let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
    // A prediction of another version or another build says nothing here.
    let Ok(predicted) = serde_json::from_slice::<Prediction>(&bytes) else { return Ok(None) };
    if (predicted.version, predicted.fingerprint) != (VERSION, prepared.fingerprint()) {
        return Ok(None);
    }
    let mut lines =
        vec![format!("{:<20}{:>24} {:>24} {:>26}", "predicted / real", "documents", "text", "tokens")];
    for (name, source) in &predicted.sources {
        let kept = ledger.sources.get(name).map(|entry| entry.kept).unwrap_or_default();
        lines.push(format!(
            "{:<20}{:>24} {:>24} {:>26}",
            format!("  {name}"),
            format!("{} / {}", source.kept_docs, kept.docs),
            format!("{} / {}", ByteSize(source.kept_bytes), ByteSize(kept.bytes)),
            format!("{} / {}", source.tokens, kept.tokens)
        ));
    }
    let manifest = Manifest::read(out)?;
    let output: u64 = manifest.shards.iter().map(|shard| shard.bin_bytes + shard.mdx_bytes).sum::<u64>()
        + folder_bytes(&out.join("dedup"))?;
    lines.push(format!(
        "  output {} / {}, time {:.1} s / {seconds:.1} s",
        ByteSize(predicted.output_bytes),
        ByteSize(output),
        predicted.seconds
    ));
    if !predicted.not_predicted.is_empty() {
        lines.push(format!("  not predicted: {}", predicted.not_predicted.join(", ")));
    }
    Ok(Some(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_wilson() {
        // 8 of 10: (0.8 + 0.19208 -+ 1.96 sqrt(0.016 + 0.009604)) / 1.38416.
        let (from, to) = wilson(8, 10);
        assert!((from - 0.49016).abs() < 1e-4 && (to - 0.94331).abs() < 1e-4, "{from} {to}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!((wilson(0, 50).0, wilson(50, 50).1), (0.0, 1.0));
    }
}
