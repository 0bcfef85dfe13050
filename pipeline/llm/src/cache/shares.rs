//! Caches of processes that ask at the same time, each a share, and how they become one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Cache, LOCK_FILE, POISON_FILE, lock, segments};
use crate::error::{Error, Result};

/// Folder, in that of a cache, of the caches of its shares.
const FOLDER: &str = "shares";

/// What a cache took over from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Completions that were new.
    pub completions: u64,
    /// Completions that it had.
    pub known: u64,
    /// Requests that were given up, and are not answered by either.
    pub poisoned: u64,
}

impl Cache {
    /// The folder of the cache of share `index` of `of`, within that of the cache in `dir`; made if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn share_folder(dir: &Path, index: usize, of: usize) -> Result<PathBuf> {
        let folder = dir.join(FOLDER).join(format!("{index}-of-{of}"));
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "create folder"))?;
        Ok(folder)
    }

    /// Number of a share, and of shares, by the name of its folder.
    pub fn share_of(folder: &Path) -> Option<(usize, usize)> {
        let number =
            |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?;
        let (index, of) = folder.file_name()?.to_str()?.split_once("-of-")?;
        Some((number(index)?, number(of)?))
    }

    /// Opens for writing the cache of share `index` of `of`. It also answers what the cache in `dir` knows, which is only read.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn open_share(dir: &Path, index: usize, of: usize) -> Result<Cache> {
        let mut share = Cache::open(&Cache::share_folder(dir, index, of)?)?;
        if Cache::is_at(dir) {
            share.base = Some(Box::new(Cache::open_read_only(dir)?));
        }
        Ok(share)
    }

    /// The folders of the shares of the cache in `dir` whose answers it has not taken over, by name.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn shares(dir: &Path) -> Result<Vec<PathBuf>> {
        let folder = dir.join(FOLDER);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
            let path = entry.map_err(Error::io(&folder, "list"))?.path();
            if Cache::share_of(&path).is_some() && Cache::is_at(&path) {
                found.push(path);
            }
        }
        found.sort_by_key(|path| Cache::share_of(path).map(|(index, of)| (of, index)));
        Ok(found)
    }

    /// Takes over what another cache has and this one does not. An answer counts more than giving up; of two reasons for that, the
    /// later one stays.
    ///
    /// # Errors
    /// This cache is open for reading only, a write fails, or a file of the other one cannot be read.
    pub fn take(&mut self, other: &Cache) -> Result<Taken> {
        let mut taken = Taken::default();
        other.for_each(|key, completion| {
            match self.append(key, completion)? {
                true => taken.completions += 1,
                false => taken.known += 1,
            }
            Ok(())
        })?;
        for poisoned in other.all_poisoned() {
            let is_later = self.poisoned(&poisoned.key).is_none_or(|known| known.time < poisoned.time);
            if is_later && !self.contains(&poisoned.key) {
                self.poison(poisoned.clone())?;
                taken.poisoned += 1;
            }
        }
        self.flush()?;
        Ok(taken)
    }

    /// Deletes the files of this share, which is open for writing, then its file `settings`, and its folder if nothing else is there. A share
    /// remains one until its answers are gone.
    ///
    /// # Errors
    /// It is open for reading only, or a file cannot be deleted.
    pub fn delete(self, settings: Option<&str>) -> Result<()> {
        let dir = self.dir.clone();
        if self.writer.is_none() {
            return Err(super::read_only(&dir));
        }
        let mut files = segments(&dir, ".jsonl.zst")?;
        files.extend(segments(&dir, ".jsonl")?);
        let segments = files.into_iter().map(|(_, path)| path);
        for path in [dir.join(POISON_FILE)].into_iter().chain(segments) {
            fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
        clear(&dir, settings)?;
        if let Some(folder) = dir.parent() {
            fs::remove_dir(folder).ok();
        }
        Ok(())
    }

    /// Removes what deleting a share left when it was killed.
    ///
    /// # Errors
    /// A folder cannot be listed, or a file cannot be deleted.
    pub fn clear_shares(dir: &Path, settings: Option<&str>) -> Result<()> {
        let folder = dir.join(FOLDER);
        if !folder.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
            let path = entry.map_err(Error::io(&folder, "list"))?.path();
            // One that is about to be asked has no lock yet, or is locked.
            let is_left = Cache::share_of(&path).is_some() && path.join(LOCK_FILE).exists();
            if is_left && !Cache::is_at(&path) && lock(&path).is_ok() && !Cache::is_at(&path) {
                clear(&path, settings)?;
            }
        }
        fs::remove_dir(&folder).ok();
        Ok(())
    }
}

