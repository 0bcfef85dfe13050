//! Strict TOML: decodes the tables of a configuration file into typed sections. Every problem is found in one
//! pass and named with its line and key: an unknown key (with the nearest right one), a value of the wrong type or
//! range. The recipe and the mixture are read through it.

use std::path::Path;

use moe_cli::nearest;
use serde::Serialize;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Problem, Result};
use crate::numbers::{COUNTS, with_unit};

/// A key with what is wrong with its value.
pub type Fault = (&'static str, String);

/// Keys with their documentation.
pub type Docs = &'static [(&'static str, &'static str)];

/// Defines a struct whose fields are keys, and stores their documentation in `DOCS` for `moe-data config`.
macro_rules! documented {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ $(#[serde $serde:tt])* pub $field:ident: $type:ty,)+
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[doc = $doc])+ $(#[serde $serde])* pub $field: $type,)+
        }

        impl $name {
            const DOCS: $crate::strict_toml::Docs = &[$((stringify!($field), concat!($($doc),+))),+];
        }
    };
}
pub(crate) use documented;

/// One section of a file: its defaults are its known keys.
pub trait Section: Serialize + serde::de::DeserializeOwned + Default {
    /// What its keys mean.
    fn docs() -> Docs {
        &[]
    }

    /// Problems of the values.
    fn check(&self) -> Vec<Fault> {
        Vec::new()
    }
}

/// A file that is being decoded.
pub(crate) struct Decoder<'a> {
    text: &'a str,
    file: &'a Path,
    problems: Vec<Problem>,
}

/// A table of the file: its values, and the positions of its keys.
pub(crate) struct Table<'a> {
    pub(crate) name: &'a str,
    line: usize,
    pub(crate) values: Map<String, Value>,
    lines: Vec<(String, usize)>,
}

impl Table<'_> {
    pub(crate) fn line_of(&self, key: &str) -> usize {
        self.lines.iter().find(|(name, _)| name == key).map_or(self.line, |(_, line)| *line)
    }
}

impl<'a> Decoder<'a> {
    /// Starts on the text of a file; `file` is for messages only.
    pub(crate) fn new(text: &'a str, file: &'a Path) -> Decoder<'a> {
        Decoder { text, file, problems: Vec::new() }
    }

    /// Parses the file; tables other than `sections` are problems. `None` if it is not TOML.
    pub(crate) fn parse(&mut self, sections: &[&str]) -> Option<Spanned<DeTable<'a>>> {
        let tables = self.parse_any()?;
        for key in tables.get_ref().keys().filter(|key| !sections.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let message = format!("unknown section; {}", nearest::hint(name, sections.iter().copied()));
            self.problem(self.line_at(key.span().start), name, message);
        }
        Some(tables)
    }

    /// Parses a file whose tables may have any name. `None` if it is not TOML.
    pub(crate) fn parse_any(&mut self) -> Option<Spanned<DeTable<'a>>> {
        let (tables, syntax) = DeTable::parse_recoverable(self.text);
        for error in &syntax {
            let line = error.span().map_or(1, |span| self.line_at(span.start));
            self.problem(line, "", error.message().replace('\n', ", "));
        }
        if !syntax.is_empty() {
            return None;
        }
        Some(tables)
    }

    /// The decoded value, unless there were problems.
    ///
    /// # Errors
    /// [`Error::Recipe`] with all of them, in the order of their lines.
    pub(crate) fn finish<T>(self, value: T) -> Result<T> {
        match self.problems.is_empty() {
            true => Ok(value),
            false => Err(Error::Recipe { problems: self.into_problems() }),
        }
    }

    /// What is wrong, in the order of the lines.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|p| p.line);
        self.problems
    }

    pub(crate) fn one<T: Section>(&mut self, spans: &DeTable<'_>, name: &'static str) -> T {
        self.table(spans, name).map_or_else(T::default, |table| self.section(table))
    }

    pub(crate) fn section<T: Section>(&mut self, table: Table<'_>) -> T {
        let Ok(Value::Object(defaults)) = serde_json::to_value(T::default()) else {
            return T::default();
        };
        let accepts = |value: &Value| {
            serde_json::from_value::<T>(value.clone()).map(drop).map_err(|e| plain(&e.to_string()))
        };
        let values = self.values(&table, defaults, &accepts);
        let section = serde_json::from_value(Value::Object(values)).unwrap_or_default();
        let faulty: Vec<String> = self.problems.iter().map(|p| p.key.clone()).collect();
        for (key, message) in T::check(&section) {
            let full = join(table.name, key);
            // One problem per key: a value of the wrong type is not also "missing".
            if !faulty.contains(&full) || table.values.get(key).is_none() {
                self.problem(table.line_of(key), &full, message);
            }
        }
        section
    }

    /// Decodes the table at `path` (such as `dedup.minhash`, where `table` is `dedup`), if it is there, and puts it
    /// back into `table` with all defaults filled in. `example` shows what a table looks like.
    pub(crate) fn nested<T: Section>(
        &mut self,
        spans: &DeTable<'_>,
        table: &mut Table<'_>,
        path: &str,
        example: &str,
    ) {
        let mut keys = path.split('.');
        let last = keys.next_back().unwrap_or_default();
        let outer = keys.try_fold(spans, |outer, key| outer.get(key)?.get_ref().as_table());
        let Some(value) = outer.and_then(|outer| outer.get(last)) else { return };
        let line = self.line_at(value.span().start);
        let section = match value.get_ref().as_table() {
            Some(inner) => {
                let inner = self.read_table(path, inner, line);
                self.section(inner)
            }
            None => {
                self.problem(line, path, format!("expected a table such as {example}"));
                T::default()
            }
        };
        table.values.insert(last.to_owned(), serde_json::to_value(section).unwrap_or_default());
    }

    /// `defaults` overridden by the table's values; anything that does not fit becomes a problem.
    pub(crate) fn values(
        &mut self,
        table: &Table<'_>,
        defaults: Map<String, Value>,
        accepts: &dyn Fn(&Value) -> std::result::Result<(), String>,
    ) -> Map<String, Value> {
        let mut values = defaults;
        for (key, value) in &table.values {
            let full = join(table.name, key);
            if !values.contains_key(key) {
                let hint = nearest::hint(key, values.keys().map(String::as_str));
                self.problem(table.line_of(key), &full, format!("unknown key; {hint}"));
                continue;
            }
            let mut tried = values.clone();
            tried.insert(key.clone(), value.clone());
            let accepts_at = |key: &str, value: Value| {
                let mut tried = tried.clone();
                tried.insert(key.to_owned(), value);
                accepts(&Value::Object(tried)).is_ok()
            };
            match accepts(&Value::Object(tried.clone())) {
                Ok(()) => values = tried.clone(),
                Err(message) => match value.as_str().and_then(|text| with_unit(text, &COUNTS)) {
                    // A whole number with a unit, such as `seq_len = "8K"`.
                    Some(number) if accepts_at(key, number.into()) => {
                        values.insert(key.clone(), number.into());
                    }
                    _ => self.problem(table.line_of(key), &full, message),
                },
            }
        }
        values
    }

    pub(crate) fn tables<'t>(&mut self, spans: &'t DeTable<'_>, name: &'static str) -> Vec<Table<'t>> {
        let Some(value) = spans.get(name) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            let message =
                format!("expected [[{name}]] with double brackets, found a {}", value.get_ref().type_str());
            self.problem(self.line_at(value.span().start), name, message);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            let line = self.line_at(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => tables.push(self.read_table(name, table, line)),
                None => self.problem(
                    line,
                    name,
                    format!("expected a table, found a {}", item.get_ref().type_str()),
                ),
            }
        }
        tables
    }

    pub(crate) fn table<'t>(&mut self, spans: &'t DeTable<'_>, name: &'static str) -> Option<Table<'t>> {
        let value = spans.get(name)?;
        let line = self.line_at(value.span().start);
        match value.get_ref().as_table() {
            Some(table) => Some(self.read_table(name, table, line)),
            None => {
                self.problem(
                    line,
                    name,
                    format!("expected a section [{name}], found a {}", value.get_ref().type_str()),
                );
                None
            }
        }
    }

    pub(crate) fn read_table<'t>(&self, name: &'t str, table: &DeTable<'_>, line: usize) -> Table<'t> {
        let lines = table
            .keys()
            .map(|key| (key.get_ref().to_string(), self.line_at(key.span().start)))
            .collect::<Vec<_>>();
        let line = if line > 0 { line } else { lines.iter().map(|(_, line)| *line).min().unwrap_or(1) };
        let values =
            table.iter().map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref()))).collect();
        Table { name, line, values, lines }
    }

    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&b| b == b'\n').count() + 1
    }

    pub(crate) fn problem(&mut self, line: usize, key: &str, message: impl Into<String>) {
        let (file, key) = (Some(self.file.to_owned()), key.to_owned());
        self.problems.push(Problem { file, line: Some(line), key, message: message.into() });
    }
}

