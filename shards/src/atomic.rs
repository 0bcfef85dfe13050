//! Files that appear whole or not at all: written under a temporary name, flushed to the disk,
//! renamed, and the folder flushed. A kill at any moment leaves the old file or the new one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a whole file.
///
/// # Errors
/// Any step the operating system refuses, with the path.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// Flushes a folder's entries, so that a rename in it survives a power cut.
///
/// # Errors
/// The folder cannot be opened or flushed.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "flush"))
}

/// Removes the temporary files that killed writers left in a folder; call it where no other writer can
/// be at work. A missing folder has none.
///
/// # Errors
/// The folder cannot be read or a file not be removed.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(dir, "list"))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(dir, "list"))?.path();
        if is_temporary(&path) {
            fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// `NAME.PID.tmp`, as [`AtomicFile`] names its files.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let pid = name.strip_suffix(".tmp").and_then(|rest| rest.rsplit_once('.')).map(|(_, pid)| pid);
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
}

/// A file under construction. Dropped without [`AtomicFile::commit`], it leaves no trace.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temp: PathBuf,
    // `None` only after commit took it.
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts a file that will appear at `path`; the folder is made if missing.
    ///
    /// # Errors
    /// The folder or the temporary file cannot be made.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(Error::io(parent, "create folder"))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        // The process number keeps two writers of one path from sharing a temporary file.
        name.push(format!(".{}.tmp", std::process::id()));
        let temp = path.with_file_name(name);
        let file = File::create(&temp).map_err(Error::io(&temp, "create"))?;
        Ok(AtomicFile { path: path.to_owned(), temp, file: Some(BufWriter::with_capacity(1 << 18, file)) })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The disk refuses them (full, gone).
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(Error::io(&self.temp, "write")),
            None => Ok(()),
        }
    }

    /// Flushes, renames to the final name and flushes the folder.
    ///
    /// # Errors
    /// Any of these steps fails; the final name is then untouched.
    pub fn commit(mut self) -> Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush().map_err(Error::io(&self.temp, "write"))?;
            file.get_ref().sync_all().map_err(Error::io(&self.temp, "flush"))?;
            fs::rename(&self.temp, &self.path).map_err(Error::io(&self.path, "rename to"))?;
            sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Best effort: a temporary file that stays behind is harmless and gets overwritten.
            fs::remove_file(&self.temp).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_only_on_commit_and_leaves_no_trace_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"abc").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);

        write_file(&path, b"abc").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.pack.17.tmp", "a.pack", "notes.tmp", "b.x.tmp", ".tmp"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        remove_leftovers(dir.path()).unwrap();
        remove_leftovers(&dir.path().join("missing")).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".tmp", "a.pack", "b.x.tmp", "notes.tmp"]);
    }

    #[test]
    fn errors_name_the_path() {
        let error = write_file(Path::new("/proc/no/such"), b"").unwrap_err().to_string();
        assert!(error.starts_with("/proc/no"), "{error}");
    }
}
