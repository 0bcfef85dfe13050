//! Completions by key, in files that only grow.
//!
//! A cache is a folder: sealed segments, one segment that is written to, and the poison list.
//! `docs/completion-cache-format.md` specifies them. One process writes, any number read. Nothing in a cache
//! is ever deleted or changed. Several processes write to caches of their own, which one takes over ([`Cache::take`]).

mod digest;
mod line;
mod open;
mod plain;
mod sealed;
mod shares;
mod verify;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moe_shards::{Hash, atomic};
use serde::{Deserialize, Serialize};

pub use self::digest::SetDigest;
use self::open::{lock, segments};
use self::plain::Plain;
use self::sealed::Sealed;
pub use self::shares::Taken;
pub use self::verify::Verified;
use crate::completion::Completion;
use crate::error::{Error, Result};
use crate::request::Key;

/// First lines of the two kinds of files.
const HEADER: &str = r#"{"format":"moe-completion-cache","version":1}"#;
const POISON_HEADER: &str = r#"{"format":"moe-poison-list","version":1}"#;
const POISON_FILE: &str = "poisoned.jsonl";
const LOCK_FILE: &str = ".lock";
/// Decompressed frames that are kept: completions are mostly read in about the order in which they came.
const FRAMES: usize = 16;

/// How a cache is written. Its contents do not depend on this.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// Number of completions after which they are flushed to disk (fsync).
    pub fsync_every: u32,
    /// Time after which they are flushed, if there are any.
    pub fsync_after: Duration,
    /// Bytes of lines at which a segment is compressed and a new one begun; below 1 GiB.
    pub segment_bytes: u32,
}

impl Default for CacheOptions {
    fn default() -> CacheOptions {
        CacheOptions { fsync_every: 256, fsync_after: Duration::from_secs(2), segment_bytes: 64 << 20 }
    }
}

/// What opening a cache found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// Completions.
    pub completions: u64,
    /// Sealed segments.
    pub sealed_segments: u64,
    /// Bytes of an unfinished line that a killed writer left; opening for writing removes them. A reader sees
    /// some while a writer is active.
    pub torn_bytes: u64,
    /// Lines that are not as they were written, from a failing disk or an editor. They stay; their requests
    /// will be sent again.
    pub damaged_lines: u64,
    /// Requests on the poison list that have no completion.
    pub poisoned: u64,
}

/// A request that the server could not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poisoned {
    /// Which request.
    pub key: Key,
    /// What went wrong the last time.
    pub reason: String,
    /// How often it was sent.
    pub tries: u32,
    /// When it was given up, in seconds since 1970.
    pub time: u64,
}

/// Where a line begins: in which segment and at which of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u32,
    at: u32,
}

/// Completions by key. In memory an entry takes 24 bytes plus its share of a hash table's free space.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    /// By the first half of the key; a line has the whole.
    index: HashMap<[u8; 16], Place>,
    sealed: BTreeMap<u32, Sealed>,
    /// The segment that grows, with its number.
    growing: Option<(u32, Plain)>,
    poisoned: BTreeMap<Key, Poisoned>,
    opened: Opened,
    writer: Option<Writer>,
    frames: Mutex<VecDeque<Frame>>,
    /// The whole cache, below that of a share: its answers count as well.
    base: Option<Box<Cache>>,
}

/// A frame that was read: number of its segment, its number there, its bytes.
type Frame = (u32, usize, Arc<Vec<u8>>);

#[derive(Debug)]
struct Writer {
    options: CacheOptions,
    /// Keys of the growing segment, in order.
    entries: Vec<(Key, u32)>,
    poison_list: Plain,
    unsynced: u32,
    synced_at: Instant,
    /// Released by the system when the process ends.
    _lock: File,
}

impl Cache {
    /// Opens a cache for writing with the default options, creating it if it does not exist.
    ///
    /// # Errors
    /// See [`Cache::open_with`].
    pub fn open(dir: &Path) -> Result<Cache> {
        Cache::open_with(dir, CacheOptions::default())
    }

    /// Opens a cache for writing, creating it if it does not exist. A torn tail is removed; [`Cache::opened`]
    /// says how long it was.
    ///
    /// # Errors
    /// Another process writes to it, the folder cannot be written, or a file is not of this format.
    pub fn open_with(dir: &Path, options: CacheOptions) -> Result<Cache> {
        if options.segment_bytes > 1 << 30 {
            let bytes = options.segment_bytes;
            return Err(Error::Usage(format!("`segment_bytes` is {bytes}, expected at most 1 GiB")));
        }
        fs::create_dir_all(dir).map_err(Error::io(dir, "create folder"))?;
        let lock = lock(dir)?;
        atomic::remove_leftovers(dir)?;
        let (mut cache, entries) = Cache::read(dir)?;
        for (number, path) in segments(dir, ".jsonl")? {
            // Sealed, but the plain file had not been removed yet.
            if cache.sealed.contains_key(&number) && Plain::open(&path, HEADER).is_ok() {
                fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
            }
        }
        match &mut cache.growing {
            Some((_, plain)) => plain.mend()?,
            None => cache.growing = Some(new_segment(dir, cache.next_number())?),
        }
        let path = dir.join(POISON_FILE);
        let mut poison_list = match path.exists() {
            true => Plain::open(&path, POISON_HEADER)?.0,
            false => Plain::create(&path, POISON_HEADER)?,
        };
        poison_list.mend()?;
        let synced_at = Instant::now();
        cache.writer = Some(Writer { options, entries, poison_list, unsynced: 0, synced_at, _lock: lock });
        Ok(cache)
    }

