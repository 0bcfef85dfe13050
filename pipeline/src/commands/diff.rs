//! `moe-data diff A B`: what differs between two plans.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use moe_shards::PlanLock;

use crate::error::{Error, Result};
use crate::plans::diff::{Diff, SAMPLES, diff};
use crate::printer::Printer;
use crate::watch::Watch;

/// Runs the command; equal plans are no output and a note.
///
/// # Errors
/// A plan is missing or damaged.
pub fn run(a: &Path, b: &Path, as_json: bool, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let n = PlanLock::read(a)?.n_samples().min(PlanLock::read(b)?.n_samples());
    let watch = Watch::new(stop, printer.count_bar("diff", n + n.min(SAMPLES)));
    let found = diff(a, b, &watch);
    watch.finish();
    let found = found?;
    if as_json {
        let text = serde_json::to_string(&found).map_err(|e| Error::Usage(e.to_string()))?;
        printer.data(&format!("{text}\n"));
    } else if found.plans[0] == found.plans[1] {
        printer.note(&format!("both are plan {}", found.plans[0].short()));
    } else {
        printer.data(&words(&found));
    }
    Ok(())
}

fn words(diff: &Diff) -> String {
    let [a, b] = diff.plans;
    let mut text = format!(
        "plan {} with {} samples, plan {} with {} samples\n",
        a.short(),
        diff.n_samples[0],
        b.short(),
        diff.n_samples[1]
    );
    for change in &diff.changes {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        text.push_str(&format!("  {}: {} -> {}\n", change.key, value(&change.a), value(&change.b)));
    }
    text.push_str(&match diff.first_difference {
        Some(t) => format!("first sample that differs: {t}\n"),
        None => "no sample of the shorter plan differs\n".to_owned(),
    });
    let share = diff.equal as f64 * 100.0 / diff.compared.max(1) as f64;
    text.push_str(&format!("equal samples: {} of {} compared ({share:.1} %)\n", diff.equal, diff.compared));
    text
}
