//! Attempts at a task. Each works in a folder of its own, `DIGEST.tries/HOST-PID-N/`, which becomes the task's folder by one
//! rename at the end. So two attempts at once, such as one on a node that the scheduler gave up on and the one that
//! replaces it, never write into the same files: the first to finish wins, the other is thrown away, and both would have
//! left the same bytes. A task's folder is there as a whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use moe_shards::atomic;

use super::{entries, remove_if_empty};
use crate::error::{Error, Result};

/// Suffix of the folder that holds a task's attempts.
const TRIES: &str = "tries";
/// A file in the folder of an attempt, locked by the process that works there.
const ALIVE: &str = "alive";

/// An attempt under way. Dropped without [`Attempt::finish`], it leaves nothing behind.
pub struct Attempt {
    /// Where the work is done.
    folder: PathBuf,
    /// Where the results belong.
    output: PathBuf,
    /// Name of the file that is there when all results are.
    report: &'static str,
    /// Whether the folder has become the results.
    is_done: bool,
    /// Locked as long as it is open.
    _alive: File,
}

impl Attempt {
    /// Makes the folder of an attempt at results that belong in `output`, with a file called `report` when they are complete. What
    /// dead attempts of this machine left is removed, and so is an `output` without a report.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn start(output: &Path, report: &'static str) -> Result<Attempt> {
        let tries = tries_of(output);
        let host = host();
        remove_dead(&tries, &host)?;
        set_aside(output, report, &tries, &host)?;
        loop {
            let folder = make_folder(&tries, &host)?;
            let path = folder.join(ALIVE);
            let alive = File::create_new(&path).map_err(Error::io(&path, "create"))?;
            match alive.try_lock() {
                // Another process took it for dead between the two calls.
                Err(TryLockError::WouldBlock) => continue,
                Ok(()) if !path.exists() => continue,
                // Where the file system has no locks, no attempt is ever taken for dead.
                _ => {}
            }
            return Ok(Attempt { folder, output: output.to_owned(), report, is_done: false, _alive: alive });
        }
    }

    /// The folder to work in, which is empty but for the sign of life.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves the results where they belong, the report last, unless another attempt was faster.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn finish(mut self) -> Result<()> {
        let alive = self.folder.join(ALIVE);
        fs::remove_file(&alive).map_err(Error::io(&alive, "delete"))?;
        match fs::rename(&self.folder, &self.output) {
            Err(_) if self.output.join(self.report).exists() => {}
            renamed => {
                renamed.map_err(Error::io(&self.output, "rename to"))?;
                self.is_done = true;
                if let Some(stage) = self.output.parent() {
                    atomic::sync_dir(stage)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Best effort: what stays is removed by the next attempt on this machine, or at the end of the build.
        if !self.is_done {
            fs::remove_dir_all(&self.folder).ok();
        }
        if let Some(tries) = self.folder.parent() {
            remove_if_empty(tries).ok();
        }
    }
}

/// Whether an attempt at these results is under way, or was killed.
pub fn is_under_way(output: &Path) -> bool {
    tries_of(output).is_dir()
}

/// Folder of the attempts; it is there while there are any.
fn tries_of(output: &Path) -> PathBuf {
    output.with_extension(TRIES)
}

/// Name of this machine, of letters, digits and `-`.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().split('.').next().unwrap_or_default();
    let kept: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if kept.is_empty() { "host".to_owned() } else { kept }
}

/// Makes a folder that no other attempt has.
fn make_folder(tries: &Path, host: &str) -> Result<PathBuf> {
    let mut n = 0;
    loop {
        let folder = tries.join(format!("{host}-{}-{n}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => n += 1,
            // The last attempt to end removes the folder of all attempts.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(tries).map_err(Error::io(tries, "create folder"))?;
            }
            Err(e) => return Err(Error::io(&folder, "create folder")(e)),
        }
    }
}

/// Removes what killed attempts of this machine left: their lock is free. Those of other machines stay, since
/// not every file system knows the locks of all machines.
fn remove_dead(tries: &Path, host: &str) -> Result<()> {
    for folder in entries(tries)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let is_here = name.rsplitn(3, '-').nth(2) == Some(host);
        let Ok(alive) = File::options().write(true).open(folder.join(ALIVE)) else { continue };
        if is_here && alive.try_lock().is_ok() {
            remove_folder(&folder)?;
        }
    }
    Ok(())
}

/// Moves away a folder without a report, which programs that had no attempts may have left, or whose report was
/// deleted by hand. It is moved before it is removed, so that a folder that another attempt has just finished stays whole.
fn set_aside(output: &Path, report: &str, tries: &Path, host: &str) -> Result<()> {
    if !output.exists() || output.join(report).exists() {
        return Ok(());
    }
    let aside = make_folder(tries, host)?;
    match fs::rename(output, &aside) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        moved => moved.map_err(Error::io(output, "rename"))?,
    }
    if aside.join(report).exists() && fs::rename(&aside, output).is_ok() {
        return Ok(());
    }
    remove_folder(&aside)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(folder, "delete")(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "report.json";

    fn output(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("stage").join("0123")
    }

    fn names(folder: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        entries(folder).unwrap().into_iter().map(name).collect()
    }

    fn write(attempt: &Attempt, text: &str) {
        fs::write(attempt.folder().join("data"), text).unwrap();
        fs::write(attempt.folder().join(REPORT), "{}").unwrap();
    }

    #[test]
    fn of_two_attempts_at_once_the_first_to_end_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(&dir);
        let [slow, fast] = [0, 1].map(|_| Attempt::start(&output, REPORT).unwrap());
        assert_ne!(slow.folder(), fast.folder());
        fs::write(slow.folder().join("data"), "half").unwrap();
        write(&fast, "fast");
        assert!(!output.exists() && is_under_way(&output));
        fast.finish().unwrap();
        assert_eq!(names(&output), ["data", REPORT]);
        write(&slow, "slow");
        slow.finish().unwrap();
        assert_eq!(fs::read_to_string(output.join("data")).unwrap(), "fast");
        assert_eq!(names(output.parent().unwrap()).len(), 1, "nothing lies beside the results");
    }

    #[test]
    fn an_attempt_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(&dir);
        let attempt = Attempt::start(&output, REPORT).unwrap();
        write(&attempt, "x");
        drop(attempt);
        assert!(!is_under_way(&output) && names(output.parent().unwrap()).is_empty());
    }

    #[test]
    fn what_killed_attempts_left_goes_and_what_lives_or_is_elsewhere_stays() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(&dir);
        let tries = tries_of(&output);
        for name in [format!("{}-7-0", host()), "elsewhere-7-0".to_owned()] {
            fs::create_dir_all(tries.join(&name)).unwrap();
            fs::write(tries.join(&name).join(ALIVE), "").unwrap();
        }
        let alive = Attempt::start(&output, REPORT).unwrap();
        let own = alive.folder().file_name().unwrap().to_string_lossy().into_owned();
        let mut expected = ["elsewhere-7-0".to_owned(), own];
        expected.sort();
        assert_eq!(names(&tries), expected);
        Attempt::start(&output, REPORT).unwrap();
        assert_eq!(names(&tries), expected);
    }

    #[test]
    fn a_folder_without_a_report_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(&dir);
        fs::create_dir_all(&output).unwrap();
        fs::write(output.join("half"), "x").unwrap();
        let attempt = Attempt::start(&output, REPORT).unwrap();
        write(&attempt, "whole");
        attempt.finish().unwrap();
        assert_eq!(names(&output), ["data", REPORT]);
    }
}
