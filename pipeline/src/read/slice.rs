//! The part of a file that one task reads.

use serde::{Deserialize, Serialize};

/// A part of a file that one task reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slice {
    /// All of it.
    #[default]
    Whole,
    /// The lines of plain JSONL that start in these bytes.
    Bytes {
        /// First byte.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// Row groups of a Parquet file.
    RowGroups {
        /// First row group.
        start: usize,
        /// The row group after the last.
        end: usize,
    },
    /// Batches of an Arrow file or stream.
    Batches(Batches),
}

/// Neighboring batches of an Arrow file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    /// Bytes before the first batch of the file: schema and dictionaries.
    pub head: u64,
    /// First byte of the first of these batches.
    pub start: u64,
    /// The byte after the last one.
    pub end: u64,
    /// Row of the file at which the first one begins.
    pub first_row: u64,
}

impl Slice {
    /// For people; empty for the whole file.
    pub fn in_words(&self) -> String {
        match self {
            Slice::Whole => String::new(),
            Slice::Bytes { start, end } => format!("bytes {start} to {end}"),
            Slice::RowGroups { start, end } => format!("row groups {start} to {end}"),
            Slice::Batches(Batches { start, end, .. }) => format!("batches in bytes {start} to {end}"),
        }
    }
}
