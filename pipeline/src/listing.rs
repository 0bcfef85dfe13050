//! The files we wrote to a folder: `.moe-data/MAKER.json`, one list for each command that leaves files there. Only files on such a
//! list are ever replaced or removed, `verify` compares the files with their digests, and a folder with a build's list is
//! never read as input. The format is defined in `docs/listing-format.md`.
//!
//! A file is listed before it is touched, so the list is complete even after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use moe_shards::{Hash, Manifest, atomic, file_names};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;

/// Folder of the lists, in the folder they describe.
pub const FOLDER: &str = ".moe-data";
const FORMAT: &str = "moe-data-files";
const VERSION: u32 = 1;

/// The command whose files a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// `build`.
    Build,
    /// `mix`.
    Mix,
    /// `export`, of shards and plans.
    Export,
    /// `export`, of texts, which any build may read.
    Text,
    /// `rephrase`.
    Rephrase,
}

impl Maker {
    /// All of them.
    pub const ALL: [Maker; 5] = [Maker::Build, Maker::Mix, Maker::Export, Maker::Text, Maker::Rephrase];

    fn name(self) -> &'static str {
        match self {
            Maker::Build => "build",
            Maker::Mix => "mix",
            Maker::Export => "export",
            Maker::Text => "text",
            Maker::Rephrase => "rephrase",
        }
    }
}

/// A file as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub blake3: Hash,
}

impl Entry {
    /// Of a file with this content.
    pub fn of(content: &[u8]) -> Entry {
        Entry { bytes: content.len() as u64, blake3: Hash::of(content) }
    }

    /// Of a file on the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_file(path: &Path) -> Result<Entry> {
        let bytes = fs::metadata(path).map_err(Error::io(path, "read"))?.len();
        Ok(Entry { bytes, blake3: Hash::of_file(path)? })
    }
}

/// The file of a list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    version: u32,
    /// By path below the folder; null if the command is still running or was killed.
    files: BTreeMap<String, Option<Entry>>,
}

/// A list.
#[derive(Clone, Debug)]
pub struct Listing {
    folder: PathBuf,
    maker: Maker,
    files: BTreeMap<String, Option<Entry>>,
    /// Names that the running command writes.
    claimed: BTreeSet<String>,
}

impl Listing {
    /// Path of a list.
    pub fn path(folder: &Path, maker: Maker) -> PathBuf {
        folder.join(FOLDER).join(format!("{}.json", maker.name()))
    }

    /// Reads a list; `None` when there is none.
    ///
    /// # Errors
    /// It was changed, is newer, or names files elsewhere.
    pub fn read(folder: &Path, maker: Maker) -> Result<Option<Listing>> {
        let path = Listing::path(folder, maker);
        let bytes = match fs::read(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            bytes => bytes.map_err(Error::io(&path, "read"))?,
        };
        Listing::parse(folder, maker, &path, &bytes).map(Some)
    }

    /// A list from the bytes of its file, which is `path` in messages.
    ///
    /// # Errors
    /// As [`Listing::read`].
    pub fn parse(folder: &Path, maker: Maker, path: &Path, bytes: &[u8]) -> Result<Listing> {
        let wrong = |what: String| {
            let hint = "this is the list of our files in this folder; bring it back from a copy, or move the folder away and make its files again";
            Error::data(path, format!("{what}\n  hint: {hint}"))
        };
        let stored: Stored =
            serde_json::from_slice(bytes).map_err(|e| wrong(format!("is damaged or not a list: {e}")))?;
        if stored.format != FORMAT || !(1..=VERSION).contains(&stored.version) {
            let found = format!("{} version {}", stored.format, stored.version);
            return Err(wrong(format!("expected {FORMAT} up to version {VERSION}, found {found}")));
        }
        if let Some(name) = stored.files.keys().find(|name| !file_names::is_below(name)) {
            return Err(wrong(format!("names {name:?}, which is not below the folder")));
        }
        // So that no changed byte goes unnoticed.
        if json::canonical(&stored) != bytes {
            return Err(wrong("is not as it was written".to_owned()));
        }
        let Stored { files, .. } = stored;
        Ok(Listing { folder: folder.to_owned(), maker, files, claimed: BTreeSet::new() })
    }

