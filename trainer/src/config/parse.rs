//! From TOML and `--set` to checked values; every problem is found before any is reported.

use std::collections::{BTreeMap, BTreeSet};

use moe_cli::nearest::near;

use super::groups::{self, GROUP, GroupValues};
use super::keys::{self, KEYS, Key};
use crate::model::attention::pattern;
use crate::settings;
use crate::settings::value::Value;

/// Checked values of the keys that were given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    keys: BTreeMap<&'static str, Value>,
    groups: Vec<GroupValues>,
}

/// A key with different values in two configurations.
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
        self.keys.get(name).cloned().or_else(|| keys::find(name).and_then(|key| key.default.clone()))
    }

    /// The word that is the value of a key.
    ///
    /// # Errors
    /// If it is not a word.
    pub fn word(&self, name: &str) -> Result<String, String> {
        match self.get(name) {
            Some(Value::Text(word)) => Ok(word.into_owned()),
            other => Err(format!("`{name}`: expected a word, found {other:?}")),
        }
    }

    /// The groups of parameters that were given.
    pub(super) fn groups(&self) -> &[GroupValues] {
        &self.groups
    }

    /// Whether a key was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.keys.contains_key(name)
    }

    /// Whether a key belongs to the chosen kinds of parts.
    pub fn applies(&self, key: &Key) -> bool {
        let is_of_group = |kind: &str, words: &[&str]| {
            kind == "optim.kind"
                && self.groups.iter().any(|group| group.rule().is_some_and(|rule| words.contains(&rule)))
        };
        key.of.as_ref().is_none_or(|(kind, words)| {
            let chosen = self.chosen(kind);
            words.iter().any(|word| chosen.contains(*word)) || is_of_group(kind, words)
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
        let strange = |key: &&Key| self.keys.contains_key(key.name) && !self.applies(key);
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

    /// Sets a key to a value that is known to be valid.
    pub fn set(&mut self, name: &'static str, value: Value) {
        self.keys.insert(name, value);
    }

    /// Removes the value of a key, so that its default applies.
    pub fn unset(&mut self, name: &str) {
        self.keys.remove(name);
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
                value if full == GROUP => {
                    let at = |index: usize, key: Option<&str>| match line_of_group(text, index, key) {
                        Some(line) => format!("{origin}, line {line}"),
                        None => at(),
                    };
                    self.groups = groups::read(value, at, problems);
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

    /// Adds one `key=value` of the command line. A value that is not TOML is taken as a word. Choosing
    /// another kind of a part removes the settings of the kind that it replaces, which a preset or a file may
    /// have given.
    pub fn read_assignment(&mut self, assignment: &str, problems: &mut Vec<String>) {
        let Some((name, text)) = assignment.split_once('=') else {
            problems.push(format!("--set {assignment}: expected key=value, as in --set moe.top_k=2"));
            return;
        };
        let (name, text) = (name.trim(), text.trim());
        let parsed = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
        let value = parsed.unwrap_or_else(|| toml::Value::String(text.to_string()));
        if name == GROUP {
            let at = |index: usize, _: Option<&str>| format!("--set {GROUP}, group {}", index + 1);
            self.groups = groups::read(&value, at, problems);
            return;
        }
        let before = self.get(name);
        match self.put(name, &value) {
            Err(problem) => problems.push(format!("--set {assignment}: {problem}")),
            Ok(()) if self.get(name) != before => {
                let of_kind =
                    KEYS.iter().filter(|key| key.of.as_ref().is_some_and(|(kind, _)| *kind == name));
                for key in of_kind.filter(|key| !self.applies(key)).collect::<Vec<_>>() {
                    self.keys.remove(key.name);
                }
            }
            Ok(()) => {}
        }
    }

    fn put(&mut self, name: &str, value: &toml::Value) -> Result<(), String> {
        let Some(key) = keys::find(name) else {
            return Err(match keys::nearest(name) {
                Some(near) => format!("unknown key `{name}`; did you mean `{}`?", near.name),
                None => format!("unknown key `{name}`; `moe-train config` lists all keys"),
            });
        };
        let expected = || format!("`{name}`: expected {}, found {value}", key.kind);
        let value = Value::of_toml(value).ok_or_else(expected)?;
        let value = key.kind.check(&value).map_err(|problem| format!("`{name}`: {problem}"))?;
        self.keys.insert(key.name, value);
        Ok(())
    }

    /// All keys as TOML, in the order of the table, and the groups after them; keys without a value are left
    /// out. With `docs`, each has its description above it.
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
        for group in &self.groups {
            text.push_str(&format!("\n[[{GROUP}]]\n{}\n", group.lines().join("\n")));
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
        let mut changes: Vec<Change> = KEYS.iter().filter(differs).map(change).collect();
        if self.groups != other.groups {
            let text =
                format!("{GROUP}: {} -> {}", groups_in_line(&self.groups), groups_in_line(&other.groups));
            changes.push(Change { key: GROUP, text });
        }
        changes
    }

    /// The hash of all identity keys and their values, and of the groups.
    pub fn fingerprint(&self) -> moe_shards::Hash {
        let lines: Vec<String> = KEYS
            .iter()
            .filter(|key| key.identity && self.applies(key))
            .filter_map(|key| Some(format!("{} = {}\n", key.name, self.get(key.name)?)))
            .chain(self.groups.iter().map(|group| format!("[[{GROUP}]]\n{}\n", group.lines().join("\n"))))
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
    match near(name, &sections.collect::<Vec<&str>>()) {
        Some(near) => format!("unknown section [{name}]; did you mean [{near}]?"),
        None => format!("unknown section [{name}]; `moe-train config` lists all keys"),
    }
}

/// The groups as a list of TOML.
fn groups_in_line(groups: &[GroupValues]) -> String {
    let tables: Vec<String> =
        groups.iter().map(|group| format!("{{ {} }}", group.lines().join(", "))).collect();
    if tables.is_empty() { "absent".to_string() } else { format!("[{}]", tables.join(", ")) }
}

/// The line, from 1, on which the group of this number begins, or that of one of its keys.
fn line_of_group(text: &str, index: usize, key: Option<&str>) -> Option<usize> {
    let is_header = |line: &str| line.split_whitespace().collect::<String>().starts_with("[[optim.group]]");
    let (header, _) = text.lines().enumerate().filter(|(_, line)| is_header(line)).nth(index)?;
    let of_key = key.and_then(|key| {
        let lines = text.lines().enumerate().skip(header + 1);
        let mut of_group = lines.take_while(|(_, line)| !line.trim_start().starts_with('['));
        let stands = |line: &str| {
            line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        of_group.find(|(_, line)| stands(line)).map(|(at, _)| at)
    });
    Some(of_key.unwrap_or(header) + 1)
}

/// The line, from 1, of a key or section of this name.
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
        values.read_assignment("optim.kind=muon", &mut found);
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
    fn another_kind_takes_the_settings_of_the_one_before_away() {
        let (mut values, mut found) = (Values::default(), Vec::new());
        values.read_toml("[moe.router]\nscore = \"softmax\"\n", "preset", &mut found);
        values.read_assignment("moe.router.kind=gshard", &mut found);
        assert!(found.is_empty() && values.strangers(KEYS.as_slice()).is_empty(), "{found:?}");
        // What is requested later counts.
        values.read_assignment("moe.router.score=softmax", &mut found);
        assert_eq!(values.strangers(KEYS.as_slice()).len(), 1);
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
