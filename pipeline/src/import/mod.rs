//! Tokenized corpora of other programs become shards: the ids stay as they are, and what families, counts and later
//! deduplication need is made from the text that they stand for.
//!
//! ```text
//! files -> documents (spans of tokens) -> ids checked, text, family -> sorted by family, each family once -> shards, ledger, manifest
//! ```

mod datatrove;
mod megatron;
mod npy;
mod shards;

use std::path::Path;

use rayon::prelude::*;

pub use self::shards::{Imported, write};
use crate::document::{Count, TextHash, family_of_text};
use crate::error::{Error, Result};
use crate::recipe::inputs::InputFile;
use crate::tokenizer::Vocabulary;
use crate::watch::Watch;
use crate::work::rows::Blob;

/// What files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `NAME.idx` of Megatron-LM, version 1, beside `NAME.bin`.
    Megatron,
    /// `NAME.npy`: one row of tokens in which documents end with the end-of-document token.
    Npy,
    /// `NAME.ds` of datatrove beside `NAME.ds.index` and `NAME.ds.metadata`.
    Datatrove,
}

impl Kind {
    /// Whether a file is one that names a corpus.
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
    fn numbers(self, bytes: &[u8]) -> Vec<i64> {
        let words = bytes.chunks_exact(self.bytes());
        match self {
            Store::U16 => words.map(|b| i64::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            Store::I32 => words.map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
            Store::U32 => words.map(|b| i64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
            Store::I64 => {
                words.map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])).collect()
            }
        }
    }
}

/// A file of tokens with its documents.
pub struct Corpus {
    /// The file that holds the tokens.
    path: std::path::PathBuf,
    /// Its name, which begins the names of its documents.
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Ids of a document without the token that ends it.
    ///
    /// # Errors
    /// An id that the tokenizer does not have, or the disk refuses.
    fn ids(&self, doc: usize, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let (start, end) = (if doc == 0 { 0 } else { self.ends[doc - 1] }, self.ends[doc]);
        let width = self.store.bytes() as u64;
        let n_bytes = usize::try_from((end - start) * width)
            .map_err(|_| Error::data(&self.path, format!("document {doc} is larger than memory")))?;
        let mut bytes = vec![0; n_bytes];
        self.tokens.read_at(self.head_bytes + start * width, &mut bytes)?;
        let id = |(at, number): (usize, i64)| {
            let id = u32::try_from(number).ok().filter(|id| *id < tokenizer.vocab_size);
            id.ok_or_else(|| {
                let message = format!(
                    "token {at} of document {doc} is {number}, the tokenizer has the ids 0 to {}; give the one that made these files with --tokenizer",
                    tokenizer.vocab_size - 1
                );
                Error::data(&self.path, message)
            })
        };
        let mut ids: Vec<u32> =
            self.store.numbers(&bytes).into_iter().enumerate().map(id).collect::<Result<_>>()?;
        if ids.last() == Some(&tokenizer.eod) {
            ids.pop();
        }
        Ok(ids)
    }
}

/// Refuses a file that does not hold just these tokens.
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

/// What is needed of the tokenizer.
pub struct Tokenizer {
    /// Tokens and the text that they stand for.
    pub vocabulary: Vocabulary,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// End of document.
    pub eod: u32,
}

impl Tokenizer {
    /// The text of ids and whether they give it back; bytes that are not UTF-8 become replacement characters.
    fn text(&self, ids: &[u32]) -> (String, bool) {
        if let Some(text) = self.vocabulary.text(ids) {
            return (text, true);
        }
        let tokens = ids.iter().filter_map(|id| self.vocabulary.tokens().get(*id as usize));
        let bytes: Vec<u8> = tokens.flat_map(|token| token.bytes.iter().copied()).collect();
        (String::from_utf8_lossy(&bytes).into_owned(), false)
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
    /// Tokens with the one that ends it.
    pub n_tokens: u32,
}

/// What reading found.
#[derive(Default)]
pub struct Reading {
    /// Documents that have text.
    pub rows: Vec<Row>,
    /// Documents of which no text is left.
    pub empty: Count,
}

/// Documents that are read at once.
const BLOCK: usize = 4096;

/// Reads all documents once: checks their ids and finds their families.
///
/// # Errors
/// An id that the tokenizer does not have, a document of 2^32 bytes, or the disk refuses.
pub fn read(corpora: &[Corpus], tokenizer: &Tokenizer, watch: &Watch) -> Result<Reading> {
    let mut reading = Reading::default();
    for (number, corpus) in corpora.iter().enumerate() {
        for start in (0..corpus.len()).step_by(BLOCK) {
            let block = start..corpus.len().min(start + BLOCK);
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

/// Hash of a text, as tables of texts have it.
fn hash_of(text: &str) -> TextHash {
    TextHash::of(text)
}

/// A little-endian number at a place that the caller has checked.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
