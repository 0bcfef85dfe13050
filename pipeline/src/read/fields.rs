//! Maps the fields of a record to the parts of a document.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dotted::lookup;
use super::object::Wanted;
use super::{Cause, MetadataFields, Raw, kept, record};
use crate::document::OwnedMetadata;

/// Names of the fields, dotted for nested ones (`metadata.url`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldPaths {
    /// The document's name, if the records have one.
    pub id: Option<String>,
    /// Whether a record may lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub id_optional: bool,
    /// The text.
    pub text: String,
    /// The fields that make a conversation, in place of the text; a record has some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Vec<String>>,
    /// The family.
    pub family: Option<String>,
    /// The variant.
    pub variant: Option<String>,
    /// The metadata.
    pub metadata: MetadataFields,
    /// Fields carried to exported texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
}

impl FieldPaths {
    /// All names, those of the text first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let of_text = self.conversation.as_deref().unwrap_or(std::slice::from_ref(&self.text));
        (of_text.iter().map(String::as_str))
            .chain([&self.id, &self.family, &self.variant].into_iter().filter_map(|name| name.as_deref()))
            .chain(self.metadata.named().map(|(_, field)| field))
            .chain(self.keep.iter().map(String::as_str))
    }

    /// Keys of an object that hold the fields: each name, and its part before the first dot.
    pub(super) fn keys(&self) -> Vec<String> {
        let heads = self.names().flat_map(|name| [Some(name), name.split_once('.').map(|(head, _)| head)]);
        let mut keys: Vec<String> = heads.flatten().map(str::to_owned).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// What of a JSON object matters.
    pub(super) fn wanted(&self) -> Wanted {
        let names = [&self.id, &self.family, &self.variant].into_iter().flatten().cloned().collect();
        Wanted { keys: self.keys(), names, sources: self.conversation.clone().unwrap_or_default() }
    }

    /// The metadata fields that are present, whatever they hold: bit `i` is the `i`-th of [`MetadataFields::named`].
    pub(super) fn present(&self, object: &mut Value) -> u8 {
        let fields = self.metadata.named().enumerate();
        fields.fold(0, |bits, (i, (_, field))| bits | u8::from(lookup(object, field).is_some()) << i)
    }

    /// Takes the fields out of a JSON object. Numbers and booleans count as names, not as text; a number becomes the name
    /// as it was written, which `digits` has by path.
    pub(super) fn extract(&self, object: &mut Value, digits: &[(String, String)]) -> Result<Raw, Cause> {
        let raw = Raw {
            id: match self.name_field(object, digits, self.id.as_deref(), Cause::MissingId) {
                Err(Cause::MissingId) if self.id_optional => None,
                id => id?,
            },
            family: self.name_field(object, digits, self.family.as_deref(), Cause::MissingFamily)?,
            variant: self.name_field(object, digits, self.variant.as_deref(), Cause::MissingVariant)?,
            guessed: None,
            // The text comes last: it is moved out, and another key may name the same field.
            metadata: OwnedMetadata {
                kept: kept::of_object(object, &self.keep),
                ..self.metadata.extract(object)?
            },
            text: match lookup(object, &self.text) {
                _ if self.conversation.is_some() => record::of_object(object, self.conversation.as_deref())?,
                None | Some(Value::Null) => return Err(Cause::MissingText),
                Some(Value::String(text)) if text.is_empty() => return Err(Cause::EmptyText),
                Some(Value::String(text)) => std::mem::take(text),
                Some(_) => return Err(Cause::TextNotAString),
            },
        };
        Ok(raw)
    }

    fn name_field(
        &self,
        object: &mut Value,
        digits: &[(String, String)],
        path: Option<&str>,
        missing: Cause,
    ) -> Result<Option<String>, Cause> {
        let Some(path) = path else { return Ok(None) };
        match lookup(object, path) {
            Some(Value::String(name)) => Ok(Some(name.clone())),
            Some(Value::Bool(name)) => Ok(Some(name.to_string())),
            Some(Value::Number(number)) => {
                let written =
                    digits.iter().find(|(place, _)| place == path).map(|(_, digits)| digits.clone());
                Ok(Some(written.unwrap_or_else(|| number.to_string())))
            }
            _ => Err(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<Raw, Cause>) {
        let fields = FieldPaths {
            id: Some("meta.id".into()),
            text: "text".into(),
            family: Some("f".into()),
            variant: None,
            ..FieldPaths::default()
        };
        let mut object = serde_json::from_str(json).unwrap();
        assert_eq!(fields.extract(&mut object, &[]), expected, "{json}");
    }

    #[test]
    fn fields_are_found_and_missing_ones_named() {
        let raw = |id: &str| Raw {
            id: Some(id.into()),
            text: "t".into(),
            family: Some("x".into()),
            ..Raw::default()
        };
        check(r#"{"meta":{"id":"a"},"f":"x","text":"t"}"#, Ok(raw("a")));
        check(r#"{"meta.id":7,"f":"x","text":"t"}"#, Ok(raw("7")));
        check(r#"{"meta":3,"f":"x","text":"t"}"#, Err(Cause::MissingId));
        check(r#"{"meta":{"id":"a"},"f":null,"text":"t"}"#, Err(Cause::MissingFamily));
        check(r#"{"meta":{"id":"a"},"f":"x"}"#, Err(Cause::MissingText));
        check(r#"{"meta":{"id":"a"},"f":"x","text":null}"#, Err(Cause::MissingText));
        check(r#"{"meta":{"id":"a"},"f":"x","text":["t"]}"#, Err(Cause::TextNotAString));
        check(r#"{"meta":{"id":"a"},"f":"x","text":""}"#, Err(Cause::EmptyText));
        check(r#"[1]"#, Err(Cause::MissingId));
    }
}
