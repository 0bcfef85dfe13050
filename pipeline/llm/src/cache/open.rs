//! Reading what is in the folder of a cache.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::line;
use super::plain::{Lines, Plain};
use super::sealed::Sealed;
use super::{Cache, HEADER, LOCK_FILE, Opened, POISON_FILE, POISON_HEADER, Place, Poisoned};
use crate::error::{Error, Result};
use crate::request::Key;

impl Cache {
    /// Whether a folder looks like a cache, whole or damaged: by the names of its files.
    pub fn is_at(dir: &Path) -> bool {
        [".jsonl", ".jsonl.zst"]
            .iter()
            .any(|ending| segments(dir, ending).is_ok_and(|found| !found.is_empty()))
    }

    pub(super) fn read(dir: &Path) -> Result<(Cache, Vec<(Key, u32)>)> {
        // A writer may seal a segment between listing and opening it; then list again.
        for _ in 0..5 {
            match Cache::read_once(dir) {
                Err(Error::Io { source, path, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && path != dir => {}
                done => return done,
            }
        }
        Cache::read_once(dir)
    }

    fn read_once(dir: &Path) -> Result<(Cache, Vec<(Key, u32)>)> {
        let mut cache = Cache {
            dir: dir.to_owned(),
            index: HashMap::new(),
            sealed: BTreeMap::new(),
            growing: None,
            poisoned: BTreeMap::new(),
            opened: Opened::default(),
            writer: None,
            frames: Mutex::default(),
            base: None,
        };
        let plain = segments(dir, ".jsonl")?;
        for (number, path) in segments(dir, ".jsonl.zst")? {
            let (sealed, entries) = Sealed::open(&path)?;
            entries.iter().for_each(|(key, at)| cache.note(key, Place { segment: number, at: *at }));
            cache.sealed.insert(number, sealed);
            cache.opened.sealed_segments += 1;
        }
        let mut entries = Vec::new();
        for (number, path) in plain {
            if cache.sealed.contains_key(&number) {
                continue;
            }
            if cache.growing.is_some() {
                let message =
                    "two segments grow; only the one with the highest number may be without a sealed file";
                return Err(Error::data(&path, message));
            }
            let (plain, lines) = Plain::open(&path, HEADER)?;
            cache.opened.torn_bytes += lines.torn_bytes;
            cache.opened.damaged_lines += lines.damaged;
            for &place in &lines.whole {
                match line::key(lines.line(place)) {
                    Some(key) => {
                        cache.note(&key, Place { segment: number, at: place.0 });
                        entries.push((key, place.0));
                    }
                    None => cache.opened.damaged_lines += 1,
                }
            }
            cache.growing = Some((number, plain));
        }
        let path = dir.join(POISON_FILE);
        if path.exists() {
            let (_, lines) = Plain::open(&path, POISON_HEADER)?;
            cache.opened.torn_bytes += lines.torn_bytes;
            cache.opened.damaged_lines += lines.damaged;
            cache.read_poisoned(&lines);
        }
        cache.opened.completions = cache.index.len() as u64;
        cache.opened.poisoned = cache.poisoned.len() as u64;
        Ok((cache, entries))
    }

    fn read_poisoned(&mut self, lines: &Lines) {
        for &place in &lines.whole {
            let object = line::open(lines.line(place)).map(|rest| [b"{", rest].concat());
            match object.and_then(|object| serde_json::from_slice::<Poisoned>(&object).ok()) {
                Some(poisoned) if self.contains(&poisoned.key) => {}
                Some(poisoned) => drop(self.poisoned.insert(poisoned.key, poisoned)),
                None => self.opened.damaged_lines += 1,
            }
        }
    }
}

/// Segments whose names have an ending, by number.
pub(super) fn segments(dir: &Path, ending: &str) -> Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let path = entry.map_err(Error::io(dir, "list"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("completions-").and_then(|name| name.strip_suffix(ending));
        if let Some(number) = number.filter(|digits| digits.len() >= 5).and_then(|number| number.parse().ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Locks a cache for writing; the system releases it when the process ends.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
            "{}: another process writes to this cache; wait for it or choose another folder",
            dir.display()
        ))),
        Err(TryLockError::Error(e)) => Err(Error::io(&path, "lock")(e)),
    }
}
