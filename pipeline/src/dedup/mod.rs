//! Deduplication over all parts, between the filters and the tokenizer. Every method looks at the documents
//! that are still in, and ends in one removal list a part (with all that earlier methods removed)
//! and one audit table. Lists are named by their content, so parts that lose the same documents
//! as before need no new tokenization.

pub mod audit;
pub mod cuts;
pub mod earlier;
pub mod exact;
pub mod minhash;
pub mod rows;
pub mod union_find;

use std::path::{Path, PathBuf};

use moe_shards::{Hash, atomic};
use serde::{Deserialize, Serialize};

use crate::document::Count;
use crate::error::{Error, Result};
use crate::json;
use crate::tables::rows::{RemovedRow, Row};

/// What a method removed from a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// The removal list, relative to `work`: what this and all earlier methods removed.
    pub list: PathBuf,
    /// Documents that this method removed in favor of others of this build.
    pub removed: Count,
    /// Documents that it removed in favor of documents of other builds.
    #[serde(default)]
    pub in_against: Count,
    /// List of the latter, relative to `work`, where fuzzy deduplication found any.
    #[serde(default)]
    pub list_in_against: Option<PathBuf>,
    /// List of the documents that join the family of another one, relative to `work`.
    #[serde(default)]
    pub families: Option<PathBuf>,
}

/// Writes a removal list of ascending rows, and returns its place in `work`.
///
/// # Errors
/// A write fails.
pub fn write_list(work: &Path, rows: &[u32]) -> Result<PathBuf> {
    let mut bytes = Vec::with_capacity(rows.len() * RemovedRow::BYTES);
    rows.iter().for_each(|&row| RemovedRow { row }.put(&mut bytes));
    let place = Path::new("removed").join(format!("{}.rows", &Hash::of(&bytes).to_string()[..24]));
    atomic::write_file(&work.join(&place), &bytes)?;
    Ok(place)
}

/// The files of a step in a stage's folder: `make` makes them, unless the note next to them says that they are complete. So a
/// build that continues after tasks does not repeat earlier steps.
fn once(note: &Path, make: impl FnOnce() -> Result<Vec<PathBuf>>) -> Result<Vec<PathBuf>> {
    let folder = note.parent().unwrap_or(Path::new(""));
    match std::fs::read(note) {
        Ok(bytes) => {
            let names: Vec<String> = serde_json::from_slice(&bytes)
                .map_err(|e| Error::data(note, format!("{e}; delete this file and rerun")))?;
            Ok(names.iter().map(|name| folder.join(name)).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let files = make()?;
            let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
            let names: Vec<String> = files.iter().filter_map(name).collect();
            atomic::write_file(note, &json::canonical(&names))?;
            Ok(files)
        }
        Err(e) => Err(Error::io(note, "read")(e)),
    }
}
