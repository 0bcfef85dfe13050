//! A tokenizer that cannot make special tokens from text. The library leaves special strings in text to the model, and a
//! model other than byte-level BPE has them among its words: Unigram turns the characters `</s>` into that token. Here these
//! words get names that no text contains, with their ids and scores, so the model spells them out.

use std::collections::BTreeSet;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::guard;

/// Occurs in no text: the last private-use character, which has no meaning anywhere.
const MARK: char = '\u{10fffd}';

/// The tokenizer of a file without the words `hidden`. Other added tokens are matched as before.
///
/// # Errors
/// The library refuses the rest of the file.
pub(super) fn spelled(file: &[u8], hidden: &BTreeSet<String>) -> Result<Tokenizer, String> {
    let mut file: Value = serde_json::from_slice(file).map_err(|e| e.to_string())?;
    let name = |word: &str| format!("{MARK}{word}{MARK}");
    let rename = |word: &mut Value| {
        if let Some(text) = word.as_str().filter(|text| hidden.contains(*text)) {
            *word = Value::from(name(text));
        }
    };
    for key in ["post_processor", "truncation", "padding"] {
        file[key] = Value::Null;
    }
    for token in file["added_tokens"].as_array_mut().into_iter().flatten() {
        if token["content"].as_str().is_some_and(|content| hidden.contains(content)) {
            rename(&mut token["content"]);
            token["normalized"] = Value::from(false);
        }
    }
    let model = &mut file["model"];
    rename(&mut model["unk_token"]);
    match &mut model["vocab"] {
        Value::Object(vocab) => {
            for word in hidden {
                if let Some(id) = vocab.remove(word) {
                    vocab.insert(name(word), id);
                }
            }
        }
        Value::Array(pieces) => pieces.iter_mut().for_each(|piece| rename(&mut piece[0])),
        _ => {}
    }
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| {
            let (left, right) = match merge {
                Value::String(pair) => pair.split_once(' ').unwrap_or((pair, "")),
                pair => (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default()),
            };
            ![left, right, &format!("{left}{right}")].iter().any(|word| hidden.contains(*word))
        });
    }
    let file = file.to_string();
    guard::caught(|| Tokenizer::from_bytes(&file).map_err(|e| e.to_string()))
        .unwrap_or_else(|| Err("the library fails on the file".to_owned()))
}

/// Names of special tokens that only the post-processor of a file mentions.
pub(super) fn names_in_post_processor(file: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut left = vec![&file["post_processor"]];
    while let Some(value) = left.pop() {
        let Value::Object(map) = value else { continue };
        for (key, value) in map {
            match (key.as_str(), value) {
                ("special_tokens", Value::Object(tokens)) => names.extend(tokens.keys().cloned()),
                // BERT and RoBERTa: a name and its id.
                ("sep" | "cls", Value::Array(token)) => {
                    names.extend(token.first().and_then(Value::as_str).map(str::to_owned));
                }
                ("processors", Value::Array(processors)) => left.extend(processors),
                _ => {}
            }
        }
    }
    names
}
