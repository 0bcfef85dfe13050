//! Caches of processes that ask at the same time, each a share, and how they become one.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cache, POISON_FILE, segments};
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
    /// Opens for writing the cache of share `index` of `of`, in a folder within `dir`. It also answers what the cache in `dir` knows,
    /// which is only read.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn open_share(dir: &Path, index: usize, of: usize) -> Result<Cache> {
        let mut share = Cache::open(&dir.join(FOLDER).join(format!("{index}-of-{of}")))?;
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
            if share_of(&path).is_some() && Cache::is_at(&path) {
                found.push(path);
            }
        }
        found.sort_by_key(|path| share_of(path).map(|(index, of)| (of, index)));
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

    /// Deletes the files of this cache, which is open for writing, and its folder if nothing else is there.
    ///
    /// # Errors
    /// It is open for reading only, or a file cannot be deleted.
    pub fn delete(self) -> Result<()> {
        let dir = self.dir.clone();
        if self.writer.is_none() {
            return Err(super::read_only(&dir));
        }
        let mut files = segments(&dir, ".jsonl.zst")?;
        files.extend(segments(&dir, ".jsonl")?);
        for path in files.into_iter().map(|(_, path)| path).chain([dir.join(POISON_FILE), dir.join(".lock")])
        {
            fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
        drop(self);
        // Fails where a file of somebody else is left.
        fs::remove_dir(&dir).ok();
        if let Some(folder) = dir.parent() {
            fs::remove_dir(folder).ok();
        }
        Ok(())
    }
}

impl Cache {
    /// Whether the cache, or the one below it, answers a request.
    pub(super) fn knows(&self, key: &[u8; 16]) -> bool {
        self.index.contains_key(key) || self.base.as_ref().is_some_and(|base| base.knows(key))
    }
}

/// Index and number of shares, from the name of a folder.
pub(super) fn share_of(path: &Path) -> Option<(usize, usize)> {
    let (index, of) = path.file_name()?.to_str()?.split_once("-of-")?;
    Some((index.parse().ok()?, of.parse().ok()?))
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
            share.delete().unwrap();
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
        assert!(readable.delete().is_err());
        fs::write(folder.join("notes"), "mine").unwrap();
        Cache::open(&folder).unwrap().delete().unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(Cache::shares(dir).unwrap().is_empty());
    }
}
