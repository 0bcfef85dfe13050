//! From TOML and `--set` to checked values; every problem is found before any is reported.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::{self, KEYS, Key};
use crate::model::attention::pattern;
use crate::settings;
use crate::settings::value::Value;

/// Checked values of the keys that were given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(BTreeMap<&'static str, Value>);

/// A key whose value differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub key: &'static str,
    /// `key: old -> new`.
    pub text: String,
}

impl Values {
    /// The value of a key: given, or its default.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned().or_else(|| keys::find(name).and_then(|key| key.default.clone()))
    }

    /// Whether a key was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a key belongs to the kinds of parts that are chosen.
    pub fn applies(&self, key: &Key) -> bool {
        key.of.as_ref().is_none_or(|(kind, words)| {
            let chosen = self.chosen(kind);
            words.iter().any(|word| chosen.contains(*word))
        })
    }

    /// The words that a key chooses: several where blocks differ.
    fn chosen(&self, key: &str) -> BTreeSet<String> {
        match (key, self.get(key)) {
            ("attention.kind", _) => pattern::kinds(self),
            ("attention.pattern", _) => pattern::words(self),
            (_, Some(Value::Text(word))) => BTreeSet::from([word.into_owned()]),
            _ => BTreeSet::new(),
        }
    }

    /// The given keys that belong to a kind of a part that is not chosen, each with the reason.
    pub fn strangers(&self, keys: &[Key]) -> Vec<String> {
        let strange = |key: &&Key| self.0.contains_key(key.name) && !self.applies(key);
        let problem = |key: &Key| {
            let (kind, words) = key.of.as_ref()?;
            let list = |words: Vec<String>, or: &str| match words.is_empty() {
                true => "absent".to_string(),
                false => words.join(or),
            };
            let words = list(words.iter().map(|word| format!("{word:?}")).collect(), " or ");
            let chosen = list(self.chosen(kind).iter().map(|word| format!("{word:?}")).collect(), " and ");
            Some(format!("`{}` is a setting of {kind} = {words}, and {kind} is {chosen}", key.name))
        };
        keys.iter().filter(strange).filter_map(problem).collect()
    }

    /// Gives a key a value that is known to fit it.
    pub fn set(&mut self, name: &'static str, value: Value) {
        self.0.insert(name, value);
    }

    /// Adds the keys of a TOML text; problems go to `problems`, each with the `origin` of the text.
    pub fn read_toml(&mut self, text: &str, origin: &str, problems: &mut Vec<String>) {
        match text.parse::<toml::Table>() {
            Ok(table) => self.read_table(&table, "", text, origin, problems),
            Err(error) => problems.push(format!("{origin}: {}", error.to_string().trim_end())),
        }
    }

    fn read_table(
        &mut self,
        table: &toml::Table,
        prefix: &str,
        text: &str,
        origin: &str,
        problems: &mut Vec<String>,
    ) {
        for (name, value) in table {
            let full = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let at = || match line_of(text, name) {
                Some(line) => format!("{origin}, line {line}"),
                None => origin.to_string(),
            };
            match value {
                toml::Value::Table(inner) if is_section(&full) => {
                    self.read_table(inner, &full, text, origin, problems);
                }
                toml::Value::Table(_) => problems.push(format!("{}: {}", at(), unknown_section(&full))),
                value => {
                    if let Err(problem) = self.put(&full, value) {
                        problems.push(format!("{}: {problem}", at()));
                    }
                }
            }
        }
    }

    /// Adds one `key=value` of the command line. A value that is no TOML is taken as a word.
    pub fn read_assignment(&mut self, assignment: &str, problems: &mut Vec<String>) {
        let Some((name, text)) = assignment.split_once('=') else {
            problems.push(format!("--set {assignment}: expected key=value, as in --set moe.top_k=2"));
            return;
        };
        let (name, text) = (name.trim(), text.trim());
        let parsed = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
        let value = parsed.unwrap_or_else(|| toml::Value::String(text.to_string()));
        if let Err(problem) = self.put(name, &value) {
            problems.push(format!("--set {assignment}: {problem}"));
        }
    }

    fn put(&mut self, name: &str, value: &toml::Value) -> Result<(), String> {
        let Some(key) = keys::find(name) else {
            return Err(match keys::nearest(name) {
                Some(near) => format!("unknown key `{name}`; did you mean `{}`?", near.name),
                None => format!("unknown key `{name}`; `moe-train config` lists all keys"),
            });
        };
        let value = match value {
            toml::Value::Integer(n) => Value::Int(*n),
            toml::Value::Float(x) => Value::Float(*x),
            toml::Value::Boolean(b) => Value::Bool(*b),
            toml::Value::String(text) => Value::Text(text.clone().into()),
            toml::Value::Array(values) if values.iter().all(toml::Value::is_str) => {
                Value::Words(values.iter().filter_map(|word| Some(word.as_str()?.to_string())).collect())
            }
            other => return Err(format!("`{name}`: expected {}, found {other}", key.kind)),
        };
        let value = key.kind.check(&value).map_err(|problem| format!("`{name}`: {problem}"))?;
        self.0.insert(key.name, value);
        Ok(())
    }

    /// All keys as TOML, in the order of the table; keys without a value are left out. With
    /// `docs`, each has its description above it.
    pub fn to_toml(&self, docs: bool) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS.iter() {
            let Some(value) = self.get(key.name).filter(|_| self.applies(key)) else { continue };
            let (this_section, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if this_section != section {
                let gap = if text.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{gap}[{this_section}]\n"));
                section = this_section;
            }
            let doc = if docs { format!("# {}\n", key.doc) } else { String::new() };
            text.push_str(&format!("{doc}{name} = {value}\n"));
        }
        text
    }

    /// The identity keys whose value differs in `other`.
    pub fn identity_changes(&self, other: &Self) -> Vec<Change> {
        let show = |value: Option<Value>| value.map_or_else(|| "absent".to_string(), |v| v.to_string());
        let change = |key: &Key| Change {
            key: key.name,
            text: format!("{}: {} -> {}", key.name, show(self.get(key.name)), show(other.get(key.name))),
        };
        let differs = |key: &&Key| key.identity && self.get(key.name) != other.get(key.name);
        KEYS.iter().filter(differs).map(change).collect()
    }

    /// The hash of all identity keys and their values.
    pub fn fingerprint(&self) -> moe_shards::Hash {
        let lines: Vec<String> = KEYS
            .iter()
            .filter(|key| key.identity && self.applies(key))
            .filter_map(|key| Some(format!("{} = {}\n", key.name, self.get(key.name)?)))
            .collect();
        moe_shards::Hash::of(lines.concat().as_bytes())
    }
}

