//! Files that appear whole or not at all: written under a temporary name, flushed to the disk,
//! renamed, and the folder flushed. A kill at any moment leaves the old file or the new one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
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

/// Flushes a folder's entries, so that a rename in it survives a power failure.
///
/// # Errors
/// The folder cannot be opened or flushed.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "flush"))
}

/// Removes the temporary files that killed writers left in a folder. Those of live writers are locked and
/// stay, and so does everything else; if the file system has no locks, everything stays. A missing folder has
/// none.
///
/// # Errors
/// The folder cannot be read or a file cannot be removed.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    remove_leftovers_of(dir, |_| true)
}

/// The same for the files that were to appear under names that `is_wanted` accepts.
fn remove_leftovers_of(dir: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(dir, "list"))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(dir, "list"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(final_name);
        if !name.is_some_and(&is_wanted) || path.is_symlink() {
            continue;
        }
        // Its writer may be finishing it right now, or another process may be removing it.
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        if file.try_lock().is_ok() {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(&path, "remove")(e)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Suffix of temporary files, which distinguishes them from those of other programs.
const ENDING: &str = ".moe-tmp";

/// `NAME.PID.N.moe-tmp`: a temporary name of process `PID`.
fn temporary_name(name: &OsStr, n: u32) -> OsString {
    let mut temp = name.to_owned();
    temp.push(format!(".{}.{n}{ENDING}", std::process::id()));
    temp
}

/// The name under which a file with this temporary name was to appear; `None` for other names.
pub fn final_name(temporary: &str) -> Option<&str> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (rest, n) = temporary.strip_suffix(ENDING)?.rsplit_once('.')?;
    let (name, pid) = rest.rsplit_once('.')?;
    (!name.is_empty() && is_number(n) && is_number(pid)).then_some(name)
}

/// Makes a new file in the folder of `path`, named after it, for writing and reading. It is locked as long
/// as it is open, which shows that its writer is alive; what killed writers of the same name left is removed.
///
/// # Errors
/// The folder cannot be listed or the file cannot be made.
pub fn create_temporary(path: &Path) -> Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default();
    remove_leftovers_of(path.parent().unwrap_or(Path::new("")), |other| name == other)?;
    for n in 0.. {
        let temp = path.with_file_name(temporary_name(name, n));
        let file = match File::options().write(true).create_new(true).open(&temp) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
            file => file.map_err(Error::io(&temp, "create"))?,
        };
        match file.try_lock() {
            // Another process mistook it for a leftover between the two calls.
            Err(TryLockError::WouldBlock) => continue,
            Ok(()) if !temp.exists() => continue,
            // A file system without locks has no leftovers removed either.
            _ => return Ok((temp, file)),
        }
    }
    Err(Error::io(path, "create")(ErrorKind::AlreadyExists.into()))
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
    /// Starts a file that will appear at `path`; the folder is made if missing. What killed writers of the
    /// same file left behind is removed.
    ///
    /// # Errors
    /// The folder or the temporary file cannot be made.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            fs::create_dir_all(parent).map_err(Error::io(parent, "create folder"))?;
        }
        let (temp, file) = create_temporary(path)?;
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
            // Best effort: a temporary file that stays behind is harmless, and the next writer removes it.
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

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let others = ["a.pack", "a.pack.17.tmp", "b.x.0.moe-tmp", "notes.moe-tmp", "tmp.17.moe-tmp"];
        for name in others.into_iter().chain(["a.pack.17.0.moe-tmp"]) {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::create_dir(dir.path().join("folder.1.2.moe-tmp")).unwrap();
        let alive = AtomicFile::create(&dir.path().join("b")).unwrap();
        let alive_name = alive.temp.file_name().unwrap().to_str().unwrap().to_owned();
        remove_leftovers(dir.path()).unwrap();
        remove_leftovers(&dir.path().join("missing")).unwrap();
        let mut expected = others.map(str::to_owned).to_vec();
        expected.extend([alive_name, "folder.1.2.moe-tmp".to_owned()]);
        expected.sort();
        assert_eq!(names(dir.path()), expected);
        alive.commit().unwrap();
        assert!(dir.path().join("b").exists());
    }

    #[test]
    fn a_writer_removes_what_killed_writers_of_its_file_left() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.17.0.moe-tmp", "a.18.3.moe-tmp", "b.17.0.moe-tmp"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let both = [0, 1].map(|_| AtomicFile::create(&dir.path().join("a")).unwrap());
        for mut file in both {
            file.write(b"x").unwrap();
            file.commit().unwrap();
        }
        assert_eq!(names(dir.path()), ["a", "b.17.0.moe-tmp"]);
    }

    #[test]
    fn errors_name_the_path() {
        let error = write_file(Path::new("/proc/no/such"), b"").unwrap_err().to_string();
        assert!(error.starts_with("/proc/no"), "{error}");
    }
}
