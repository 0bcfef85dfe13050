//! Stage 5: the kept documents of a part to tokens, with a table sorted so that each shard is a
//! range of it.
//!
//! Writes `tokens.u32`, `ids.txt`, `names.json`, `stored.zst` (texts that
//! their tokens do not give back) and `tokens.rows`.
//!
//! Documents are encoded by all threads, some hundred kilobytes of text at a time, and written in their
//! order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use moe_shards::atomic::AtomicFile;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::inputs::{PlacedDocuments, inputs};
use super::{Report, Stage};
use crate::chat::Marks;
use crate::document::Count;
use crate::error::{Error, Result};
use crate::tables::audit::{Drop, Drops};
use crate::tables::cuts::Cuts;
use crate::tables::documents::{Columns, Document, DocumentBatches};
use crate::tables::families::Families;
use crate::tables::names::{Numbering, PartNames};
use crate::tables::rows::{self, TokenRow};
use crate::tables::scores;
use crate::tables::tags::Tags;
use crate::tables::texts;
use crate::tables::{DROPS, IDS, NAMES, STORED, TOKEN_ROWS, TOKENS, flagged};
use crate::tokenizer::{Encoder, EncoderOptions, MarkedIds, Vocabulary};
use crate::watch::Watch;

/// Reason for documents without any tokens.
pub const REASON: &str = "no_tokens";
/// Reason for documents that the tokenizer cannot encode.
pub const REFUSED: &str = "not_encodable";

/// How to tokenize, besides the file among the inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizeParams {
    /// Name of the source.
    pub source: String,
    /// How to encode.
    pub options: EncoderOptions,
    /// The reference also encodes one in this many documents, chosen by document id; 0 for none.
    pub verify_every: u64,
    /// Whether there are scores that decide the quality.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_scores: bool,
}

/// Text that one thread encodes before it looks for more work. Smaller batches stay with the
/// thread of the task.
const CHUNK_BYTES: usize = 256 << 10;

inputs! {
    /// Input and settings of a task.
    pub struct TokenizeInputs {
        /// The part.
        part: PlacedDocuments,
        /// `tokenizer.json`.
        tokenizer: PathBuf,
        /// The folder of the tags of filters, where there are any.
        tags: Option<PathBuf>,
        /// Scores that decide the quality, where there are any.
        scores: Option<PathBuf>,
    }
}

impl Stage for TokenizeParams {
    const NAME: &'static str = "tokenize";
    type Inputs = TokenizeInputs;

