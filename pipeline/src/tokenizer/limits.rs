//! Reasons to refuse a `tokenizer.json` before using it: ids so large that the vocabulary would not fit into
//! memory, and regular expressions that take endless time.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::guard;

/// Ids are below this; the largest published vocabulary has 1.2 million tokens. Tables by id have one entry for each.
pub(super) const MAX_IDS: u64 = 1 << 22;

/// Checks the ids of a parsed file.
///
/// # Errors
/// The first id that is too large, with its token.
pub(super) fn check_ids(file: &Value) -> Result<(), String> {
    let wrong = |place: &str, token: &str, id: u64| {
        let message = format!("`{place}` gives `{token}` the id {id}, but ids must be below {MAX_IDS}");
        Err(format!("{message}; number the tokens without such gaps"))
    };
    match &file["model"]["vocab"] {
        Value::Object(vocab) => {
            for (token, id) in vocab {
                if let Some(id) = id.as_u64().filter(|id| *id >= MAX_IDS) {
                    return wrong("model.vocab", token, id);
                }
            }
        }
        Value::Array(vocab) if vocab.len() as u64 > MAX_IDS => {
            return Err(format!("`model.vocab` has {} tokens, more than {MAX_IDS}", vocab.len()));
        }
        _ => {}
    }
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        if let Some(id) = token["id"].as_u64().filter(|id| *id >= MAX_IDS) {
            return wrong("added_tokens", token["content"].as_str().unwrap_or_default(), id);
        }
    }
    Ok(())
}

/// Whether a file has regular expressions.
pub(super) fn has_expressions(file: &Value) -> bool {
    match file {
        Value::Object(map) => {
            map.iter().any(|(key, value)| (key == "Regex" && value.is_string()) || has_expressions(value))
        }
        Value::Array(items) => items.iter().any(has_expressions),
        _ => false,
    }
}

/// Contents of the runs of characters in [`check_time`].
const RUNS: [&str; 9] = ["a", " ", "1", "\n", "-", "A", "ab ", "é", "漢"];
/// Length of such a run.
const RUN_CHARS: usize = 5_000;
/// Time for all of them; expressions that look at each character a few times take milliseconds.
const MOST_SECONDS: u64 = 20;

/// Encodes runs of characters, the worst case of backtracking expressions, with a time limit. Runs at
/// which the library itself gives up pass: it would give up on a document too, which is then dropped with this reason.
///
/// # Errors
/// It takes too long.
pub(super) fn check_time(tokenizer: &Tokenizer) -> Result<(), String> {
    let (sender, receiver) = channel();
    let tokenizer = tokenizer.clone();
    thread::spawn(move || {
        for run in RUNS {
            let text = format!("{}!", run.repeat(RUN_CHARS / run.chars().count()));
            // The result does not matter here, only that it ends.
            let ended = guard::caught(|| tokenizer.encode_fast(text.as_str(), false).is_ok());
            if sender.send(ended).is_err() {
                return;
            }
        }
    });
    for run in RUNS {
        match receiver.recv_timeout(Duration::from_secs(MOST_SECONDS)) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "a regular expression of the file takes more than {MOST_SECONDS} s for {RUN_CHARS} times {run:?}; \
                     write it without nested or neighboring repeats of the same characters"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_near_the_end_of_the_numbers_are_refused() {
        let check = |file: Value, said: &str| {
            let message = check_ids(&file).unwrap_err();
            assert!(message.contains(said), "{message}");
        };
        check(json!({ "model": { "vocab": { "a": 0, "b": u32::MAX } } }), "`b` the id 4294967295");
        check(json!({ "model": { "vocab": { "a": u64::MAX } } }), "`a` the id");
        check(json!({ "added_tokens": [{ "id": MAX_IDS, "content": "<s>" }] }), "`added_tokens` gives `<s>`");
        assert_eq!(check_ids(&json!({ "model": { "vocab": { "a": MAX_IDS - 1 } } })), Ok(()));
        assert_eq!(check_ids(&json!({ "model": { "vocab": [["a", 0.0]] } })), Ok(()));
    }

    #[test]
    fn expressions_are_found_wherever_they_are() {
        assert!(has_expressions(&json!({ "normalizer": { "pattern": { "Regex": " +" } } })));
        assert!(has_expressions(
            &json!({ "pre_tokenizer": { "pretokenizers": [{ "pattern": { "Regex": "a" } }] } })
        ));
        assert!(!has_expressions(&json!({ "pattern": { "String": "Regex" } })));
    }
}