    /// Opens a cache for reading, as it is now. Others may read and one may write at the same time.
    ///
    /// # Errors
    /// There is none, or a file is not of this format.
    pub fn open_read_only(dir: &Path) -> Result<Cache> {
        Ok(Cache::read(dir)?.0)
    }

    /// The first of two lines with one key counts.
    fn note(&mut self, key: &Key, place: Place) {
        self.index.entry(half(key)).or_insert(place);
    }

    fn next_number(&self) -> u32 {
        self.sealed.keys().next_back().map_or(0, |last| last + 1)
    }

    /// What opening found.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Completions in the cache.
    pub fn len(&self) -> u64 {
        self.index.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether a request is answered, without reading the answer.
    pub fn contains(&self, key: &Key) -> bool {
        self.knows(&half(key))
    }

    /// The completion of a request.
    ///
    /// # Errors
    /// Its file cannot be read, or its line is not as it was written.
    pub fn get(&self, key: &Key) -> Result<Option<Completion>> {
        let Some(&place) = self.index.get(&half(key)) else {
            return self.base.as_ref().map_or(Ok(None), |base| base.get(key));
        };
        let (path, line) = self.line(place)?;
        match line::completion(&line) {
            Some((found, completion)) => Ok((found == *key).then_some(completion)),
            None => {
                let message = format!("the line at byte {} of its text is not as it was written", place.at);
                let hint = "hint: restore the file from a copy";
                Err(Error::data(&path, format!("{message}\n  {hint}")))
            }
        }
    }

    fn line(&self, place: Place) -> Result<(PathBuf, Vec<u8>)> {
        if let Some(sealed) = self.sealed.get(&place.segment) {
            let (frame, within) = sealed.frame_of(place.at);
            let lines = self.frame(place.segment, sealed, frame)?;
            let line = lines[within..].split(|&b| b == b'\n').next().unwrap_or_default();
            return Ok((sealed.path().to_owned(), line.to_vec()));
        }
        match &self.growing {
            Some((number, plain)) if *number == place.segment => {
                Ok((plain.path().to_owned(), plain.line(u64::from(place.at))?))
            }
            // The index only has places in segments that are open.
            _ => Err(Error::data(&self.dir, format!("segment {} is not open", place.segment))),
        }
    }

    fn frame(&self, segment: u32, sealed: &Sealed, frame: usize) -> Result<Arc<Vec<u8>>> {
        let wanted = |entry: &&(u32, usize, Arc<Vec<u8>>)| (entry.0, entry.1) == (segment, frame);
        let lock = || self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, lines)) = lock().iter().find(wanted) {
            return Ok(lines.clone());
        }
        let lines = Arc::new(sealed.frame(frame)?);
        let mut frames = lock();
        frames.truncate(FRAMES - 1);
        frames.push_front((segment, frame, lines.clone()));
        Ok(lines)
    }

    /// Adds a completion. The line is passed to the system at once, so that a killed process loses nothing;
    /// every [`CacheOptions::fsync_every`] completions it is flushed to disk. Returns false, and does
    /// nothing, if the request is answered already: the first answer stays.
    ///
    /// # Errors
    /// The cache is open for reading only, or a write fails.
    pub fn append(&mut self, key: &Key, completion: &Completion) -> Result<bool> {
        if self.contains(key) {
            return Ok(false);
        }
        let Some(((number, plain), writer)) = self.growing.as_mut().zip(self.writer.as_mut()) else {
            return Err(read_only(&self.dir));
        };
        let at = plain.append(&line::of_completion(key, completion))?;
        let (number, len) = (*number, plain.len());
        let at = u32::try_from(at).map_err(|_| Error::data(plain.path(), "longer than 4 GiB"))?;
        writer.entries.push((*key, at));
        writer.unsynced += 1;
        let (full, due) = (len >= u64::from(writer.options.segment_bytes), writer.due());
        self.note(key, Place { segment: number, at });
        self.poisoned.remove(key);
        if full {
            self.seal()?;
        } else if due {
            self.flush()?;
        }
        Ok(true)
    }

    /// Puts a request on the poison list. It stays there until it is answered.
    ///
    /// # Errors
    /// The cache is open for reading only, or a write fails.
    pub fn poison(&mut self, poisoned: Poisoned) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(|| read_only(&self.dir))?;
        let object = serde_json::to_string(&poisoned).unwrap_or_else(|e| panic!("not a JSON value: {e}"));
        writer.poison_list.append(&line::seal(&object))?;
        writer.unsynced += 1;
        self.poisoned.insert(poisoned.key, poisoned);
        Ok(())
    }

    /// Why a request was given up, if it was and has no answer.
    pub fn poisoned(&self, key: &Key) -> Option<&Poisoned> {
        let below = || self.base.as_ref().filter(|_| !self.contains(key))?.poisoned(key);
        self.poisoned.get(key).or_else(below)
    }

    /// All requests that were given up, by key.
    pub fn all_poisoned(&self) -> impl Iterator<Item = &Poisoned> {
        self.poisoned.values()
    }

    /// Flushes if [`CacheOptions::fsync_after`] has passed since the last time and something is new.
    ///
    /// # Errors
    /// A write fails.
    pub fn flush_if_due(&mut self) -> Result<()> {
        match &self.writer {
            Some(writer) if writer.due() => self.flush(),
            _ => Ok(()),
        }
    }

    /// Makes everything survive a power failure.
    ///
    /// # Errors
    /// A write fails.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(((_, plain), writer)) = self.growing.as_ref().zip(self.writer.as_mut()) {
            if writer.unsynced > 0 {
                plain.sync()?;
                writer.poison_list.sync()?;
            }
            writer.unsynced = 0;
            writer.synced_at = Instant::now();
        }
        Ok(())
    }

    /// Compresses the growing segment and begins another. Happens automatically at
    /// [`CacheOptions::segment_bytes`]; makes a cache smaller before it is shipped.
    ///
    /// # Errors
    /// The cache is open for reading only, or a write fails; then the segment stays as it was.
    pub fn seal(&mut self) -> Result<()> {
        self.flush()?;
        let Some(((number, plain), writer)) = self.growing.as_ref().zip(self.writer.as_mut()) else {
            return Err(read_only(&self.dir));
        };
        if writer.entries.is_empty() {
            return Ok(());
        }
        let (number, path) = (*number, plain.path().to_owned());
        let sealed_path = segment_path(&self.dir, number, ".jsonl.zst");
        sealed::write(&sealed_path, &plain.bytes()?, &writer.entries)?;
        let (sealed, _) = Sealed::open(&sealed_path)?;
        let next = new_segment(&self.dir, number + 1)?;
        writer.entries.clear();
        self.sealed.insert(number, sealed);
        self.growing = Some(next);
        fs::remove_file(&path).map_err(Error::io(&path, "remove"))
    }

    /// Calls `visit` for every completion, in the order in which they were stored, reading each file once.
    /// Lines that are damaged are left out: [`Cache::opened`] and [`Cache::verify`] count them.
    ///
    /// # Errors
    /// A file cannot be read or decompressed; what `visit` returns.
    pub fn for_each(&self, mut visit: impl FnMut(&Key, &Completion) -> Result<()>) -> Result<()> {
        self.lines(|_, place, line| match line::completion(line) {
            Some((key, completion)) if self.index.get(&half(&key)) == Some(&place) => {
                visit(&key, &completion)
            }
            _ => Ok(()),
        })
    }

    /// Every line after the first of each segment.
    fn lines(&self, mut visit: impl FnMut(&Path, Place, &[u8]) -> Result<()>) -> Result<()> {
        let mut visit_all = |path: &Path, segment: u32, start: u32, lines: &[u8]| -> Result<()> {
            let mut at = start;
            for line in lines.split_inclusive(|&b| b == b'\n') {
                if at > 0 {
                    let line = line.strip_suffix(b"\n").unwrap_or(line);
                    visit(path, Place { segment, at }, line)?;
                }
                at += line.len() as u32;
            }
            Ok(())
        };
        for (&segment, sealed) in &self.sealed {
            for frame in 0..sealed.n_frames() {
                visit_all(sealed.path(), segment, sealed.start_of(frame), &sealed.frame(frame)?)?;
            }
        }
        match &self.growing {
            Some((segment, plain)) => visit_all(plain.path(), *segment, 0, &plain.bytes()?),
            None => Ok(()),
        }
    }

    /// Identity of the set of completions: of keys, texts, finish reasons, usage and models, not of times,
    /// order or segments. Reads the whole cache.
    ///
    /// # Errors
    /// As [`Cache::for_each`].
    pub fn digest(&self) -> Result<Hash> {
        let mut digest = SetDigest::default();
        self.for_each(|key, completion| {
            digest.add(line::identity(key, completion).as_bytes());
            Ok(())
        })?;
        Ok(digest.finish())
    }
}

impl Writer {
    fn due(&self) -> bool {
        self.unsynced >= self.options.fsync_every
            || (self.unsynced > 0 && self.synced_at.elapsed() >= self.options.fsync_after)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // As a last resort; callers who need the result call `flush`.
        self.flush().ok();
    }
}

fn half(key: &Key) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&key.0.0[..16]);
    half
}

fn segment_path(dir: &Path, number: u32, ending: &str) -> PathBuf {
    dir.join(format!("completions-{number:05}{ending}"))
}

fn new_segment(dir: &Path, number: u32) -> Result<(u32, Plain)> {
    Ok((number, Plain::create(&segment_path(dir, number, ".jsonl"), HEADER)?))
}

fn read_only(dir: &Path) -> Error {
    Error::Usage(format!("{}: the cache is open for reading only", dir.display()))
}

#[cfg(test)]
mod tests;
