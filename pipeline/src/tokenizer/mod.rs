//! The tokenizer: a Hugging Face `tokenizer.json`, given or trained here. Vocabulary size,
//! end-of-document token and bytes per token are derived from the file, never typed in.
//!
//! An [`Encoder`] turns text into ids. The reference is the library `tokenizers`; a fast engine takes
//! its place for files made up of pieces on the allow-list of [`family`], after both have given the
//! same ids for a probe of nasty strings (`probe.rs`). Which engine ran therefore never shows in the ids.
//!
//! Document boundaries never come from text: strings such as `<|endoftext|>` in it are
//! encoded as ordinary characters, and the caller adds begin and end of a document from
//! [`Encoder::bos`] and [`Encoder::eod`]. If a model makes such a token from text anyway, the text is encoded
//! again by one that cannot (`spelled.rs`).

mod added;
mod cut;
pub mod family;
mod fast;
pub mod import;
mod limits;
mod marked;
mod probe;
mod reference;
mod shared;
mod spelled;
pub mod train;
mod vocabulary;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use moe_shards::TokenId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::family::Family;
use self::fast::Fast;
pub use self::marked::MarkedIds;
use self::marked::Markers;
use self::reference::Reference;
pub use self::reference::unknown_token;
pub use self::vocabulary::{Token, Vocabulary};
use crate::error::{Error, Result};

/// End-of-document token of tokenizers trained here.
pub const EOD: &str = "<|endoftext|>";

/// What happens to special-token strings in the text of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialInText {
    /// They stay ordinary characters.
    #[default]
    Text,
    /// They become the special tokens, except begin and end of document, which are never made from text.
    Match,
}

/// Which engine may encode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// The fast one if known to be exact, else the reference.
    #[default]
    Auto,
    /// The reference only.
    Reference,
}

/// How to use a tokenizer file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderOptions {
    /// End-of-document token, if it cannot be derived from the file.
    pub eod: Option<String>,
    /// Token that begins every document, if any.
    pub bos: Option<String>,
    /// Special strings in text.
    pub special_in_text: SpecialInText,
    /// Engine.
    pub engine: EngineChoice,
}

/// Name of the fast engine.
pub const FAST: &str = "fastokens";
/// Name of the reference.
pub const REFERENCE: &str = "tokenizers";

/// The engine of an [`Encoder`] and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`FAST`] or [`REFERENCE`].
    pub engine: String,
    /// Family of the splits, if known.
    pub family: Option<Family>,
    /// Probe strings for which both engines gave the same ids.
    pub n_probes: usize,
    /// The cause of using the reference: a piece of the file or a string.
    pub reason: Option<String>,
}

impl Verdict {
    /// The reference, and the cause.
    pub fn reference(reason: impl Into<String>) -> Verdict {
        Verdict { engine: REFERENCE.to_owned(), family: None, n_probes: 0, reason: Some(reason.into()) }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.reason, self.family) {
            (Some(reason), _) => write!(f, "{}, because {reason}", self.engine),
            (None, Some(family)) => {
                write!(f, "{} ({family} splits, {} probe strings equal)", self.engine, self.n_probes)
            }
            (None, None) => write!(f, "{}", self.engine),
        }
    }
}

/// Tokens that text must not become.
#[derive(Default)]
struct Reserved {
    names: BTreeSet<String>,
    /// In ascending order.
    ids: Vec<u32>,
    /// The one among them that represents unknown text.
    unknown: Option<u32>,
}

impl Reserved {
    fn new(tokens: Vec<(String, u32)>, unknown: Option<u32>) -> Reserved {
        let (names, ids): (BTreeSet<String>, BTreeSet<u32>) = tokens.into_iter().unzip();
        Reserved { names, ids: ids.into_iter().collect(), unknown }
    }

    /// The first reserved one of some ids.
    fn first_in(&self, ids: &[u32]) -> Option<u32> {
        let (Some(&least), Some(&most)) = (self.ids.first(), self.ids.last()) else { return None };
        let may_be = |id: &&u32| (least..=most).contains(*id) && self.ids.binary_search(id).is_ok();
        ids.iter().find(may_be).copied()
    }
}

