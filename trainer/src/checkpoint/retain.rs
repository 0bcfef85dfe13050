//! Which checkpoints are kept, and cleaning up after killed saves.

use std::path::{Path, PathBuf};

use moe_shards::atomic;

use super::{LATEST, checkpoint_name};
use crate::error::{Error, Result};

/// Begins the name of a checkpoint that is being written.
pub(super) const UNFINISHED: &str = ".tmp-";

/// Begins the name of a checkpoint that another one of the same step is about to replace.
pub(super) const REPLACED: &str = ".old-";

/// The steps and folders of all complete checkpoints, oldest first.
pub(super) fn list(parent: &Path) -> Result<Vec<(u64, PathBuf)>> {
    Ok(entries(parent)?.into_iter().filter_map(|(name, path)| Some((step_of(&name)?, path))).collect())
}

/// The step of a checkpoint's name; other names have none.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (checkpoint_name(step) == name).then_some(step)
}

/// Cleans up after a killed save: unfinished checkpoints are removed, and one that was being replaced comes
/// back if its successor is missing. Only the process that holds the run's lock may call this.
pub(super) fn tidy(parent: &Path) -> Result<()> {
    for (name, path) in entries(parent)? {
        if name.strip_prefix(UNFINISHED).and_then(step_of).is_some() {
            remove_if_there(&path)?;
        }
        let Some(replaced) = name.strip_prefix(REPLACED).filter(|name| step_of(name).is_some()) else {
            continue;
        };
        let successor = parent.join(replaced);
        if successor.exists() {
            remove_if_there(&path)?;
        } else {
            std::fs::rename(&path, &successor).map_err(Error::io(&path, "rename"))?;
        }
    }
    Ok(())
}

/// Whether a folder of checkpoints has nothing but the leftovers of a killed first save.
pub(super) fn is_unused(parent: &Path) -> Result<bool> {
    let is_left =
        |name: &str| whole_name(name) == LATEST || name.strip_prefix(UNFINISHED).and_then(step_of).is_some();
    Ok(entries(parent)?.iter().all(|(name, _)| is_left(name)))
}

/// The name itself or, for a file that is being written, its final name.
pub(super) fn whole_name(name: &str) -> &str {
    atomic::final_name(name).unwrap_or(name)
}

/// Removes all but the newest `keep` checkpoints up to `step`; later ones, left over from before a resume at
/// an earlier step, stay until this run reaches them.
pub(super) fn keep_newest(parent: &Path, step: u64, keep: usize) -> Result<()> {
    let mut up_to_here = list(parent)?;
    up_to_here.retain(|(found, _)| *found <= step);
    let surplus = up_to_here.len().saturating_sub(keep);
    up_to_here.iter().take(surplus).try_for_each(|(_, path)| remove_if_there(path))
}

/// Removes a folder that may not exist.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}

/// Names and paths in a folder, by name.
fn entries(parent: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(Error::io(parent, "read"))? {
        let entry = entry.map_err(Error::io(parent, "read"))?;
        found.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        entries(dir).expect("list").into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_newest_stay() {
        let dir = tempfile::tempdir().expect("temp dir");
        for step in [10, 20, 30, 40] {
            std::fs::create_dir(dir.path().join(checkpoint_name(step))).expect("create");
        }
        keep_newest(dir.path(), 30, 2).expect("retain");
        let steps: Vec<u64> = list(dir.path()).expect("list").into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [20, 30, 40]);
    }

    #[test]
    fn killed_saves_leave_nothing_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        let made = [
            ".old-step-00000002", // Its successor never came: it is the checkpoint of step 2.
            ".old-step-00000004",
            ".tmp-step-00000006",
            ".tmp-notes",
            "step-00000004",
            "step-7",
        ];
        for name in made {
            std::fs::create_dir(dir.path().join(name)).expect("create");
        }
        tidy(dir.path()).expect("tidy");
        assert_eq!(names(dir.path()), [".tmp-notes", "step-00000002", "step-00000004", "step-7"]);
        assert_eq!(list(dir.path()).expect("list").len(), 2);
    }
}
