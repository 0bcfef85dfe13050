//! The reference engine: the library `tokenizers`, whose ids are right by definition.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, PreTokenizerWrapper, Tokenizer};

use super::vocabulary::{Vocabulary, Writing};
use super::{SpecialInText, limits, spelled};
use crate::error::{self, Error};
use crate::guard;

/// Names of end-of-document tokens in published tokenizers, most specific first.
const KNOWN_EOD: [&str; 6] =
    [super::EOD, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>", "[EOS]"];

/// A tokenizer of the library.
pub(super) struct Reference {
    /// Encodes special strings as text.
    as_text: Tokenizer,
    /// Matches them, if wanted.
    matching: Option<Tokenizer>,
    /// Lacks the words to spell out; made when a text first needs it.
    spelled: OnceLock<Result<Tokenizer, String>>,
    file: Vec<u8>,
    /// The model's token for unknown text.
    unknown: Option<(String, u32)>,
    /// Special tokens that only the post-processor mentions.
    other_specials: BTreeSet<String>,
}

impl Reference {
    /// `file` is the file and `parsed` its JSON.
    pub(super) fn new(
        file: Vec<u8>,
        parsed: &Value,
        special_in_text: SpecialInText,
    ) -> Result<Reference, String> {
        limits::check_ids(parsed)?;
        let loaded = guard::caught(|| Tokenizer::from_bytes(&file).map_err(|e| e.to_string()));
        let mut as_text = loaded.unwrap_or_else(|| Err("the library fails on the file".to_owned()))?;
        as_text.with_padding(None);
        as_text.with_truncation(None).map_err(|e| e.to_string())?;
        if parsed["model"]["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
            let message =
                "`model.dropout` leaves out merges by chance, so that a text has other tokens each time";
            return Err(format!("{message}; set it to null"));
        }
        let unknown = unknown_token(&as_text, parsed);
        let matching = (special_in_text == SpecialInText::Match).then(|| as_text.clone());
        as_text.set_encode_special_tokens(true);
        let other_specials = spelled::names_in_post_processor(parsed);
        Ok(Reference { as_text, matching, spelled: OnceLock::new(), file, unknown, other_specials })
    }

    /// Refuses regular expressions that take too long.
    pub(super) fn check_time(&self) -> Result<(), String> {
        limits::check_time(&self.as_text)
    }

    /// Appends the ids of a text in which no word of `hidden` becomes a token. The first call fixes `hidden`.
    pub(super) fn encode_spelled(
        &self,
        hidden: &BTreeSet<String>,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), String> {
        let made = self.spelled.get_or_init(|| {
            let mut spelled = spelled::spelled(&self.file, hidden)?;
            spelled.set_encode_special_tokens(self.matching.is_none());
            Ok(spelled)
        });
        encode(made.as_ref().map_err(Clone::clone)?, text, ids)
    }

    /// The token for unknown text.
    pub(super) fn unknown(&self) -> Option<&(String, u32)> {
        self.unknown.as_ref()
    }

    /// Names and ids of all special tokens, including those that only the post-processor knows.
    pub(super) fn all_specials(&self) -> Vec<(String, u32)> {
        let mut all = self.specials();
        let others = self.other_specials.iter();
        all.extend(others.filter_map(|name| Some((name.clone(), self.as_text.token_to_id(name)?))));
        all
    }

    /// Appends the ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        encode(self.matching.as_ref().unwrap_or(&self.as_text), text, ids)
    }

    /// Appends the ids of a text in which no special token is matched.
    pub(super) fn encode_as_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        encode(&self.as_text, text, ids)
    }

    /// Added tokens by id.
    pub(super) fn added_tokens(&self) -> Vec<(u32, AddedToken)> {
        let mut tokens: Vec<_> = self.as_text.get_added_tokens_decoder().into_iter().collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }

    /// One more than the largest token id.
    pub(super) fn vocab_size(&self) -> u32 {
        self.as_text.get_vocab(true).into_values().max().map_or(0, |largest| largest + 1)
    }

    /// Name and id of the end of document.
    pub(super) fn eod(&self, wanted: Option<&str>) -> Result<(String, u32), String> {
        let specials = self.specials();
        let name = choose_eod(wanted, &specials.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())?;
        self.special("tokenizer.eod", name)
    }

    /// Name and id of a special token that the recipe names.
    pub(super) fn special(&self, key: &str, name: &str) -> Result<(String, u32), String> {
        let specials = self.specials();
        let names: Vec<&str> = specials.iter().map(|(name, _)| name.as_str()).collect();
        let found = specials.iter().find(|(special, _)| special == name).cloned();
        found.ok_or_else(|| format!("`{key}` names `{name}`, but {}", listed(&names)))
    }

    fn specials(&self) -> Vec<(String, u32)> {
        let special = self.added_tokens().into_iter().filter(|(_, token)| token.special);
        special.map(|(id, token)| (token.content, id)).collect()
    }

    pub(super) fn vocabulary(&self) -> Vocabulary {
        let added = self.added_tokens().into_iter().collect();
        let byte_level = self.is_byte_level();
        let (prefix, suffix) = match self.as_text.get_model() {
            ModelWrapper::BPE(model) => {
                (model.continuing_subword_prefix.clone(), model.end_of_word_suffix.clone())
            }
            ModelWrapper::WordPiece(model) => (Some(model.continuing_subword_prefix.clone()), None),
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => (None, None),
        };
        let writing = Writing { byte_level, prefix, suffix };
        Vocabulary::new(self.as_text.get_vocab(true), &added, self.vocab_size(), &writing)
    }

    /// Whether its tokens are written in the symbols of bytes.
    pub(super) fn is_byte_level(&self) -> bool {
        let decodes = matches!(self.as_text.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let splits = match self.as_text.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(_)) => true,
            Some(PreTokenizerWrapper::Sequence(steps)) => {
                steps.as_ref().iter().any(|step| matches!(step, PreTokenizerWrapper::ByteLevel(_)))
            }
            _ => false,
        };
        decodes || splits
    }
}

