//! Styles: what a model is asked to do with a text, one strict TOML file each (`configs/styles/*.toml`).
//!
//! The instruction, sentinel, sampling and chunking decide the requests, so they are the *template*, whose
//! digest is part of every request's key. `[gates]` decides what is accepted and `[use]` which documents are rephrased; both may change
//! without any new request.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::chunk::ChunkConfig;
use super::gates::{self, Limits};
use crate::error::{Error, Problem, Result};
use crate::strict_toml::{Decoder, Fault, Section, Table};

/// A style, read and checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Style {
    /// `[style]`.
    pub style: Prompt,
    /// `[chunk]`.
    pub chunk: ChunkConfig,
    /// `[use]`.
    #[serde(rename = "use")]
    pub uses: Uses,
    /// `[gates]`.
    pub gates: Limits,
    /// `[aliases]`: names that stand for another, in lower case: `jehovah = "lord"`.
    pub aliases: BTreeMap<String, String>,
}

/// `[style]`: instructions and sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prompt {
    /// `[a-z0-9-]+`, the name of the file and of the variant that it makes.
    pub name: String,
    /// A line for people.
    pub summary: String,
    /// The system message of the model.
    pub instruction: String,
    /// The line that the answer must start with; it is removed.
    pub sentinel: String,
    /// Temperature, 0 to 2.
    pub temperature: f64,
    /// Nucleus, above 0, at most 1.
    pub top_p: f64,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Whether the answer keeps the order of the source.
    pub in_order: bool,
}

impl Default for Prompt {
    fn default() -> Prompt {
        Prompt {
            name: String::new(),
            summary: String::new(),
            instruction: String::new(),
            sentinel: String::new(),
            temperature: 0.6,
            top_p: 0.95,
            max_tokens: 1024,
            in_order: true,
        }
    }
}

impl Section for Prompt {
    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || !self.name.bytes().all(allowed) {
            wrong.push(("name", format!("`{}` must be one or more of a-z, 0-9 and `-`", self.name)));
        }
        if self.instruction.trim().is_empty() {
            wrong.push(("instruction", "is missing; say what the model shall do".to_owned()));
        }
        if self.sentinel.trim() != self.sentinel || self.sentinel.contains('\n') || self.sentinel.is_empty() {
            wrong.push((
                "sentinel",
                "must be one line without space around it, such as `Rewritten:`".to_owned(),
            ));
        } else if !self.instruction.contains(&self.sentinel) {
            let message =
                format!("`{}` is not in the instruction; tell the model to start with it", self.sentinel);
            wrong.push(("sentinel", message));
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            wrong.push(("temperature", format!("is {}; expected 0 to 2", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            wrong.push(("top_p", format!("is {}; expected above 0, at most 1", self.top_p)));
        }
        if !(16..=32_768).contains(&self.max_tokens) {
            wrong.push(("max_tokens", format!("is {}; expected 16 to 32768", self.max_tokens)));
        }
        wrong
    }
}

/// `[use]`: the documents that the style fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uses {
    /// Sources; all when empty.
    pub sources: Vec<String>,
    /// Lowest quality bucket; documents without one fit only if both bounds are at their defaults.
    pub min_quality: u8,
    /// Greatest quality bucket.
    pub max_quality: u8,
    /// Fewest words of a document.
    pub min_words: u64,
    /// Most words of a document.
    pub max_words: u64,
}

impl Default for Uses {
    fn default() -> Uses {
        Uses { sources: Vec::new(), min_quality: 0, max_quality: u8::MAX, min_words: 40, max_words: 50_000 }
    }
}

impl Section for Uses {
    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.min_quality > self.max_quality {
            let message = format!("is {}, above max_quality = {}", self.min_quality, self.max_quality);
            wrong.push(("min_quality", message));
        }
        if self.min_words > self.max_words {
            wrong.push(("min_words", format!("is {}, above max_words = {}", self.min_words, self.max_words)));
        }
        wrong
    }
}

