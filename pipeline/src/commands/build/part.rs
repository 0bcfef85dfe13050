//! State of a part on its way through the stages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::document::Count;
use crate::stage::inputs::{CutDocuments, PlacedDocuments, Survivors};

/// One slice of an input file, or several small files, on the way through the stages. Each stage fills in its results.
#[derive(Default)]
pub(super) struct Part {
    /// Position of the source in the recipe; a recipe allows no more than fit in two bytes.
    pub source: usize,
    /// Number of the first file and, if it was cut, of the slice: `00003` or `00003-0002`.
    pub label: String,
    /// Position of the first file among those of all sources.
    pub file: usize,
    /// The files.
    pub inputs: Vec<PathBuf>,
    /// Documents of each of them, where there are several.
    pub documents_of_files: Vec<u64>,
    /// Which part of the file, in words; empty for the whole file.
    pub slice: String,
    /// Documents as read.
    pub read: PathBuf,
    /// Documents after rewriting rules.
    pub documents: PathBuf,
    /// Measured values; absent for a source without filters.
    pub measures: Option<PathBuf>,
    /// Folder of the tags from filters; absent if there are none.
    pub tags: Option<PathBuf>,
    /// Scores that decide the quality; absent if the records do, or nothing does.
    pub scores: Option<PathBuf>,
    /// The file of accepted variants, if the part holds them.
    pub accepted: Option<PathBuf>,
    pub kept: PathBuf,
    pub keys: PathBuf,
    /// Removal list of all deduplication so far.
    pub removed: PathBuf,
    /// List of the documents that were put into other families.
    pub families: PathBuf,
    /// List of the cuts so far.
    pub cuts: PathBuf,
    /// Folder of the tokens, once there are any.
    pub tokens: Option<PathBuf>,
    /// What the last stage passed on.
    pub left: Count,
    /// Tokens with ends of document, by variant.
    pub n_tokens: BTreeMap<u8, u64>,
}

impl Part {
    /// What is left.
    pub fn survivors(&self) -> Survivors {
        let (documents, kept, removed) = (self.documents.clone(), self.kept.clone(), self.removed.clone());
        Survivors { documents, kept, removed }
    }

    /// The same with the cuts so far.
    pub fn cut_documents(&self) -> CutDocuments {
        let Survivors { documents, kept, removed } = self.survivors();
        CutDocuments { documents, kept, removed, cuts: self.cuts.clone() }
    }

    /// The same with the families.
    pub fn placed_documents(&self) -> PlacedDocuments {
        let CutDocuments { documents, kept, removed, cuts } = self.cut_documents();
        PlacedDocuments { documents, kept, removed, cuts, families: self.families.clone() }
    }
}

/// Documents that are still kept.
pub(super) fn left(parts: &[Part]) -> Count {
    parts.iter().fold(Count::default(), |mut sum, part| {
        sum += part.left;
        sum
    })
}
