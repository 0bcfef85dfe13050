//! A request and its key.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use moe_shards::Hash;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json;

/// Version of what a key covers. Changing it makes all cached completions unreachable.
const KEY_VERSION: u32 = 1;

/// Identity of a request: BLAKE3 of its canonical JSON. Two requests with one key are the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(pub Hash);

impl Key {
    /// A number in `0..1` that depends only on the key, a name and an index.
    pub(crate) fn fraction(&self, name: &str, index: u32) -> f64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.0).update(name.as_bytes()).update(&index.to_le_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        // 53 bits, which a double can represent exactly.
        (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Key, String> {
        text.parse().map(Key)
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

impl Message {
    /// Instructions.
    pub fn system(content: impl Into<String>) -> Message {
        Message { role: Role::System, content: content.into() }
    }

    /// A question.
    pub fn user(content: impl Into<String>) -> Message {
        Message { role: Role::User, content: content.into() }
    }

    /// An earlier answer, or the beginning of one.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message { role: Role::Assistant, content: content.into() }
    }
}

/// How the server draws tokens. What is `None` is not sent, so the server's default applies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; usually up to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Only the most likely tokens with this total probability, in `0..=1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Maximum length of an answer, in the model's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Seed of the drawing; servers treat it as a hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Texts that end an answer; they are not part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

/// One request to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Name of the model on the server.
    pub model: String,
    /// Distinguishes models with the same name, such as by a commit or a quantization; given by the user, not
    /// sent.
    #[serde(default)]
    pub revision: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// How tokens are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Other members of the body as the server expects them, such as `response_format`, `top_k` or
    /// `max_completion_tokens`. They may not replace the members above.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// Other things that the answer depends on, name to value or digest; not sent, but part of the key: the
    /// source text, the plan of the chunks, the template, the version of the pipeline.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
}

impl Request {
    /// A request with the server's defaults.
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Request {
        Request {
            model: model.into(),
            revision: String::new(),
            messages,
            sampling: Sampling::default(),
            extra: BTreeMap::new(),
            context: BTreeMap::new(),
        }
    }

    /// The identity of the request. It covers every field: everything that might change the answer or its
    /// meaning.
    pub fn key(&self) -> Key {
        #[derive(Serialize)]
        struct Keyed<'a> {
            version: u32,
            request: &'a Request,
        }
        let keyed = Keyed { version: KEY_VERSION, request: self };
        Key(Hash::of(json::canonical(&keyed).as_bytes()))
    }

    /// The body of `POST /chat/completions`, in canonical JSON.
    pub fn body(&self) -> String {
        let mut body = self.extra.clone();
        body.insert("model".into(), Value::from(self.model.as_str()));
        let sampling = serde_json::to_value(&self.sampling);
        let messages = serde_json::to_value(&self.messages);
        // Structures of strings and numbers always become values.
        if let (Ok(Value::Object(sampling)), Ok(messages)) = (sampling, messages) {
            body.extend(sampling);
            body.insert("messages".into(), messages);
        }
        json::canonical(&body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let mut request = Request::new("m", vec![Message::system("be brief"), Message::user("hello")]);
        request.sampling = Sampling { temperature: Some(0.7), seed: Some(5), ..Sampling::default() };
        request.extra.insert("top_k".into(), 40.into());
        request.context.insert("source".into(), "aa".into());
        request
    }

    /// A published value: changing it would send all requests of all users again.
    #[test]
    fn keys_stay_what_they_are() {
        let text = r#"{"request":{"context":{"source":"aa"},"extra":{"top_k":40},"messages":[{"content":"be brief","role":"system"},{"content":"hello","role":"user"}],"model":"m","revision":"","sampling":{"seed":5,"temperature":0.7}},"version":1}"#;
        assert_eq!(request().key(), Key(Hash::of(text.as_bytes())));
        assert_eq!(request().key().to_string().parse(), Ok(request().key()));
    }

    #[test]
    fn every_field_is_part_of_the_key() {
        let changes: [fn(&mut Request); 11] = [
            |r| r.model.push('x'),
            |r| r.revision.push('x'),
            |r| r.messages[0].content.push('x'),
            |r| r.messages[1].role = Role::Assistant,
            |r| r.sampling.temperature = None,
            |r| r.sampling.top_p = Some(1.0),
            |r| r.sampling.max_tokens = Some(1),
            |r| r.sampling.seed = Some(6),
            |r| r.sampling.stop.push("x".into()),
            |r| drop(r.extra.insert("top_k".into(), 41.into())),
            |r| drop(r.context.insert("source".into(), "ab".into())),
        ];
        let mut keys = vec![request().key()];
        for change in changes {
            let mut changed = request();
            change(&mut changed);
            keys.push(changed.key());
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 12);
    }

    #[test]
    fn the_body_has_what_is_sent_and_nothing_else() {
        let expected = r#"{"messages":[{"content":"be brief","role":"system"},{"content":"hello","role":"user"}],"model":"m","seed":5,"temperature":0.7,"top_k":40}"#;
        assert_eq!(request().body(), expected);
    }

    #[test]
    fn fractions_are_spread_and_depend_on_all_three() {
        let key = request().key();
        let mean = (0..1000).map(|i| key.fraction("x", i)).sum::<f64>() / 1000.0;
        assert!((0.47..0.53).contains(&mean), "{mean}");
        assert_ne!(key.fraction("x", 1), key.fraction("y", 1));
        assert_eq!(key.fraction("x", 1), key.fraction("x", 1));
    }
}
