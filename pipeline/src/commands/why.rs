//! `moe-data why ID`: the full provenance of a document in a build.

use std::path::PathBuf;

use clap::Args;
use moe_shards::terminal::escape_line;
use serde_json::json;

use crate::error::{Error, Result};
use crate::filter::Action;
use crate::filter::chain::Looked;
use crate::printer::Printer;
use crate::provenance::audit::{AuditRow, str_of};
use crate::provenance::{Build, Provenance, STAYING};

/// Flags of `why`.
#[derive(Clone, Debug, Args)]
pub struct WhyArgs {
    /// Document: source/name, or a name in any source; for a record in quarantine, how it starts, or FILE:OFFSET
    #[arg(value_name = "ID")]
    pub id: String,
    /// Folder of the build
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Duplicates to name; the rest are counted.
const SHOWN: usize = 5;

/// Runs the command.
///
/// # Errors
/// The build has no such document, or its files are missing or damaged.
pub fn run(args: &WhyArgs, printer: &Printer) -> Result<()> {
    let build = Build::open(&args.out)?;
    let found = build.find(&args.id)?;
    let documents =
        found.into_iter().map(|found| build.provenance(found)).collect::<Result<Vec<Provenance>>>()?;
    let left_out = build.left_out(&args.id)?;
    let is_known = !documents.is_empty() || !left_out.is_empty();
    let quarantined = if is_known { Vec::new() } else { build.quarantined(&args.id)? };
    if !is_known && quarantined.is_empty() {
        let message = format!(
            "no document of {} is called `{}`, and no record in quarantine holds it in its first bytes; \
             ids are `source/name` or `name`, as in the audit tables",
            args.out.display(),
            args.id
        );
        return Err(Error::Usage(message));
    }
    if args.json {
        printer.data(&format!(
            "{}\n",
            json!({ "documents": documents, "left_out": left_out, "quarantined": quarantined })
        ));
        return Ok(());
    }
    let mut lines = Vec::new();
    for provenance in &documents {
        tell(provenance, &mut lines);
    }
    for row in &left_out {
        let status = row.get("measured").and_then(serde_json::Value::as_f64);
        let status = status.map_or_else(String::new, |status| format!(" ({status})"));
        let (source, id) = (str_of(row, "source"), str_of(row, "id"));
        lines.push(format!("{source}/{id}: left out while reading, {}{status}", str_of(row, "reason")));
    }
    for record in &quarantined {
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        lines.push(format!(
            "a record of {} that holds `{}`: quarantined, {}",
            text("source"),
            args.id,
            text("cause")
        ));
        lines.push(format!("  read       {}, offset {}", text("file"), record["offset"]));
        if !text("detail").is_empty() {
            lines.push(format!("  because    {}", text("detail")));
        }
        lines.push(format!("  starts     {}", text("first_bytes")));
    }
    printer.data(&format!("{}\n", lines.join("\n")));
    Ok(())
}

fn tell(provenance: &Provenance, lines: &mut Vec<String>) {
    let d = &provenance.document;
    let fate = match provenance.fate.as_str() {
        "kept" => "kept".to_owned(),
        "unknown" => "not decided: the build did not reach its end".to_owned(),
        reason => format!("dropped, {reason}"),
    };
    lines.push(format!("{}/{}: {fate}", d.source, escape_line(&d.id)));
    let slice = if d.slice.is_empty() { String::new() } else { format!(" ({})", d.slice) };
    lines.push(format!("  read       {} bytes from {}{slice}", d.raw_bytes, escape_line(&d.file)));
    lines.push(format!("  document   {}, family {}, variant {}", d.document_id, d.family, d.variant));
    if d.alike > 0 {
        lines.push(format!(
            "  the name   is that of {} documents of {}; this one is number {} of {}{slice}",
            d.alike + 1,
            d.source,
            d.row,
            d.file
        ));
    }
    provenance.filters.iter().for_each(|looked| filter(looked, lines));
    for row in &provenance.dropped {
        lines.push(format!(
            "  dropped    by {}: {}{}",
            str_of(row, "stage"),
            str_of(row, "reason"),
            measured(row)
        ));
    }
    for duplicate in &provenance.duplicate_of {
        let row = &duplicate.audit;
        let kept = match str_of(row, "kept") {
            "" => "nothing that was kept".to_owned(),
            kept => match str_of(row, "against") {
                "" => format!("{}/{kept}", str_of(row, "kept_source")),
                build => format!("{}/{kept} of the build {build}", str_of(row, "kept_source")),
            },
        };
        let verb = if STAYING.contains(&str_of(row, "method")) { "like" } else { "duplicate" };
        let kept = escape_line(&kept);
        lines.push(format!("  {verb:<10} of {kept} ({}{})", str_of(row, "method"), jaccard(row)));
        if let Some(difference) = &duplicate.difference {
            lines.push(format!(
                "             {} words in common, {} only here, {} only there",
                difference.common, difference.only_removed, difference.only_kept
            ));
            if difference.only_removed + difference.only_kept > 0 {
                lines.push(format!("             {}", difference.text));
            }
        }
    }
    for row in provenance.stands_for.iter().take(SHOWN) {
        let removed = format!("{}/{}", str_of(row, "removed_source"), str_of(row, "removed"));
        let removed = escape_line(&removed);
        lines.push(format!("  stands for {removed} ({}{})", str_of(row, "method"), jaccard(row)));
    }
    if provenance.stands_for.len() > SHOWN {
        lines.push(format!("             and {} more", provenance.stands_for.len() - SHOWN));
    }
    for row in &provenance.cuts {
        let number = |key: &str| row.get(key).and_then(serde_json::Value::as_u64).unwrap_or_default();
        let sample: String = str_of(row, "text").chars().take(60).collect();
        lines.push(format!(
            "  cut        bytes {} to {} ({}), as in {}/{} at byte {}: {:?}",
            number("start"),
            number("end"),
            str_of(row, "method"),
            str_of(row, "kept_source"),
            escape_line(str_of(row, "kept")),
            number("kept_start"),
            sample
        ));
    }
    for row in &provenance.contamination {
        let number = |key: &str| row.get(key).and_then(serde_json::Value::as_u64).unwrap_or_default();
        let score = row.get("score").and_then(serde_json::Value::as_f64).unwrap_or_default();
        let sample: String = str_of(row, "text").chars().take(60).collect();
        lines.push(format!(
            "  holds      {} of record {} of the evaluation set {}: {} words, score {}, bytes {} to {}: {:?}",
            str_of(row, "field"),
            number("record"),
            str_of(row, "benchmark"),
            number("n_words"),
            round(score),
            number("start"),
            number("end"),
            sample
        ));
    }
    for place in &provenance.shards {
        let (doc, n, tokens) = (place.document, place.n_documents, place.tokens);
        lines.push(format!("  kept       document {doc} of {n} in shard {}, {tokens} tokens", place.shard));
    }
}

fn filter(looked: &Looked, lines: &mut Vec<String>) {
    let fails = looked.rules.iter().any(|rule| !rule.passes());
    let verdict = match (fails, looked.action) {
        (false, _) => "lets it pass",
        (true, Action::Tag) => "tags it",
        (true, _) => "drops it",
    };
    lines.push(format!("  filter     {}: {verdict}", looked.filter));
    for rule in &looked.rules {
        let sign = if rule.passes() { " " } else { "!" };
        let limit = match (rule.threshold, rule.is_least) {
            (None, _) => "no limit".to_owned(),
            (Some(least), true) => format!("at least {}", round(least)),
            (Some(most), false) => format!("at most {}", round(most)),
        };
        lines.push(format!("           {sign} {:<30} {:>10}   {limit}", rule.reason, round(rule.measured)));
    }
    for (method, bytes) in &looked.cut {
        lines.push(format!("             {method:<30} {bytes:>10}   bytes taken out"));
    }
}

fn measured(row: &AuditRow) -> String {
    let number = |key: &str| row.get(key).and_then(serde_json::Value::as_f64).map(round);
    match (number("measured"), number("threshold")) {
        (Some(measured), Some(threshold)) => format!(" ({measured}, limit {threshold})"),
        _ => String::new(),
    }
}

fn jaccard(row: &AuditRow) -> String {
    row.get("jaccard")
        .and_then(serde_json::Value::as_f64)
        .map_or_else(String::new, |j| format!(", Jaccard {j:.3}"))
}

/// Up to four decimals.
fn round(x: f64) -> f64 {
    (x * 10_000.0).round() / 10_000.0
}
