//! Stage 5: the kept documents of a part to tokens, with a table sorted so that each shard is a
//! range of it.
//!
//! Inputs: `documents.parquet`, `kept.rows`, the removal list, the list of cuts, `tokenizer.json`. Writes
//! `tokens.u32`, `ids.txt`, `names.json` and `tokens.rows`.

use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use super::{Report, Task};
use crate::document::Count;
use crate::error::{Error, Result};
use crate::tokenizer::{Encoder, EncoderOptions};
use crate::watch::Watch;
use crate::work::audit::{Drop, Drops};
use crate::work::cuts::Cuts;
use crate::work::documents::{Columns, Document, DocumentBatches};
use crate::work::names::{Numbering, PartNames};
use crate::work::rows::{self, TokenRow};
use crate::work::{DROPS, IDS, NAMES, TOKEN_ROWS, TOKENS};

/// Reason for documents of which the tokenizer leaves nothing.
pub const REASON: &str = "no_tokens";

/// What to tokenize with, beside the file among the inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizeParams {
    /// Name of the source.
    pub source: String,
    /// How to encode.
    pub options: EncoderOptions,
}

/// Runs the stage.
///
/// # Errors
/// The part or the tokenizer cannot be used, or the disk refuses.
pub fn run(task: &Task, params: &TokenizeParams, watch: &Watch) -> Result<Report> {
    let [documents, kept, removed, cuts, tokenizer] = &task.inputs[..] else {
        return Err(Error::data(&task.output, "the task has the wrong number of inputs"));
    };
    let encoder = Encoder::shared(tokenizer, &params.options)?;
    let cuts = Cuts::read(cuts)?;
    let mut ids = Vec::new();
    let mut survivors = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
    let mut writer = Writer {
        tokens: AtomicFile::create(&task.file(TOKENS))?,
        ids: AtomicFile::create(&task.file(IDS))?,
        n_tokens: 0,
        n_id_bytes: 0,
        languages: Numbering::default(),
        tags: Numbering::default(),
        rows: Vec::new(),
    };
    let mut report = Report::default();
    let mut drops = Drops::default();
    for batch in DocumentBatches::open(documents, Columns::All)? {
        for (row, document) in batch?.documents() {
            if survivors.next_if_eq(&row).is_none() {
                continue;
            }
            let cuts = cuts.of(row);
            let cut_bytes: u64 = cuts.raw_bytes(document.raw_bytes, document.text.len()).values().sum();
            // What was cut is booked by the stage that cut it; this document is what is left.
            let left_bytes = document.raw_bytes - cut_bytes as u32;
            let text = cuts.apply(document.text)?;
            let count = Count::one(u64::from(left_bytes));
            ids.clear();
            encoder.encode_into(&text, &mut ids)?;
            if ids.is_empty() {
                *report.dropped.entry(REASON.to_owned()).or_default() += count;
                drops.push(&Drop {
                    id: document.id,
                    document_id: document.document_id,
                    source: &params.source,
                    stage: "tokenize",
                    reason: REASON,
                    measured: 0.0,
                    threshold: 1.0,
                    raw_bytes: count.bytes,
                });
            } else {
                writer.append(&Document { raw_bytes: left_bytes, ..document }, &ids)?;
                report.kept += count;
                *report.tokens.entry(document.variant).or_default() += ids.len() as u64 + 1;
            }
            watch.advance(u64::from(document.raw_bytes))?;
        }
    }
    drops.write(&task.file(DROPS))?;
    writer.finish(task)?;
    Ok(report)
}

struct Writer {
    tokens: AtomicFile,
    ids: AtomicFile,
    n_tokens: u64,
    n_id_bytes: u64,
    languages: Numbering,
    tags: Numbering,
    rows: Vec<TokenRow>,
}

impl Writer {
    fn append(&mut self, document: &Document<'_>, tokens: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.tokens.write(&bytes)?;
        self.ids.write(document.id.as_bytes())?;
        let metadata = &document.metadata;
        // Neither can fail: the reader refuses a ninth tag, and a part with more than 65,535 different
        // language codes is no text.
        let language = metadata.language.map_or(0, |name| self.languages.number(name) + 1);
        let language = u16::try_from(language).map_err(|_| too_many("languages"))?;
        let mut tags = 0u8;
        for tag in metadata.tags() {
            let bit = u32::try_from(self.tags.number(tag)).ok().and_then(|bit| 1u8.checked_shl(bit));
            tags |= bit.ok_or_else(|| too_many("tags"))?;
        }
        self.rows.push(TokenRow {
            variant: document.variant,
            family: document.family.0,
            document_id: document.document_id.0,
            text_hash: document.text_hash.0,
            raw_bytes: document.raw_bytes,
            metadata_hash: metadata.hash(),
            quality: metadata.quality.map_or(0, |bucket| u16::from(bucket) + 1),
            language,
            tags,
            token_start: self.n_tokens,
            // A text is below 2^32 bytes and a token is at least one byte.
            n_tokens: tokens.len() as u32,
            id_start: self.n_id_bytes,
            id_bytes: document.id.len() as u32,
        });
        self.n_tokens += tokens.len() as u64;
        self.n_id_bytes += document.id.len() as u64;
        Ok(())
    }

    fn finish(mut self, task: &Task) -> Result<()> {
        self.rows.sort_unstable();
        self.tokens.commit()?;
        self.ids.commit()?;
        let names = PartNames { languages: self.languages.into_names(), tags: self.tags.into_names() };
        names.write(&task.file(NAMES))?;
        rows::write(&task.file(TOKEN_ROWS), &self.rows)
    }
}

fn too_many(what: &str) -> Error {
    Error::Usage(format!(
        "more {what} in one input file than a shard can name; leave the key out of the recipe"
    ))
}