/// Removes the small files of a share, and its folder unless it has others.
fn clear(folder: &Path, settings: Option<&str>) -> Result<()> {
    for name in [POISON_FILE, LOCK_FILE].into_iter().chain(settings) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(&path, "remove")(e)),
            _ => {}
        }
    }
    fs::remove_dir(folder).ok();
    Ok(())
}

impl Cache {
    /// Whether the cache, or the one below it, answers a request.
    pub(super) fn knows(&self, key: &[u8; 16]) -> bool {
        self.index.contains_key(key) || self.base.as_ref().is_some_and(|base| base.knows(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Poisoned;
    use crate::completion::Completion;
    use crate::request::{Key, Message, Request};

    fn key(n: u64) -> Key {
        Request::new("m", vec![Message::user(n.to_string())]).key()
    }

    fn completion(text: &str) -> Completion {
        Completion { text: text.into(), finish_reason: "stop".into(), time: 7, ..Completion::default() }
    }

    fn poisoned(n: u64, time: u64) -> Poisoned {
        Poisoned { key: key(n), reason: format!("at {time}"), tries: 1, time }
    }

    #[test]
    fn shares_know_the_whole_and_become_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut whole = Cache::open(dir).unwrap();
        whole.append(&key(0), &completion("whole")).unwrap();
        whole.poison(poisoned(1, 10)).unwrap();
        whole.poison(poisoned(2, 10)).unwrap();
        whole.poison(poisoned(3, 10)).unwrap();
        drop(whole);

        for (index, n) in [(0, 4), (1, 5)] {
            let mut share = Cache::open_share(dir, index, 2).unwrap();
            assert_eq!(share.get(&key(0)).unwrap().unwrap().text, "whole");
            assert!(!share.append(&key(0), &completion("again")).unwrap());
            assert_eq!(share.poisoned(&key(1)).unwrap().time, 10);
            assert!(share.append(&key(n), &completion("share")).unwrap());
            if index == 0 {
                // Answered at last; given up again, later and earlier.
                share.append(&key(1), &completion("late")).unwrap();
                assert!(share.poisoned(&key(1)).is_none());
                share.poison(poisoned(2, 20)).unwrap();
                share.poison(poisoned(3, 5)).unwrap();
            }
            assert_eq!((share.len(), Cache::shares(dir).unwrap().len()), (2 - index as u64, index + 1));
        }

        let mut whole = Cache::open(dir).unwrap();
        let mut taken = Vec::new();
        for folder in Cache::shares(dir).unwrap() {
            let share = Cache::open(&folder).unwrap();
            taken.push(whole.take(&share).unwrap());
            assert_eq!(whole.take(&share).unwrap().completions, 0);
            share.delete(Some("settings")).unwrap();
        }
        let counts = |completions, known, poisoned| Taken { completions, known, poisoned };
        assert_eq!(taken, [counts(2, 0, 1), counts(1, 0, 0)]);
        assert!(!dir.join(FOLDER).exists());
        drop(whole);
        let whole = Cache::open_read_only(dir).unwrap();
        assert_eq!(whole.len(), 4);
        assert_eq!(whole.get(&key(5)).unwrap().unwrap(), completion("share"));
        assert_eq!((whole.poisoned(&key(2)).unwrap().time, whole.poisoned(&key(3)).unwrap().time), (20, 10));
        assert!(whole.poisoned(&key(1)).is_none());
    }

    #[test]
    fn a_share_that_is_written_to_is_not_deleted_and_foreign_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let share = Cache::open_share(dir, 0, 1).unwrap();
        let folder = Cache::shares(dir).unwrap().remove(0);
        let refused = Cache::open(&folder).unwrap_err().to_string();
        assert!(refused.contains("another process writes"), "{refused}");
        drop(share);
        let readable = Cache::open_read_only(&folder).unwrap();
        assert!(readable.delete(Some("settings")).is_err());
        fs::write(folder.join("notes"), "mine").unwrap();
        Cache::open(&folder).unwrap().delete(Some("settings")).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(Cache::shares(dir).unwrap().is_empty());

        // What a kill leaves at the end.
        let other = Cache::share_folder(dir, 1, 2).unwrap();
        for name in [LOCK_FILE, "settings"] {
            fs::write(other.join(name), "").unwrap();
        }
        Cache::clear_shares(dir, Some("settings")).unwrap();
        assert!(!other.exists() && folder.join("notes").exists());
    }
}
