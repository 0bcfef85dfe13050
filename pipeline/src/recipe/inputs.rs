//! Finds the files that the paths of a recipe mean. The list is sorted, so that the order of the
//! parts does not depend on the file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

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
}

/// Files behind `paths`, relative to `base`.
///
/// A file is taken as it is, a folder with all files below it except hidden ones, a pattern with
/// all files it matches. A URL (`s3://`, `gs://`, `az://`) means objects in the same way.
///
/// # Errors
/// One message for each path that leads nowhere.
pub fn find(base: &Path, paths: &[String]) -> Result<Vec<InputFile>, Vec<String>> {
    let mut files = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        let before = files.len();
        let result = match objects::is_url(Path::new(path)) {
            true => find_objects(path, &mut files),
            false => find_one(&base.join(objects::without_file_scheme(path)), &mut files),
        };
        match result {
            Err(message) => wrong.push(format!("`{path}`: {message}")),
            Ok(()) if files.len() == before => wrong.push(format!("`{path}`: no file is there")),
            Ok(()) => {}
        }
    }
    files.sort();
    files.dedup_by(|a, b| a.path == b.path);
    if wrong.is_empty() { Ok(files) } else { Err(wrong) }
}

fn find_objects(url: &str, files: &mut Vec<InputFile>) -> Result<(), String> {
    files.extend(objects::find(url)?.into_iter().map(|object| InputFile {
        path: PathBuf::from(object.url),
        name: object.name,
        n_bytes: object.n_bytes,
        changed_nanos: object.changed_nanos,
        etag: object.etag,
    }));
    Ok(())
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
    let data = fs::metadata(path).map_err(refused)?;
    let changed = data.modified().map_err(refused)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = fs::canonicalize(path).map_err(refused)?;
    files.push(InputFile {
        path,
        name: name.to_owned(),
        n_bytes: data.len(),
        changed_nanos: changed.as_nanos(),
        etag: None,
    });
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
