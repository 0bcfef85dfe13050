//! Canonical JSON: keys sorted at every level, so that equal values give equal bytes and digests.

use moe_shards::Hash;
use serde::Serialize;
use serde_json::{Map, Value};

/// A value with sorted keys, two-space indentation, and a final line end.
///
/// # Panics
/// If a map of `value` has keys that are not strings, which is a bug of the caller.
pub fn canonical<T: Serialize>(value: &T) -> Vec<u8> {
    let value = serde_json::to_value(value).unwrap_or_else(|e| panic!("not a JSON value: {e}"));
    let mut text = format!("{:#}", sorted(value));
    text.push('\n');
    text.into_bytes()
}

/// Digest of the canonical bytes.
///
/// # Panics
/// As [`canonical`].
pub fn digest<T: Serialize>(value: &T) -> Hash {
    Hash::of(&canonical(value))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            // `serde_json::Map` sorts or keeps the order of insertion depending on a feature that
            // any crate of the build may switch on; inserting in order works with both.
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().map(|(key, value)| (key, sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_level() {
        let value: Value = serde_json::from_str(r#"{"b":[{"z":1,"a":2}],"a":null}"#).unwrap();
        let text = String::from_utf8(canonical(&value)).unwrap();
        let expected =
            "{\n  \"a\": null,\n  \"b\": [\n    {\n      \"a\": 2,\n      \"z\": 1\n    }\n  ]\n}\n";
        assert_eq!(text, expected);
        assert_eq!(digest(&value), Hash::of(expected.as_bytes()));
    }
}