/// Turns text into ids; may be used by many threads at once.
pub struct Encoder {
    path: PathBuf,
    reference: Reference,
    fast: Option<Fast>,
    verdict: Verdict,
    eod: TokenId,
    bos: Option<TokenId>,
    /// Strings never matched in text, even if others are.
    boundaries: Vec<String>,
    reserved: Reserved,
    /// Finds special tokens in conversations; made on first use.
    markers: OnceLock<std::result::Result<Markers, String>>,
    vocab_size: u32,
    n_by_reference: AtomicU64,
}

impl Encoder {
    /// Loads a file and chooses the engine, which takes about a second for a vocabulary of 128,000.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file is not a tokenizer, has no end-of-document token or more
    /// than one candidate, or lacks the token named as begin of document.
    pub fn load(path: &Path, options: &EncoderOptions) -> Result<Encoder> {
        let wrong = |message: String| Error::Tokenizer { path: path.to_owned(), message };
        let file = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let parsed: Value = serde_json::from_slice(&file).map_err(|e| wrong(format!("is not JSON: {e}")))?;
        let reference = Reference::new(file, &parsed, options.special_in_text).map_err(wrong)?;
        let eod = reference.eod(options.eod.as_deref()).map_err(wrong)?;
        let bos = match &options.bos {
            Some(name) => Some(reference.special("tokenizer.bos", name).map_err(wrong)?),
            None => None,
        };
        let boundaries: Vec<(String, u32)> = [eod.clone()].into_iter().chain(bos.clone()).collect();
        let unknown = reference.unknown().cloned();
        let mut reserved = match options.special_in_text {
            SpecialInText::Text => reference.all_specials(),
            SpecialInText::Match => Vec::new(),
        };
        reserved.extend(boundaries.iter().chain(&unknown).cloned());
        let mut encoder = Encoder {
            path: path.to_owned(),
            vocab_size: reference.vocab_size(),
            reference,
            fast: None,
            verdict: Verdict::reference("the recipe asks for it"),
            eod: TokenId(eod.1),
            bos: bos.map(|(_, id)| TokenId(id)),
            boundaries: match options.special_in_text {
                SpecialInText::Text => Vec::new(),
                SpecialInText::Match => boundaries.into_iter().map(|(name, _)| name).collect(),
            },
            reserved: Reserved::new(reserved, unknown.map(|(_, id)| id)),
            markers: OnceLock::new(),
            n_by_reference: AtomicU64::new(0),
        };
        match options.engine {
            EngineChoice::Reference => {}
            EngineChoice::Auto => encoder.choose(&parsed, options.special_in_text)?,
        }
        // The expressions of the fast engine's files are known.
        if encoder.fast.is_none() && limits::has_expressions(&parsed) {
            encoder.reference.check_time().map_err(wrong)?;
        }
        Ok(encoder)
    }

    fn choose(&mut self, file: &Value, special_in_text: SpecialInText) -> Result<()> {
        let tokens = self.reference.added_tokens();
        let is_matched =
            |token: &tokenizers::AddedToken| !token.special || special_in_text == SpecialInText::Match;
        match Fast::new(file, &tokens, is_matched) {
            Ok(fast) => {
                let family = Some(fast.family());
                self.verdict = Verdict { engine: FAST.to_owned(), family, n_probes: 0, reason: None };
                self.fast = Some(fast);
            }
            Err(refusal) => {
                self.verdict = Verdict::reference(refusal.to_string());
                return Ok(());
            }
        }
        let specials: Vec<&str> = tokens.iter().map(|(_, token)| token.content.as_str()).collect();
        let probe = probe::strings(&specials);
        self.probe(probe.iter().map(String::as_str))
    }

