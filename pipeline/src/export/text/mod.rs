//! The texts of kept documents as JSON Lines or Parquet, in the order of reading: everything that a build keeps after all rules and cuts,
//! for trainers with a tokenizer of their own.
//!
//! ```text
//! select   which documents of each part are in the data set
//! layout   which of them go into which file, by bytes as read: no file depends on how the input was cut into parts
//! jsonl, parquet   one file, by one thread
//! ```

mod jsonl;
mod layout;
mod parquet;
mod select;

pub use self::layout::{FilePlan, Piece, layout};
pub use self::select::{Columns, Duplicate, Selection};

use std::borrow::Cow;
use std::path::Path;

use clap::ValueEnum;
use moe_shards::FamilyId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Exported;
use crate::document::Count;
use crate::error::Result;
use crate::tables::documents;
use crate::tables::kept::KeptReader;
use crate::tables::parts::Parts;
use crate::watch::Watch;

/// Format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// JSON Lines.
    Jsonl,
    /// Parquet.
    Parquet,
}

/// How the files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TextCompression {
    /// Zstandard
    Zstd,
    /// Gzip
    Gzip,
}

impl TextFormat {
    /// Extension of the files.
    pub fn ending(self, compression: TextCompression) -> &'static str {
        match (self, compression) {
            (TextFormat::Jsonl, TextCompression::Zstd) => "jsonl.zst",
            (TextFormat::Jsonl, TextCompression::Gzip) => "jsonl.gz",
            // Compressed inside.
            (TextFormat::Parquet, _) => "parquet",
        }
    }
}

/// A document as it is written.
#[derive(Clone, Debug, PartialEq)]
struct Record<'a> {
    id: &'a str,
    text: Cow<'a, str>,
    source: &'a str,
    family: FamilyId,
    variant: u8,
    quality: Option<u8>,
    language: Option<&'a str>,
    tags: Vec<&'a str>,
    score: Option<f64>,
    url: Option<&'a str>,
    date: Option<&'a str>,
    kept: Map<String, Value>,
}

/// Where records go.
trait RecordWriter {
    fn append(&mut self, record: &Record<'_>) -> Result<()>;
    fn finish(self: Box<Self>) -> Result<Exported>;
}

/// A family in text form: 16 hexadecimal digits, since numbers of 64 bits are not safe in JSON.
fn family_name(family: FamilyId) -> String {
    format!("{:016x}", family.0)
}

/// Writes one file to `path`, and returns it with the documents in it and their bytes as read.
///
/// # Errors
/// [`crate::Error::Interrupted`], a table is damaged, or a write fails.
pub fn write(
    work: &Path,
    parts: &Parts,
    selection: &Selection,
    file: &FilePlan,
    path: &Path,
    (format, compression): (TextFormat, TextCompression),
    watch: &Watch,
) -> Result<(Exported, Count)> {
    let columns = selection.columns.clone();
    let mut writer: Box<dyn RecordWriter> = match format {
        TextFormat::Jsonl => jsonl::create(path, columns, compression)?,
        TextFormat::Parquet => Box::new(parquet::ParquetFile::create(path, columns, compression)?),
    };
    let mut count = Count::default();
    for piece in &file.pieces {
        let part = &parts.parts[piece.part];
        let mut rows = selection.rows(work, parts, piece.part)?;
        rows.retain(|row| piece.rows.contains(row));
        let reader = KeptReader::open(work, part, &parts.quality_edges, documents::Columns::All, rows)?;
        reader.for_each(|kept| {
            let document = &kept.document;
            let metadata = &document.metadata;
            writer.append(&Record {
                id: document.id,
                text: kept.text()?,
                source: &part.source,
                family: document.family,
                variant: document.variant,
                quality: kept.quality,
                language: metadata.language,
                tags: kept.tags(),
                score: metadata.score.or(kept.score),
                url: metadata.url,
                date: metadata.date,
                kept: select::kept_fields(metadata.kept, document.id)?,
            })?;
            count += Count::one(u64::from(kept.left_bytes()));
            watch.advance_by_document(u64::from(document.raw_bytes))
        })?;
    }
    Ok((writer.finish()?, count))
}
