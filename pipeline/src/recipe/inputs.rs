//! Finds the files at the paths of a recipe. The list is sorted, so that the order of the
//! parts does not depend on the file system.

pub mod any_path;
mod identity;
mod ours;
mod rules;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::identity::Place;
use self::ours::Ours;
pub use self::rules::Rules;
use self::walk::Walk;
use crate::objects;

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputFile {
    /// Absolute if the recipe's folder is; or the URL of an object.
    #[serde(with = "any_path")]
    pub path: PathBuf,
    /// Its path below the listed folder, with `/`: the id of a text file's document. Bytes that are not UTF-8 are
    /// written as `\xE9`.
    pub name: String,
    /// Size on the disk.
    pub n_bytes: u64,
    /// Last change, in nanoseconds since 1970; with path and size, the identity of the file.
    pub changed_nanos: u128,
    /// The object store's version of the content; part of the identity too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Where the content was when the file was found; not part of the identity, since it differs for a copy.
    #[serde(skip)]
    pub place: Option<Place>,
}

/// Files to read, and entries among them that are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The files.
    pub files: Vec<InputFile>,
    /// Number of our own files left out, by their folder.
    pub left_out: BTreeMap<PathBuf, u64>,
    /// Unreadable entries, sorted.
    pub skipped: Vec<Skipped>,
    /// Files named directly, not by a folder or a pattern.
    pub named: BTreeSet<PathBuf>,
}

/// An entry among the files that is skipped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Its kind, as the ledger counts it.
    pub kind: &'static str,
    /// Its path, and more about it.
    pub place: String,
}

impl Found {
    /// What was left out or skipped, for people.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let skipped = self.skipped.chunk_by(|a, b| a.kind == b.kind).map(|same| {
            let more = if same.len() > 1 { format!(" and {} more", same.len() - 1) } else { String::new() };
            format!("skipped a {}: {}{more}", same[0].kind, same[0].place)
        });
        let left_out = self.left_out.iter().map(|(folder, n)| {
            let (is_file, folder) = (folder.is_file(), folder.display());
            match is_file {
                true => format!("{folder} is where this command prints to, and is left out of the input"),
                false => {
                    format!("{folder} was made by this program: {n} files in it are left out of the input")
                }
            }
        });
        left_out.chain(skipped)
    }
}

/// The files at `paths`, relative to `base`.
///
/// A file is taken as it is, a folder with all files below it except hidden ones, a pattern with
/// all files it matches. A URL (`s3://`, `gs://`, `az://`) means objects in the same way.
///
/// # Errors
/// One message for each path that matches nothing.
pub fn find(base: &Path, paths: &[String]) -> Result<Vec<InputFile>, Vec<String>> {
    search(base, paths, None).map(|found| found.files)
}

/// The same without the output of builds, completion caches, exports and `moe-train`.
///
/// # Errors
/// One message for each path that matches nothing, or only such files.
pub fn find_input(base: &Path, paths: &[String], choice: &Choice<'_>) -> Result<Found, Vec<String>> {
    search(base, paths, Some(choice))
}

/// Which files to read: patterns as in a `.gitignore`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// Only files that match one of these; all when empty.
    pub include: &'a [String],
    /// Skip files that match one of these.
    pub exclude: &'a [String],
    /// Also skip files that a `.gitignore` in the folders covers.
    pub gitignore: bool,
}

const NOT_INCLUDED: &str = "file that `include` does not name";
const EXCLUDED: &str = "file that `exclude`, .moeignore or .gitignore names";

