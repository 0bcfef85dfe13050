//! A server's answer, and how its JSON is read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tokens as counted by the server; 0 if it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
}

/// Longest text of an answer that is kept, in bytes: a hundred times what models are asked for. Longer ones
/// are truncated.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// `finish_reason` of an answer that was longer than [`MAX_TEXT_BYTES`].
pub const TOO_LONG: &str = "too_long";

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The answer.
    pub text: String,
    /// Why it ends: `stop` when the model was done, `length` when it was cut off, `content_filter`,
    /// `refusal`, or what the server calls it.
    pub finish_reason: String,
    /// Tokens as counted by the server.
    pub usage: Usage,
    /// The model, as the server names it.
    pub model: String,
    /// When it arrived, in seconds since 1970.
    pub time: u64,
}

/// Why a body is not a completion.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It reports an error, with a status if it names one.
    Error { status: Option<u16>, message: String },
    /// It is cut off.
    Malformed(String),
    /// It is complete, but not what the interface specifies.
    Unusable(String),
}

impl Completion {
    /// Reads the body of a response of `POST /chat/completions`.
    pub(crate) fn from_body(body: &[u8], time: u64) -> Result<Completion, Unreadable> {
        let value = serde_json::from_slice(body).map_err(|e| {
            let message = format!("not JSON: {e}");
            match e.is_eof() && !body.is_empty() {
                true => Unreadable::Malformed(message),
                false if body.trim_ascii_start().starts_with(b"<") => {
                    Unreadable::Unusable("a web page".into())
                }
                false => Unreadable::Unusable(message),
            }
        })?;
        Completion::from_value(&value, time)
    }

    /// Takes a completion out of a parsed body.
    pub(crate) fn from_value(value: &Value, time: u64) -> Result<Completion, Unreadable> {
        let unusable = |what: &str| Unreadable::Unusable(what.to_owned());
        // Some gateways report an error of the upstream server with status 200.
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            return Err(Unreadable::Error { status, message: error_message(value) });
        }
        let choice = value.get("choices").and_then(|choices| choices.get(0));
        let choice = choice.ok_or_else(|| unusable("no `choices[0]`"))?;
        let message = choice.get("message").filter(|message| message.is_object());
        let message = message.ok_or_else(|| unusable("no `choices[0].message`"))?;
        let string = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (mut text, mut finish_reason) = match (content(message), message["refusal"].as_str()) {
            (None, Some(refusal)) => (refusal.to_owned(), "refusal".to_owned()),
            (Some(content), _) => (content, string(choice, "finish_reason")),
            // A model that reasons until its tokens are used up, or that calls a tool, returns no text. That
            // is an answer, too, and the same request would get it again.
            (None, None) => match string(choice, "finish_reason") {
                reason if reason.is_empty() || reason == "stop" => (String::new(), "no_text".to_owned()),
                reason => (String::new(), reason),
            },
        };
        if text.len() > MAX_TEXT_BYTES {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            finish_reason = TOO_LONG.to_owned();
        }
        let tokens = |name: &str| value["usage"][name].as_u64().unwrap_or(0);
        let usage =
            Usage { prompt_tokens: tokens("prompt_tokens"), completion_tokens: tokens("completion_tokens") };
        Ok(Completion { text, finish_reason, usage, model: string(value, "model"), time })
    }
}

/// The text of a message: a string, or the texts in a list of parts.
fn content(message: &Value) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str()));
            Some(texts.collect::<String>()).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// The message of a server's error, whatever its form.
