//! One process at a time per output folder.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Held as long as a command writes to the folder; the system releases it when the process ends.
#[derive(Debug)]
pub struct OutputLock {
    _file: File,
}

impl OutputLock {
    /// Locks a folder, making it if needed.
    ///
    /// # Errors
    /// Another process holds it, or the folder cannot be written.
    pub fn acquire(out: &Path) -> Result<OutputLock> {
        fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
        let path = out.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io(&path, "open"))?;
        match file.try_lock() {
            Ok(()) => Ok(OutputLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
                "{}: another moe-data is at work here; wait for it or choose another --out",
                out.display()
            ))),
            Err(TryLockError::Error(e)) => Err(Error::io(&path, "lock")(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
