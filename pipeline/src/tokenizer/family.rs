//! The allow-list of the fast engine: which pieces of a `tokenizer.json` it is known to encode
//! with exactly the ids of the reference. Everything else goes to the reference,
//! so a file with a new key or a changed regular expression is slow, never wrong.
//!
//! The fast engine recognizes more files than it encodes correctly (a `\p{N}{1,2}` in place of
//! `\p{N}{1,3}` loads and gives other ids), which is why the check is ours.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// How text is split before merging. Named after the first vocabulary that used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// The regular expression of GPT-2, inside the `ByteLevel` step.
    Gpt2,
    /// OpenAI's `cl100k_base`; Llama 3 too.
    Cl100k,
    /// Qwen 2 and 3: as `cl100k`, but each digit on its own.
    Qwen2,
    /// OpenAI's `o200k_base`.
    O200k,
    /// DeepSeek 3: three splits, one after another.
    DeepSeek,
}

impl std::str::FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Family, String> {
        let names: Vec<String> = Family::ALL.iter().map(Family::to_string).collect();
        let found = Family::ALL.into_iter().find(|family| family.to_string() == name);
        found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Gpt2 => "gpt2",
            Family::Cl100k => "cl100k",
            Family::Qwen2 => "qwen2",
            Family::O200k => "o200k",
            Family::DeepSeek => "deepseek",
        })
    }
}

const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK: [&str; 3] = [
    r"\p{N}{1,3}",
    "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    // Its line breaks are the characters themselves, not escapes.
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

impl Family {
    /// All of them.
    pub const ALL: [Family; 5] =
        [Family::Gpt2, Family::Cl100k, Family::Qwen2, Family::O200k, Family::DeepSeek];

    /// The `pre_tokenizer` of a `tokenizer.json` of this family.
    pub fn pre_tokenizer(self) -> Value {
        let byte_level = |use_regex: bool| {
            serde_json::json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex
            })
        };
        let splits = self.splits();
        if splits.is_empty() {
            return byte_level(true);
        }
        let split = |pattern: &&str| {
            serde_json::json!({
                "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false
            })
        };
        let steps: Vec<Value> = splits.iter().map(split).chain([byte_level(false)]).collect();
        serde_json::json!({ "type": "Sequence", "pretokenizers": steps })
    }

    /// The regular expressions of its `Split` steps; GPT-2's is inside `ByteLevel`.
    fn splits(self) -> &'static [&'static str] {
        match self {
            Family::Gpt2 => &[],
            Family::Cl100k => &[CL100K],
            Family::Qwen2 => &[QWEN2],
            Family::O200k => &[O200K],
            Family::DeepSeek => &DEEPSEEK,
        }
    }
}

/// A piece of a file that the fast engine may not encode exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Place in the file, such as `model.dropout`.
    pub piece: String,
    /// What was found and what would be accepted.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(piece: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal { piece: piece.into(), message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.piece, self.message)
    }
}

/// A file that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognized {
    /// Its splits.
    pub family: Family,
    /// Whether it normalizes to NFC.
    pub nfc: bool,
}

/// Checks everything but the added tokens.
///
/// # Errors
/// The first piece that is not allowed.
pub fn recognize(file: &Value) -> Result<Recognized, Refusal> {
    let file = Object::of(file, "")?;
    // Parts that do not affect ids are left to the reference (decoding) or ignored: padding and
    // truncation make no sense for training data, and boundaries are ours.
    let ignored = ["version", "truncation", "padding", "post_processor", "decoder", "added_tokens"];
    file.only(&[&ignored[..], &["normalizer", "pre_tokenizer", "model"]].concat())?;
    model(&file.child("model")?)?;
    let nfc = match file.get("normalizer") {
        Value::Null => false,
        normalizer => is_nfc(&Object::of(normalizer, "normalizer")?)?,
    };
    let family = splits(&file.child("pre_tokenizer")?)?;
    Ok(Recognized { family, nfc })
}

fn model(model: &Object<'_>) -> Result<(), Refusal> {
    model.only(&[
        "type",
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "fuse_unk",
        "byte_fallback",
        "ignore_merges",
        "vocab",
        "merges",
    ])?;
    model.is("type", &[Value::from("BPE")])?;
    model.is("dropout", &[Value::Null])?;
    model.is("unk_token", &[Value::Null])?;
    model.is("continuing_subword_prefix", &[Value::Null, Value::from("")])?;
    model.is("end_of_word_suffix", &[Value::Null, Value::from("")])?;
    model.is("byte_fallback", &[Value::Null, Value::from(false)])?;
    let vocab = model.child("vocab")?;
    let missing = ByteLevel::alphabet().into_iter().filter(|c| !vocab.map.contains_key(&c.to_string()));
    match missing.min() {
        None => Ok(()),
        Some(c) => Err(Refusal::new("model.vocab", format!("lacks `{c}`; all 256 byte symbols are needed"))),
    }
}

