//! Walks folders. Unreadable entries are skipped with a note: a pipe, which would block the build forever, a
//! dangling or circular link, a folder without permission.

use std::collections::BTreeSet;
use std::fs::{self, FileType, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::rules::Rules;
use super::{InputFile, Skipped};

/// A search below one path.
#[derive(Default)]
pub(super) struct Walk {
    /// The files, in no order.
    pub files: Vec<InputFile>,
    /// What was passed over.
    pub skipped: Vec<Skipped>,
    /// The file, if the path is a file.
    pub named: Option<PathBuf>,
    /// Patterns of the folders' own files.
    pub rules: Rules,
    /// Whether those of `.gitignore` count.
    with_git: bool,
    /// What is wrong with these.
    pub wrong: Vec<String>,
    /// Device and inode of the folders that were visited.
    seen: BTreeSet<(u64, u64)>,
    /// Links to folders, which are visited last, so that a folder's own files keep their names.
    links: Vec<(PathBuf, String)>,
}

impl Walk {
    /// An empty search.
    pub fn new(with_git: bool) -> Walk {
        Walk { with_git, ..Walk::default() }
    }

    /// Searches.
    pub fn one(&mut self, path: &Path) -> Result<(), String> {
        let text = path.to_string_lossy();
        // A file whose own name contains such a character is taken literally.
        if text.contains(['*', '?', '[']) && !path.exists() {
            let matches = glob::glob(&text).map_err(|e| format!("is not a pattern: {e}"))?;
            for found in matches {
                match found {
                    Ok(found) if found.is_dir() => {}
                    Ok(found) => self.entry(&found, file_name(&found)),
                    Err(e) => self.skip("unreadable folder", e.path(), e.error()),
                }
            }
            return Ok(());
        }
        let data = fs::metadata(path).map_err(|e| match (e.kind(), path.is_symlink()) {
            (std::io::ErrorKind::NotFound, true) => {
                format!("is a link that leads nowhere ({})", path.display())
            }
            (std::io::ErrorKind::NotFound, false) => format!("does not exist ({})", path.display()),
            _ => e.to_string(),
        })?;
        if data.is_dir() {
            // The one requested folder must exist.
            fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
            self.folder(path, "", &data);
            while let Some((path, name)) = self.links.pop() {
                match fs::metadata(&path) {
                    Ok(data) => self.folder(&path, &name, &data),
                    Err(e) => self.skip("unreadable folder", &path, &e),
                }
            }
            return Ok(());
        }
        if let Some(kind) = special(data.file_type()) {
            return Err(format!("is a {kind}; expected a file or a folder"));
        }
        let file = input_file(path, file_name(path)).map_err(|e| format!("{}: {e}", path.display()))?;
        self.named = Some(file.path.clone());
        self.files.push(file);
        Ok(())
    }

    fn folder(&mut self, folder: &Path, prefix: &str, data: &Metadata) {
        if !self.seen.insert((data.dev(), data.ino())) {
            self.skipped.push(Skipped {
                kind: "link to a folder that is read already",
                place: folder.display().to_string(),
            });
            return;
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) => return self.skip("unreadable folder", folder, &e),
        };
        self.wrong.extend(self.rules.add_files(folder, prefix, self.with_git).err());
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(e) => self.skip("unreadable folder", folder, &e),
            }
        }
        // Which of two links to one folder is followed does not depend on the file system.
        paths.sort();
        for path in paths {
            let name = file_name(&path);
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            match fs::metadata(&path) {
                Ok(data) if data.is_dir() && path.is_symlink() => self.links.push((path, format!("{name}/"))),
                Ok(data) if data.is_dir() => self.folder(&path, &format!("{name}/"), &data),
                _ => self.entry(&path, name),
            }
        }
    }

    /// An entry of a folder that is not a folder.
    fn entry(&mut self, path: &Path, name: String) {
        match fs::metadata(path) {
            Ok(data) => match special(data.file_type()) {
                Some(kind) => self.skipped.push(Skipped { kind, place: path.display().to_string() }),
                None => match input_file(path, name) {
                    Ok(file) => self.files.push(file),
                    Err(e) => self.skip("unreadable file", path, &e),
                },
            },
            Err(e) if path.is_symlink() => self.skip("link that leads nowhere", path, &e),
            Err(e) => self.skip("unreadable file", path, &e),
        }
    }

    fn skip(&mut self, kind: &'static str, path: &Path, error: &std::io::Error) {
        self.skipped.push(Skipped { kind, place: format!("{} ({error})", path.display()) });
    }
}

/// Neither a file nor a folder: reading it would block or never end.
fn special(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_fifo() => Some("named pipe"),
        () if kind.is_socket() => Some("socket"),
        () if kind.is_char_device() || kind.is_block_device() => Some("device"),
        () => None,
    }
}

/// The last part of a path as text; bytes that are not UTF-8 are written as `\xE9`.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02X}")));
        text
    })
}

fn input_file(path: &Path, name: String) -> std::io::Result<InputFile> {
    InputFile::of_file(&fs::canonicalize(path)?, name)
}
