//! Recall and precision of fuzzy deduplication, estimated by brute force over a seeded sample of the documents
//! that it looked at. The sample depends on the documents' ids alone, so any split of the input gives the same figures.

pub mod figures;
pub mod stage;

use std::collections::{BTreeSet, BinaryHeap};
use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde_json::json;

use self::figures::{Estimate, Pair, rank};
use self::stage::{CompareInputs, CompareParams, EstimateParams, SampleInputs, SampleParams, number};
use super::{MinhashReport, Part, sketch_tasks};
use crate::dedup::rows::{PairRow, SampleRow, SketchRow};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::json;
use crate::recipe::dedup::{MinhashConfig, Verify};
use crate::stage::Task;
use crate::tables::rows::{self, RemovedRow};
use crate::tables::sort::run::RunReader;
use crate::tables::{PAIRS, SAMPLE, SKETCHES};
use crate::watch::Watch;

const FILE: &str = "estimate.json";
/// Jaccard index from which documents count as similar if the recipe has none.
const THRESHOLD: f64 = 0.7;

/// Estimates, unless the result is there already. Returns it with the folders that the next build can use; `None` when the
/// recipe asks for no sample.
///
/// # Errors
/// [`Error::Interrupted`], a damaged file, or a write fails.
pub fn run(
    work: &Path,
    parts: &[Part],
    config: &MinhashConfig,
    report: &MinhashReport,
    engine: &dyn Engine,
    watch: &Watch,
) -> Result<Option<(Estimate, Vec<PathBuf>)>> {
    if config.estimate == 0 {
        return Ok(None);
    }
    let sketches = sketch_tasks(work, parts, config);
    let places: Vec<&Path> =
        sketches.iter().map(|task| task.output.strip_prefix(work).unwrap_or(&task.output)).collect();
    let lists: Vec<&PathBuf> = report.parts.iter().map(|part| &part.list).collect();
    let identity = json!({
        "version": (crate::BUILD_VERSION, crate::WORK_VERSION), "sketches": places, "removed": lists, "verify": config.verify,
        "estimate": config.estimate,
    });
    let folder = work.join("estimate").join(&json::digest(&identity).to_string()[..24]);
    let path = folder.join(FILE);
    let mut used = vec![folder.clone()];
    if path.exists() {
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let estimate = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&path, format!("{e}; delete this file and rerun")))?;
        return Ok(Some((estimate, used)));
    }
    let (chosen, n_documents) = choose(&sketches, config, watch)?;
    let params = |i: usize| EstimateParams { sketch: config.sketch(), part: i as u32 };
    let mut samples = Vec::new();
    for (i, (part, rows)) in parts.iter().zip(&chosen).enumerate().filter(|(_, (_, rows))| !rows.is_empty()) {
        let list = folder.join(format!("chosen-{i:05}.rows"));
        rows::write(&list, &rows.iter().map(|&row| RemovedRow { row }).collect::<Vec<_>>())?;
        let inputs = SampleInputs { documents: part.documents.documents.clone(), chosen: list };
        samples.push(Task::new(work, i, 0, SampleParams(params(i)), inputs));
    }
    engine.map(&samples, watch)?;
    let compares: Vec<Task> = (parts.iter().enumerate())
        .map(|(i, part)| {
            let samples = samples.iter().map(|task| task.file(SAMPLE)).collect();
            let inputs = CompareInputs { part: part.documents.clone(), samples };
            Task::new(work, i, 0, CompareParams(params(i)), inputs)
        })
        .collect();
    engine.map(&compares, watch)?;
    used.extend(samples.iter().chain(&compares).map(|task| task.output.clone()));

    let mut sampled = BTreeSet::new();
    for task in &samples {
        let mut run = RunReader::<SampleRow>::open(&task.file(SAMPLE), 0)?;
        while let Some(row) = run.next_row()? {
            sampled.insert(row.number);
        }
    }
    let n_sampled = sampled.len() as u64;
    let mut pairs = Vec::new();
    for task in &compares {
        let mut run = RunReader::<PairRow>::open(&task.file(PAIRS), 0)?;
        while let Some(row) = run.next_row()? {
            let PairRow { sampled, other, overlap, union, is_candidate } = row;
            pairs.push(Pair { sampled, other, overlap, union, is_candidate: is_candidate == 1 });
        }
    }
    // Removal lists are sorted; only documents in pairs and in the sample are looked up.
    let mut removed = BTreeSet::new();
    let asked: BTreeSet<u64> =
        pairs.iter().flat_map(|pair| [pair.sampled, pair.other]).chain(sampled.iter().copied()).collect();
    for (part, list) in lists.iter().enumerate() {
        let rows = rows::read::<RemovedRow>(&work.join(list))?;
        removed.extend(rows.iter().map(|row| number(part as u32, row.row)).filter(|n| asked.contains(n)));
    }
    // What other builds have is removed for documents that are not looked at here.
    for (part, list) in report.parts.iter().enumerate() {
        if let Some(list) = &list.list_in_against {
            let rows = rows::read::<RemovedRow>(&work.join(list))?;
            let in_against: BTreeSet<u64> = rows.iter().map(|row| number(part as u32, row.row)).collect();
            sampled.retain(|number| !in_against.contains(number));
        }
    }
    let threshold = match config.verify {
        Verify::Jaccard(least) => least,
        Verify::Containment(_) | Verify::Off => THRESHOLD,
    };
    let removed_sample: Vec<u64> = sampled.intersection(&removed).copied().collect();
    let size = (n_sampled, n_documents);
    let estimate = Estimate::new(&config.sketch(), threshold, size, &pairs, &removed_sample, |number| {
        removed.contains(&number)
    });
    atomic::write_file(&path, &json::canonical(&estimate))?;
    Ok(Some((estimate, used)))
}

/// Rows of each part that are in the sample, ascending, and the documents of all parts.
fn choose(sketches: &[Task], config: &MinhashConfig, watch: &Watch) -> Result<(Vec<Vec<u32>>, u64)> {
    let mut least = BinaryHeap::new();
    let mut n_documents = 0;
    for (part, task) in sketches.iter().enumerate() {
        let mut rows = RunReader::<SketchRow>::open(&task.file(SKETCHES), 0)?;
        while let Some(row) = rows.next_row()? {
            n_documents += 1;
            // After the id, a distinction between documents with one id.
            let order =
                (rank(row.document_id, config.seed), row.document_id, row.text_hash, row.metadata_hash);
            least.push((order, part, row.row));
            if least.len() > config.estimate as usize {
                least.pop();
            }
        }
        watch.advance(0)?;
    }
    let mut chosen = vec![Vec::new(); sketches.len()];
    least.into_iter().for_each(|(_, part, row)| chosen[part].push(row));
    chosen.iter_mut().for_each(|rows| rows.sort_unstable());
    Ok((chosen, n_documents))
}
