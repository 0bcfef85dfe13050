//! What deduplication needs to know about a shard of another build (`dedup.against`): [`EarlierKeys`] makes the same tables of it that the
//! filter and [`crate::dedup::minhash::sketch`] make of a part, and [`EarlierCandidates`] those that [`crate::dedup::minhash::candidate_shingles`] makes. The texts are read from the
//! shard's tokens and its table of texts ([`crate::tables::texts`]), and each is checked by its hash. The row of a document is its
//! number in the shard.

use std::path::{Path, PathBuf};

use moe_shards::Hash;
use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use crate::dedup::minhash::candidate_shingles::CandidateWriter;
use crate::dedup::minhash::signature::SketchConfig;
use crate::dedup::minhash::sketch::SketchWriter;
use crate::dedup::rows::ClusteredRow;
use crate::document::{Count, DocumentId, Metadata};
use crate::error::{Error, Result};
use crate::stage::inputs::inputs;
use crate::stage::{Report, Stage};
use crate::tables::KEYS;
use crate::tables::documents::Document;
use crate::tables::rows::{KeyRow, Row};
use crate::tables::sort::Sorter;
use crate::tables::sort::run::RunReader;
use crate::tables::texts::ReadableShard;
use crate::watch::Watch;

/// A shard of another build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierParams {
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
    /// For [`EarlierCandidates`]: whether texts are compared at all.
    pub with_shingles: bool,
}

/// A shard of another build to lookup tables of its documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierKeys(pub EarlierParams);

/// Those of its documents that are candidates to sets of shingles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierCandidates(pub EarlierParams);

inputs! {
    /// A shard of another build.
    pub struct EarlierShardInputs {
        /// Its index.
        mdx: PathBuf,
        /// Its table of texts.
        texts: PathBuf,
        /// The build's tokenizer.
        tokenizer: PathBuf,
    }
}

inputs! {
    /// A shard of another build, and which of its documents are candidates.
    pub struct EarlierCandidatesInputs {
        /// The shard.
        shard: EarlierShardInputs,
        /// The list of the documents that share a band with a document of this build.
        clustered: PathBuf,
    }
}

impl Stage for EarlierKeys {
    const NAME: &'static str = "against_keys";
    type Inputs = EarlierShardInputs;

    /// Writes `keys.rows` and, for near-duplicates, `sketches.run` and `keys.run`.
    ///
    /// # Errors
    /// The other build is damaged or a write fails.
    fn run(&self, inputs: &EarlierShardInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let mut shard = ReadableShard::open(&inputs.mdx, &inputs.texts, &inputs.tokenizer)?;
        let mut sorter = Sorter::new(&folder.join("sort"), watch.memory_bytes() / 2, watch)?;
        let mut sketches = match &self.0.sketch {
            Some(sketch) => Some(SketchWriter::create(folder, sketch, false)?),
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
                        document_id: DocumentId::new(&self.0.source, id),
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
        let mut file = AtomicFile::create(&folder.join(KEYS))?;
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
}

impl Stage for EarlierCandidates {
    const NAME: &'static str = "against_members";
    type Inputs = EarlierCandidatesInputs;

    /// Writes `members.run`, `shingles.u64` and `ids.txt`.
    ///
    /// # Errors
    /// The other build is damaged or a write fails.
    fn run(&self, inputs: &EarlierCandidatesInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let EarlierCandidatesInputs { shard: EarlierShardInputs { mdx, texts, tokenizer }, clustered } =
            inputs;
        let sketch = self.0.sketch.as_ref();
        let sketch = sketch.ok_or_else(|| Error::data(folder, "the task looks for no near-duplicates"))?;
        let mut clustered = RunReader::<ClusteredRow>::open(clustered, 0)?;
        let mut writer = CandidateWriter::create(folder, sketch, self.0.with_shingles, false, watch)?;
        let mut next = clustered.next_row()?;
        // A shard without candidates is not opened.
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
                        document_id: DocumentId::new(&self.0.source, id),
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
}
