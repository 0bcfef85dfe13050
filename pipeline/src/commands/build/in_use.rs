//! The warning before a build replaces shards that a plan samples from.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::{Hash, PlanLock};

use crate::publish::Results;

/// Where trainers keep their runs by default.
const RUNS: &str = "runs";
/// Shards to name; the rest are counted.
const SHOWN: usize = 5;

/// The warning, if the plan in `out` samples from shards that `results` change.
pub(super) fn warning(out: &Path, results: &Results) -> Option<String> {
    // A plan that cannot be read cannot be trained on.
    let lock = PlanLock::read(out).ok()?;
    let made: BTreeMap<&str, Hash> =
        results.shards.iter().map(|(_, info)| (info.name.as_str(), info.mdx_blake3)).collect();
    let used: BTreeMap<&str, Hash> = (lock.pools.iter().flat_map(|pool| &pool.shards))
        .map(|shard| (shard.name.as_str(), shard.mdx_blake3))
        .collect();
    let changed: Vec<&str> = used
        .iter()
        .filter(|(name, digest)| made.get(*name) != Some(*digest))
        .map(|(name, _)| *name)
        .collect();
    if changed.is_empty() {
        return None;
    }
    let more = if changed.len() > SHOWN { " and more" } else { "" };
    let runs = runs_of(Path::new(RUNS), &lock);
    let runs = match runs.is_empty() {
        true => String::new(),
        false => format!("; this would strand its runs {}", runs.join(", ")),
    };
    Some(format!(
        "plan {} of {} samples from {} shards that this build changes ({}{more}), so it can then be neither trained on nor extended{runs}\n  \
         hint: building from the old input again brings the shards back; docs/extending.md says how data is added so that shards stay",
        lock.id.short(),
        out.join(PlanLock::FILE).display(),
        changed.len(),
        changed[..changed.len().min(SHOWN)].join(", ")
    ))
}

/// Runs whose newest checkpoint belongs to the plan or one that it extends, in words.
fn runs_of(folder: &Path, lock: &PlanLock) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok());
    let mut found: Vec<String> = entries.filter_map(|entry| run_of(&entry.path(), lock)).collect();
    found.sort();
    found
}

fn run_of(run: &Path, lock: &PlanLock) -> Option<String> {
    let checkpoints = run.join("checkpoints");
    let latest = std::fs::read_to_string(checkpoints.join("latest")).ok()?;
    let name = Path::new(latest.trim()).file_name()?.to_owned();
    let state = std::fs::read(checkpoints.join(name).join("state.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&state).ok()?;
    let plan: Hash = state["plan_id"].as_str()?.parse().ok()?;
    let is_of_plan = plan == lock.id || lock.extends.iter().any(|earlier| earlier.plan == plan);
    is_of_plan.then(|| format!("{} (at sample {})", run.display(), state["t"]))
}
