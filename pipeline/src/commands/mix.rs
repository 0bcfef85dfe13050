//! `moe-data mix`: reads the mixture, makes the plan, prints what it is worth.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_shards::{Manifest, PlanLock};
use serde_json::json;

use crate::error::{Error, Result};
use crate::lock::OutputLock;
use crate::mix::mixture::Mixture;
use crate::mix::worth::PoolWorth;
use crate::mix::{self, MixOptions, MixOutcome};
use crate::printer::Printer;
use crate::watch::Watch;

/// Where the mixture is looked for when no file is named.
const DEFAULT_MIXTURE: &str = "configs/mix.toml";

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct MixArgs {
    /// Mixture file.
    pub mixture: Option<PathBuf>,
    /// Folder of the build.
    pub out: PathBuf,
    /// Passes, instead of the mixture's.
    pub epochs: Option<u32>,
    /// Tokens of a sequence, instead of the mixture's.
    pub seq_len: Option<u32>,
    /// Seed, instead of the mixture's.
    pub seed: Option<u64>,
    /// Threads; one for each core when absent.
    pub threads: Option<usize>,
    /// Replace another plan.
    pub force: bool,
    /// Print the table only.
    pub dry_run: bool,
    /// Print the table as JSON.
    pub json: bool,
}

/// Runs the command. `stop` is set when the user asks to stop.
///
/// # Errors
/// Everything in [`Error`]; its exit code is the command's.
pub fn run(args: &MixArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let (mixture, origin) = read_mixture(args)?;
    // Before the lock, which would make the folder of a mistyped --out.
    Manifest::read(&args.out)?;
    let _lock = OutputLock::acquire(&args.out)?;
    let manifest = Manifest::read(&args.out)?;
    let mixture = mixture.resolve(&manifest, origin.as_deref())?;
    let from = origin.map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string());
    printer.note(&format!("mixing {} by {from}", args.out.display()));

    let total = mix::work(&manifest, &mixture);
    let watch = Watch::new(stop, printer.bar("mix", total));
    let options = MixOptions { force: args.force, dry_run: args.dry_run };
    let threads = args.threads.unwrap_or(0);
    // 0 lets rayon take one thread for each core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Usage(format!("cannot start {threads} threads: {e}")))?;
    let outcome = pool.install(|| mix::make_plan(&args.out, &manifest, &mixture, &options, &watch));
    watch.finish();
    report(args, printer, &outcome?)
}

fn read_mixture(args: &MixArgs) -> Result<(Mixture, Option<PathBuf>)> {
    let default = Path::new(DEFAULT_MIXTURE);
    let file = args.mixture.clone().or_else(|| default.exists().then(|| default.to_owned()));
    let mut mixture = match &file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(Error::io(file, "read"))?;
            Mixture::decode(&text, file)?
        }
        None => Mixture::default(),
    };
    mixture.override_with(args.epochs, args.seq_len, args.seed)?;
    Ok((mixture, file))
}

fn report(args: &MixArgs, printer: &Printer, outcome: &MixOutcome) -> Result<()> {
    let lock = &outcome.lock;
    if args.json {
        let summary = json!({
            "plan": lock.id,
            "samples": lock.n_samples(),
            "seq_len": lock.phases[0].seq_len,
            "written": outcome.written,
            "pools": outcome.worth,
        });
        printer.data(&format!("{summary}\n"));
    } else {
        printer.data(&table(&outcome.worth));
    }
    for warning in outcome.worth.iter().flat_map(PoolWorth::warnings) {
        printer.warn(&warning);
    }
    let path = args.out.join(PlanLock::FILE);
    if args.dry_run {
        printer.note("nothing was written: this was a dry run");
        return Ok(());
    }
    if !outcome.written {
        printer.note(&format!("nothing changed: {} is this plan already", path.display()));
    }
    let (n, seq_len) = (lock.n_samples(), lock.phases[0].seq_len);
    let held_out: u64 = lock.pools.iter().map(|pool| pool.validation.n_bins).sum();
    printer.note(&format!(
        "plan {}: {n} samples of {seq_len} tokens, {held_out} held out, in {}",
        lock.id.short(),
        path.display()
    ));
    printer.note(&format!("next: moe-train --shards {}/", args.out.display()));
    Ok(())
}

/// The table that says what the plan is worth: one column for each pool.
fn table(worth: &[PoolWorth]) -> String {
    let pools: Vec<Vec<(&str, String)>> = worth.iter().map(column).collect();
    let Some(first) = pools.first() else { return String::new() };
    let label_width = first.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let width =
        |pool: &[(&str, String)]| pool.iter().map(|(_, cell)| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = pools.iter().map(|pool| width(pool)).collect();
    let mut text = String::new();
    for (row, (label, _)) in first.iter().enumerate() {
        text.push_str(&format!("{label:<label_width$}"));
        for (pool, width) in pools.iter().zip(&widths) {
            text.push_str(&format!("   {:>width$}", pool[row].1));
        }
        text.push('\n');
    }
    text
}

/// The rows of one pool, labels first.
fn column(w: &PoolWorth) -> Vec<(&'static str, String)> {
    let count = group_digits;
    let bracket = |low: String, high: String| if low == high { low } else { format!("{low} to {high}") };
    let originals: Vec<String> =
        w.original_share_per_pass.iter().map(|share| format!("{:.1}", share * 100.0)).collect();
    let sightings: Vec<String> =
        w.sightings.iter().map(|(uses, n)| format!("{uses}x {}", count(*n))).collect();
    let gap = match (w.min_gap_samples, w.min_gap_passes) {
        (Some(samples), Some(passes)) => format!("{} samples, {passes:.3} of a pass", count(samples)),
        _ => "one pass only".to_owned(),
    };
    let fresh = |tokens: f64| count(tokens.round() as u64);
    vec![
        ("", w.pool.clone()),
        ("families, held out", format!("{}, {}", count(w.families), count(w.held_out_families))),
        ("families with variants", count(w.families_with_variants)),
        ("unique tokens", count(w.unique_tokens)),
        ("unique with variants", count(w.unique_tokens_with_variants)),
        ("passes", format!("{:.2}", w.passes)),
        ("samples", count(w.samples)),
        ("trained tokens", count(w.planned_tokens)),
        (
            "worth in fresh tokens",
            bracket(fresh(w.effective_tokens_if_repeats), fresh(w.effective_tokens_if_new)),
        ),
        (
            "value of the last pass",
            bracket(format!("{:.3}", w.last_pass_value), format!("{:.3}", w.last_pass_value_if_new)),
        ),
        ("originals in each pass", format!("{} %", originals.join(" "))),
        ("texts by sightings", sightings.join(", ")),
        ("least gap of a family", gap),
        ("padding", format!("{:.2} %", w.padding * 100.0)),
        ("documents longer than a sequence", count(w.cut_documents)),
    ]
}

/// `1234567` as `1,234,567`.
fn group_digits(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(group_digits), ["0", "999", "1,000", "1,234,567"]);
    }
}
