//! Which checkpoint a path refers to.

use std::path::{Path, PathBuf};

use moe_shards::atomic;

use super::verify::verify;
use super::{LATEST, MANIFEST, PARENT, checkpoints_dir, retain};
use crate::error::{Error, Result};

/// The checkpoint that a path refers to: itself or, for a run, the one named `from`, or else the latest.
/// `latest` is followed only if it names a checkpoint of this run; otherwise the error names the newest
/// intact one.
///
/// # Errors
/// [`Error::Checkpoint`] when there is none.
pub fn resolve(path: &Path, from: Option<&str>) -> Result<PathBuf> {
    if path.join(MANIFEST).is_file() && from.is_none() {
        return Ok(path.to_path_buf());
    }
    let parent = checkpoints_dir(path);
    if !parent.is_dir() {
        let problem = "not a run or a checkpoint (expected a folder with `checkpoints/` or `manifest.json`)";
        return Err(Error::checkpoint(path, problem));
    }
    let Some(name) = from else { return latest(path, &parent) };
    match named(&parent, name) {
        Ok(found) => Ok(found),
        Err(problem) => {
            let names: Vec<String> = retain::list(&parent)?.iter().map(|(_, path)| file_name(path)).collect();
            let there_are = match names.is_empty() {
                true => "there are no checkpoints".to_string(),
                false => format!("there are: {}", names.join(", ")),
            };
            Err(Error::checkpoint(&parent, format!("--from {name}: {problem}; {there_are}")))
        }
    }
}

/// The run of a path that is a checkpoint; none for other paths.
pub fn run_of(path: &Path) -> Option<&Path> {
    path.join(MANIFEST).is_file().then(|| path.parent()?.parent()).flatten()
}

/// Whether a run in this folder has begun: whether it contains anything other than the leftovers of a start
/// that was killed before its first checkpoint.
///
/// # Errors
/// When a folder cannot be read.
pub fn has_begun(run: &Path) -> Result<bool> {
    if !run.is_dir() {
        return Ok(run.exists());
    }
    for entry in std::fs::read_dir(run).map_err(Error::io(run, "read"))? {
        let entry = entry.map_err(Error::io(run, "read"))?;
        let name = entry.file_name();
        let is_of_a_start = match name.to_str().map(retain::whole_name) {
            Some(".lock" | "config.lock.toml") => true,
            // A fork locks its folder first, so that a file of this name without a lock is somebody else's.
            Some(PARENT) => run.join(".lock").is_file(),
            Some("metrics.jsonl") => entry.metadata().is_ok_and(|metadata| metadata.len() == 0),
            Some("checkpoints") => entry.path().is_dir() && retain::is_unused(&entry.path())?,
            _ => false,
        };
        if !is_of_a_start {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Names of the checkpoints of a run after a step.
///
/// # Errors
/// When the folder cannot be read.
pub fn later_than(run: &Path, step: u64) -> Result<Vec<String>> {
    let all = retain::list(&checkpoints_dir(run))?;
    Ok(all.iter().filter(|(found, _)| *found > step).map(|(_, path)| file_name(path)).collect())
}

/// Cleans up after killed saves of a run; only for the process that holds its lock.
///
/// # Errors
/// When a folder cannot be read or removed.
pub fn tidy(run: &Path) -> Result<()> {
    let parent = checkpoints_dir(run);
    for dir in [run, &parent] {
        atomic::remove_leftovers(dir)?;
    }
    if parent.is_dir() { retain::tidy(&parent) } else { Ok(()) }
}

/// The newest intact checkpoint before another one.
pub(super) fn newest_whole(parent: &Path, before: Option<u64>) -> Option<String> {
    let all = retain::list(parent).unwrap_or_default();
    let candidates = all.iter().rev().filter(|(step, _)| before.is_none_or(|before| *step < before));
    candidates.map(|(_, path)| path).find(|path| verify(path).is_ok()).map(|path| file_name(path))
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The checkpoint that `latest` names.
fn latest(run: &Path, parent: &Path) -> Result<PathBuf> {
    let file = parent.join(LATEST);
    let found = match file.is_file().then(|| std::fs::read_to_string(&file)) {
        None => Err("is missing".to_string()),
        Some(Err(error)) => Err(format!("cannot be read: {error}")),
        Some(Ok(text)) if text.trim().is_empty() => Err("is empty".to_string()),
        Some(Ok(text)) => {
            named(parent, text.trim()).map_err(|problem| format!("contains {:?}: {problem}", text.trim()))
        }
    };
    let problem = match found {
        Ok(found) => return Ok(found),
        Err(problem) => problem,
    };
    let run = run.display();
    let remedy = match newest_whole(parent, None) {
        Some(name) => format!(
            "the newest intact checkpoint is {name}: `moe-train resume {run} --from {name}` continues from it, and \
             {run}/checkpoints/{name} may be given instead of {run}"
        ),
        None if retain::list(parent)?.is_empty() => {
            "the run stopped before its first checkpoint: the command that started it starts it again"
                .to_string()
        }
        None => "and no other checkpoint is intact".to_string(),
    };
    Err(Error::checkpoint(&file, format!("{problem}; {remedy}")))
}

/// The checkpoint of this name, which must be one that this program would give.
fn named(parent: &Path, name: &str) -> std::result::Result<PathBuf, String> {
    let found = parent.join(name);
    match retain::step_of(name) {
        None => Err("is not a checkpoint name, such as step-00000100".to_string()),
        Some(_) if !found.is_dir() => Err("no such checkpoint".to_string()),
        Some(_) => Ok(found),
    }
}
