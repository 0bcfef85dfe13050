//! One writer per folder: whoever writes holds a lock on a file in it.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Name of the locked file.
pub const FILE: &str = ".lock";

/// Locks a folder; `None` if another process holds the lock. The system releases it when the file is dropped or
/// the process ends, however it ends.
///
/// # Errors
/// The file cannot be created or locked.
pub fn acquire(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a process holds the lock of a folder. This takes a shared lock for a moment, so a process that wants the
/// folder should retry.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn is_held(folder: &Path) -> io::Result<bool> {
    let file = match File::open(folder.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()).unwrap());
        let first = acquire(dir.path()).unwrap();
        assert!(first.is_some() && is_held(dir.path()).unwrap());
        assert!(acquire(dir.path()).unwrap().is_none());
        drop(first);
        assert!(!is_held(dir.path()).unwrap() && acquire(dir.path()).unwrap().is_some());
    }
}
