//! Texts of files, read and normalized as a build with default settings does.

use std::path::PathBuf;

use moe_report::progress::Bar;

use crate::commands::documents::{self, Document};
use crate::error::Result;
use crate::read::FieldPaths;

/// Which texts to read.
#[derive(Clone, Debug, Default)]
pub struct TextArgs {
    /// Files, folders or globs.
    pub paths: Vec<PathBuf>,
    /// Field with the text.
    pub text: String,
    /// Field whose values form groups.
    pub group: Option<String>,
}

/// A text and its group, which is the file name if the records have no group field.
pub(super) struct Text {
    pub group: String,
    pub text: String,
}

impl TextArgs {
    /// Passes all texts to `take`, a few megabytes at a time, and returns how many records were not documents. `bar` shows the progress.
    ///
    /// # Errors
    /// A file cannot be read, no record is a document, or the error of `take`.
    pub(super) fn for_each_batch(
        &self,
        bar: &Bar,
        mut take: impl FnMut(Vec<Text>) -> Result<()>,
    ) -> Result<u64> {
        let fields =
            FieldPaths { text: self.text.clone(), family: self.group.clone(), ..FieldPaths::default() };
        documents::for_each_batch(&self.paths, &fields, bar, |batch| {
            let text = |document: Document| Text {
                group: document.family.unwrap_or(document.file),
                text: document.text,
            };
            take(batch.into_iter().map(text).collect())
        })
    }
}
