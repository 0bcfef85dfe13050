//! Reads a recipe file. Every problem is found in one pass and named with its line and key: an
//! unknown key (with the nearest right one), a value of the wrong type or range, an unknown
//! filter or source, a name given twice.

use std::path::Path;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::{FilterConfig, Recipe, Section, SourceConfig, TokenizerConfig, TrainConfig};
use crate::error::{Error, Problem, Result};
use crate::filter;
use crate::nearest;

const SECTIONS: [&str; 7] = ["source", "normalize", "filter", "dedup", "tokenizer", "shard", "limits"];

/// Decodes the text of a recipe; `file` is for messages only.
///
/// # Errors
/// [`Error::Recipe`] with everything that is wrong.
pub fn decode(text: &str, file: &Path) -> Result<Recipe> {
    let mut decoder = Decoder { text, file, problems: Vec::new() };
    let recipe = decoder.recipe();
    match decoder.problems.is_empty() {
        true => Ok(recipe),
        false => {
            decoder.problems.sort_by_key(|p| p.line);
            Err(Error::Recipe { problems: decoder.problems })
        }
    }
}

struct Decoder<'a> {
    text: &'a str,
    file: &'a Path,
    problems: Vec<Problem>,
}

/// A table of the file: its values, and where its keys stand.
struct Table<'a> {
    name: &'a str,
    line: usize,
    values: Map<String, Value>,
    lines: Vec<(String, usize)>,
}

impl Table<'_> {
    fn line_of(&self, key: &str) -> usize {
        self.lines.iter().find(|(name, _)| name == key).map_or(self.line, |(_, line)| *line)
    }
}

