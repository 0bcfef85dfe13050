//! Turns tokenized corpora of other programs into shards: the ids are unchanged, and the inputs of families, counts and later
//! deduplication are made from their text.
//!
//! ```text
//! files -> documents (spans of tokens) -> ids checked, text, family -> sorted by family, each family once -> shards, ledger, manifest
//! ```

mod datatrove;
mod megatron;
mod npy;
mod shards;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use self::shards::{Imported, write};
use crate::document::{Count, TextHash, family_of_text};
use crate::error::{Error, Result};
use crate::normalize::{NormalizeConfig, normalize};
use crate::recipe::inputs::InputFile;
use crate::tables::rows::Blob;
use crate::tokenizer::{Encoder, Vocabulary};
use crate::watch::Watch;

/// Kind of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `NAME.idx` of Megatron-LM, version 1, next to `NAME.bin`.
    Megatron,
    /// `NAME.npy`: one row of tokens in which documents end with the end-of-document token.
    Npy,
    /// `NAME.ds` of datatrove next to `NAME.ds.index` and `NAME.ds.metadata`.
    Datatrove,
}

impl Kind {
    /// Whether a file identifies a corpus.
    pub fn takes(self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match self {
            Kind::Megatron => name.ends_with(".idx"),
            Kind::Npy => name.ends_with(".npy") && !name.ends_with(".ends.npy"),
            Kind::Datatrove => name.ends_with(".ds"),
        }
    }
}

/// How a token is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    U16,
    I32,
    U32,
    I64,
}

impl Store {
    fn bytes(self) -> usize {
        match self {
            Store::U16 => 2,
            Store::I32 | Store::U32 => 4,
            Store::I64 => 8,
        }
    }

    /// The stored numbers.
    fn numbers(self, bytes: &[u8]) -> impl Iterator<Item = i64> + '_ {
        bytes.chunks_exact(self.bytes()).map(move |b| match self {
            Store::U16 => i64::from(u16::from_le_bytes([b[0], b[1]])),
            Store::I32 => i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Store::U32 => i64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Store::I64 => i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        })
    }
}

/// A file of tokens with its documents.
pub struct Corpus {
    /// The file that holds the tokens.
    path: PathBuf,
    /// Its name, the prefix of its documents' names; [`name`] makes it unique.
    name: String,
    tokens: Blob,
    /// Bytes before the first token.
    head_bytes: u64,
    store: Store,
    /// End of each document, in tokens; they ascend.
    ends: Vec<u64>,
}

impl Corpus {
    /// Opens a file that [`Kind::takes`].
    ///
    /// # Errors
    /// [`Error::Data`] naming the file, what was expected and what was found.
    pub fn open(kind: Kind, file: &InputFile, eod: u32, watch: &Watch) -> Result<Corpus> {
        match kind {
            Kind::Megatron => megatron::open(&file.path),
            Kind::Npy => npy::open(&file.path, eod, watch),
            Kind::Datatrove => datatrove::open(&file.path),
        }
    }

    fn new(path: &Path, head_bytes: u64, store: Store, ends: Vec<u64>) -> Result<Corpus> {
        check_size(path, head_bytes, store, ends.last().copied().unwrap_or(0))?;
        if let Some(at) = ends.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(Error::data(path, format!("its index goes back at document {}", at + 1)));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Corpus { path: path.to_owned(), name, tokens: Blob::open(path)?, head_bytes, store, ends })
    }

    /// Documents.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there do not count.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where a document begins and ends, in tokens.
    fn span(&self, doc: usize) -> (u64, u64) {
        (if doc == 0 { 0 } else { self.ends[doc - 1] }, self.ends[doc])
    }

    /// Documents from `start` on to read at once: one, or several short ones.
    fn block(&self, start: usize) -> Range<usize> {
        let (first, _) = self.span(start);
        let fitting = self.ends.partition_point(|&end| end <= first + BLOCK_TOKENS);
        start..fitting.clamp(start + 1, self.len().min(start + BLOCK))
    }

    /// Ids of a document without the token that ends it.
    ///
    /// # Errors
    /// It is too long, has an id that the tokenizer does not have, or a write fails.
    fn ids(&self, doc: usize, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let (start, end) = self.span(doc);
        let n_tokens = end - start;
        if n_tokens > MAX_DOC_TOKENS {
            let message = format!(
                "document {doc} has {n_tokens} tokens, expected at most {MAX_DOC_TOKENS}; in a .npy file, --eod must name the token that ends its documents"
            );
            return Err(Error::data(&self.path, message));
        }
        let width = self.store.bytes() as u64;
        let mut ids = Vec::with_capacity(n_tokens as usize);
        let mut bytes = vec![0; (n_tokens.min(PIECE) * width) as usize];
        let mut at = start;
        while at < end {
            let n = PIECE.min(end - at);
            let bytes = &mut bytes[..(n * width) as usize];
            self.tokens.read_at(self.head_bytes + at * width, bytes)?;
            for number in self.store.numbers(bytes) {
                let id = u32::try_from(number).ok().filter(|id| *id < tokenizer.vocab_size);
                ids.push(id.ok_or_else(|| {
                    let message = format!(
                        "token {} of document {doc} is {number}, the tokenizer has the ids 0 to {}; give the one that made these files with --tokenizer",
                        ids.len(),
                        tokenizer.vocab_size - 1
                    );
                    Error::data(&self.path, message)
                })?);
            }
            at += n;
        }
        if ids.last() == Some(&tokenizer.eod) {
            ids.pop();
        }
        Ok(ids)
    }
}