pub(crate) fn error_message(value: &Value) -> String {
    let error = value.get("error").unwrap_or(value);
    let words = [error.get("message"), value.get("message"), value.get("detail"), Some(error)];
    let text = words.into_iter().flatten().find_map(|word| match word {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) | Value::Array(_) => Some(word.to_string()),
        _ => None,
    });
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_is_read() {
        let body = r#"{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"message":
            {"role":"assistant","content":"héllo"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#;
        let expected = Completion {
            text: "héllo".into(),
            finish_reason: "stop".into(),
            usage: Usage { prompt_tokens: 7, completion_tokens: 2 },
            model: "m".into(),
            time: 5,
        };
        assert_eq!(Completion::from_body(body.as_bytes(), 5), Ok(expected));
    }

    #[test]
    fn a_refusal_is_an_answer_and_usage_may_be_missing() {
        let body = br#"{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}"#;
        let completion = Completion::from_body(body, 0).unwrap();
        assert_eq!((completion.text.as_str(), completion.finish_reason.as_str()), ("no", "refusal"));
        assert_eq!(completion.usage, Usage::default());
    }

    #[test]
    fn an_answer_without_text_is_kept_with_its_reason() {
        for (choice, text, reason) in [
            (r#"{"message":{"content":null},"finish_reason":"length"}"#, "", "length"),
            (
                r#"{"message":{"content":null,"tool_calls":[]},"finish_reason":"tool_calls"}"#,
                "",
                "tool_calls",
            ),
            (r#"{"message":{"content":null},"finish_reason":"stop"}"#, "", "no_text"),
            (r#"{"message":{"content":7}}"#, "", "no_text"),
            (r#"{"message":{"content":[]},"finish_reason":null}"#, "", "no_text"),
            (r#"{"message":{"content":""},"finish_reason":"stop"}"#, "", "stop"),
            (
                r#"{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]},"finish_reason":"stop"}"#,
                "ab",
                "stop",
            ),
        ] {
            let completion =
                Completion::from_body(format!("{{\"choices\":[{choice}]}}").as_bytes(), 0).unwrap();
            assert_eq!(
                (completion.text.as_str(), completion.finish_reason.as_str()),
                (text, reason),
                "{choice}"
            );
        }
        let long = "é".repeat(MAX_TEXT_BYTES);
        let body = format!(
            "{{\"choices\":[{{\"message\":{{\"content\":\"{long}\"}},\"finish_reason\":\"stop\"}}]}}"
        );
        let completion = Completion::from_body(body.as_bytes(), 0).unwrap();
        assert_eq!((completion.text.len(), completion.finish_reason.as_str()), (MAX_TEXT_BYTES, TOO_LONG));
    }

    #[test]
    fn unusable_bodies_say_why() {
        let cut = Completion::from_body(b"{\"choices\":[{\"mess", 0);
        assert!(matches!(cut, Err(Unreadable::Malformed(message)) if message.contains("not JSON")));
        for (body, part) in [
            ("", "not JSON"),
            ("data: {\"choices\":[]}\n\ndata: [DONE]", "not JSON"),
            ("\n<!doctype html><title>502</title>", "a web page"),
            ("[]", "choices[0]"),
            ("{\"choices\":[]}", "choices[0]"),
            ("{\"choices\":[{}]}", "message"),
            ("{\"choices\":[{\"message\":null}]}", "message"),
        ] {
            match Completion::from_body(body.as_bytes(), 0) {
                Err(Unreadable::Unusable(message)) => assert!(message.contains(part), "{message}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        let error = Completion::from_body(br#"{"error":{"code":429,"message":"slow down"}}"#, 0).unwrap_err();
        assert_eq!(error, Unreadable::Error { status: Some(429), message: "slow down".into() });
    }

    #[test]
    fn errors_are_found_in_any_form() {
        for (body, expected) in [
            (r#"{"error":{"message":"a"}}"#, "a"),
            (r#"{"error":"a"}"#, "a"),
            (r#"{"detail":"a"}"#, "a"),
            (r#"{"message":"a","code":1}"#, "a"),
            (r#"{"detail":[{"loc":1}]}"#, r#"[{"loc":1}]"#),
        ] {
            assert_eq!(error_message(&serde_json::from_str(body).unwrap()), expected);
        }
    }
}
