//! One process at a time per output folder.

use std::fs::{self, File};
use std::path::Path;

use moe_cli::lock;
use moe_shards::atomic;

use crate::error::{Error, Result};
use crate::listing;

/// Held while a command writes to the folder; the system releases it when the process ends.
#[derive(Debug)]
pub struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Locks a folder, creating it if needed, and removes temporary files left by killed commands.
    ///
    /// # Errors
    /// Another process holds it, or the folder cannot be written.
    pub fn acquire(out: &Path) -> Result<OutputLock> {
        fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
        match lock::acquire(out).map_err(Error::io(&out.join(lock::FILE), "lock"))? {
            Some(file) => {
                remove_leftovers(out)?;
                Ok(OutputLock { _file: file })
            }
            None => Err(Error::Usage(format!(
                "{}: another moe-data is running here; wait for it or choose another --out",
                out.display()
            ))),
        }
    }
}

/// Those of the folder and of our folders in it.
fn remove_leftovers(out: &Path) -> Result<()> {
    atomic::remove_leftovers(out)?;
    let own = [
        listing::FOLDER,
        "work",
        "shards",
        "dedup",
        "audit",
        "quarantine",
        "export",
        "rephrase",
        "rephrase-import",
    ];
    for name in own {
        if out.join(name).is_dir() {
            atomic::remove_leftovers(&out.join(name))?;
        }
    }
    let plans = out.join("plan");
    let Ok(entries) = fs::read_dir(&plans) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(Error::io(&plans, "list"))?.path();
        if path.is_dir() {
            atomic::remove_leftovers(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_commands_left_goes_with_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "a.7.0.moe-tmp",
            "shards/a.idx.7.0.moe-tmp",
            "export/x.npy.7.1.moe-tmp",
            "plan/0/p.7.0.moe-tmp",
            "rephrase-import/texts.7.0.moe-tmp",
        ];
        for name in names.into_iter().chain(["shards/a.7.tmp", "notes.moe-tmp"]) {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), "x").unwrap();
        }
        OutputLock::acquire(dir.path()).unwrap();
        assert!(names.iter().all(|name| !dir.path().join(name).exists()));
        assert!(dir.path().join("shards/a.7.tmp").exists() && dir.path().join("notes.moe-tmp").exists());
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let first = OutputLock::acquire(&out).unwrap();
        let error = OutputLock::acquire(&out).unwrap_err();
        assert!(error.to_string().contains("another moe-data"), "{error}");
        assert_eq!(error.exit_code(), 2);
        drop(first);
        OutputLock::acquire(&out).unwrap();
    }
}