/// Prefixes files of the same name with as many of their folders as it takes to distinguish them.
///
/// # Errors
/// Two files cannot be distinguished.
pub fn name(corpora: &mut [Corpus]) -> Result<()> {
    let deepest = corpora.iter().map(|corpus| corpus.path.components().count()).max().unwrap_or(0);
    for n_parts in 2..=deepest {
        let mut of_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, corpus) in corpora.iter().enumerate() {
            of_name.entry(corpus.name.clone()).or_default().push(number);
        }
        for &number in of_name.values().filter(|same| same.len() > 1).flatten() {
            let parts: Vec<_> = corpora[number].path.components().collect();
            let last = parts[parts.len().saturating_sub(n_parts)..].iter().collect::<PathBuf>();
            corpora[number].name = last.to_string_lossy().into_owned();
        }
    }
    let mut known = BTreeMap::new();
    for corpus in corpora.iter() {
        if let Some(other) = known.insert(&corpus.name, &corpus.path) {
            let (a, b) = (other.display(), corpus.path.display());
            return Err(Error::Usage(format!(
                "{a} and {b} give their documents the same names; import one of them"
            )));
        }
    }
    Ok(())
}

/// Refuses a file that does not hold exactly these tokens.
fn check_size(path: &Path, head_bytes: u64, store: Store, n_tokens: u64) -> Result<()> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    let expected = n_tokens.checked_mul(store.bytes() as u64).and_then(|n| n.checked_add(head_bytes));
    if expected == Some(found) {
        return Ok(());
    }
    let expected = expected.map_or_else(|| "more than 2^64".to_owned(), |n| n.to_string());
    let width = store.bytes();
    let message = format!(
        "has {found} bytes, expected {expected} for {n_tokens} tokens of {width} bytes that its index or header tells of"
    );
    Err(Error::data(path, message))
}

/// The required parts of the tokenizer.
pub struct Tokenizer {
    /// Tokens and their text.
    pub vocabulary: Vocabulary,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// End of document.
    pub eod: u32,
    /// Whether it prepends a space to a text.
    adds_space: bool,
}

impl Tokenizer {
    /// That of an encoder.
    pub fn of(encoder: &Encoder) -> Tokenizer {
        let vocabulary = encoder.vocabulary();
        // A tokenizer that refuses this text adds nothing.
        let adds_space = encoder.encode("a").is_ok_and(|ids| vocabulary.bytes(&ids).first() == Some(&b' '));
        let (vocab_size, eod) = (encoder.vocab_size(), encoder.eod().0);
        Tokenizer { vocabulary, vocab_size, eod, adds_space }
    }

    /// The text as a build would have it, normalized, and whether the ids alone give it back; invalid UTF-8 becomes
    /// replacement characters.
    fn text(&self, ids: &[u32]) -> (String, bool) {
        let bytes = self.vocabulary.bytes(ids);
        let (text, is_whole) = match String::from_utf8(bytes) {
            Ok(text) => (text, true),
            Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), false),
        };
        let own = match self.adds_space {
            true => text.strip_prefix(' ').unwrap_or(&text),
            false => &text,
        };
        let clean = normalize(own, NormalizeConfig::default());
        match *clean == text {
            true => (text, is_whole),
            false => (clean.into_owned(), false),
        }
    }
}

/// A document of a corpus. Order is by family, then by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Family: of its text.
    pub family: u64,
    /// Number of the corpus.
    pub corpus: u32,
    /// Number of the document in it.
    pub doc: u32,
    /// Bytes of its text.
    pub n_bytes: u32,
    /// Tokens, including the one that ends it.
    pub n_tokens: u32,
}

/// What reading found.
#[derive(Default)]
pub struct Reading {
    /// Documents that have text.
    pub rows: Vec<Row>,
    /// Documents without remaining text.
    pub empty: Count,
}

/// Most documents to read at once.
const BLOCK: usize = 4096;
/// Their tokens, unless it is one document: 12 bytes or so of memory for each.
const BLOCK_TOKENS: u64 = 1 << 24;
/// Most tokens of a document.
const MAX_DOC_TOKENS: u64 = 1 << 30;
/// Tokens of a document to read at once.
const PIECE: u64 = 1 << 18;

/// Reads all documents once: checks their ids and finds their families.
///
/// # Errors
/// An id that the tokenizer does not have, a document of more than 2^30 tokens or 2^32 - 1 bytes, or a write fails.
pub fn read(corpora: &[Corpus], tokenizer: &Tokenizer, watch: &Watch) -> Result<Reading> {
    let mut reading = Reading::default();
    for (number, corpus) in corpora.iter().enumerate() {
        let mut start = 0;
        while start < corpus.len() {
            let block = corpus.block(start);
            start = block.end;
            let n_docs = block.len() as u64;
            let found: Vec<Result<Option<Row>>> = block
                .into_par_iter()
                .map(|doc| {
                    let ids = corpus.ids(doc, tokenizer)?;
                    let (text, _) = tokenizer.text(&ids);
                    if text.trim().is_empty() {
                        return Ok(None);
                    }
                    let small = |n: usize| {
                        let message = || format!("document {doc} has more than 2^32 - 1 bytes of text");
                        u32::try_from(n).map_err(|_| Error::data(&corpus.path, message()))
                    };
                    let family = family_of_text(&text).0;
                    let (n_bytes, n_tokens) = (small(text.len())?, small(ids.len() + 1)?);
                    Ok(Some(Row { family, corpus: number as u32, doc: small(doc)?, n_bytes, n_tokens }))
                })
                .collect();
            for row in found {
                match row? {
                    Some(row) => reading.rows.push(row),
                    None => reading.empty += Count::one(0),
                }
            }
            watch.advance(n_docs)?;
        }
    }
    reading.rows.sort_unstable();
    Ok(reading)
}

/// Hash of a text, as in tables of texts.
fn hash_of(text: &str) -> TextHash {
    TextHash::of(text)
}

/// A little-endian number at a position checked by the caller.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