impl Decoder<'_> {
    fn recipe(&mut self) -> Recipe {
        let (spans, syntax) = DeTable::parse_recoverable(self.text);
        for error in &syntax {
            let line = error.span().map_or(1, |span| self.line_at(span.start));
            self.problem(line, "", error.message().replace('\n', ", "));
        }
        if !syntax.is_empty() {
            return Recipe::default();
        }
        let spans = spans.get_ref();
        for key in spans.keys().filter(|key| !SECTIONS.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let message = format!("unknown section; {}", nearest::hint(name, SECTIONS));
            self.problem(self.line_at(key.span().start), name, message);
        }
        let tables = self.tables(spans, "source");
        let name_lines: Vec<usize> = tables.iter().map(|table| table.line_of("name")).collect();
        let source: Vec<SourceConfig> = tables.into_iter().map(|table| self.section(table)).collect();
        self.check_names(&source, &name_lines);
        let filter =
            self.tables(spans, "filter").into_iter().filter_map(|t| self.filter(t, &source)).collect();
        Recipe {
            source,
            normalize: self.one(spans, "normalize"),
            filter,
            dedup: self.one(spans, "dedup"),
            tokenizer: self.tokenizer(spans),
            shard: self.one(spans, "shard"),
            limits: self.one(spans, "limits"),
        }
    }

    fn check_names(&mut self, sources: &[SourceConfig], lines: &[usize]) {
        if sources.is_empty() {
            self.problem(1, "source", "is missing; a recipe reads at least one [[source]]");
        }
        for (i, source) in sources.iter().enumerate() {
            if let Some(first) = sources[..i].iter().position(|other| other.name == source.name)
                && !source.name.is_empty()
            {
                let message =
                    format!("`{}` is already the name of the source in line {}", source.name, lines[first]);
                self.problem(lines[i], "source.name", message);
            }
        }
    }

    fn filter(&mut self, mut table: Table<'_>, sources: &[SourceConfig]) -> Option<FilterConfig> {
        let names = filter::REGISTRY.iter().map(|entry| entry.name);
        let name = table.values.remove("name");
        let Some(name) = name.as_ref().and_then(Value::as_str) else {
            let message = format!("is missing; {}", nearest::hint("", names));
            self.problem(table.line_of("name"), "filter.name", message);
            return None;
        };
        let Some(entry) = filter::REGISTRY.iter().find(|entry| entry.name == name) else {
            let message = format!("unknown filter `{name}`; {}", nearest::hint(name, names));
            self.problem(table.line_of("name"), "filter.name", message);
            return None;
        };
        let chosen = table.values.remove("sources").unwrap_or(Value::Array(Vec::new()));
        let chosen: Vec<String> = serde_json::from_value(chosen).unwrap_or_else(|e| {
            self.problem(table.line_of("sources"), "filter.sources", e.to_string());
            Vec::new()
        });
        for wanted in chosen.iter().filter(|wanted| sources.iter().all(|s| s.name != **wanted)) {
            let hint = nearest::hint(wanted, sources.iter().map(|s| s.name.as_str()));
            self.problem(
                table.line_of("sources"),
                "filter.sources",
                format!("no source is called `{wanted}`; {hint}"),
            );
        }
        let settings = self.values(&table, (entry.defaults)(), &entry.accepts);
        for (key, message) in (entry.check)(&settings) {
            self.problem(table.line_of(key), &join(table.name, key), message);
        }
        Some(FilterConfig { name: name.to_owned(), sources: chosen, settings })
    }

    fn tokenizer(&mut self, spans: &DeTable<'_>) -> TokenizerConfig {
        let Some(table) = self.table(spans, "tokenizer") else {
            self.problem(1, "tokenizer", "is missing; write a [tokenizer] section with `file` or `train`");
            return TokenizerConfig::default();
        };
        let inner = spans.get("tokenizer").and_then(|t| t.get_ref().as_table());
        let train =
            inner.and_then(|t| t.get("train")).map(|value| (value.get_ref().as_table(), value.span()));
        let train: Option<TrainConfig> = match train {
            Some((Some(train), span)) => {
                let table = self.read_table("tokenizer.train", train, self.line_at(span.start));
                Some(self.section(table))
            }
            Some((None, span)) => {
                let message = "expected a table such as { vocab_size = 4096 }";
                self.problem(self.line_at(span.start), "tokenizer.train", message);
                Some(TrainConfig::default())
            }
            None => None,
        };
        // The section's own check wants to see whether `train` is there, and its good values.
        let mut table = table;
        if let Some(train) = train {
            table.values.insert("train".to_owned(), serde_json::to_value(train).unwrap_or_default());
        }
        self.section(table)
    }

    fn one<T: Section>(&mut self, spans: &DeTable<'_>, name: &'static str) -> T {
        self.table(spans, name).map_or_else(T::default, |table| self.section(table))
    }

    fn section<T: Section>(&mut self, table: Table<'_>) -> T {
        let Ok(Value::Object(defaults)) = serde_json::to_value(T::default()) else {
            return T::default();
        };
        let accepts =
            |value: &Value| serde_json::from_value::<T>(value.clone()).map(drop).map_err(|e| e.to_string());
        let values = self.values(&table, defaults, &accepts);
        let section = serde_json::from_value(Value::Object(values)).unwrap_or_default();
        let faulty: Vec<String> = self.problems.iter().map(|p| p.key.clone()).collect();
        for (key, message) in T::check(&section) {
            let full = join(table.name, key);
            // One problem a key: a value of the wrong type is not also "missing".
            if !faulty.contains(&full) || table.values.get(key).is_none() {
                self.problem(table.line_of(key), &full, message);
            }
        }
        section
    }

    /// `defaults` with the table's values in place; what does not fit becomes a problem.
    fn values(
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
            match accepts(&Value::Object(tried.clone())) {
                Ok(()) => values = tried,
                Err(message) => self.problem(table.line_of(key), &full, message),
            }
        }
        values
    }

    fn tables<'t>(&mut self, spans: &'t DeTable<'_>, name: &'static str) -> Vec<Table<'t>> {
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

    fn table<'t>(&mut self, spans: &'t DeTable<'_>, name: &'static str) -> Option<Table<'t>> {
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

    fn read_table<'t>(&self, name: &'t str, table: &DeTable<'_>, line: usize) -> Table<'t> {
        let lines = table
            .keys()
            .map(|key| (key.get_ref().to_string(), self.line_at(key.span().start)))
            .collect::<Vec<_>>();
        let line = if line > 0 { line } else { lines.iter().map(|(_, line)| *line).min().unwrap_or(1) };
        let values =
            table.iter().map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref()))).collect();
        Table { name, line, values, lines }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&b| b == b'\n').count() + 1
    }

    fn problem(&mut self, line: usize, key: &str, message: impl Into<String>) {
        let (file, key) = (Some(self.file.to_owned()), key.to_owned());
        self.problems.push(Problem { file, line: Some(line), key, message: message.into() });
    }
}

fn join(section: &str, key: &str) -> String {
    if key.is_empty() { section.to_owned() } else { format!("{section}.{key}") }
}

/// Numbers that JSON lacks (infinities, dates) become text, which no numeric key accepts.
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