    /// The list of a folder. Where there is none yet, our files are those that `earlier` names: versions without lists wrote them.
    ///
    /// # Errors
    /// As [`Listing::read`].
    pub fn open(folder: &Path, maker: Maker, earlier: impl IntoIterator<Item = String>) -> Result<Listing> {
        Ok(Listing::read(folder, maker)?.unwrap_or_else(|| Listing {
            folder: folder.to_owned(),
            maker,
            files: earlier.into_iter().map(|name| (name, None)).collect(),
            claimed: BTreeSet::new(),
        }))
    }

    /// Whether a file is one of ours.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Files by name; those without an entry were being written when a command was killed, or come from a version without lists.
    pub fn files(&self) -> &BTreeMap<String, Option<Entry>> {
        &self.files
    }

    /// Records on disk that these files are about to be written.
    ///
    /// # Errors
    /// One of them exists and is not ours, or a write fails.
    pub fn claim(&mut self, names: impl IntoIterator<Item = String>) -> Result<()> {
        for name in names {
            self.check(&name)?;
            self.files.insert(name.clone(), None);
            self.claimed.insert(name);
        }
        self.write()
    }

    /// Refuses the name of an existing file that is not ours.
    ///
    /// # Errors
    /// [`Error::Usage`] naming it.
    pub fn check(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        if self.has(name) || fs::symlink_metadata(&path).is_err() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{} is in the way, and moe-data did not write it; move it away or choose another folder",
            path.display()
        )))
    }

    /// Deletes our files that `is_wanted` refuses.
    ///
    /// # Errors
    /// A write fails.
    pub fn remove(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let unwanted: Vec<String> = self.files.keys().filter(|name| !is_wanted(name)).cloned().collect();
        for name in unwanted {
            let path = self.folder.join(&name);
            match fs::remove_file(&path) {
                Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Err(Error::io(&path, "delete")(e));
                }
                _ => {}
            }
            self.files.remove(&name);
            self.claimed.remove(&name);
        }
        Ok(())
    }

    /// Notes a file that was written.
    pub fn note(&mut self, name: &str, entry: Entry) {
        self.claimed.remove(name);
        self.files.insert(name.to_owned(), Some(entry));
    }

    /// Writes a file and notes it.
    ///
    /// # Errors
    /// A write fails.
    pub fn write_file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        atomic::write_file(&self.folder.join(name), content)?;
        self.note(name, Entry::of(content));
        Ok(())
    }

    /// Writes the list, without names that were claimed but not written.
    ///
    /// # Errors
    /// A write fails.
    pub fn finish(mut self) -> Result<()> {
        for name in std::mem::take(&mut self.claimed) {
            if !self.folder.join(&name).exists() {
                self.files.remove(&name);
            }
        }
        self.write()
    }

    fn write(&self) -> Result<()> {
        Ok(atomic::write_file(&Listing::path(&self.folder, self.maker), &Listing::bytes(&self.files))?)
    }

    /// The file of a list with these files.
    pub fn bytes(files: &BTreeMap<String, Option<Entry>>) -> Vec<u8> {
        let files = files.clone();
        json::canonical(&Stored { format: FORMAT.to_owned(), version: VERSION, files })
    }

    /// Problems of the files on the list, except those that `is_known` says are checked elsewhere.
    pub fn verify(&self, is_known: impl Fn(&str) -> bool) -> Verified {
        let mut verified = Verified::default();
        for (name, entry) in self.files.iter().filter(|(name, _)| !is_known(name)) {
            let path = self.folder.join(name);
            let Some(entry) = entry else {
                verified.not_covered.push(path);
                continue;
            };
            verified.checked += 1;
            verified.problems.extend(match Entry::of_file(&path) {
                Ok(found) if found == *entry => None,
                Ok(found) if found.bytes != entry.bytes => Some(format!(
                    "{}: has {} bytes, {} were written",
                    path.display(),
                    found.bytes,
                    entry.bytes
                )),
                Ok(found) => Some(format!(
                    "{}: blake3 is {}, {} was written",
                    path.display(),
                    found.blake3.short(),
                    entry.blake3.short()
                )),
                Err(e) => Some(e.to_string()),
            });
        }
        verified
    }
}

