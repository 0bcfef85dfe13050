//! Fuzzy deduplication. MinHash proposes candidates, comparing the texts decides; `docs/dedup.md` defines the
//! result.
//!
//! ```text
//! sketch(part) -> order, band edges, connected sets ([`candidates`]) -> members(part) -> verify(set of sets)
//!     -> removal lists, audit, counts ([`outcome`])
//! ```
//!
//! What is between the tasks sorts fixed-size rows within the memory limit; no text passes through it.

pub mod band_keys;
pub mod candidate_shingles;
mod candidates;
pub mod estimate;
mod outcome;
pub mod shingles;
pub mod signature;
pub mod sketch;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::verify::{Similarity, VerifyInputs, VerifyParams};
use super::earlier::EarlierShards;
use super::{PartReport, once};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::json;
use crate::recipe::dedup::{Keep, MinhashConfig, Verify};
use crate::stage::Task;
use crate::stage::inputs::Survivors;
use crate::tables::clear_folder;
use crate::watch::Watch;

/// Reason of a removed document in the ledger.
pub const REASON: &str = "near_duplicate";
/// Reason of one that is like a document of another build.
pub const REASON_AGAINST: &str = "near_duplicate_in_against";
const REPORT: &str = "report.json";
/// Lists of documents with candidates, and members by connected sets.
const CLUSTERED: &str = "clustered.json";
const CHUNKS: &str = "chunks.json";

/// A part as fuzzy deduplication sees it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Name of its source.
    pub source: String,
    /// Position of its source in the recipe.
    pub source_index: u16,
    /// Whether the records of its source declare families.
    pub has_family: bool,
    /// Variants that its source declares, at least 1.
    pub n_variants: u32,
    /// Bytes of the texts that are still in.
    pub n_bytes: u64,
    /// Its documents, and what earlier methods removed.
    pub documents: Survivors,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MinhashReport {
    /// One for each part, in their order.
    pub parts: Vec<PartReport>,
    /// By name of the source.
    pub sources: BTreeMap<String, SourceReport>,
    /// Documents that share a band with another one.
    pub candidates: u64,
    /// Clusters of at least two documents.
    pub clusters: u64,
    /// Documents of the largest cluster.
    pub largest: u64,
    /// Source and id of its survivor.
    pub largest_survivor: String,
    /// Whether there is a `dups.parquet`.
    pub has_audit: bool,
}

/// What was found in a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Documents that were looked at.
    pub documents: u64,
    /// Those that were removed in favor of others of this build.
    pub removed: u64,
    /// Those that were removed in favor of documents of other builds.
    #[serde(default)]
    pub in_against: u64,
    /// Documents of a declared family that are not its original, and that stay.
    pub variants: u64,
    /// Those of them that are copies of another text of their family.
    pub variant_copies: u64,
    /// Documents that joined the family of one that they are like; they are among the variants.
    #[serde(default)]
    pub joined: u64,
}

/// Folder of the results for these sketches and settings. The guards are left out: with a higher limit the next run
/// continues from here.
fn folder(work: &Path, config: &MinhashConfig, sketches: &[Task]) -> PathBuf {
    let places: Vec<&Path> =
        sketches.iter().map(|task| task.output.strip_prefix(work).unwrap_or(&task.output)).collect();
    let MinhashConfig { verify, action, keep, transitive, variant_copy, .. } = *config;
    let identity = json!({
        "version": (crate::BUILD_VERSION, crate::WORK_VERSION), "sketches": places, "verify": verify, "keep": keep,
        "action": action, "transitive": transitive, "variant_copy": variant_copy,
    });
    work.join("minhash").join(&json::digest(&identity).to_string()[..24])
}

fn sketch_tasks(work: &Path, parts: &[Part], config: &MinhashConfig) -> Vec<Task> {
    let task = |(i, part): (usize, &Part)| {
        let params = sketch::SketchParams { sketch: config.sketch(), has_family: part.has_family };
        Task::new(work, i, part.n_bytes, params, part.documents.clone())
    };
    parts.iter().enumerate().map(task).collect()
}

