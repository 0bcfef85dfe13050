//! Whether a file is still the one that was found. Writing to a file while it is read mixes two versions of its contents,
//! and no reader can tell.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::InputFile;
use crate::error::{Error, Result};
use crate::objects;

/// Which content a path had, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Device and inode.
    inode: (u64, u64),
    /// Last change of the inode, in seconds and nanoseconds since 1970: unlike the modification time, no
    /// program can set it.
    inode_changed: (i64, i64),
}

impl InputFile {
    /// Runs a reader of the file, and checks that the file did not change meanwhile.
    ///
    /// # Errors
    /// [`Error::Data`] when it was changed, replaced or removed since it was found; errors of `read`.
    pub fn unchanged<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.check_unchanged()?;
        match read() {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            // The change may look like damage.
            done => before.check_read().and(done),
        }
    }

    /// The second half of [`InputFile::unchanged`], on the value that [`InputFile::check_unchanged`] returned before reading.
    ///
    /// # Errors
    /// [`Error::Data`] when it is a different file.
    pub fn check_read(&self) -> Result<()> {
        self.compare(true).map(drop)
    }

    /// Compares the file with its first state, and returns its current one.
    ///
    /// # Errors
    /// [`Error::Data`] when it is a different file.
    pub fn check_unchanged(&self) -> Result<InputFile> {
        // The links and permissions of a file may change before it is read.
        self.compare(false)
    }

    /// `is_strict` counts every change of the inode.
    fn compare(&self, is_strict: bool) -> Result<InputFile> {
        let changed = |how: &str| {
            let message =
                format!("changed while it was read: {how}; let what writes it finish, and run again");
            Err(Error::data(&self.path, message))
        };
        let now = match self.look() {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return changed("it is gone");
            }
            now => now?,
        };
        let inode = |file: &InputFile| file.place.map(|place| place.inode);
        if now.n_bytes != self.n_bytes {
            return changed(&format!("it had {} bytes and has {}", self.n_bytes, now.n_bytes));
        }
        // Another machine with the file from a list of tasks may number it differently.
        let has_moved = self.place.is_some() && inode(&now) != inode(self);
        if now.etag != self.etag || has_moved {
            return changed("another file has taken its place");
        }
        if now.changed_nanos != self.changed_nanos || is_strict && now.place != self.place {
            return changed("it was written to");
        }
        Ok(now)
    }

    /// The file as it is now.
    fn look(&self) -> Result<InputFile> {
        let name = self.name.clone();
        if objects::is_url(&self.path) {
            return Ok(InputFile::of_object(objects::look(&self.path)?, name));
        }
        InputFile::of_file(&self.path, name).map_err(Error::io(&self.path, "look at"))
    }

    pub(super) fn of_object(object: objects::Object, name: String) -> InputFile {
        InputFile {
            path: PathBuf::from(object.url),
            name,
            n_bytes: object.n_bytes,
            changed_nanos: object.changed_nanos,
            etag: object.etag,
            place: None,
        }
    }

    pub(super) fn of_file(path: &Path, name: String) -> io::Result<InputFile> {
        let data = fs::metadata(path)?;
        let changed = data.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let place =
            Place { inode: (data.dev(), data.ino()), inode_changed: (data.ctime(), data.ctime_nsec()) };
        Ok(InputFile {
            path: path.to_owned(),
            name,
            n_bytes: data.len(),
            changed_nanos: changed.as_nanos(),
            etag: None,
            place: Some(place),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::find;
    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let other = dir.path().join("b.jsonl");
        type Change<'a> = &'a dyn Fn();
        let rewrite: Change<'_> = &|| {
            // In place, of the same size, and with the old time.
            let old = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, "other").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        };
        let replace: Change<'_> = &|| {
            fs::write(&other, "lines").unwrap();
            fs::rename(&other, &path).unwrap();
        };
        let changes: [(&str, Change<'_>, bool); 6] = [
            ("it had 5 bytes and has 3", &|| fs::write(&path, "lin").unwrap(), false),
            ("it had 5 bytes and has 9", &|| fs::write(&path, "lines and").unwrap(), false),
            ("it was written to", rewrite, false),
            ("another file has taken its place", replace, false),
            ("it is gone", &|| fs::remove_file(&path).unwrap(), false),
            ("", &|| {}, true),
        ];
        for (how, change, is_same) in changes {
            fs::write(&path, "lines").unwrap();
            let file = find(dir.path(), &["a.jsonl".to_owned()]).unwrap().remove(0);
            // File system times have a tick of a few milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let damage = || -> Result<()> { Err(Error::Usage("damaged".to_owned())) };
            let result = file.unchanged(|| {
                change();
                damage()
            });
            let said = result.unwrap_err();
            if is_same {
                assert_eq!(said.to_string(), "damaged");
                continue;
            }
            assert_eq!(said.exit_code(), 3);
            let said = said.to_string();
            assert!(said.contains("changed while it was read") && said.contains(how), "{said}");
        }
        let file = find(dir.path(), &["a.jsonl".to_owned()]).unwrap().remove(0);
        assert!(file.unchanged(|| Ok(())).is_ok());
        // Also between finding and reading.
        fs::write(&path, "lin").unwrap();
        assert!(file.unchanged(|| Ok(())).is_err());
    }
    #[test]
    fn a_file_from_a_list_of_tasks_is_known_by_size_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        fs::write(&path, "lines").unwrap();
        let file = find(dir.path(), &["a.jsonl".to_owned()]).unwrap().remove(0);
        let listed: InputFile = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
        assert!(listed.unchanged(|| Ok(())).is_ok());
        fs::write(&path, "other lines").unwrap();
        assert!(listed.unchanged(|| Ok(())).unwrap_err().to_string().contains("it had 5 bytes and has 11"));
    }
}