/// Whether a folder is the output of a build, of this version or an earlier one, finished or not.
pub fn is_output(folder: &Path) -> bool {
    let json = |name: &str, keys: [&str; 2]| {
        let bytes = fs::read(folder.join(name)).ok();
        let value = bytes.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        value.is_some_and(|value| keys.iter().all(|key| value.get(key).is_some()))
    };
    Listing::path(folder, Maker::Build).is_file()
        || folder.join(Manifest::FILE).is_file() && Manifest::read(folder).is_ok()
        || json("work/finished.json", ["fingerprint", "manifest"])
        || json("work/parts.json", ["version", "parts"])
}

/// Refuses to replace a file given by a flag, unless `is_ours` recognizes its first 64 KiB or it is empty.
///
/// # Errors
/// [`Error::Usage`] naming it, or it cannot be read.
pub fn check_single(path: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    let mut start = Vec::new();
    match File::open(path).and_then(|file| file.take(64 << 10).read_to_end(&mut start)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io(path, "read"))?,
    };
    match start.is_empty() || is_ours(&String::from_utf8_lossy(&start)) {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{} already exists, and this command did not write it; move it away or name another file",
            path.display()
        ))),
    }
}

/// Result of comparing files with their list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that were read.
    pub checked: u64,
    /// What is wrong with them.
    pub problems: Vec<String>,
    /// Files of ours without a digest.
    pub not_covered: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Listing {
        Listing::open(folder, Maker::Build, []).unwrap()
    }

    #[test]
    fn files_of_others_are_neither_replaced_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("audit")).unwrap();
        fs::write(dir.path().join("audit/2024.csv"), "precious").unwrap();
        let error = open(dir.path()).claim(["audit/2024.csv".to_owned()]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("audit/2024.csv is in the way"), "{error}");

        let mut listing = open(dir.path());
        listing.claim(["audit/a".to_owned(), "never".to_owned()]).unwrap();
        // A kill here leaves the name, so the next command may replace the file.
        assert!(open(dir.path()).has("audit/a"));
        listing.write_file("audit/a", b"x").unwrap();
        listing.finish().unwrap();
        assert_eq!(open(dir.path()).files().keys().collect::<Vec<_>>(), ["audit/a"]);

        let mut listing = open(dir.path());
        listing.remove(|_| false).unwrap();
        listing.finish().unwrap();
        assert!(!dir.path().join("audit/a").exists());
        assert_eq!(fs::read(dir.path().join("audit/2024.csv")).unwrap(), b"precious");
    }

    #[test]
    fn every_changed_byte_of_a_file_and_of_its_list_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut listing = open(dir.path());
        listing.claim(["a".to_owned(), "b".to_owned()]).unwrap();
        listing.write_file("a", b"some text").unwrap();
        listing.write_file("b", b"other text").unwrap();
        listing.finish().unwrap();
        let verify = || open(dir.path()).verify(|name| name == "b");
        assert_eq!(verify(), Verified { checked: 1, ..Verified::default() });
        fs::write(dir.path().join("a"), b"some tExt").unwrap();
        assert!(verify().problems[0].contains("blake3 is"), "{:?}", verify());
        fs::write(dir.path().join("a"), b"some").unwrap();
        assert!(verify().problems[0].contains("has 4 bytes, 9 were written"), "{:?}", verify());

        fs::write(dir.path().join("a"), b"some text").unwrap();
        let path = Listing::path(dir.path(), Maker::Build);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            // Any other digest, size or name does not match the files.
            let noticed = match Listing::read(dir.path(), Maker::Build) {
                Err(e) => e.exit_code() == 3,
                Ok(found) => !found.unwrap().verify(|_| false).problems.is_empty(),
            };
            assert!(noticed, "byte {at}");
        }
    }

    #[test]
    fn a_list_that_names_files_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = Listing::path(dir.path(), Maker::Build);
        for name in ["../thesis.txt", "/home/x", "a/../../b", "a\\b", "c:x"] {
            let text =
                json::canonical(&serde_json::json!({"format": FORMAT, "version": 1, "files": {name: null}}));
            atomic::write_file(&path, &text).unwrap();
            let error = Listing::read(dir.path(), Maker::Build).unwrap_err();
            assert_eq!(error.exit_code(), 3, "{name}");
            assert!(error.to_string().contains("not below the folder"), "{error}");
        }
    }
}
