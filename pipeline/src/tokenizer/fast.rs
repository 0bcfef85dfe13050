//! The fast engine: `fastokens`, with our own handling of added tokens and long texts. It gets
//! only plain text of a known [`Family`](super::family::Family), in parts below the size at
//! which it would use threads of its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokenizers::AddedToken;

use super::added::{AddedTokens, Piece};
use super::cut;
use super::family::{Family, Recognized, Refusal, recognize};

/// Encodes what it can exactly.
pub(super) struct Fast {
    inner: fastokens::Tokenizer,
    added: AddedTokens,
    family: Family,
    part_bytes: usize,
}

/// The model without the added tokens after all others: the engine needs ids without gaps, and we find these
/// tokens ourselves. (A name that is one word would be found in the vocabulary too; the probe holds them all.)
fn without_last_added(model: &Value, tokens: &[(u32, AddedToken)]) -> Value {
    let mut model = model.clone();
    let names: BTreeSet<&str> = tokens.iter().map(|(_, token)| token.content.as_str()).collect();
    if let Some(vocab) = model["vocab"].as_object_mut() {
        let plain = vocab.iter().filter(|(name, _)| !names.contains(name.as_str()));
        let last = plain.filter_map(|(_, id)| id.as_u64()).max();
        vocab.retain(|name, id| !names.contains(name.as_str()) || id.as_u64() <= last);
    }
    model
}

impl Fast {
    /// Takes a parsed `tokenizer.json`; `tokens` and `is_matched` are as for [`AddedTokens::new`].
    ///
    /// # Errors
    /// What in the file forces the reference.
    pub(super) fn new(
        file: &Value,
        tokens: &[(u32, AddedToken)],
        is_matched: impl Fn(&AddedToken) -> bool,
    ) -> Result<Fast, Refusal> {
        let Recognized { family, nfc } = recognize(file)?;
        let added = AddedTokens::new(tokens, nfc, is_matched)?;
        let bare = json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": file["normalizer"],
            "pre_tokenizer": file["pre_tokenizer"],
            "model": without_last_added(&file["model"], tokens),
        });
        let inner = fastokens::Tokenizer::from_json(bare)
            .map_err(|e| Refusal::new("file", format!("is refused by the fast engine: {e}")))?;
        let part_bytes = if nfc { cut::NFC_PART_BYTES } else { cut::PART_BYTES };
        Ok(Fast { inner, added, family, part_bytes })
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Appends the ids of a text. False, with `ids` as before, where the whole text has to go to the
    /// reference: no place to cut a long text, or something that only the reference encodes as it does.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> bool {
        // The contractions of o200k match `ſ` for `s` in the reference alone.
        if self.family == Family::O200k && text.contains('ſ') {
            return false;
        }
        let before = ids.len();
        let is_whole = self.added.split(text, &mut |piece| match piece {
            Piece::Token(id) => {
                ids.push(id);
                true
            }
            Piece::Text(text) => self.encode_plain(text, ids),
        });
        if !is_whole {
            ids.truncate(before);
        }
        is_whole
    }

    fn encode_plain(&self, mut text: &str, ids: &mut Vec<u32>) -> bool {
        while !text.is_empty() {
            let Some((part, rest)) = cut::part(text, self.part_bytes) else { return false };
            // An error here is a limit of the engine, not of the text: the reference decides.
            let Ok(part_ids) = self.inner.encode_ordinary(part) else { return false };
            ids.extend_from_slice(&part_ids);
            text = rest;
        }
        true
    }
}
