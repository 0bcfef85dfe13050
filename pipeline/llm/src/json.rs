//! Canonical JSON: no spaces, keys sorted at every level, so that equal values give equal bytes.

use serde::Serialize;
use serde_json::Value;

/// The canonical text of a value. Numbers are the shortest decimal that reads back as the same number.
///
/// # Panics
/// If a map of `value` has keys that are not strings, which is a bug of the caller.
pub(crate) fn canonical<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_else(|e| panic!("not a JSON value: {e}"));
    let mut text = String::new();
    write(&value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        // `serde_json::Map` sorts or keeps the order of insertion depending on a feature that any crate of
        // the build may turn on, so the keys are sorted here.
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (i, (key, value)) in pairs.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_level_and_nothing_is_between() {
        let value: Value = serde_json::from_str(r#"{"b": [{"z": 0.5, "a": "é\n"}, []], "a": null}"#).unwrap();
        assert_eq!(canonical(&value), r#"{"a":null,"b":[{"a":"é\n","z":0.5},[]]}"#);
    }
}