impl settings::Values for Values {
    fn value(&self, name: &str) -> Option<Value> {
        self.get(name)
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown_section(name: &str) -> String {
    let sections = KEYS.iter().filter_map(|key| key.name.rsplit_once('.')).map(|(section, _)| section);
    let near =
        sections.max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    format!("unknown section [{name}]; did you mean [{}]?", near.unwrap_or_default())
}

/// The line, from 1, on which a key or section of this name stands.
fn line_of(text: &str, name: &str) -> Option<usize> {
    let stands = |line: &str| {
        let line = line.trim_start();
        let key = line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='));
        key || line.starts_with('[') && line.trim_matches(['[', ']', ' ']).rsplit('.').next() == Some(name)
    };
    text.lines().position(stands).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        Values::default().read_toml(text, "run.toml", &mut problems);
        problems
    }

    #[test]
    fn all_problems_are_found_with_line_and_suggestion() {
        let found =
            problems("[moe]\ntopk = 2\nexperts = 0\n[optm]\nlr = 1.0\n[schedule]\nkind = \"cosin\"\n");
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[1], "run.toml, line 2: unknown key `moe.topk`; did you mean `moe.top_k`?");
        assert_eq!(
            found[0],
            "run.toml, line 3: `moe.experts`: expected a whole number from 1 to 65536, found 0"
        );
        assert!(found.iter().any(|p| p.contains("unknown section [optm]; did you mean [optim]?")));
        assert!(found.iter().any(|p| p.contains("did you mean \"cosine\"?")));
    }

    #[test]
    fn written_values_read_back_the_same() {
        let mut values = Values::default();
        let mut found = Vec::new();
        values.read_assignment("optim.lr=1e-3", &mut found);
        values.read_assignment("moe.router.score=softmax", &mut found);
        assert!(found.is_empty(), "{found:?}");
        let mut again = Values::default();
        again.read_toml(&values.to_toml(true), "lock", &mut found);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(again.to_toml(false), values.to_toml(false));
        assert_eq!(again.fingerprint(), values.fingerprint());
    }

    #[test]
    fn a_setting_of_another_kind_is_refused_with_the_reason() {
        let mut values = Values::default();
        values.set("moe.router.score", Value::Text("softmax".into()));
        let own = keys::find("moe.router.score").expect("a key");
        assert!(values.applies(own) && values.strangers(KEYS.as_slice()).is_empty());
        let other = Key { of: Some(("moe.router.kind", vec!["random"])), ..own.clone() };
        let problem = "`moe.router.score` is a setting of moe.router.kind = \"random\", and moe.router.kind is \"top_k\"";
        assert_eq!(values.strangers(&[other]), [problem]);
    }

    #[test]
    fn a_pattern_decides_which_keys_of_attention_count() {
        let with = |assignments: &[&str]| {
            let (mut values, mut problems) = (Values::default(), Vec::new());
            assignments.iter().for_each(|assignment| values.read_assignment(assignment, &mut problems));
            problems.extend(values.strangers(KEYS.as_slice()));
            (values, problems)
        };
        let (_, problems) = with(&["attention.swa.window=8"]);
        assert_eq!(
            problems,
            [
                "`attention.swa.window` is a setting of attention.kind = \"swa\", and attention.kind is \"gqa\""
            ]
        );
        let (values, problems) = with(&["attention.pattern=[\"swa\", \"full\"]", "attention.swa.window=8"]);
        assert!(problems.is_empty(), "{problems:?}");
        let text = values.to_toml(false);
        assert!(text.contains("kind = \"gqa\"\npattern = [\"swa\", \"full\"]\n"), "{text}");
        // No block is \"full\", so the kind that it stands for has no effect.
        let (_, problems) = with(&["attention.pattern=[\"swa\"]", "attention.kind=gqa"]);
        let problem =
            "`attention.kind` is a setting of attention.pattern = \"full\", and attention.pattern is \"swa\"";
        assert_eq!(problems, [problem]);
        let (_, problems) =
            with(&["attention.pattern=[\"swa\"]", "attention.kind=gqa", "attention.last=full"]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(with(&["attention.pattern=[]"]).1.len(), 1);
    }

    #[test]
    fn free_keys_do_not_change_the_fingerprint() {
        let (plain, mut changed) = (Values::default(), Values::default());
        changed.set("run.log_every", Value::Int(7));
        assert_eq!(plain.fingerprint(), changed.fingerprint());
        changed.set("moe.top_k", Value::Int(1));
        assert_ne!(plain.fingerprint(), changed.fingerprint());
        let change = Change { key: "moe.top_k", text: "moe.top_k: 2 -> 1".into() };
        assert_eq!(plain.identity_changes(&changed), [change]);
    }
}