fn search(base: &Path, paths: &[String], choice: Option<&Choice<'_>>) -> Result<Found, Vec<String>> {
    let is_input = choice.is_some();
    let (mut include, mut exclude) = (Rules::default(), Rules::default());
    if let Some(choice) = choice {
        include.add("", choice.include.iter().map(String::as_str)).map_err(|message| vec![message])?;
        exclude.add("", choice.exclude.iter().map(String::as_str)).map_err(|message| vec![message])?;
    }
    let mut found = Found::default();
    let mut wrong = Vec::new();
    let mut ours = Ours::new();
    for path in paths {
        let with_git = choice.is_some_and(|choice| choice.gitignore);
        let mut walk = Walk::new(with_git);
        let result = match objects::is_url(Path::new(path)) {
            true => find_objects(path, is_input, &mut walk.files, &mut found.left_out),
            false => walk.one(&base.join(objects::without_file_scheme(path))).map(|()| 0),
        };
        let mut files = walk.files;
        wrong.append(&mut walk.wrong);
        let n_found = files.len();
        files.retain(|file| {
            let kind = match () {
                () if !include.is_empty() && !include.covers(&file.name) => NOT_INCLUDED,
                () if is_input && (exclude.covers(&file.name) || walk.rules.covers(&file.name)) => EXCLUDED,
                () => return true,
            };
            walk.skipped.push(Skipped { kind, place: file.path.display().to_string() });
            false
        });
        if files.is_empty() && n_found > 0 {
            wrong.push(format!(
                "`{path}`: none of its {n_found} files is left by `include`, `exclude`, .moeignore and .gitignore"
            ));
            continue;
        }
        let n_before: u64 = found.left_out.values().sum();
        if is_input {
            files.retain(|file| match ours.folder_of(&file.path) {
                None => true,
                Some(folder) => {
                    *found.left_out.entry(folder).or_default() += 1;
                    false
                }
            });
        }
        let n_left_out = found.left_out.values().sum::<u64>() - n_before;
        match result {
            Err(message) => wrong.push(format!("`{path}`: {message}")),
            Ok(n_objects) if files.is_empty() && n_left_out + n_objects > 0 => wrong.push(format!(
                "`{path}`: all {} files there were written by this program, whose output is never input; copy the files to read somewhere else",
                n_left_out + n_objects
            )),
            Ok(_) if files.is_empty() => {
                let why = walk.skipped.first().map(|s| format!("; {}: {}", s.kind, s.place)).unwrap_or_default();
                wrong.push(format!("`{path}`: no file is there{why}"));
            }
            Ok(_) => found.files.append(&mut files),
        }
        found.skipped.append(&mut walk.skipped);
        found.named.extend(walk.named);
    }
    found.files.sort();
    found.files.dedup_by(|a, b| a.path == b.path);
    found.skipped.sort();
    found.skipped.dedup();
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

/// Prints how many of our objects were left out.
fn find_objects(
    url: &str,
    is_input: bool,
    files: &mut Vec<InputFile>,
    left_out: &mut BTreeMap<PathBuf, u64>,
) -> Result<u64, String> {
    let mut n_left_out = 0;
    for object in objects::find(url)? {
        if let Some(folder) = object.output.as_ref().filter(|_| is_input) {
            *left_out.entry(PathBuf::from(folder)).or_default() += 1;
            n_left_out += 1;
            continue;
        }
        let name = object.name.clone();
        files.push(InputFile::of_object(object, name));
    }
    Ok(n_left_out)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn files_folders_and_patterns() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", "sub/c.txt", ".hidden", "sub/.git/x"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let names = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|p| p.to_string()).collect();
            find(dir.path(), &paths).map(|f| f.into_iter().map(|f| f.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["a.txt"]).unwrap(), ["a.txt"]);
        assert_eq!(names(&["."]).unwrap(), ["a.txt", "b.txt", "sub/c.txt"]);
        assert_eq!(names(&["*.txt", "a.txt"]).unwrap(), ["a.txt", "b.txt"]);
        let wrong = names(&["none.txt", "*.nix", "a.txt"]).unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].contains("does not exist"), "{wrong:?}");
        assert!(wrong[1].contains("no file is there"), "{wrong:?}");
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_with_a_note() {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name: &str| dir.path().join(name);
        fs::create_dir(inside("sub")).unwrap();
        fs::write(inside("sub/a.txt"), "x").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, inside(name)).unwrap();
        link(".", "loop");
        link("sub", "again");
        link("nowhere", "dangling");
        let odd = dir.path().join(OsStr::from_bytes(b"latin-\xe9.txt"));
        fs::write(&odd, "x").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
        let found = search(dir.path(), &[".".to_owned()], Some(&Choice::default())).unwrap();
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["latin-\\xE9.txt", "sub/a.txt"]);
        let kinds: Vec<&str> = found.skipped.iter().map(|skipped| skipped.kind).collect();
        let again = "link to a folder that is read already";
        assert_eq!(kinds, ["link that leads nowhere", again, again, "socket"]);
        let text = serde_json::to_string(&found.files).unwrap();
        let again = serde_json::from_str::<Vec<InputFile>>(&text).unwrap();
        assert!(again.iter().zip(&found.files).all(|(a, b)| a.path == b.path));
        for name in ["socket", "dangling"] {
            assert!(search(dir.path(), &[name.to_owned()], Some(&Choice::default())).is_err(), "{name}");
        }
        let wrong = search(dir.path(), &["s*t".to_owned()], Some(&Choice::default())).unwrap_err();
        assert!(wrong[0].contains("no file is there; socket"), "{wrong:?}");
    }

    #[test]
    fn patterns_choose_among_the_files_of_a_folder_and_what_is_left_out_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.txt", "x"),
            ("b.tmp", "x"),
            ("c.png", "x"),
            ("sub/d.txt", "x"),
            ("sub/e.txt", "x"),
            ("sub/.moeignore", "# not this one\ne.txt\n"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let look = |include: &[&str], exclude: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|p| p.to_string()).collect::<Vec<String>>();
            let (include, exclude) = (owned(include), owned(exclude));
            let choice = Choice { include: &include, exclude: &exclude, gitignore: false };
            find_input(dir.path(), &[".".to_owned()], &choice)
        };
        let names = |found: &Found| found.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
        let found = look(&["*.txt"], &[]).unwrap();
        assert_eq!(names(&found), ["a.txt", "sub/d.txt"]);
        let kinds: Vec<&str> = found.skipped.iter().map(|skipped| skipped.kind).collect();
        assert_eq!(kinds, [EXCLUDED, NOT_INCLUDED, NOT_INCLUDED]);
        assert_eq!(names(&look(&[], &["*.tmp", "sub/"]).unwrap()), ["a.txt", "c.png"]);
        assert!(look(&["*.none"], &[]).unwrap_err()[0].contains("none of its 5 files is left"));
        assert!(look(&["a[b"], &[]).unwrap_err()[0].contains("not a pattern"));

        // Data is often in git-ignored places, so .gitignore files count only on request.
        fs::write(dir.path().join(".gitignore"), "*.png\nsub/\na[b\n!a.txt\n").unwrap();
        assert_eq!(names(&look(&[], &[]).unwrap()).len(), 4);
        let choice = Choice { gitignore: true, ..Choice::default() };
        let found = find_input(dir.path(), &[".".to_owned()], &choice).unwrap();
        assert_eq!(names(&found), ["a.txt", "b.tmp"]);
        assert_eq!(found.skipped.len(), 3);
    }
}