impl Uses {
    /// Whether the style fits a document.
    pub fn fits(&self, source: &str, quality: Option<u8>, n_words: u64) -> bool {
        let all_qualities = self.min_quality == 0 && self.max_quality == u8::MAX;
        (self.sources.is_empty() || self.sources.iter().any(|name| name == source))
            && quality.map_or(all_qualities, |q| (self.min_quality..=self.max_quality).contains(&q))
            && (self.min_words..=self.max_words).contains(&n_words)
    }
}

impl Style {
    /// Decodes the text of a style file; `file` is for messages only.
    ///
    /// # Errors
    /// [`Error::Recipe`] with everything that is wrong.
    pub fn decode(text: &str, file: &Path) -> Result<Style> {
        let mut decoder = Decoder::new(text, file);
        let style = match decoder.parse(&["style", "chunk", "use", "gates", "aliases"]) {
            Some(tables) => {
                let spans = tables.get_ref();
                let gates = decoder.table(spans, "gates");
                let aliases = decoder.table(spans, "aliases");
                let style: Prompt = decoder.one(spans, "style");
                if decoder.table(spans, "style").is_none() {
                    decoder.problem(1, "style", "is missing; write a [style] section");
                }
                Style {
                    style,
                    chunk: decoder.one(spans, "chunk"),
                    uses: decoder.one(spans, "use"),
                    gates: match gates {
                        Some(table) => {
                            let values = decoder.values(&table, default_gates(), &accepts);
                            limits_of(&values)
                        }
                        None => Limits::default(),
                    },
                    aliases: aliases.map(|table| aliases_of(&mut decoder, &table)).unwrap_or_default(),
                }
            }
            None => Style::default(),
        };
        decoder.finish(style)
    }

    /// Reads a style file; the style has the file's name.
    ///
    /// # Errors
    /// As [`Style::decode`], or the file cannot be read.
    pub fn read(path: &Path) -> Result<Style> {
        let text = fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        let style = Style::decode(&text, path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if style.style.name != stem {
            let message =
                format!("is `{}`, but the file is called `{stem}`; both must be the same", style.style.name);
            let problem =
                Problem { file: Some(path.to_owned()), line: None, key: "style.name".to_owned(), message };
            return Err(Error::Recipe { problems: vec![problem] });
        }
        Ok(style)
    }

    /// Name of the style and of the variant it makes.
    pub fn name(&self) -> &str {
        &self.style.name
    }
}

/// Reads the named styles of a folder, or all of them, sorted by name.
///
/// # Errors
/// [`Error::Usage`] for a name without a file, with the nearest one; else as [`Style::read`].
pub fn read_all(folder: &Path, names: &[String]) -> Result<Vec<Style>> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder, "read"))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let known: Vec<String> = paths.iter().map(|path| stem(path)).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        let hint = moe_cli::nearest::hint(name, known.iter().map(String::as_str));
        return Err(Error::Usage(format!("{} has no style `{name}`; {hint}", folder.display())));
    }
    let wanted = paths.iter().filter(|path| names.is_empty() || names.contains(&stem(path)));
    let styles = wanted.map(|path| Style::read(path)).collect::<Result<Vec<Style>>>()?;
    match styles.is_empty() {
        true => Err(Error::Usage(format!("{} has no style files (*.toml)", folder.display()))),
        false => Ok(styles),
    }
}

fn aliases_of(decoder: &mut Decoder<'_>, table: &Table<'_>) -> BTreeMap<String, String> {
    let mut aliases = BTreeMap::new();
    for (name, value) in &table.values {
        match value.as_str().filter(|value| value.to_lowercase() == **value && name.to_lowercase() == *name) {
            Some(value) => {
                aliases.insert(name.clone(), value.to_owned());
            }
            None => {
                let message = format!("expected a name in lower case that stands for another, found {value}");
                decoder.problem(table.line_of(name), &format!("aliases.{name}"), message);
            }
        }
    }
    aliases
}

