//! `moe-data diff A B`: what differs between two builds, two plans, or both: documents where the data sets differ,
//! samples where both folders hold a plan.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use moe_shards::{Manifest, PlanLock};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::plans::diff::{Diff, SAMPLES, diff};
use crate::printer::Printer;
use crate::provenance::changes::{Changes, changes};
use crate::watch::Watch;

/// Flags of `diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// Folder of a build, with its plan if there is one
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Folder of the other build
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Documents to list for each kind of change
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub limit: usize,
    /// Print JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the command; for equal builds and plans it prints only a note.
///
/// # Errors
/// A build or plan is missing or damaged.
pub fn run(args: &DiffArgs, printer: &Printer, stop: Arc<AtomicBool>) -> Result<()> {
    let (a, b) = (args.a.as_path(), args.b.as_path());
    let has = |name: &str| [a, b].map(|folder| folder.join(name).exists());
    let with_plans = has(PlanLock::FILE) == [true; 2];
    let data = match has(Manifest::FILE) {
        [true, true] => Some([Manifest::read(a)?, Manifest::read(b)?]),
        _ => None,
    };
    if data.is_none() && !with_plans {
        let bad = if a.join(Manifest::FILE).exists() { b } else { a };
        return Err(Error::Usage(format!(
            "{} holds no finished build; name the output folders of two builds",
            bad.display()
        )));
    }
    let builds = match &data {
        Some([of_a, of_b]) if of_a.hash()? != of_b.hash()? || !with_plans => {
            let n_shards = (of_a.shards.len() + of_b.shards.len()) as u64;
            let watch = Watch::new(stop.clone(), printer.count_bar("diff", n_shards));
            let found = changes(a, b, args.limit, &watch);
            watch.finish();
            Some(found?)
        }
        _ => None,
    };
    let plans = match with_plans {
        true => Some(compare_plans(a, b, printer, stop)?),
        false => None,
    };
    if args.json {
        let mut all = match serde_json::to_value(&plans).map_err(|e| Error::Usage(e.to_string()))? {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        if let Some(builds) = &builds {
            all.insert("builds".to_owned(), json!(builds));
        }
        printer.data(&format!("{}\n", Value::Object(all)));
        return Ok(());
    }
    if let Some(builds) = &builds {
        if builds.builds[0] == builds.builds[1] && builds.changes.is_empty() {
            printer.note(&format!("both are data set {}", builds.builds[0].short()));
        } else {
            printer.data(&words_of_builds(builds, b));
        }
    }
    if let Some(plans) = &plans {
        if plans.plans[0] == plans.plans[1] {
            printer.note(&format!("both are plan {}", plans.plans[0].short()));
        } else {
            printer.data(&words(plans));
        }
    }
    Ok(())
}

fn compare_plans(a: &Path, b: &Path, printer: &Printer, stop: Arc<AtomicBool>) -> Result<Diff> {
    let n = PlanLock::read(a)?.n_samples().min(PlanLock::read(b)?.n_samples());
    let watch = Watch::new(stop, printer.count_bar("diff", n + n.min(SAMPLES)));
    let found = diff(a, b, &watch);
    watch.finish();
    found
}

fn words_of_builds(changes: &Changes, b: &Path) -> String {
    let [x, y] = changes.builds;
    let [n_x, n_y] = changes.documents;
    let mut text = format!("data set {} of {n_x} documents, data set {} of {n_y}\n", x.short(), y.short());
    text.push_str(&format!("{:>10}  unchanged\n", changes.unchanged));
    for change in &changes.changes {
        text.push_str(&format!("{:>10}  {} -> {}\n", change.documents, change.before, change.after));
        change.examples.iter().for_each(|name| text.push_str(&format!("            {name}\n")));
    }
    if !changes.changes.is_empty() {
        text.push_str(&format!("why: moe-data why NAME --out {}\n", b.display()));
    }
    text
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
