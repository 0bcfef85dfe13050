//! Documents of files, one after another, and a choice of some of them.

use std::collections::{BTreeSet, BinaryHeap};
use std::path::{Path, PathBuf};

use moe_shards::Hash;

use crate::error::{Error, Problem, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::read::{self, FieldPaths, Reader, Slice};
use crate::recipe::LimitsConfig;
use crate::recipe::inputs::{self, InputFile};

/// A document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Value of the id field, or file and offset.
    pub id: String,
    /// Its text, normalized as a build with default settings does.
    pub text: String,
    /// Other requested fields, as a JSON object; empty if the record has none.
    pub kept: String,
}

/// Files with documents.
#[derive(Clone, Debug)]
pub struct Files {
    files: Vec<InputFile>,
    fields: FieldPaths,
}

impl Files {
    /// Finds the files at the given paths.
    ///
    /// # Errors
    /// [`Error::Recipe`] with every path that matches nothing.
    pub fn find(paths: &[PathBuf], text: &str, id: Option<&str>) -> Result<Files> {
        let fields = FieldPaths { text: text.to_owned(), id: id.map(str::to_owned), ..FieldPaths::default() };
        Files::with_fields(paths, fields)
    }

    /// The same with any fields.
    ///
    /// # Errors
    /// As [`Files::find`].
    pub fn with_fields(paths: &[PathBuf], fields: FieldPaths) -> Result<Files> {
        let paths: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let files = inputs::find(Path::new(""), &paths).map_err(|messages| {
            let problem = |message| Problem { file: None, line: None, key: String::new(), message };
            Error::Recipe { problems: messages.into_iter().map(problem).collect() }
        })?;
        Ok(Files { files, fields })
    }

    /// All documents, in the order of the files.
    pub fn documents(&self) -> Documents<'_> {
        Documents { files: self, next_file: 0, reader: None, n_bad: 0, first_bad: None }
    }

    /// Places of `n` documents, drawn by a hash of seed and text, so that neither the order nor the split of the files matters. A
    /// larger `n` includes the documents of a smaller one.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn choose(&self, n: usize, seed: u64) -> Result<BTreeSet<usize>> {
        let mut least: BinaryHeap<(Hash, usize)> = BinaryHeap::new();
        for (place, document) in self.documents().enumerate() {
            let document = document?;
            let draw = Hash::of(&[&seed.to_le_bytes(), document.text.as_bytes()].concat());
            least.push((draw, place));
            if least.len() > n {
                least.pop();
            }
        }
        Ok(least.into_iter().map(|(_, place)| place).collect())
    }
}

/// Documents one after another; records that are not documents are counted.
pub struct Documents<'a> {
    files: &'a Files,
    next_file: usize,
    /// The file as it was when it was opened.
    reader: Option<(InputFile, Box<dyn Reader>)>,
    /// Records that are not documents.
    pub n_bad: u64,
    /// The first of them.
    pub first_bad: Option<String>,
}

impl Documents<'_> {
    fn read(&mut self) -> Result<Option<Document>> {
        loop {
            let Some((file, reader)) = &mut self.reader else {
                let Some(file) = self.files.files.get(self.next_file) else { return Ok(None) };
                self.next_file += 1;
                let limits = LimitsConfig::default().of_readers();
                let fields = &self.files.fields;
                let file = file.check_unchanged()?;
                let reader = read::open(&file.path, &file.name, None, Slice::Whole, fields, limits)?;
                self.reader = Some((file, reader));
                continue;
            };
            let Some(record) = reader.next_record()? else {
                file.check_read()?;
                self.reader = None;
                continue;
            };
            match record.content {
                Ok(raw) => {
                    let id = raw.id.unwrap_or_else(|| format!("{}:{}", file.name, record.offset));
                    let text = normalize(&raw.text, NormalizeConfig::default()).into_owned();
                    return Ok(Some(Document { id, text, kept: raw.metadata.kept }));
                }
                Err(bad) if bad.cause.is_skipped() => {}
                Err(bad) => {
                    self.n_bad += record.n_records;
                    let (path, offset) = (file.path.display(), record.offset);
                    let cause = bad.cause.name();
                    self.first_bad.get_or_insert_with(|| format!("{path}, offset {offset}: {cause}"));
                }
            }
        }
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(files: &Files, n: usize, seed: u64) -> BTreeSet<String> {
        let chosen = files.choose(n, seed).unwrap();
        let documents = files.documents().map(|document| document.unwrap().text);
        documents.enumerate().filter(|(place, _)| chosen.contains(place)).map(|(_, text)| text).collect()
    }

    #[test]
    fn the_choice_depends_on_texts_and_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..50).map(|i| format!("{{\"text\":\"text {i}\",\"n\":{i}}}\n")).collect();
        let write = |name: &str, lines: &[String]| {
            let path = dir.path().join(name);
            std::fs::write(&path, lines.concat()).unwrap();
            path
        };
        let whole = Files::find(&[write("a.jsonl", &lines)], "text", None).unwrap();
        let parts = [write("z.jsonl", &lines[..20]), write("b.jsonl", &lines[20..])];
        let parts = Files::find(&parts, "text", None).unwrap();
        assert_eq!(texts(&whole, 10, 3), texts(&parts, 10, 3));
        assert_eq!(texts(&whole, 10, 3).len(), 10);
        assert_ne!(texts(&whole, 10, 3), texts(&whole, 10, 4));
        assert!(texts(&whole, 20, 3).is_superset(&texts(&whole, 10, 3)));
        assert_eq!(texts(&whole, 100, 3).len(), 50);
    }

    #[test]
    fn bad_records_are_counted_and_the_others_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\":\"one\"}\n{\"no\":1}\n{\"text\":\"two\"}\n").unwrap();
        let files = Files::find(&[path], "text", None).unwrap();
        let mut documents = files.documents();
        let found: Vec<Document> = documents.by_ref().map(|document| document.unwrap()).collect();
        let expected = [("a.jsonl:0", "one"), ("a.jsonl:24", "two")];
        let expected = expected.map(|(id, text)| Document {
            id: id.to_owned(),
            text: text.to_owned(),
            kept: String::new(),
        });
        assert_eq!(found, expected);
        assert_eq!(documents.n_bad, 1);
        assert!(documents.first_bad.unwrap().ends_with("a.jsonl, offset 15: missing_text"));
    }
}