/// Whether a normalizer is NFC (else it does nothing).
fn is_nfc(normalizer: &Object<'_>) -> Result<bool, Refusal> {
    if normalizer.get("type") != "Sequence" {
        normalizer.only(&["type"])?;
        normalizer.is("type", &[Value::from("NFC")])?;
        return Ok(true);
    }
    normalizer.only(&["type", "normalizers"])?;
    let mut nfc = false;
    for step in normalizer.items("normalizers")? {
        nfc |= is_nfc(&step)?;
    }
    Ok(nfc)
}

fn splits(pre_tokenizer: &Object<'_>) -> Result<Family, Refusal> {
    if pre_tokenizer.get("type") != "Sequence" {
        byte_level(pre_tokenizer, true)?;
        return Ok(Family::Gpt2);
    }
    pre_tokenizer.only(&["type", "pretokenizers"])?;
    let steps = pre_tokenizer.items("pretokenizers")?;
    let Some((last, first)) = steps.split_last() else {
        return Err(Refusal::new(&*pre_tokenizer.place, "has no steps"));
    };
    let mut patterns = Vec::new();
    for step in first {
        step.only(&["type", "pattern", "behavior", "invert"])?;
        step.is("type", &[Value::from("Split")])?;
        let pattern = step.child("pattern")?;
        pattern.only(&["Regex"])?;
        // The expressions match every character, so what lies between matches is empty and
        // removing that is the same as isolating the matches.
        let isolated = step.get("behavior") == "Isolated" && step.get("invert") == &Value::from(false);
        let removed = step.get("behavior") == "Removed" && step.get("invert") == &Value::from(true);
        if !(isolated || removed && first.len() == 1) {
            let found = format!("{}, invert {}", step.get("behavior"), step.get("invert"));
            return Err(Refusal::new(format!("{}.behavior", step.place), format!("is {found}")));
        }
        patterns.push(pattern.get("Regex").as_str().unwrap_or_default());
    }
    byte_level(last, false)?;
    let family = Family::ALL.into_iter().find(|family| !patterns.is_empty() && family.splits() == patterns);
    family.ok_or_else(|| {
        Refusal::new(
            &*pre_tokenizer.place,
            format!("has other regular expressions: {}", patterns.join(" then ")),
        )
    })
}

fn byte_level(step: &Object<'_>, use_regex: bool) -> Result<(), Refusal> {
    step.only(&["type", "add_prefix_space", "trim_offsets", "use_regex"])?;
    step.is("type", &[Value::from("ByteLevel")])?;
    step.is("add_prefix_space", &[Value::from(false)])?;
    // Older files lack the key, which defaults to true.
    match use_regex {
        true => step.is("use_regex", &[Value::from(true), Value::Null]),
        false => step.is("use_regex", &[Value::from(false)]),
    }
}

/// An object of the file with its path.
struct Object<'v> {
    map: &'v Map<String, Value>,
    place: String,
}

impl<'v> Object<'v> {
    fn of(value: &'v Value, place: &str) -> Result<Object<'v>, Refusal> {
        match value.as_object() {
            Some(map) => Ok(Object { map, place: place.to_owned() }),
            None => Err(Refusal::new(place, format!("is {}", brief(value)))),
        }
    }

    fn path(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    fn get(&self, key: &str) -> &'v Value {
        self.map.get(key).unwrap_or(&Value::Null)
    }

    fn child(&self, key: &str) -> Result<Object<'v>, Refusal> {
        Object::of(self.get(key), &self.path(key))
    }

    fn items(&self, key: &str) -> Result<Vec<Object<'v>>, Refusal> {
        let items = self.get(key).as_array().map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .enumerate()
            .map(|(i, item)| Object::of(item, &format!("{}[{i}]", self.path(key))))
            .collect()
    }

    fn only(&self, keys: &[&str]) -> Result<(), Refusal> {
        match self.map.keys().find(|key| !keys.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Refusal::new(self.path(key), "is a key that is not known to keep the ids")),
        }
    }

    fn is(&self, key: &str, allowed: &[Value]) -> Result<(), Refusal> {
        let found = self.get(key);
        if allowed.contains(found) {
            return Ok(());
        }
        Err(Refusal::new(self.path(key), format!("is {}, expected {}", brief(found), brief(&allowed[0]))))
    }
}

/// A value short enough for a message.
fn brief(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(map) => format!("a table of {}", map.len()),
        other => other.to_string(),
    }
}