fn default_gates() -> Map<String, Value> {
    let limits = Limits::default().limits.into_iter().map(|(name, limit)| (name, Value::from(limit)));
    limits.chain([("off".to_owned(), Value::Array(Vec::new()))]).collect()
}

/// Whether every key of `[gates]` has a number, and `off` names of rules.
fn accepts(values: &Value) -> std::result::Result<(), String> {
    for (key, value) in values.as_object().into_iter().flatten() {
        if key != "off" {
            value.as_f64().ok_or_else(|| format!("expected a number, found {value}"))?;
            continue;
        }
        let names = value.as_array().ok_or_else(|| "expected a list of rules".to_owned())?;
        for name in names {
            let name = name.as_str().ok_or_else(|| format!("expected the name of a rule, found {name}"))?;
            let known: Vec<String> = Limits::default().limits.into_keys().collect();
            if !known.iter().any(|rule| rule == name) {
                let hint = moe_cli::nearest::hint(name, known.iter().map(String::as_str));
                return Err(format!("unknown rule `{name}`; {hint}"));
            }
        }
    }
    Ok(())
}

fn limits_of(values: &Map<String, Value>) -> Limits {
    let limits: BTreeMap<String, f64> =
        values.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    let off = values.get("off").and_then(Value::as_array);
    let off = off.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    debug_assert!(gates::rules().all(|rule| limits.contains_key(rule.name)));
    Limits { limits, off }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "[style]\nname = \"plain\"\ninstruction = \"Start with Text: and go on.\"\nsentinel = \"Text:\"\n";

    fn check(text: &str, expected: &[&str]) {
        let error = Style::decode(text, Path::new("s.toml")).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(error.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn all_problems_come_at_once() {
        check(SMALL, &[]);
        check(
            &format!(
                "{SMALL}max_token = 9\n[gates]\nlength_mots = 2\nnames_kept = \"x\"\noff = [\"copied\"]\n[use]\nmin_quality = 9\n\
                 max_quality = 3\n[chunk]\ntokens = 3\n"
            ),
            &[
                "s.toml:5: `style.max_token`: unknown key; did you mean `max_tokens`?",
                "s.toml:7: `gates.length_mots`: unknown key; did you mean `length_most`?",
                "s.toml:8: `gates.names_kept`: expected a number, found \"x\"",
                "s.toml:9: `gates.off`: unknown rule `copied`; did you mean `copied_8grams`?",
                "s.toml:11: `use.min_quality`: is 9, above max_quality = 3",
                "s.toml:14: `chunk.tokens`: is 3; expected 32 to 8192",
            ],
        );
        check(
            "[style]\nname = \"A\"\n",
            &[
                "s.toml:1: `style.instruction`: is missing; say what the model shall do",
                "s.toml:1: `style.sentinel`: must be one line without space around it, such as `Rewritten:`",
                "s.toml:2: `style.name`: `A` must be one or more of a-z, 0-9 and `-`",
            ],
        );
    }

    #[test]
    fn documents_fit_by_source_quality_and_length() {
        let uses = Uses { sources: vec!["a".into()], min_quality: 2, ..Uses::default() };
        assert!(uses.fits("a", Some(2), 100) && !uses.fits("b", Some(2), 100));
        assert!(!uses.fits("a", Some(1), 100) && !uses.fits("a", None, 100) && !uses.fits("a", Some(2), 3));
        assert!(Uses::default().fits("b", None, 100));
    }

    #[test]
    fn every_style_of_the_repository_is_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/styles");
        let styles = read_all(&folder, &[]).unwrap();
        let names: Vec<&str> = styles.iter().map(Style::name).collect();
        assert_eq!(
            names,
            ["concise", "faq", "lecture-notes", "plain", "question-answer", "table", "wikipedia"]
        );
        let error = read_all(&folder, &["wikipeda".into()]).unwrap_err().to_string();
        assert!(error.contains("did you mean `wikipedia`?"), "{error}");
    }
}
