//! `work/parts.json`: where each part came from and where its tables are, for commands that look at single documents.

use std::fs;
use std::path::{Path, PathBuf};

use moe_shards::atomic;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::filter::FilterConfig;
use crate::json;

/// Name of the file in the work folder.
pub const FILE: &str = "parts.json";
const VERSION: u32 = 3;

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
    /// The input file.
    pub file: PathBuf,
    /// Which part of the file, in words; empty for all of it.
    pub slice: String,
    /// Its documents as they were read.
    pub read: PathBuf,
    /// Its documents as rewriting rules left them.
    pub documents: PathBuf,
    /// What was measured of them; absent for a source without filters.
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
    /// Scores that decide the quality of its documents, where `[quality]` made them.
    #[serde(default)]
    pub scores: Option<PathBuf>,
    /// Whether it holds variants that `moe-data rephrase` made.
    pub is_rephrased: bool,
}

impl Parts {
    /// A table of these parts.
    pub fn new(parts: Vec<PartPlace>, quality_edges: Vec<f64>) -> Parts {
        Parts { version: VERSION, parts, quality_edges }
    }

    /// Reads `work/parts.json`.
    ///
    /// # Errors
    /// It is missing or of another version.
    pub fn read(work: &Path) -> Result<Parts> {
        let path = work.join(FILE);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let again = "; run moe-data build again";
        let parts: Parts =
            serde_json::from_slice(&bytes).map_err(|e| Error::data(&path, format!("{e}{again}")))?;
        match parts.version {
            VERSION => Ok(parts),
            other => Err(Error::data(&path, format!("version {other}; this program reads {VERSION}{again}"))),
        }
    }

    /// Writes `work/parts.json`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, work: &Path) -> Result<()> {
        Ok(atomic::write_file(&work.join(FILE), &json::canonical(self))?)
    }
}
