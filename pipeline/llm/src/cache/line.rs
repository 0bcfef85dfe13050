//! The lines of a cache: JSON objects that begin with a checksum of the rest.
//!
//! `{"check":"0123456789abcdef","key":...}`: the checksum is the first 8 bytes, in hex, of the BLAKE3 of
//! everything between the comma after it and the end of the line. So every line is JSON for any tool, and a
//! line that was torn, or changed on disk, is detected.

use serde::{Deserialize, Serialize};

use crate::completion::{Completion, Usage};
use crate::json;
use crate::request::Key;

const START: &str = r#"{"check":""#;
/// Where the checked bytes begin: after the start, 16 hex digits, `"` and `,`.
const REST: usize = START.len() + 16 + 2;

/// The line of a JSON object that is given without a checksum, with the line end.
pub(crate) fn seal(object: &str) -> String {
    let rest = &object[1..];
    format!("{START}{}\",{rest}\n", check(rest.as_bytes()))
}

/// The JSON object after the checksum of a line (given without its line end), from after the comma; `None` if
/// the line is not as it was written.
pub(crate) fn open(line: &[u8]) -> Option<&[u8]> {
    let rest = line.get(REST..)?;
    let head = line.get(..REST)?;
    let expected = format!("{START}{}\",", check(rest));
    (head == expected.as_bytes()).then_some(rest)
}

fn check(rest: &[u8]) -> String {
    blake3::hash(rest).to_hex()[..16].to_owned()
}

/// A completion and its key. The order of the fields is part of the format.
#[derive(Serialize, Deserialize)]
struct Record {
    key: Key,
    text: String,
    finish_reason: String,
    prompt_tokens: u64,
    completion_tokens: u64,
    model: String,
    time: u64,
}

/// The line of a completion.
pub(crate) fn of_completion(key: &Key, completion: &Completion) -> String {
    let record = Record {
        key: *key,
        text: completion.text.clone(),
        finish_reason: completion.finish_reason.clone(),
        prompt_tokens: completion.usage.prompt_tokens,
        completion_tokens: completion.usage.completion_tokens,
        model: completion.model.clone(),
        time: completion.time,
    };
    seal(&serde_json::to_string(&record).unwrap_or_else(|e| panic!("not a JSON value: {e}")))
}

/// The completion of a line; `None` if the line is not as it was written.
pub(crate) fn completion(line: &[u8]) -> Option<(Key, Completion)> {
    let rest = open(line)?;
    let record: Record = serde_json::from_slice(&[b"{", rest].concat()).ok()?;
    let usage = Usage { prompt_tokens: record.prompt_tokens, completion_tokens: record.completion_tokens };
    let Record { key, text, finish_reason, model, time, .. } = record;
    Some((key, Completion { text, finish_reason, usage, model, time }))
}

/// The key of a completion's line, whose checksum is verified too.
pub(crate) fn key(line: &[u8]) -> Option<Key> {
    let rest = open(line)?;
    let digits = rest.strip_prefix(br#""key":""#)?.get(..64)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What identifies a completion in [`crate::Cache::digest`]: everything but the time.
pub(crate) fn identity(key: &Key, completion: &Completion) -> String {
    #[derive(Serialize)]
    struct Identity<'a> {
        key: &'a Key,
        text: &'a str,
        finish_reason: &'a str,
        usage: Usage,
        model: &'a str,
    }
    let Completion { text, finish_reason, usage, model, .. } = completion;
    json::canonical(&Identity { key, text, finish_reason, usage: *usage, model })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn sample() -> (Key, Completion) {
        let usage = Usage { prompt_tokens: 3, completion_tokens: 4 };
        let completion = Completion {
            text: "a \"line\"\nand another, ü".into(),
            finish_reason: "stop".into(),
            usage,
            model: "m".into(),
            time: 17,
        };
        (Request::new("m", Vec::new()).key(), completion)
    }

    #[test]
    fn a_line_gives_back_what_was_written() {
        let (key, completion) = sample();
        let line = of_completion(&key, &completion);
        assert_eq!(line.matches('\n').count(), 1);
        let line = line.trim_end_matches('\n').as_bytes();
        assert_eq!(super::completion(line), Some((key, completion)));
        assert_eq!(super::key(line), Some(key));
        assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (key, completion) = sample();
        let line = of_completion(&key, &completion);
        let line = line.trim_end_matches('\n').as_bytes();
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut wrong = line.to_vec();
                wrong[at] ^= 1 << bit;
                assert!(open(&wrong).is_none(), "byte {at}, bit {bit}");
            }
            assert!(open(&line[..at]).is_none(), "cut at {at}");
        }
    }
}
