//! Texts with fields of a record in them, as in `Question: {{question}}`: the part of Jinja that other
//! programs' tasks need most.

use std::fmt;

use serde_json::Value;

/// A field of a record: names and, in lists, numbers from 0, with dots between them, as in `choices.text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// Parses a path.
    ///
    /// # Errors
    /// If it is not such a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            !name.is_empty() && !name.contains(|c: char| "(){}[]|'\"".contains(c) || c.is_whitespace())
        };
        match text.split('.').all(is_name) {
            true => Ok(Self(text.to_string())),
            false => {
                Err(format!("{text:?} is not a field; expected dot-separated names, as in choices.text"))
            }
        }
    }

    /// The value there.
    ///
    /// # Errors
    /// If there is none, with the fields that exist.
    pub fn find<'a>(&self, record: &'a Value) -> Result<&'a Value, String> {
        let mut found = record;
        for name in self.0.split('.') {
            let next = match found {
                Value::Array(values) => name.parse::<usize>().ok().and_then(|index| values.get(index)),
                value => value.get(name),
            };
            found = next.ok_or_else(|| match record.as_object() {
                Some(fields) => {
                    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                    format!("no field `{self}`; available: {}", names.join(", "))
                }
                None => format!("no field `{self}`: not a JSON object"),
            })?;
        }
        Ok(found)
    }

    /// The text there.
    ///
    /// # Errors
    /// If there is none, or a list or an object.
    pub fn text(&self, record: &Value) -> Result<String, String> {
        text_of(self.find(record)?)
            .map_err(|found| format!("field `{self}`: expected a text or a number, found {found}"))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text or number as text.
///
/// # Errors
/// What it is instead.
pub fn text_of(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(true) => Ok("true".into()),
        Value::Bool(false) => Ok("false".into()),
        Value::Null => Err("null"),
        Value::Array(_) => Err("a list"),
        Value::Object(_) => Err("an object"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Path),
}

/// A text with fields in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// If braces do not contain a field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        if rest.contains("{%") || rest.contains("{#") {
            return Err(format!(
                "{text:?}: only fields are supported, as in {{{{question}}}}; statements are not"
            ));
        }
        while let Some((before, behind)) = rest.split_once("{{") {
            let (field, behind) =
                behind.split_once("}}").ok_or_else(|| format!("{text:?}: `{{{{` without `}}}}`"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_string()));
            }
            parts.push(Part::Field(Path::parse(field.trim())?));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_string()));
        }
        Ok(Self(parts))
    }

    /// The text of a record.
    ///
    /// # Errors
    /// If a field is missing or is not a text.
    pub fn render(&self, record: &Value) -> Result<String, String> {
        let part = |part: &Part| match part {
            Part::Text(text) => Ok(text.clone()),
            Part::Field(path) => path.text(record),
        };
        self.0.iter().map(part).collect()
    }

    /// The fields in it.
    pub fn fields(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|part| match part {
            Part::Field(path) => Some(path),
            Part::Text(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_filled_in() {
        let record = json!({ "q": "Why?", "choices": { "text": ["a", "b"] }, "n": 3 });
        let render = |text: &str| Template::parse(text).and_then(|template| template.render(&record));
        assert_eq!(render("Q: {{q}}\nA:"), Ok("Q: Why?\nA:".into()));
        assert_eq!(render("{{ choices.text.1 }}{{n}}"), Ok("b3".into()));
        assert_eq!(render(""), Ok(String::new()));
        assert_eq!(render("{{x}}"), Err("no field `x`; available: choices, n, q".into()));
        assert!(render("{{choices}}").is_err_and(|problem| problem.contains("found an object")));
        for wrong in ["{{q", "{% if q %}", "{{q|trim}}", "{{choices.label.index(q)}}", "{{}}"] {
            assert!(render(wrong).is_err(), "{wrong}");
        }
    }
}
