//! Tokenizer files of other programs, and whether two tokenizers are the same.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use tokenizers::Tokenizer;

use crate::checkpoint::Loaded;
use crate::data::CHAT_FILES;
use crate::error::{Error, Result};

const TEMPLATE: &str = CHAT_FILES[0];

/// The chat template of a model and the special tokens that it names.
#[derive(Debug, Default)]
pub struct Chat {
    /// Its Jinja source.
    pub template: Option<String>,
    /// The tokens, such as `eos_token`, by name.
    pub tokens: BTreeMap<String, String>,
}

impl Chat {
    /// That of a checkpoint; empty if it was trained on no conversations.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when a file is not what its name says.
    pub fn of(loaded: &Loaded) -> Result<Chat> {
        let mut chat = Chat::default();
        for (name, bytes) in &loaded.chat {
            let refused = |problem: String| Error::checkpoint(&loaded.path.join(name), problem);
            match *name {
                TEMPLATE => {
                    let text =
                        String::from_utf8(bytes.clone()).map_err(|error| refused(error.to_string()))?;
                    chat.template = Some(text);
                }
                _ => {
                    let config: Json = serde_json::from_slice(bytes)
                        .map_err(|error| refused(format!("is not JSON: {error}")))?;
                    let tokens = config.as_object().into_iter().flatten();
                    let text = |value: &Json| {
                        value.as_str().or_else(|| value["content"].as_str()).map(str::to_string)
                    };
                    chat.tokens = tokens
                        .filter(|(name, _)| name.ends_with("_token"))
                        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                        .collect();
                }
            }
        }
        Ok(chat)
    }

    /// Ids of the tokens that end a text: that of a document and, where conversations have another, that of an answer.
    pub fn ends(&self, tokenizer: &Tokenizer, eod: u32) -> Vec<u32> {
        let eos = self.tokens.get("eos_token").and_then(|token| tokenizer.token_to_id(token));
        [eod].into_iter().chain(eos.filter(|eos| *eos != eod)).collect()
    }

    /// Writes the template where transformers looks for it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        match &self.template {
            Some(template) => Ok(moe_shards::atomic::write_file(&dir.join(TEMPLATE), template.as_bytes())?),
            None => Ok(()),
        }
    }
}

/// The files that go with `tokenizer.json`, with their names.
pub fn files(tokenizer: &Tokenizer, eod: u32, seq_len: usize, chat: &Chat) -> [(&'static str, Json); 2] {
    let end = tokenizer.id_to_token(eod);
    // Only batches of texts of different lengths have padding, and their masks hide it.
    let mut special = json!({ "eos_token": end, "pad_token": end });
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": false,
        "eos_token": end,
        "pad_token": end,
        "bos_token": null,
        "unk_token": null,
    });
    // A template is rendered with the tokens of these files, so they are those that the model was trained with.
    for (name, token) in &chat.tokens {
        special[name] = json!(token);
        config[name] = json!(token);
    }
    [("tokenizer_config.json", config), ("special_tokens_map.json", special)]
}

/// Whether two tokenizer files give the same tokens for the same text.
///
/// # Errors
/// What differs.
pub fn same_tokens(ours: &[u8], theirs: &[u8]) -> std::result::Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let parse =
        |bytes| serde_json::from_slice::<Json>(bytes).map_err(|error| format!("is not JSON: {error}"));
    let (ours, theirs) = (parse(ours)?, parse(theirs)?);
    let added = |file: &Json| -> Vec<(u64, String)> {
        let tokens = file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let one = |token: &Json| Some((token["id"].as_u64()?, token["content"].as_str()?.to_string()));
        tokens.iter().filter_map(one).collect()
    };
    if added(&ours) != added(&theirs) {
        return Err("added_tokens differ".into());
    }
    for part in ["normalizer", "pre_tokenizer"] {
        if ours[part] != theirs[part] {
            return Err(format!(
                "{part} differs: expected {}, found {}",
                short(&ours[part]),
                short(&theirs[part])
            ));
        }
    }
    let (old, new) = (&ours["model"], &theirs["model"]);
    if old["vocab"] != new["vocab"] {
        return Err("model.vocab differs".into());
    }
    if merges(&old["merges"]) != merges(&new["merges"]) {
        return Err("model.merges differ".into());
    }
    Ok(())
}

/// Merges as pairs, which older files have as one text.
pub fn merges(list: &Json) -> Vec<[String; 2]> {
    let pair = |merge: &Json| match merge {
        Json::String(text) => text.split_once(' ').map(|(a, b)| [a.to_string(), b.to_string()]),
        other => {
            let part = |at: usize| other.get(at).and_then(Json::as_str).map(str::to_string);
            Some([part(0)?, part(1)?])
        }
    };
    list.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(pair).collect()
}

fn short(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokenizers_are_the_same_by_what_they_do() {
        let of = |merges: Json, id: u64, truncation: Json| {
            json!({ "truncation": truncation, "added_tokens": [{ "id": id, "content": "<e>" }], "normalizer": null,
                    "pre_tokenizer": null, "model": { "vocab": { "a": 0 }, "merges": merges } })
            .to_string()
        };
        let ours = of(json!(["a b"]), 1, Json::Null);
        assert_eq!(same_tokens(ours.as_bytes(), of(json!([["a", "b"]]), 1, json!(1)).as_bytes()), Ok(()));
        let problem = |other: String| same_tokens(ours.as_bytes(), other.as_bytes()).expect_err("differs");
        assert_eq!(problem(of(json!(["b a"]), 1, Json::Null)), "model.merges differ");
        assert_eq!(problem(of(json!(["a b"]), 2, Json::Null)), "added_tokens differ");
        assert!(problem("x".into()).starts_with("is not JSON"));
    }
}