    /// # Errors
    /// The part or the tokenizer cannot be used, a write fails, or a document that is verified has other
    /// ids in the reference.
    fn run(&self, inputs: &TokenizeInputs, folder: &Path, watch: &Watch) -> Result<Report> {
        let TokenizeInputs { part, tokenizer, tags, scores } = inputs;
        let PlacedDocuments { documents, kept, removed, cuts, families } = part;
        let scores = scores.as_ref().map_or_else(|| Ok(BTreeMap::new()), |scores| scores::read(scores))?;
        let encoder = Encoder::shared(tokenizer, &self.options)?;
        let encode = Encode {
            encoder: &encoder,
            vocabulary: encoder.vocabulary(),
            cuts: Cuts::read(cuts)?,
            verify_every: self.verify_every,
            is_byte_level: encoder.is_byte_level(),
            unknown: encoder.unknown().map(|id| id.0),
        };
        let mut survivors = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
        let filter_tags = tags.as_ref().map_or_else(|| Ok(Tags::default()), |folder| Tags::read(folder))?;
        let mut writer = Writer {
            tokens: AtomicFile::create(&folder.join(TOKENS))?,
            ids: AtomicFile::create(&folder.join(IDS))?,
            stored: AtomicFile::create(&folder.join(STORED))?,
            n_tokens: 0,
            n_id_bytes: 0,
            n_stored_bytes: 0,
            languages: Numbering::default(),
            tags: Numbering::default(),
            rows: Vec::new(),
        };
        let families = Families::read(families)?;
        let mut report = Report::default();
        let mut drops = Drops::default();
        for batch in DocumentBatches::open(documents, Columns::All)? {
            let batch = batch?;
            let wanted = batch.documents().filter(|(row, _)| survivors.next_if_eq(row).is_some());
            let wanted: Vec<(u32, Document<'_>)> =
                wanted.map(|(row, document)| (row, families.place(row, document))).collect();
            let chunks: Vec<&[(u32, Document<'_>)]> = chunks(&wanted);
            let encoded =
                chunks.par_iter().map(|chunk| encode.chunk(chunk)).collect::<Result<Vec<Encoded>>>()?;
            for (chunk, encoded) in chunks.iter().zip(&encoded) {
                writer.tokens.write(&encoded.tokens)?;
                for ((row, document), found) in chunk.iter().zip(&encoded.documents) {
                    let EncodedDocument { left_bytes, n_tokens, stored, .. } = found;
                    let (left_bytes, n_tokens) = (*left_bytes, *n_tokens);
                    let count = Count::one(u64::from(left_bytes));
                    if n_tokens == 0 {
                        let reason = if found.refused.is_some() { REFUSED } else { REASON };
                        if let Some(message) = &found.refused {
                            let first = || format!("document `{}`: {message}", document.id);
                            report.first_bad.entry(REFUSED.to_owned()).or_insert_with(first);
                        }
                        *report.dropped.entry(reason.to_owned()).or_default() += count;
                        drops.push(&Drop {
                            id: document.id,
                            document_id: document.document_id,
                            source: &self.source,
                            stage: "tokenize",
                            reason,
                            measured: 0.0,
                            threshold: 1.0,
                            raw_bytes: count.bytes,
                        });
                    } else {
                        let left = Document { raw_bytes: left_bytes, ..*document };
                        let score = scores.get(row).copied().unwrap_or(0);
                        writer.append(&left, filter_tags.of(*row), score, n_tokens, stored)?;
                        report.kept += count;
                        report.unknown_tokens += u64::from(found.n_unknown);
                        report.not_given_back += u64::from(!found.gives_back);
                        *report.tokens.entry(document.variant).or_default() += u64::from(n_tokens) + 1;
                    }
                    watch.advance_by_document(u64::from(document.raw_bytes))?;
                }
            }
        }
        drops.write(&folder.join(DROPS))?;
        writer.finish(folder)?;
        Ok(report)
    }
}

/// Texts on which engines are compared before a build.
const FIRST_TEXTS: usize = 200;
/// And at most this much.
const FIRST_BYTES: usize = 500_000;

/// The first texts of a part that will be tokenized.
///
/// # Errors
/// The part is damaged.
pub fn first_texts(documents: &Path, kept: &Path, removed: &Path, cuts: &Path) -> Result<Vec<String>> {
    let mut survivors = rows::survivors(kept, removed)?.into_iter().map(|row| row.row).peekable();
    let cuts = Cuts::read(cuts)?;
    let (mut texts, mut n_bytes) = (Vec::new(), 0);
    for batch in DocumentBatches::open(documents, Columns::All)? {
        for (row, document) in batch?.documents() {
            if survivors.next_if_eq(&row).is_none() {
                continue;
            }
            let text = cuts.of(row).apply(document.text)?.into_owned();
            n_bytes += text.len();
            texts.push(text);
            if texts.len() == FIRST_TEXTS || n_bytes >= FIRST_BYTES {
                return Ok(texts);
            }
        }
    }
    Ok(texts)
}

/// Cuts documents into runs of at least [`CHUNK_BYTES`] of text, except the last one.
fn chunks<'c, 'd>(documents: &'c [(u32, Document<'d>)]) -> Vec<&'c [(u32, Document<'d>)]> {
    let (mut start, mut n_bytes) = (0, 0);
    let mut chunks = Vec::new();
    for (i, (_, document)) in documents.iter().enumerate() {
        n_bytes += document.text.len();
        if n_bytes >= CHUNK_BYTES {
            chunks.push(&documents[start..=i]);
            (start, n_bytes) = (i + 1, 0);
        }
    }
    if start < documents.len() {
        chunks.push(&documents[start..]);
    }
    chunks
}

