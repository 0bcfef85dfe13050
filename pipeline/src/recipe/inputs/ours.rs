//! Tells our own output from input. An output folder is often inside the folder that is read, and its text is not
//! the user's: it would be read again, and every build would grow.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::listing::{self, Listing, Maker};

/// What was found out of folders.
#[derive(Debug)]
pub(super) struct Ours {
    /// Device and inode of the files that this command prints to.
    printed: Vec<(u64, u64)>,
    /// Our outermost folder around each folder, by its canonical path.
    around: BTreeMap<PathBuf, Option<PathBuf>>,
    /// Lists of exports, which may be among foreign files.
    exports: BTreeMap<PathBuf, Option<Listing>>,
}

impl Ours {
    /// Starts without any known folders.
    pub(super) fn new() -> Ours {
        // Systems without such names cannot tell.
        let printed = ["/dev/stdout", "/dev/stderr"].into_iter().filter_map(|name| fs::metadata(name).ok());
        let printed = printed.filter(fs::Metadata::is_file).map(|data| (data.dev(), data.ino()));
        Ours { printed: printed.collect(), around: BTreeMap::new(), exports: BTreeMap::new() }
    }

    /// Our folder that contains a file, given by its canonical path; the file itself if this command prints to it.
    pub(super) fn folder_of(&mut self, file: &Path) -> Option<PathBuf> {
        let inode = fs::metadata(file).map(|data| (data.dev(), data.ino()));
        if inode.is_ok_and(|inode| self.printed.contains(&inode)) {
            return Some(file.to_owned());
        }
        let parent = file.parent()?;
        if let Some(folder) = self.around(parent) {
            return Some(folder);
        }
        let export = self.exports.entry(parent.to_owned()).or_insert_with(|| {
            // A damaged list names nothing.
            Listing::read(parent, Maker::Export).unwrap_or_default()
        });
        let name = file.file_name()?.to_str()?;
        export.as_ref().is_some_and(|export| export.has(name)).then(|| parent.to_owned())
    }

    fn around(&mut self, folder: &Path) -> Option<PathBuf> {
        if let Some(known) = self.around.get(folder) {
            return known.clone();
        }
        let outer = folder.parent().and_then(|parent| self.around(parent));
        let found = outer.or_else(|| is_ours(folder).then(|| folder.to_owned()));
        self.around.insert(folder.to_owned(), found.clone());
        found
    }
}

/// Whether a folder is entirely ours: the output of a build, a cache of completions, a run of `moe-train`.
fn is_ours(folder: &Path) -> bool {
    let is_cache = || starts_with(&folder.join("poisoned.jsonl"), br#"{"format":"moe-poison-list""#);
    let is_run = || {
        let has = |name: &str| folder.join(name).exists();
        has("config.lock.toml") && has("checkpoints")
    };
    listing::is_output(folder) || is_cache() || is_run()
}

fn starts_with(path: &Path, start: &[u8]) -> bool {
    let mut found = vec![0; start.len()];
    // Other kinds of files may never end, or have no writer.
    fs::metadata(path).is_ok_and(|data| data.is_file())
        && File::open(path).and_then(|mut file| file.read_exact(&mut found)).is_ok()
        && found == start
}

#[cfg(test)]
mod tests {
    use super::super::{Choice, find, find_input};
    use super::*;

    #[test]
    fn output_of_ours_is_left_out_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let list = r#"{"format":"moe-data-files","version":1,"files":{}}"#;
        for (name, text) in [
            ("in/a.txt", "x"),
            ("in/sub/b.txt", "x"),
            ("in/sub/out/.moe-data/build.json", list),
            ("in/sub/out/quarantine/q.jsonl", "x"),
            ("in/sub/out/work/read/d.txt", "x"),
            ("in/cache/poisoned.jsonl", "{\"format\":\"moe-poison-list\",\"version\":1}\n"),
            ("in/cache/completions-00000.jsonl", "x"),
            ("in/run/config.lock.toml", "x"),
            ("in/run/checkpoints/step-1/meta.json", "x"),
            ("elsewhere/.moe-data/build.json", list),
            ("elsewhere/shards/a.bin", "x"),
        ] {
            write(name, text);
        }
        std::os::unix::fs::symlink(dir.path().join("elsewhere/shards"), dir.path().join("in/link")).unwrap();
        let names = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            find_input(dir.path(), &paths, &Choice::default()).map(|found| {
                let names: Vec<String> = found.files.iter().map(|file| file.name.clone()).collect();
                (names, found.left_out.values().sum::<u64>(), found.warnings().count())
            })
        };
        let both = vec!["a.txt".to_owned(), "sub/b.txt".to_owned()];
        assert_eq!(names(&["in"]), Ok((both, 7, 4)));
        assert_eq!(names(&["in/**/*.txt", "in/a.txt"]).unwrap().1, 1);
        for ours in ["in/sub/out", "in/sub/out/quarantine/q.jsonl", "in/link", "in/*/out/*/*.jsonl"] {
            let wrong = names(&[ours]).unwrap_err();
            assert!(wrong[0].contains("written by this program"), "{wrong:?}");
        }
        assert_eq!(find(dir.path(), &["in/sub/out/quarantine".to_owned()]).unwrap().len(), 1);
    }
}