/// Rewords a message of the JSON library: `invalid type: string "a", expected u32` names Rust types.
pub(crate) fn plain(message: &str) -> String {
    let found = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.replace("unknown variant", "unknown value");
    };
    let found = match found.split_once(' ') {
        Some(("string", text)) => format!("`{}`", text.trim_matches('"')),
        Some(("integer", number)) => number.to_owned(),
        Some(("floating", rest)) => rest.trim_start_matches("point ").to_owned(),
        Some(("boolean", value)) => value.to_owned(),
        _ => format!("a {}", found.replace("sequence", "list").replace("map", "table")),
    };
    let expected = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list such as [\"a\", \"b\"]",
        "a string" | "path string" => "a text in quotes",
        "a boolean" => "true or false",
        "a map" => "a table",
        other => other,
    };
    format!("expected {expected}, found {found}")
}

/// `section.key`.
pub(crate) fn join(section: &str, key: &str) -> String {
    if key.is_empty() { section.to_owned() } else { format!("{section}.{key}") }
}

/// Values that JSON lacks (infinities, dates) become text, which no numeric key accepts.
fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(n) => {
            i64::from_str_radix(n.as_str(), n.radix()).map_or_else(|_| Value::from(n.as_str()), Value::from)
        }
        DeValue::Float(x) => match x.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::from(number),
            _ => Value::from(x.as_str()),
        },
        DeValue::Boolean(b) => Value::from(*b),
        DeValue::Datetime(date) => Value::from(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(
            table.iter().map(|(k, v)| (k.get_ref().to_string(), to_json(v.get_ref()))).collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_no_types_of_rust() {
        for (message, expected) in [
            (
                "invalid type: string \"a\", expected u32",
                "expected a whole number from 0 to 4294967295, found `a`",
            ),
            ("invalid value: integer `-1`, expected u64", "expected a whole number from 0 on, found `-1`"),
            (
                "invalid type: floating point `1.5`, expected usize",
                "expected a whole number from 0 on, found `1.5`",
            ),
            ("invalid type: boolean `true`, expected f64", "expected a number, found `true`"),
            ("invalid type: map, expected a string", "expected a text in quotes, found a table"),
            ("unknown variant `a`, expected `b` or `c`", "unknown value `a`, expected `b` or `c`"),
            ("unknown field `a`, expected `b`", "unknown field `a`, expected `b`"),
        ] {
            assert_eq!(plain(message), expected);
        }
    }
}