/// The encoder of a part's documents.
struct Encode<'a> {
    encoder: &'a Encoder,
    vocabulary: Vocabulary,
    cuts: Cuts,
    verify_every: u64,
    is_byte_level: bool,
    unknown: Option<u32>,
}

/// Tokens of some documents.
struct Encoded {
    /// Little-endian, without ends of document.
    tokens: Vec<u8>,
    /// One for each document.
    documents: Vec<EncodedDocument>,
}

struct EncodedDocument {
    /// Bytes as read that remain of it.
    left_bytes: u32,
    n_tokens: u32,
    /// Its text as a zstd frame if the tokens do not give it back; else empty.
    stored: Vec<u8>,
    /// Tokens that stand for unknown text.
    n_unknown: u32,
    /// Whether the tokens give back the rest of its text.
    gives_back: bool,
    /// Why it cannot be encoded.
    refused: Option<String>,
}

impl Encode<'_> {
    fn chunk(&self, documents: &[(u32, Document<'_>)]) -> Result<Encoded> {
        let mut encoded = Encoded { tokens: Vec::new(), documents: Vec::with_capacity(documents.len()) };
        let mut ids = Vec::new();
        for (row, document) in documents {
            let cuts = self.cuts.of(*row);
            let cut_bytes: u64 = cuts.raw_bytes(document.raw_bytes, document.text.len()).values().sum();
            // Cuts are recorded by the stage that made them; this document is the rest.
            let left_bytes = document.raw_bytes - cut_bytes as u32;
            let text = cuts.apply(document.text)?;
            let is_chat = !document.metadata.marks.is_empty();
            let mut trained = Vec::new();
            ids.clear();
            // The template writes the begin token of a conversation.
            ids.extend(self.encoder.bos().filter(|_| !is_chat).map(|bos| bos.0));
            let n_boundaries = ids.len();
            let encoded_text = match is_chat {
                true => self
                    .conversation(document, &text)
                    .map(|found| (ids, trained) = (found.ids, found.trained)),
                false => self.encoder.encode_into(&text, &mut ids),
            };
            // One document that the tokenizer cannot handle does not end the build.
            let refused = match encoded_text {
                Err(Error::Tokenizer { message, .. }) => Some(message),
                other => other.map(|()| None)?,
            };
            if refused.is_none()
                && !is_chat
                && self.verify_every > 0
                && document.document_id.0 % self.verify_every == 0
            {
                self.verify(document.id, &text, &ids[n_boundaries..])?;
            }
            // A document of nothing but its begin token is empty.
            if refused.is_some() || ids.len() == n_boundaries {
                ids.clear();
            }
            let same = ids.is_empty() || self.vocabulary.spells(&ids, text.as_bytes());
            // Most models that are not byte-level begin a text with a space; a conversation is read with its special tokens.
            let gives_back = same
                || is_chat && self.gives_back_conversation(&ids, &text)
                || !self.is_byte_level && self.vocabulary.spells(&ids, format!(" {text}").as_bytes());
            let n_unknown = ids.iter().filter(|id| Some(**id) == self.unknown).count() as u32;
            flagged::pack(&mut ids, &trained);
            let start = encoded.tokens.len();
            encoded.tokens.resize(start + ids.len() * 4, 0);
            let (places, _) = encoded.tokens[start..].as_chunks_mut::<4>();
            places.iter_mut().zip(&ids).for_each(|(place, id)| *place = id.to_le_bytes());
            let is_whole = text.len() == document.text.len();
            let stored = match ids.is_empty() || same && is_whole {
                true => Vec::new(),
                false => texts::compress(document.text).map_err(|e| {
                    Error::Usage(format!("document `{}` cannot be compressed: {e}", document.id))
                })?,
            };
            // A text is below 2^32 bytes and a token is at least one byte.
            let n_tokens = ids.len() as u32;
            encoded.documents.push(EncodedDocument {
                left_bytes,
                n_tokens,
                stored,
                n_unknown,
                gives_back,
                refused,
            });
        }
        Ok(encoded)
    }

    /// The ids of a conversation.
    fn conversation(&self, document: &Document<'_>, text: &str) -> Result<MarkedIds> {
        let marks = Marks::of(document.metadata.marks, text.len());
        let marks =
            marks.map_err(|message| Error::Usage(format!("document `{}`: {message}", document.id)))?;
        self.encoder.encode_marked(text, &marks)
    }

    /// Whether the tokens of a conversation are those of its text; a template may write the end of document last, which is not a token of the text.
    fn gives_back_conversation(&self, ids: &[u32], text: &str) -> bool {
        let eod = self.vocabulary.tokens().get(self.encoder.eod().0 as usize);
        let before_eod = eod.and_then(|eod| text.strip_suffix(&*eod.name));
        self.names_give_back(ids, text) || before_eod.is_some_and(|text| self.names_give_back(ids, text))
    }

    /// Whether the tokens of a document are those of its whole text, byte by byte, where a special token is its name.
    fn names_give_back(&self, ids: &[u32], text: &str) -> bool {
        let mut rest = text.as_bytes();
        let tokens = self.vocabulary.tokens();
        let all_fit = ids.iter().all(|id| {
            let token = tokens.get(*id as usize);
            let bytes = token.map(|token| match token.is_special {
                true => token.name.as_bytes(),
                false => &token.bytes,
            });
            let behind = bytes.and_then(|bytes| rest.strip_prefix(bytes));
            behind.is_some_and(|behind| {
                rest = behind;
                true
            })
        });
        all_fit && rest.is_empty()
    }

    fn verify(&self, id: &str, text: &str, ids: &[u32]) -> Result<()> {
        match self.encoder.difference(text, ids)? {
            None => Ok(()),
            Some(difference) => Err(Error::Check(format!(
                "document `{id}` has other tokens than in the reference: {difference}\n  hint: set `tokenizer.engine = \"reference\"` in the recipe and run again; what was tokenized so far is done again"
            ))),
        }
    }
}

struct Writer {
    tokens: AtomicFile,
    ids: AtomicFile,
    stored: AtomicFile,
    n_tokens: u64,
    n_id_bytes: u64,
    n_stored_bytes: u64,
    languages: Numbering,
    tags: Numbering,
    rows: Vec<TokenRow>,
}

impl Writer {
    /// Records a document whose tokens are written.
    fn append<'t>(
        &mut self,
        document: &Document<'t>,
        filter_tags: impl Iterator<Item = &'t str>,
        score: u32,
        n_tokens: u32,
        stored: &[u8],
    ) -> Result<()> {
        self.ids.write(document.id.as_bytes())?;
        self.stored.write(stored)?;
        let metadata = &document.metadata;
        // Neither can fail: the build refuses a ninth tag, and a part with more than 65,535 different
        // language codes is not text.
        let language = metadata.language.map_or(0, |name| self.languages.number(name) + 1);
        let language = u16::try_from(language).map_err(|_| too_many("languages"))?;
        let mut tags = 0u8;
        for tag in metadata.tags().chain(filter_tags) {
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
            score,
            language,
            tags,
            token_start: self.n_tokens,
            n_tokens,
            id_start: self.n_id_bytes,
            id_bytes: document.id.len() as u32,
            stored_start: self.n_stored_bytes,
            stored_bytes: stored.len() as u32,
            text_bytes: document.text.len() as u32,
        });
        self.n_stored_bytes += stored.len() as u64;
        self.n_tokens += u64::from(n_tokens);
        self.n_id_bytes += document.id.len() as u64;
        Ok(())
    }

    fn finish(mut self, folder: &Path) -> Result<()> {
        self.rows.sort_unstable();
        self.tokens.commit()?;
        self.ids.commit()?;
        self.stored.commit()?;
        let names = PartNames { languages: self.languages.into_names(), tags: self.tags.into_names() };
        names.write(&folder.join(NAMES))?;
        rows::write(&folder.join(TOKEN_ROWS), &self.rows)
    }
}

fn too_many(what: &str) -> Error {
    Error::Usage(format!(
        "more {what} in one input file than a shard can name; leave the key out of the recipe"
    ))
}
