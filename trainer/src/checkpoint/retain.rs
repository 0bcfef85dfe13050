//! Which checkpoints stay.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The steps and folders of all complete checkpoints, oldest first.
pub(super) fn list(parent: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(Error::io("read", parent))? {
        let entry = entry.map_err(Error::io("read", parent))?;
        let step = entry.file_name().to_str().and_then(|name| name.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step: u64| (step, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// Removes all but the newest `keep` checkpoints up to `step`; later ones, left from before a
/// resume at an earlier step, stay until this run reaches them.
pub(super) fn keep_newest(parent: &Path, step: u64, keep: usize) -> Result<()> {
    let mut up_to_here = list(parent)?;
    up_to_here.retain(|(found, _)| *found <= step);
    let surplus = up_to_here.len().saturating_sub(keep);
    up_to_here.iter().take(surplus).try_for_each(|(_, path)| remove_if_there(path))
}

/// Removes a folder that may not exist.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay() {
        let dir = tempfile::tempdir().expect("temp dir");
        for step in [10, 20, 30, 40] {
            std::fs::create_dir(dir.path().join(super::super::checkpoint_name(step))).expect("create");
        }
        keep_newest(dir.path(), 30, 2).expect("retain");
        let steps: Vec<u64> = list(dir.path()).expect("list").into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [20, 30, 40]);
    }
}