/// Name and id of a tokenizer's token for unknown text; `file` is its JSON.
pub fn unknown_token(tokenizer: &Tokenizer, file: &Value) -> Option<(String, u32)> {
    let name = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::Unigram(_) => {
            let id = file["model"]["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok());
            id.and_then(|id| tokenizer.id_to_token(id))
        }
    }?;
    tokenizer.token_to_id(&name).map(|id| (name, id))
}

fn encode(tokenizer: &Tokenizer, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
    // A regular expression that gives up on a text panics.
    let encoding = guard::caught(|| tokenizer.encode_fast(text, false).map_err(|e| e.to_string()));
    let failed =
        || Err("the library fails on this text, as where a regular expression has no end".to_owned());
    ids.extend_from_slice(encoding.unwrap_or_else(failed)?.get_ids());
    Ok(())
}

fn listed(specials: &[&str]) -> String {
    // Llama 3 has 256 of them.
    const SHOWN: usize = 12;
    let more =
        if specials.len() > SHOWN { format!(" and {} more", specials.len() - SHOWN) } else { String::new() };
    match specials.is_empty() {
        true => "the file has no special tokens".to_owned(),
        false => format!(
            "the file's special tokens are `{}`{more}",
            specials[..specials.len().min(SHOWN)].join("`, `")
        ),
    }
}

fn choose_eod<'a>(wanted: Option<&'a str>, specials: &[&'a str]) -> Result<&'a str, String> {
    // The lookup says whether the file has it.
    if let Some(wanted) = wanted {
        return Ok(wanted);
    }
    let mut found = KNOWN_EOD.iter().filter_map(|known| specials.iter().find(|special| *special == known));
    match (found.next(), found.next()) {
        (Some(eod), None) => Ok(eod),
        (None, _) => Err(format!(
            "the end-of-document token cannot be derived: {}; name one with `tokenizer.eod`",
            listed(specials)
        )),
        (Some(a), Some(b)) => {
            Err(format!("both `{a}` and `{b}` could end a document; choose one with `tokenizer.eod`"))
        }
    }
}

impl Vocabulary {
    /// The vocabulary of a tokenizer file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the file is not a tokenizer.
    pub fn read(path: &Path) -> error::Result<Vocabulary> {
        let file = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let wrong = |message: String| Error::Tokenizer { path: path.to_owned(), message };
        let parsed = serde_json::from_slice(&file).map_err(|e| wrong(e.to_string()))?;
        Ok(Reference::new(file, &parsed, SpecialInText::Text).map_err(wrong)?.vocabulary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_document_is_found_or_asked_for() {
        assert_eq!(choose_eod(None, &["<s>", "</s>"]), Ok("</s>"));
        assert_eq!(choose_eod(Some("<s>"), &["<s>", "</s>"]), Ok("<s>"));
        assert!(choose_eod(None, &["<s>"]).unwrap_err().contains("`<s>`; name one with `tokenizer.eod`"));
        assert!(choose_eod(None, &["</s>", super::super::EOD]).unwrap_err().contains("choose one"));
        assert!(choose_eod(None, &[]).unwrap_err().contains("no special tokens"));
    }
}
