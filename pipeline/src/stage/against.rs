//! What deduplication has to know of a shard of another build (`dedup.against`): [`keys`] makes the same tables of it that the
//! filter and [`super::sketch`] make of a part, and [`members`] those that [`super::members`] makes. The texts are read from the
//! shard's tokens and its table of texts ([`crate::work::texts`]), and each is checked by its hash.
//!
//! Inputs of both: the shard's `.mdx`, its table of texts, the tokenizer; for [`members`] also the list of the documents
//! that share a band with a document of this build. The row of a document is its number in the shard.

use moe_shards::Hash;
use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::members::MemberWriter;
use super::sketch::SketchWriter;
use super::{Report, Task};
use crate::document::{Count, DocumentId, Metadata};
use crate::error::{Error, Result};
use crate::minhash::SketchConfig;
use crate::watch::Watch;
use crate::work::KEYS;
use crate::work::dedup_rows::ClusteredRow;
use crate::work::documents::Document;
use crate::work::rows::{KeyRow, Row};
use crate::work::sort::Sorter;
use crate::work::sort::run::RunReader;
use crate::work::texts::ReadableShard;

/// A shard of another build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainstParams {
    /// Name of its source there.
    pub source: String,
    /// Digest of its index.
    pub shard: Hash,
    /// Checksum of its table of texts.
    pub texts: u64,
    /// Digest of its tokenizer.
    pub tokenizer: Hash,
    /// Shingles and permutations, if near-duplicates are looked for.
    pub sketch: Option<SketchConfig>,
    /// For [`members`]: whether texts are compared at all.
    pub with_shingles: bool,
}

/// Writes `keys.rows` and, for near-duplicates, `sketches.run` and `keys.run`.
///
/// # Errors
/// The other build is damaged or the disk refuses.
pub fn keys(task: &Task, params: &AgainstParams, watch: &Watch) -> Result<Report> {
    let [mdx, texts, tokenizer] = &task.inputs[..] else {
        return Err(Error::data(&task.output, "the task has the wrong number of inputs"));
    };
    let mut shard = ReadableShard::open(mdx, texts, tokenizer)?;
    let mut sorter = Sorter::new(&task.file("sort"), watch.memory_bytes() / 2, watch)?;
    let mut sketches = match &params.sketch {
        Some(sketch) => Some(SketchWriter::create(task, sketch, false)?),
        None => None,
    };
    let mut report = Report::default();
    for doc in 0..shard.shard.n_docs() {
        let (text, text_hash) = shard.text(doc)?;
        let meta = shard.shard.meta(doc)?;
        // Less than every row of this build with the same key, so that this build's documents are the ones to go.
        sorter.push(KeyRow {
            key: text_hash.0,
            source: 0,
            variant: 0,
            document_id: 0,
            family: 0,
            raw_bytes: 0,
            metadata_hash: 0,
            row: doc,
        })?;
        if let Some(sketches) = &mut sketches {
            let id = shard.shard.id(doc)?;
            sketches.append(
                doc,
                &Document {
                    id,
                    document_id: DocumentId::new(&params.source, id),
                    family: shard.shard.family(doc)?,
                    variant: meta.variant,
                    raw_bytes: meta.n_bytes,
                    text_hash,
                    metadata: Metadata::default(),
                    text: &text,
                },
            )?;
        }
        report.kept += Count::one(u64::from(meta.n_bytes));
        watch.advance_by_document(u64::from(meta.n_bytes))?;
    }
    let mut file = AtomicFile::create(&task.file(KEYS))?;
    let mut sorted = sorter.finish()?;
    let mut bytes = Vec::new();
    while let Some(row) = sorted.next_row()? {
        bytes.clear();
        row.put(&mut bytes);
        file.write(&bytes)?;
    }
    file.commit()?;
    if let Some(sketches) = sketches {
        sketches.finish()?;
    }
    Ok(report)
}

/// Writes `members.run`, `shingles.u64` and `ids.txt`.
///
/// # Errors
/// The other build is damaged or the disk refuses.
pub fn members(task: &Task, params: &AgainstParams, watch: &Watch) -> Result<Report> {
    let ([mdx, texts, tokenizer, clustered], Some(sketch)) = (&task.inputs[..], &params.sketch) else {
        return Err(Error::data(&task.output, "the task has the wrong number of inputs"));
    };
    let mut clustered = RunReader::<ClusteredRow>::open(clustered, 0)?;
    let mut writer = MemberWriter::create(task, sketch, params.with_shingles, false, watch)?;
    let mut next = clustered.next_row()?;
    // A shard of which nothing is a candidate is not opened.
    if next.is_some() {
        let mut shard = ReadableShard::open(mdx, texts, tokenizer)?;
        while let Some(wanted) = next {
            let (text, text_hash) = shard.text(wanted.row)?;
            let meta = shard.shard.meta(wanted.row)?;
            let id = shard.shard.id(wanted.row)?;
            writer.append(
                &wanted,
                &Document {
                    id,
                    document_id: DocumentId::new(&params.source, id),
                    family: shard.shard.family(wanted.row)?,
                    variant: meta.variant,
                    raw_bytes: meta.n_bytes,
                    text_hash,
                    metadata: Metadata::default(),
                    text: &text,
                },
            )?;
            next = clustered.next_row()?;
            watch.advance_by_document(u64::from(meta.n_bytes))?;
        }
    }
    writer.finish()
}
