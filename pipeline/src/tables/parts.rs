//! `work/parts.json`: where each part came from and where its tables are, for commands that inspect single documents.

use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::{atomic, file_names};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::filter::FilterConfig;
use crate::json;
use crate::recipe::inputs::any_path;

/// Name of the file in the work folder.
pub const FILE: &str = "parts.json";
const VERSION: u32 = 4;
/// Oldest readable version: each part was one file.
const OLDEST: u32 = 3;

/// All parts of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    version: u32,
    /// In the order of the build.
    pub parts: Vec<PartPlace>,
    /// Edges of the quality buckets of scores; none without `[quality]`.
    #[serde(default)]
    pub quality_edges: Vec<f64>,
}

/// One part; tables are relative to the work folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartPlace {
    /// Name of its source.
    pub source: String,
    /// The input file, or the first of several.
    #[serde(with = "any_path")]
    pub file: PathBuf,
    /// All of them, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileOfPart>,
    /// Which part of the file, in words; empty for the whole file.
    pub slice: String,
    /// Its documents as they were read.
    pub read: PathBuf,
    /// Its documents as rewriting rules left them.
    pub documents: PathBuf,
    /// Measured values; absent for a source without filters.
    pub measures: Option<PathBuf>,
    /// The filters that measured, in order.
    pub filters: Vec<FilterConfig>,
    /// The documents that the filters kept.
    pub kept: PathBuf,
    /// The removal list of deduplication.
    pub removed: PathBuf,
    /// The list of its cuts.
    pub cuts: PathBuf,
    /// The list of its documents that were put into other families.
    pub families: PathBuf,
    /// Scores that decide the quality of its documents, if `[quality]` made them.
    #[serde(default)]
    pub scores: Option<PathBuf>,
    /// Folder of the tags from filters, if there are any.
    #[serde(default)]
    pub tags: Option<PathBuf>,
    /// Folder of its tokens; absent in a build of text alone.
    #[serde(default)]
    pub tokens: Option<PathBuf>,
    /// Whether it holds variants that `moe-data rephrase` made.
    pub is_rephrased: bool,
}

/// One of the files of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOfPart {
    /// The file.
    #[serde(with = "any_path")]
    pub file: PathBuf,
    /// Documents that were read from it.
    pub documents: u64,
}

impl PartPlace {
    /// The file that document number `row` was read from, and its number among those of the file.
    pub fn place_of(&self, row: u32) -> (&Path, u32) {
        let mut left = u64::from(row);
        for file in &self.files {
            if left < file.documents {
                return (&file.file, left as u32);
            }
            left -= file.documents;
        }
        (&self.file, row)
    }

    /// All paths relative to the work folder.
    fn tables(&self) -> impl Iterator<Item = &Path> {
        let always = [&self.read, &self.documents, &self.kept, &self.removed, &self.cuts, &self.families];
        let sometimes = [&self.measures, &self.scores, &self.tags, &self.tokens];
        always.into_iter().chain(sometimes.into_iter().flatten()).map(PathBuf::as_path)
    }
}

/// A stage that a build lacks leaves an empty path.
fn is_inside(table: &Path) -> bool {
    table.as_os_str().is_empty() || table.to_str().is_some_and(file_names::is_below)
}

impl Parts {
    /// Names of the sources, in their order.
    pub fn sources(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for part in &self.parts {
            if !names.contains(&part.source.as_str()) {
                names.push(&part.source);
            }
        }
        names
    }

    /// A table of these parts.
    pub fn new(parts: Vec<PartPlace>, quality_edges: Vec<f64>) -> Parts {
        Parts { version: VERSION, parts, quality_edges }
    }

    /// Reads `work/parts.json`.
    ///
    /// # Errors
    /// It is missing, damaged or of another version, or names a table outside the work folder.
    pub fn read(work: &Path) -> Result<Parts> {
        let path = work.join(FILE);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let again = "; run moe-data build again";
        let parts: Parts =
            serde_json::from_slice(&bytes).map_err(|e| Error::data(&path, format!("{e}{again}")))?;
        if !(OLDEST..=VERSION).contains(&parts.version) {
            let message =
                format!("version {}; this program reads {OLDEST} to {VERSION}{again}", parts.version);
            return Err(Error::data(&path, message));
        }
        let is_outside = |table: &&Path| !is_inside(table);
        if let Some(table) = parts.parts.iter().flat_map(PartPlace::tables).find(is_outside) {
            let message = format!("names {table:?}, which is not below the work folder{again}");
            return Err(Error::data(&path, message));
        }
        Ok(parts)
    }

    /// Writes `work/parts.json`.
    ///
    /// # Errors
    /// A write fails.
    pub fn write(&self, work: &Path) -> Result<()> {
        Ok(atomic::write_file(&work.join(FILE), &json::canonical(self))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(read: &str) -> PartPlace {
        PartPlace {
            source: "a".to_owned(),
            file: "/anywhere/a.jsonl".into(),
            files: Vec::new(),
            slice: String::new(),
            read: read.into(),
            documents: "read/0/documents.parquet".into(),
            measures: None,
            filters: Vec::new(),
            kept: PathBuf::new(),
            removed: PathBuf::new(),
            cuts: PathBuf::new(),
            families: PathBuf::new(),
            scores: None,
            tags: None,
            tokens: None,
            is_rephrased: false,
        }
    }

    #[test]
    fn a_document_of_many_small_files_is_in_one_of_them() {
        let files: Vec<FileOfPart> = [("a", 2), ("b", 0), ("c", 1)]
            .map(|(file, documents)| FileOfPart { file: file.into(), documents })
            .into();
        let part = PartPlace { files, ..part("read") };
        let places = [0, 1, 2].map(|row| part.place_of(row));
        assert_eq!(places, [(Path::new("a"), 0), (Path::new("a"), 1), (Path::new("c"), 0)]);
        assert_eq!(
            super::PartPlace { files: Vec::new(), ..part.clone() }.place_of(7),
            (Path::new("/anywhere/a.jsonl"), 7)
        );
    }

    #[test]
    fn tables_outside_the_work_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (read, is_good) in [("read/0/documents.parquet", true), ("../a", false), ("/etc/passwd", false)] {
            Parts::new(vec![part(read)], Vec::new()).write(dir.path()).unwrap();
            assert_eq!(Parts::read(dir.path()).is_ok(), is_good, "{read}");
        }
    }
}
