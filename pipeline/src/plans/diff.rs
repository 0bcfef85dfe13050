//! `moe-data diff A B`: what changed between two plans, and from which sample.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::permute::Permutation;
use moe_shards::{Hash, Plan, PlanLock, PoolLock, Sample};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::watch::Watch;

/// Samples that estimate the share of equal ones in longer plans.
pub const SAMPLES: u64 = 20_000;
/// Key of the permutation that chooses them.
const KEY: u64 = 1;
/// Samples compared at once while the first difference is looked for.
const BLOCK: u64 = 1024;

/// What differs between plan A and plan B.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Ids of both.
    pub plans: [Hash; 2],
    /// Samples of both.
    pub n_samples: [u64; 2],
    /// Settings and records with different values: name, value in A, value in B.
    pub changes: Vec<Change>,
    /// Phases at the start whose links of the chain are equal.
    pub equal_phases: usize,
    /// First sample that differs; `None` when one plan is the beginning of the other, or both are equal.
    pub first_difference: Option<u64>,
    /// Samples that were compared, chosen at random unless all were.
    pub compared: u64,
    /// Those that are equal.
    pub equal: u64,
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Dotted name.
    pub key: String,
    /// Value in A; absent when only B has it.
    pub a: Option<String>,
    /// Value in B.
    pub b: Option<String>,
}

/// Compares the plans of two output folders. `watch` advances by one a sample.
///
/// # Errors
/// A plan is missing or damaged.
pub fn diff(a: &Path, b: &Path, watch: &Watch) -> Result<Diff> {
    let (a, b) = (Plan::open(a)?, Plan::open(b)?);
    let n = a.len().min(b.len());
    let links = a.lock().phases.iter().zip(&b.lock().phases);
    let equal_phases = links.take_while(|(a, b)| a.chain == b.chain).count();
    // A link covers everything that decides the samples of its phase, but neither where an extension cut
    // it short nor what was taken down since.
    let last_equal = equal_phases.checked_sub(1);
    let end = |plan: &Plan| last_equal.map_or(0, |last| plan.lock().phases[last].t_end());
    let taken_down = [&a, &b].into_iter().flat_map(|plan| &plan.lock().takedowns).map(|gone| gone.from).min();
    let known_equal = end(&a).min(end(&b)).min(taken_down.unwrap_or(u64::MAX)).min(n);
    let first_difference = first_difference(&a, &b, known_equal..n, watch)?;
    let order = Permutation::new(n, KEY);
    let compared = n.min(SAMPLES);
    let equal = (0..compared)
        .into_par_iter()
        .map(|i| {
            watch.advance(1)?;
            same(&a, &b, order.forward(i)).map(u64::from)
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))?;
    Ok(Diff {
        plans: [a.id(), b.id()],
        n_samples: [a.len(), b.len()],
        changes: changes(a.lock(), b.lock())?,
        equal_phases,
        first_difference,
        compared,
        equal,
    })
}

fn first_difference(a: &Plan, b: &Plan, range: std::ops::Range<u64>, watch: &Watch) -> Result<Option<u64>> {
    let mut start = range.start;
    while start < range.end {
        let end = (start + BLOCK).min(range.end);
        watch.advance(end - start)?;
        let differ: Vec<u64> = (start..end)
            .into_par_iter()
            .map(|t| Ok((!same(a, b, t)?).then_some(t)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        if let Some(&t) = differ.first() {
            return Ok(Some(t));
        }
        start = end;
    }
    Ok(None)
}

/// Whether sample `t` is the same to a trainer: tokens, targets and segments. Its origin is
/// not compared, since another build may number its shards differently.
fn same(a: &Plan, b: &Plan, t: u64) -> Result<bool> {
    let (a, b): (Sample, Sample) = (a.sample(t)?, b.sample(t)?);
    Ok((&a.tokens, &a.targets, &a.loss_mask, &a.segments)
        == (&b.tokens, &b.targets, &b.loss_mask, &b.segments))
}

/// Every value of the plans, by a dotted name; pools and phases by their own names. Digests and places of
/// files follow from the rest and are left out, except for the data set and the chain.
fn facts(lock: &PlanLock) -> Result<BTreeMap<String, String>> {
    let mut facts = BTreeMap::new();
    let mut value = serde_json::to_value(lock).map_err(|e| Error::Usage(e.to_string()))?;
    let Some(root) = value.as_object_mut() else { return Ok(facts) };
    root.remove("id");
    root.remove("pools");
    root.remove("phases");
    flatten("", &value, &mut facts);
    for pool in &lock.pools {
        let name = format!("pool {}", pool.name);
        facts.extend(pool_facts(pool)?.into_iter().map(|(key, text)| (format!("{name}.{key}"), text)));
    }
    for phase in &lock.phases {
        let name = format!("phase {}", phase.name);
        facts.insert(format!("{name}.n_samples"), phase.n_samples.to_string());
        facts.insert(format!("{name}.seq_len"), phase.seq_len.to_string());
        facts.insert(format!("{name}.chain"), phase.chain.short());
        for (pool, quota) in lock.pools.iter().zip(&phase.quotas) {
            facts.insert(format!("{name}.quota.{}", pool.name), quota.to_string());
        }
    }
    Ok(facts)
}

fn pool_facts(pool: &PoolLock) -> Result<BTreeMap<String, String>> {
    let mut value = serde_json::to_value(pool).map_err(|e| Error::Usage(e.to_string()))?;
    if let Some(root) = value.as_object_mut() {
        for key in ["name", "shards", "windows", "passes", "validation"] {
            root.remove(key);
        }
    }
    let mut facts = BTreeMap::new();
    flatten("", &value, &mut facts);
    let bins: u64 = pool.passes.iter().map(|pass| pass.n_bins()).sum();
    let trained: u64 = pool.passes.iter().map(|pass| pass.trained_tokens).sum();
    let more = [
        ("shards", pool.shards.len() as u64),
        ("windows", pool.windows.len().saturating_sub(1) as u64),
        ("passes", pool.passes.len() as u64),
        ("bins", bins),
        ("trained_tokens", trained),
        ("held_out_families", pool.validation.n_families),
    ];
    facts.extend(more.map(|(key, number)| (key.to_owned(), number.to_string())));
    let shards = serde_json::to_vec(&pool.shards).map_err(|e| Error::Usage(e.to_string()))?;
    facts.insert("shards_digest".to_owned(), Hash::of(&shards).short());
    Ok(facts)
}

fn flatten(prefix: &str, value: &Value, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, inner, facts);
            }
        }
        Value::Null => {}
        Value::String(text) => {
            facts.insert(prefix.to_owned(), text.clone());
        }
        other => {
            facts.insert(prefix.to_owned(), other.to_string());
        }
    }
}

fn changes(a: &PlanLock, b: &PlanLock) -> Result<Vec<Change>> {
    let (a, b) = (facts(a)?, facts(b)?);
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differ = keys.into_iter().filter(|key| a.get(*key) != b.get(*key));
    Ok(differ
        .map(|key| Change { key: key.clone(), a: a.get(key).cloned(), b: b.get(key).cloned() })
        .collect())
}