/// Runs the stage, unless its report is there already. Returns the report, the folder of its audit, and all folders that
/// the next build can use.
///
/// # Errors
/// [`Error::Interrupted`], a guard, a damaged file, or a write fails.
pub fn run(
    work: &Path,
    parts: &[Part],
    others: EarlierShards<'_>,
    config: &MinhashConfig,
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<(MinhashReport, PathBuf, Vec<PathBuf>)> {
    let mut sketches = sketch_tasks(work, parts, config);
    // Tasks and tables of other builds' shards always come after those of the parts.
    sketches.extend_from_slice(others.keys);
    let folder = folder(work, config, &sketches);
    let report_path = folder.join(REPORT);
    let mut used: Vec<PathBuf> = sketches.iter().map(|task| task.output.clone()).collect();
    used.push(folder.clone());
    if report_path.exists() {
        let bytes = std::fs::read(&report_path).map_err(Error::io(&report_path, "read"))?;
        let report: MinhashReport = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&report_path, format!("{e}; delete this file and rerun")))?;
        guard(&report, config, &folder)?;
        return Ok((report, folder, used));
    }
    engine.map(&sketches, watch)?;
    let clustered = once(&folder.join(CLUSTERED), || {
        clear_folder(&folder)?;
        candidates::find(work, &folder, parts, &sketches, config.keep, engine, watch)
    })?;

    let with_shingles = config.verify != Verify::Off;
    let mut members: Vec<Task> = (parts.iter().zip(&clustered).enumerate())
        .map(|(i, (part, clustered))| {
            let params = candidate_shingles::CandidateShinglesParams {
                sketch: config.sketch(),
                with_shingles,
                has_family: part.has_family,
            };
            let documents = part.documents.documents.clone();
            let inputs =
                candidate_shingles::CandidateShinglesInputs { documents, clustered: clustered.clone() };
            Task::new(work, i, part.n_bytes, params, inputs)
        })
        .collect();
    let of_others = others.shards.iter().zip(&clustered[parts.len()..]).enumerate();
    members.extend(of_others.map(|(i, (shard, clustered))| {
        shard.members_task(work, parts.len() + i, config.sketch(), with_shingles, clustered)
    }));
    engine.map(&members, watch)?;
    let chunks = once(&folder.join(CHUNKS), || candidates::chunks(&folder, &members, engine, watch))?;

    let params = VerifyParams {
        similarity: match config.verify {
            Verify::Jaccard(least) => Some(Similarity::Jaccard(least)),
            Verify::Containment(least) => Some(Similarity::Containment(least)),
            Verify::Off => None,
        },
        transitive: config.transitive,
        variant_copy: config.variant_copy,
        n_parts: parts.len() as u32,
    };
    let verify: Vec<Task> = (chunks.iter().enumerate())
        .map(|(i, chunk)| {
            let folders = members.iter().map(|task| task.output.clone()).collect();
            Task::new(work, i, 0, params, VerifyInputs { members: chunk.clone(), folders })
        })
        .collect();
    engine.map(&verify, watch)?;
    used.extend(members.iter().chain(&verify).map(|task| task.output.clone()));

    let outcome =
        outcome::Outcome { work, folder: &folder, parts, others, members: &members, config, engine, watch };
    let report = outcome.write(&sketches, &verify)?;
    guard(&report, config, &folder)?;
    atomic::write_file(&report_path, &json::canonical(&report))?;
    Ok((report, folder, used))
}

/// Stops a build that would lose more than its owner expects.
fn guard(report: &MinhashReport, config: &MinhashConfig, folder: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let share = |source: &SourceReport| source.removed as f64 / source.documents.max(1) as f64;
    for (name, source) in &report.sources {
        if share(source) > config.max_source_removed {
            wrong.push(format!(
                "{} of the {} documents of source `{name}` are near-duplicates, a share of {:.3}; `dedup.minhash.max_source_removed` = {} allows less",
                source.removed, source.documents, share(source), config.max_source_removed
            ));
        }
    }
    if report.largest > config.max_cluster {
        wrong.push(format!(
            "the cluster of `{}` has {} documents; `dedup.minhash.max_cluster` = {} allows less",
            report.largest_survivor, report.largest, config.max_cluster
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let audit = folder.join(crate::tables::DUPLICATES);
    Err(Error::Check(format!(
        "{}\n  hint: {} lists every pair; if they are duplicates, raise the limit and rerun, which continues from here; if not, raise `verify`",
        wrong.join("\n"),
        audit.display()
    )))
}

/// The sort key of `keep`: the lower survives.
fn rule(keep: Keep, source_index: u16, row: &crate::dedup::rows::SketchRow) -> (u128, u128) {
    match keep {
        Keep::First | Keep::None => (u128::from(source_index) << 8 | u128::from(row.variant), 0),
        Keep::Longest => (u128::from(u32::MAX - row.n_bytes), 0),
        Keep::Newest => (!row.date_high, !row.date_low),
        Keep::BestScore => (u128::from(!row.score), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::rows::SketchRow;

    fn sketch(variant: u8, n_bytes: u32, date_high: u128, score: u64) -> SketchRow {
        SketchRow {
            row: 0,
            variant,
            has_family: 0,
            document_id: 0,
            text_hash: 0,
            raw_bytes: 0,
            n_bytes,
            date_high,
            date_low: 0,
            score,
            metadata_hash: 0,
        }
    }

    #[test]
    fn rules_put_the_survivor_first() {
        let check = |keep, better: (u16, SketchRow), worse: (u16, SketchRow)| {
            assert!(rule(keep, better.0, &better.1) < rule(keep, worse.0, &worse.1), "{keep:?}");
        };
        check(Keep::First, (0, sketch(9, 1, 0, 0)), (1, sketch(0, 9, 9, 9)));
        check(Keep::First, (1, sketch(0, 1, 0, 0)), (1, sketch(1, 9, 9, 9)));
        check(Keep::Longest, (1, sketch(1, 9, 0, 0)), (0, sketch(0, 8, 9, 9)));
        check(Keep::Newest, (1, sketch(1, 0, 9, 0)), (0, sketch(0, 8, 8, 9)));
        check(Keep::Newest, (1, sketch(1, 0, 1, 0)), (0, sketch(0, 8, 0, 9)));
        check(Keep::BestScore, (1, sketch(1, 0, 0, 7)), (0, sketch(0, 8, 9, 6)));
        check(Keep::BestScore, (1, sketch(1, 0, 0, 1)), (0, sketch(0, 8, 9, 0)));
    }

    #[test]
    fn guards_name_source_share_limit_and_the_way_on() {
        let config = MinhashConfig::default();
        let mut report = MinhashReport { largest: 10_000, ..MinhashReport::default() };
        report
            .sources
            .insert("web".into(), SourceReport { documents: 10, removed: 5, ..SourceReport::default() });
        guard(&report, &config, Path::new("x")).unwrap();
        report
            .sources
            .insert("web".into(), SourceReport { documents: 10, removed: 6, ..SourceReport::default() });
        report.largest = 10_001;
        report.largest_survivor = "web/a".into();
        let error = guard(&report, &config, Path::new("x")).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let text = error.to_string();
        for part in [
            "`web`",
            "0.600",
            "max_source_removed",
            "web/a",
            "10001",
            "max_cluster",
            "x/dups.parquet",
            "rerun",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
