//! What a diverged run leaves: enough to examine the batch that caused it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::data::Batch;
use crate::error::Result;
use crate::train::StepReport;

/// Writes `crash-<step>.json` with the batch and the last line of the metrics, and returns its
/// path. `step` counts from 1.
///
/// # Errors
/// When the file cannot be written.
pub fn write_crash(
    run: &Path,
    step: u64,
    batch: &Batch,
    report: &StepReport,
    last: Option<&Map<String, Value>>,
) -> Result<PathBuf> {
    let path = run.join(format!("crash-{step}.json"));
    let losses = report.losses.chunks_exact(batch.seq_len);
    let worst: Vec<Value> = losses
        .enumerate()
        .filter(|(_, losses)| losses.iter().any(|loss| !loss.is_finite()))
        .map(|(sample, _)| (batch.first_t + sample as u64).into())
        .collect();
    let record = json!({
        "step": step,
        "t": [batch.first_t, batch.first_t + batch.len() as u64],
        // JSON cannot express infinities and NaN.
        "cross_entropy": report.cross_entropy.to_string(),
        "grad_norm": report.grad_norm.to_string(),
        "lr": report.rate,
        "samples_with_non_finite_loss": worst,
        "last_metrics": last,
    });
    moe_shards::atomic::write_file(&path, format!("{record:#}\n").as_bytes())?;
    Ok(path)
}
