//! Lists that a user gives rules: text files, plain or gzip, one entry per line; blank lines and lines that begin with
//! `#` are skipped. A list is read once per process, however many tasks use it.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;

/// The entries of one or more files, sorted, each once.
#[derive(Debug, Default)]
pub struct List {
    text: String,
    /// First byte and length of each entry.
    entries: Vec<(usize, usize)>,
}

impl List {
    /// The entries of text files, each in the form given by `form`; entries that become empty are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or is not UTF-8, with its name and line.
    pub fn read(paths: &[String], form: impl Fn(&str) -> String) -> Result<List, String> {
        let mut list = List::default();
        for path in paths {
            list.add(&read_text(Path::new(path))?, &form);
        }
        list.sort();
        Ok(list)
    }

    fn add(&mut self, text: &str, form: &impl Fn(&str) -> String) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let entry = form(line);
            if !entry.is_empty() {
                self.entries.push((self.text.len(), entry.len()));
                self.text.push_str(&entry);
            }
        }
    }

    fn sort(&mut self) {
        let text = &self.text;
        let entry = |&(start, len): &(usize, usize)| &text[start..start + len];
        self.entries.sort_unstable_by_key(entry);
        self.entries.dedup_by(|a, b| entry(a) == entry(b));
        self.entries.shrink_to_fit();
    }

    /// Entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|&(start, len)| &self.text[start..start + len])
    }

    /// Whether a text is an entry.
    pub fn contains(&self, text: &str) -> bool {
        self.entries.binary_search_by(|&(start, len)| self.text[start..start + len].cmp(text)).is_ok()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
impl List {
    pub(super) fn of(entries: &[&str]) -> List {
        let mut list = List::default();
        list.add(&entries.join("\n"), &str::to_owned);
        list.sort();
        list
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let refused = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut bytes = fs::read(path).map_err(refused)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(refused)?;
        bytes = plain;
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + memchr::memchr_iter(b'\n', &e.as_bytes()[..e.utf8_error().valid_up_to()]).count();
        format!("{}:{line}: is not UTF-8; convert the list", path.display())
    })
}

/// Values made from files, by their inputs; the files of a build do not change while it runs.
pub(super) struct Cache<T> {
    made: Mutex<Vec<(String, Arc<T>)>>,
}

impl<T> Cache<T> {
    pub(super) const fn new() -> Cache<T> {
        Cache { made: Mutex::new(Vec::new()) }
    }

    /// The value under `key`, made by `make` if missing. Other threads wait meanwhile, since they want the same.
    pub(super) fn get(
        &self,
        key: String,
        make: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, thing)) = made.iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(thing));
        }
        let thing = Arc::new(make()?);
        made.push((key, Arc::clone(&thing)));
        Ok(thing)
    }
}

/// What identifies files to a [`Cache`]: paths with sizes and times of change.
pub(super) fn key_of<'p>(paths: impl IntoIterator<Item = &'p String>) -> String {
    let mut key = String::new();
    for path in paths {
        let data = fs::metadata(path).ok();
        let changed = data.as_ref().and_then(|data| data.modified().ok());
        key.push_str(&format!("{path}\n{:?}\n{changed:?}\n", data.map(|data| data.len())));
    }
    key
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn entries_are_lines_of_plain_or_gzip_files() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain.txt");
        fs::write(&plain, "# a list\nb.example\n\n  A.example \r\nb.example\n-\n").unwrap();
        let packed = dir.path().join("packed.gz");
        let mut gz =
            flate2::write::GzEncoder::new(fs::File::create(&packed).unwrap(), flate2::Compression::fast());
        gz.write_all(b"c.example\n").unwrap();
        gz.finish().unwrap();
        let paths = [plain, packed].map(|path| path.display().to_string());
        let list = List::read(&paths, |line| line.trim_matches('-').to_lowercase()).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), ["a.example", "b.example", "c.example"]);
        assert!(list.contains("b.example") && !list.contains("b") && !list.is_empty());
    }

    #[test]
    fn a_list_that_is_no_text_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.txt");
        fs::write(&path, b"ok\nok\n\xff\n").unwrap();
        let error = List::read(&[path.display().to_string()], str::to_owned).unwrap_err();
        assert!(error.contains("l.txt:3: is not UTF-8"), "{error}");
        let error = List::read(&["no/such/file".to_owned()], str::to_owned).unwrap_err();
        assert!(error.contains("no/such/file"), "{error}");
    }

    #[test]
    fn what_is_made_is_made_once() {
        static CACHE: Cache<u32> = Cache::new();
        assert!(CACHE.get("a".into(), || Err("no".into())).is_err());
        assert_eq!(*CACHE.get("a".into(), || Ok(1)).unwrap(), 1);
        assert_eq!(*CACHE.get("a".into(), || Ok(2)).unwrap(), 1);
    }
}
