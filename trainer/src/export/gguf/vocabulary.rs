//! The tokenizer inside a GGUF file: byte-level BPE with its merges, and llama.cpp's name for how it splits
//! text.

use moe_shards::Hash;
use serde_json::Value as Json;

use super::super::tokenizer::{Chat, merges};
use super::file::Meta;

/// llama.cpp's names of regular expressions, by prefixes of their hashes: those of cl100k, Qwen 2, o200k and
/// DeepSeek 3. The name for Llama 3, which splits as cl100k does, would take whole words from the vocabulary
/// before merging.
const SPLITS: &[(&str, &str)] = &[
    ("7283c2614995", "dbrx"),
    ("c309f4080738", "qwen2"),
    ("f60f8f09bdc4", "gpt-4o"),
    ("c76bcca76f34", "deepseek-v3"),
];

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER: i32 = 4;
const UNUSED: i32 = 5;

/// The keys of a tokenizer, for a vocabulary of `vocab` entries.
///
/// # Errors
/// Why llama.cpp does not support this tokenizer.
pub fn keys(file: &[u8], vocab: usize, eod: u32, chat: &Chat) -> Result<Vec<(String, Meta)>, String> {
    let file: Json = serde_json::from_slice(file).map_err(|error| format!("is not JSON: {error}"))?;
    let model = &file["model"];
    if model["type"] != "BPE" && !(model["type"].is_null() && model["merges"].is_array()) {
        return Err(format!(
            "model.type: expected \"BPE\", found {}: only byte-level BPE can go into a GGUF file",
            model["type"]
        ));
    }
    let pre = split(&file["pre_tokenizer"])?;
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; vocab];
    let mut put = |id: u64, text: &str, kind: i32| {
        if let Some(place) = usize::try_from(id).ok().and_then(|id| tokens.get_mut(id)) {
            *place = Some((text.to_string(), kind));
        }
    };
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        put(id.as_u64().unwrap_or(u64::MAX), text, NORMAL);
    }
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { CONTROL } else { USER };
        put(token["id"].as_u64().unwrap_or(u64::MAX), token["content"].as_str().unwrap_or_default(), kind);
    }
    let (texts, kinds) = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
        .unzip();
    let merges = merges(&model["merges"]).iter().map(|[a, b]| format!("{a} {b}")).collect();
    let keys = [
        ("model", Meta::Text("gpt2".into())),
        ("pre", Meta::Text(pre.into())),
        ("tokens", Meta::Texts(texts)),
        ("token_type", Meta::I32s(kinds)),
        ("merges", Meta::Texts(merges)),
        ("eos_token_id", Meta::U32(eod)),
        ("padding_token_id", Meta::U32(eod)),
        // Nothing precedes a document.
        ("add_bos_token", Meta::Bool(false)),
        ("add_eos_token", Meta::Bool(false)),
    ];
    let keys = keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
    Ok(keys.chain(chat_keys(chat, &file, eod)).collect())
}

/// The keys of a chat template: its source, and the tokens that begin a text and end an answer.
fn chat_keys(chat: &Chat, file: &Json, eod: u32) -> Vec<(String, Meta)> {
    let Some(template) = &chat.template else { return Vec::new() };
    let id = |name: &str| {
        let token = chat.tokens.get(name)?;
        let mut added = file["added_tokens"].as_array().into_iter().flatten();
        let added = added.find(|entry| entry["content"] == **token).map(|entry| &entry["id"]);
        u32::try_from(added.unwrap_or(&file["model"]["vocab"][token]).as_u64()?).ok()
    };
    let mut keys = vec![("tokenizer.chat_template".to_string(), Meta::Text(template.clone()))];
    if let Some(bos) = id("bos_token") {
        keys.push(("tokenizer.ggml.bos_token_id".into(), Meta::U32(bos)));
    }
    if let Some(eos) = id("eos_token").filter(|eos| *eos != eod) {
        keys.push(("tokenizer.ggml.eot_token_id".into(), Meta::U32(eos)));
    }
    keys
}

/// The name for how text is split.
fn split(pre: &Json) -> Result<&'static str, String> {
    let steps = match pre["type"].as_str() {
        Some("Sequence") => pre["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice),
        _ => std::slice::from_ref(pre),
    };
    let Some((last, splits)) = steps.split_last().filter(|(last, _)| last["type"] == "ByteLevel") else {
        return Err(format!("pre_tokenizer: expected ByteLevel at the end, found {}", pre["type"]));
    };
    if last["add_prefix_space"] == true {
        return Err("pre_tokenizer: add_prefix_space: expected false, found true".into());
    }
    let patterns: Vec<&str> = splits.iter().filter_map(|step| step["pattern"]["Regex"].as_str()).collect();
    if patterns.is_empty() && last["use_regex"] != false {
        return Ok("gpt-2");
    }
    let hash = Hash::of(patterns.join("\n").as_bytes()).to_string();
    SPLITS.iter().find(|(known, _)| hash.starts_with(known)).map(|(_, word)| *word).ok_or_else(|| {
        let known: Vec<&str> = SPLITS.iter().map(|(_, word)| *word).collect();
        format!(
            "pre_tokenizer: its regular expressions are none of those that llama.cpp calls gpt-2, {}",
            known.join(", ")
        )
    })
}
