//! Finds the files that the paths of a recipe mean. The list is sorted, so that the order of the
//! parts does not depend on the file system.

mod identity;
mod ours;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::identity::Place;
use self::ours::Ours;
use crate::objects;

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputFile {
    /// Absolute where the recipe's folder is; or the URL of an object.
    pub path: PathBuf,
    /// Its place below the listed folder, with `/`: the id of a text file's document.
    pub name: String,
    /// Size on the disk.
    pub n_bytes: u64,
    /// Last change, in nanoseconds since 1970; with path and size, the identity of the file.
    pub changed_nanos: u128,
    /// What an object store says changes with the content; part of the identity too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Where the content lay when the file was found; not part of the identity, since a copy has another.
    #[serde(skip)]
    pub place: Option<Place>,
}

/// Files to read, and what lies among them and is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The files.
    pub files: Vec<InputFile>,
    /// How many files of ours were left out, by the folder of ours that they lie in.
    pub left_out: BTreeMap<PathBuf, u64>,
}

impl Found {
    /// What was left out, for people.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.left_out.iter().map(|(folder, n)| {
            let (is_file, folder) = (folder.is_file(), folder.display());
            match is_file {
                true => format!("{folder} is where this command prints to, and is left out of the input"),
                false => {
                    format!("{folder} was made by this program: {n} files in it are left out of the input")
                }
            }
        })
    }
}

/// Files behind `paths`, relative to `base`.
///
/// A file is taken as it is, a folder with all files below it except hidden ones, a pattern with
/// all files it matches. A URL (`s3://`, `gs://`, `az://`) means objects in the same way.
///
/// # Errors
/// One message for each path that leads nowhere.
pub fn find(base: &Path, paths: &[String]) -> Result<Vec<InputFile>, Vec<String>> {
    search(base, paths, false).map(|found| found.files)
}

/// The same without what builds, caches of completions, exports and runs of `moe-train` have written.
///
/// # Errors
/// One message for each path that leads nowhere, or only to such files.
pub fn find_input(base: &Path, paths: &[String]) -> Result<Found, Vec<String>> {
    search(base, paths, true)
}

fn search(base: &Path, paths: &[String], is_input: bool) -> Result<Found, Vec<String>> {
    let mut found = Found::default();
    let mut wrong = Vec::new();
    let mut ours = Ours::new();
    for path in paths {
        let mut files = Vec::new();
        let result = match objects::is_url(Path::new(path)) {
            true => find_objects(path, is_input, &mut files, &mut found.left_out),
            false => find_one(&base.join(objects::without_file_scheme(path)), &mut files).map(|()| 0),
        };
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
                "`{path}`: all {} files there were written by this program, whose output is no input; copy what you want to read elsewhere",
                n_left_out + n_objects
            )),
            Ok(_) if files.is_empty() => wrong.push(format!("`{path}`: no file is there")),
            Ok(_) => found.files.append(&mut files),
        }
    }
    found.files.sort();
    found.files.dedup_by(|a, b| a.path == b.path);
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

/// Says how many objects of ours were left out.
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

fn find_one(path: &Path, files: &mut Vec<InputFile>) -> Result<(), String> {
    let text = path.to_string_lossy();
    // A file whose own name holds such a character is taken as it is.
    if text.contains(['*', '?', '[']) && !path.exists() {
        let matches = glob::glob(&text).map_err(|e| format!("is not a pattern: {e}"))?;
        for found in matches {
            let found = found.map_err(|e| e.to_string())?;
            if found.is_file() {
                add(&found, &file_name(&found), files)?;
            }
        }
        return Ok(());
    }
    let kind = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("does not exist ({})", path.display()),
        _ => e.to_string(),
    })?;
    if kind.is_dir() { walk(path, "", files) } else { add(path, &file_name(path), files) }
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<InputFile>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        let name = file_name(&path);
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        if path.is_dir() { walk(&path, &format!("{name}/"), files)? } else { add(&path, &name, files)? }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn add(path: &Path, name: &str, files: &mut Vec<InputFile>) -> Result<(), String> {
    let refused = |e: std::io::Error| format!("{}: {e}", path.display());
    let path = fs::canonicalize(path).map_err(refused)?;
    files.push(InputFile::of_file(&path, name.to_owned()).map_err(refused)?);
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
