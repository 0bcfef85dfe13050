//! `moe-train resume --fork`: a separate run that begins at a checkpoint of another one, under any
//! configuration with the same tensors.

use std::fs::File;
use std::path::Path;

use moe_shards::Hash;
use serde_json::json;

use super::lock_run;
use crate::checkpoint::{self, Loaded};
use crate::config::{Change, RunConfig};
use crate::error::{Error, Result};
use crate::train::Position;

/// How a fork differs from its parent.
pub(super) struct Fork<'a> {
    /// Its folder.
    pub(super) dir: &'a Path,
    /// The parent run.
    pub(super) parent: &'a Path,
    /// Its configuration, steps included.
    pub(super) config: &'a RunConfig,
    /// The keys that affect what is learned and differ.
    pub(super) changes: &'a [Change],
    /// Its plan.
    pub(super) plan_id: Hash,
    /// Where it begins.
    pub(super) position: Position,
}

impl Fork<'_> {
    /// The differences, a line each.
    pub(super) fn differences(&self, loaded: &Loaded) -> Vec<String> {
        let mut lines: Vec<String> = self.changes.iter().map(|change| change.text.clone()).collect();
        let (old, new) = (loaded.state.plan_id, self.plan_id);
        if old != new {
            let from = match self.position.t {
                0 if loaded.state.t > 0 => "read from its first sample".to_string(),
                t => format!("the same up to sample {t}, and continued from there"),
            };
            lines.push(format!("plan: {} -> {}, {from}", old.short(), new.short()));
        }
        lines
    }

    /// The checkpoint under the configuration of the fork; tensors of another model are refused when they are
    /// read.
    pub(super) fn loaded(&self, loaded: Loaded, seq_len: usize) -> Loaded {
        let mut state = loaded.state;
        (state.t, state.seq_len, state.plan_id) = (self.position.t, seq_len, self.plan_id);
        state.origin = Some(self.position);
        Loaded { state, config: self.config.clone(), ..loaded }
    }

    /// Adds the changed keys that may have caused an error about tensors of another model.
    pub(super) fn explain(&self, error: Error) -> Error {
        let parts = ["model.", "moe.", "attention.", "optim.kind", "optim.group"];
        explain(error, self.changes, &parts, "a fork keeps all tensors of the original run")
    }

    /// Makes and locks the folder, and writes `parent.json`.
    ///
    /// # Errors
    /// When the folder already has a run, or cannot be written to.
    pub(super) fn begin(&self, loaded: &Loaded) -> Result<File> {
        refuse(self.dir, self.parent)?;
        std::fs::create_dir_all(self.dir).map_err(Error::io(self.dir, "create"))?;
        let lock = lock_run(self.dir)?;
        let state = &loaded.state;
        let parent = json!({
            "run": std::path::absolute(self.parent).map_err(Error::io(self.parent, "find"))?,
            "step": state.step,
            "t": state.t,
            "plan_id": state.plan_id,
            "parameter_hash": state.parameter_hash,
            "data_hash": state.data_hash,
            "config_fingerprint": state.config_fingerprint,
            "first_step_at_another_rate": first_other_rate(loaded, self.config).map(|step| step + 1),
            "differences": self.differences(loaded),
        });
        checkpoint::write_parent(self.dir, &parent)?;
        Ok(lock)
    }
}

/// Adds the changed keys below these parts to an error about tensors of another model, with what is required
/// of them.
pub(super) fn explain(error: Error, changes: &[Change], parts: &[&str], rule: &str) -> Error {
    let Error::Checkpoint { path, problem } = error else { return error };
    let is_of_model = |change: &&Change| parts.iter().any(|part| change.key.starts_with(part));
    let keys: Vec<&str> = changes.iter().filter(is_of_model).map(|c| c.text.as_str()).collect();
    if keys.is_empty() {
        return Error::Checkpoint { path, problem };
    }
    let keys = keys.join("\n    ");
    let problem =
        format!("{problem}; {rule}. At least one of these keys needs different tensors:\n    {keys}");
    Error::Checkpoint { path, problem }
}

/// Refuses a folder in which a run has begun, and one inside the parent run.
///
/// # Errors
/// If it is one of these.
pub(super) fn refuse(dir: &Path, parent: &Path) -> Result<()> {
    refuse_inside("--fork", dir, parent)?;
    if std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_symlink()) && !dir.exists() {
        let problem = format!("--fork {}: is a dangling link; name a folder", dir.display());
        return Err(Error::Usage(problem));
    }
    if checkpoint::has_begun(dir)? {
        let problem = format!("--fork {}: exists; name a new folder", dir.display());
        return Err(Error::Usage(problem));
    }
    Ok(())
}

/// What must not change: the run that a path to it or to one of its checkpoints names, or else the path.
pub(super) fn folder_of(parent: &Path) -> &Path {
    // A checkpoint may be outside of a run.
    let of_checkpoint =
        checkpoint::run_of(parent).filter(|run| parent.starts_with(checkpoint::checkpoints_dir(run)));
    of_checkpoint.filter(|run| !run.as_os_str().is_empty()).unwrap_or(parent)
}

/// Refuses a folder inside the parent run, naming the flag.
///
/// # Errors
/// If it is inside.
pub(super) fn refuse_inside(flag: &str, dir: &Path, parent: &Path) -> Result<()> {
    let absolute = |path: &Path| {
        // A path that does not exist yet is resolved from its nearest existing parent folder.
        let path = std::path::absolute(path).map_err(Error::io(path, "find"))?;
        let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        let rest = |above: &Path| path.strip_prefix(above).unwrap_or(Path::new("")).to_path_buf();
        Ok::<_, Error>(there.map_or_else(|| path.clone(), |(above, real)| real.join(rest(above))))
    };
    if absolute(dir)?.starts_with(absolute(parent)?) {
        let problem = format!(
            "{flag} {}: is inside the original run, which must not change; name a folder outside {}",
            dir.display(),
            parent.display()
        );
        return Err(Error::Usage(problem));
    }
    Ok(())
}

/// The first past step, from 0, whose learning rate would have been different.
pub(super) fn first_other_rate(loaded: &Loaded, config: &RunConfig) -> Option<u64> {
    let steps = |config: &RunConfig| config.run.steps.unwrap_or_default();
    let (old, new) = (loaded.config.schedule(steps(&loaded.config)), config.schedule(steps(config)));
    (0..loaded.state.step).find(|&step| old.rate(step).to_bits() != new.rate(step).to_bits())
}