    /// Encodes texts with both engines and drops the fast one at the first difference.
    ///
    /// # Errors
    /// The tokenizer refuses a text.
    pub fn probe<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) -> Result<()> {
        let mut ids = Vec::new();
        for text in texts {
            if self.fast.is_none() {
                break;
            }
            ids.clear();
            self.encode_by(text, &mut ids, self.fast.as_ref())?;
            match self.difference(text, &ids)? {
                None => self.verdict.n_probes += 1,
                Some(difference) => {
                    self.fast = None;
                    self.verdict = Verdict::reference(format!("the fast engine differs: {difference}"));
                }
            }
        }
        Ok(())
    }

    /// Describes where `ids` differ from those of the reference for a text.
    ///
    /// # Errors
    /// The reference refuses the text.
    pub fn difference(&self, text: &str, ids: &[u32]) -> Result<Option<String>> {
        let mut expected = Vec::new();
        self.encode_by(text, &mut expected, None)?;
        if ids == expected {
            return Ok(None);
        }
        let at = ids.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let name = |id: Option<&u32>| id.map_or("the end".to_owned(), |id| format!("id {id}"));
        let start: String = text.chars().take(60).collect();
        let more = if start.len() < text.len() { "..." } else { "" };
        let (found, expected) = (name(ids.get(at)), name(expected.get(at)));
        Ok(Some(format!("token {at} of {start:?}{more} is {found}, in the reference {expected}")))
    }

    /// Appends the ids of a text, without begin and end of document. Memory other than `ids` is bounded
    /// for a text of any length, except where only the reference can encode it.
    ///
    /// # Errors
    /// The tokenizer refuses the text, or makes a special token from it in any spelling. `ids` are then unchanged.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.encode_by(text, ids, self.fast.as_ref())
    }

    fn encode_by(&self, text: &str, ids: &mut Vec<u32>, fast: Option<&Fast>) -> Result<()> {
        let start = ids.len();
        let done = self.encode_apart(text, ids, fast);
        if done.is_err() {
            ids.truncate(start);
        }
        done
    }

    fn encode_apart(&self, text: &str, ids: &mut Vec<u32>, fast: Option<&Fast>) -> Result<()> {
        let start = ids.len();
        self.encode_unchecked(text, ids, fast)?;
        if self.reserved.first_in(&ids[start..]).is_none() {
            return Ok(());
        }
        ids.truncate(start);
        self.reference
            .encode_spelled(&self.reserved.names, text, ids)
            .map_err(|message| self.refused(message))?;
        let is_boundary = |id: u32| id == self.eod.0 || self.bos.is_some_and(|bos| bos.0 == id);
        let unknown = self.reserved.unknown.filter(|id| !is_boundary(*id));
        let rest = ids[start..].iter().copied().filter(|id| Some(*id) != unknown);
        match self.reserved.first_in(&rest.collect::<Vec<u32>>()) {
            None => Ok(()),
            Some(id) => Err(self.refused(format!("gives the special token {id} for plain text"))),
        }
    }

    /// As [`Encoder::encode_into`], to a new vector.
    ///
    /// # Errors
    /// As [`Encoder::encode_into`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    fn encode_unchecked(&self, text: &str, ids: &mut Vec<u32>, fast: Option<&Fast>) -> Result<()> {
        let mut start = 0;
        while let Some((at, len)) = first_of(&self.boundaries, &text[start..]) {
            self.encode_piece(&text[start..start + at], ids, fast)?;
            self.reference
                .encode_as_text(&text[start + at..start + at + len], ids)
                .map_err(|message| self.refused(message))?;
            start += at + len;
        }
        self.encode_piece(&text[start..], ids, fast)
    }

    fn encode_piece(&self, text: &str, ids: &mut Vec<u32>, fast: Option<&Fast>) -> Result<()> {
        if let Some(fast) = fast {
            if fast.encode(text, ids) {
                return Ok(());
            }
            self.n_by_reference.fetch_add(1, Ordering::Relaxed);
        }
        self.reference.encode(text, ids).map_err(|message| self.refused(message))
    }

    fn refused(&self, message: String) -> Error {
        Error::Tokenizer { path: self.path.clone(), message }
    }

    /// Engine and reason.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Texts that the fast engine has passed on to the reference so far.
    pub fn n_by_reference(&self) -> u64 {
        self.n_by_reference.load(Ordering::Relaxed)
    }

    /// End of document.
    pub fn eod(&self) -> TokenId {
        self.eod
    }

    /// Begin of document.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The token for unknown text, if any.
    pub fn unknown(&self) -> Option<TokenId> {
        self.reserved.unknown.map(TokenId)
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// Its tokens.
    pub fn vocabulary(&self) -> Vocabulary {
        self.reference.vocabulary()
    }

    /// Whether it round-trips any bytes, so that texts can be decoded from their tokens.
    pub fn is_byte_level(&self) -> bool {
        self.reference.is_byte_level()
    }
}

/// Position and length of the first of some strings in a text; the longest at that position.
fn first_of(strings: &[String], text: &str) -> Option<(usize, usize)> {
    let found = strings.iter().filter_map(|string| text.find(string.as_str()).map(|at| (at, string.len())));
    found.min_by_key(|&(at, len)| (at, std::cmp::Reverse(len)))
}

#[cfg(test)]
mod tests;
