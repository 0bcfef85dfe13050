//! A line of the registry, and an entry of a recipe that names it.

use std::path::PathBuf;

use moe_shards::Hash;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Action, Filter, REGISTRY, Rewrite, Rule};
use crate::strict_toml::{Docs, Fault, Section, plain};

/// Settings of a rule, by key.
pub type Settings = Map<String, Value>;

/// A rule, or a problem of its settings.
pub type Built = Result<Rule, String>;

/// A line of the registry.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Name in recipes.
    pub name: &'static str,
    /// A few words on what it measures.
    pub summary: &'static str,
    /// Allowed actions on its findings; the first one is the default.
    pub actions: &'static [Action],
    /// Keys of the settings that values are compared with; all others decide what is measured.
    pub thresholds: &'static [&'static str],
    /// Keys of the settings that name a file, or a list of files, relative to the recipe's folder. The rule
    /// is built with the paths resolved; the files' contents count for what is measured.
    pub files: &'static [&'static str],
    /// What the settings mean.
    pub docs: fn() -> Docs,
    /// Settings with their defaults.
    pub defaults: fn() -> Settings,
    /// Whether settings have the right types.
    pub accepts: fn(&Value) -> Result<(), String>,
    /// Range problems of well-typed settings.
    pub check: fn(&Settings) -> Vec<Fault>,
    /// The rule itself.
    pub build: fn(&Settings) -> Built,
}

impl Entry {
    /// A rule that measures.
    pub const fn filter<T: Filter + Section + 'static>(
        name: &'static str,
        summary: &'static str,
        thresholds: &'static [&'static str],
    ) -> Entry {
        Entry::custom::<T>(name, summary, &[Action::Drop, Action::Tag], thresholds, |settings| {
            Ok(Rule::Filter(Box::new(decode::<T>(settings)?)))
        })
    }

    /// A rule that rewrites. `actions` are the supported ones, the default first.
    pub const fn rewrite<T: Rewrite + Section + 'static>(
        name: &'static str,
        summary: &'static str,
        actions: &'static [Action],
        thresholds: &'static [&'static str],
    ) -> Entry {
        Entry::custom::<T>(name, summary, actions, thresholds, |settings| {
            Ok(Rule::Rewrite(Box::new(decode::<T>(settings)?)))
        })
    }

    /// A rule that is built from its settings by a function, such as one that reads files.
    pub const fn custom<T: Section>(
        name: &'static str,
        summary: &'static str,
        actions: &'static [Action],
        thresholds: &'static [&'static str],
        build: fn(&Settings) -> Built,
    ) -> Entry {
        Entry {
            name,
            summary,
            actions,
            thresholds,
            files: &[],
            docs: T::docs,
            defaults: defaults::<T>,
            accepts: accepts::<T>,
            check: check::<T>,
            build,
        }
    }

    /// The same with settings that name files.
    pub const fn with_files(self, keys: &'static [&'static str]) -> Entry {
        Entry { files: keys, ..self }
    }
}

/// Finds a rule by its name.
///
/// # Errors
/// An unknown name; a decoded recipe has none.
pub fn find(name: &str) -> Result<&'static Entry, String> {
    REGISTRY.iter().find(|entry| entry.name == name).ok_or_else(|| format!("unknown filter `{name}`"))
}

/// `[[filter]]`: a rule of the registry with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterConfig {
    /// Name in the registry.
    pub name: String,
    /// Sources it applies to; all when empty.
    pub sources: Vec<String>,
    /// Action on its findings.
    pub action: Action,
    /// Tag for a document with [`Action::Tag`]; the reason when absent.
    pub tag: Option<String>,
    /// The rule's own keys, defaults filled in.
    pub settings: Settings,
    /// The files they name, in the order of the registry's keys and of the lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RuleFile>,
}

/// A file that a rule reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFile {
    /// As the recipe names it.
    pub name: String,
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Digest of its content.
    pub blake3: Hash,
}

impl FilterConfig {
    /// A rule of the registry with its defaults, for all sources.
    pub fn with_defaults(entry: &Entry) -> FilterConfig {
        FilterConfig {
            name: entry.name.to_owned(),
            sources: Vec::new(),
            action: entry.actions.first().copied().unwrap_or_default(),
            tag: None,
            settings: (entry.defaults)(),
            files: Vec::new(),
        }
    }

    /// The files that the settings name, as the recipe has them.
    pub fn file_names(&self) -> Vec<String> {
        let keys = find(&self.name).map_or(&[][..], |entry| entry.files);
        let values = keys.iter().filter_map(|key| self.settings.get(*key));
        let names = values.flat_map(|value| match value {
            Value::Array(items) => items.iter().collect(),
            other => vec![other],
        });
        names.filter_map(|name| name.as_str().filter(|name| !name.is_empty()).map(str::to_owned)).collect()
    }

    /// The settings with files' paths on this machine.
    pub fn with_paths(&self) -> Settings {
        self.with_files(|file| file.path.to_string_lossy().into_owned())
    }

    /// The settings with digests in place of files, so they do not depend on the files' paths.
    pub fn with_digests(&self) -> Settings {
        self.with_files(|file| file.blake3.to_string())
    }

    fn with_files(&self, shown: impl Fn(&RuleFile) -> String) -> Settings {
        let mut settings = self.settings.clone();
        let keys = find(&self.name).map_or(&[][..], |entry| entry.files);
        let replace = |value: &mut Value| {
            let file = self.files.iter().find(|file| value.as_str() == Some(&file.name));
            if let Some(file) = file {
                *value = shown(file).into();
            }
        };
        for key in keys {
            match settings.get_mut(*key) {
                Some(Value::Array(items)) => items.iter_mut().for_each(replace),
                Some(value) => replace(value),
                None => {}
            }
        }
        settings
    }

    /// Everything that decides its effect on a document. Dropping and no tag are left out, as before there was anything
    /// else.
    pub fn identity(&self) -> Value {
        let mut value = json!({ "name": self.name, "settings": self.with_digests() });
        // Older data sets lack the key and used these words.
        let is = |key: &str, wanted: &str| self.settings.get(key).is_some_and(|value| value == wanted);
        let has_own_words = self.settings.contains_key("definition") && !is("definition", "datatrove");
        if let Some(settings) =
            value["settings"].as_object_mut().filter(|_| is("words", "uax29") || has_own_words)
        {
            settings.remove("words");
        }
        if self.action != Action::Drop {
            value["action"] = json!([self.action, self.tag]);
        }
        value
    }

    /// Whether it applies to a source.
    pub fn applies_to(&self, source: &str) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|name| name == source)
    }
}

pub(super) fn decode<T: Section>(settings: &Settings) -> Result<T, String> {
    serde_json::from_value(Value::Object(settings.clone())).map_err(|e| e.to_string())
}

fn defaults<T: Section>() -> Settings {
    match serde_json::to_value(T::default()) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn accepts<T: Section>(value: &Value) -> Result<(), String> {
    serde_json::from_value::<T>(value.clone()).map(drop).map_err(|e| plain(&e.to_string()))
}

fn check<T: Section>(settings: &Settings) -> Vec<Fault> {
    decode::<T>(settings).map_or_else(|_| Vec::new(), |config| config.check())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_builds_from_its_defaults_and_refuses_unknown_keys() {
        for entry in REGISTRY {
            let mut settings = (entry.defaults)();
            assert!(!settings.is_empty(), "{} has no settings", entry.name);
            // Without its files a rule is incomplete.
            if entry.files.is_empty() {
                assert!((entry.build)(&settings).is_ok(), "{}", entry.name);
                assert_eq!((entry.check)(&settings), [], "{}", entry.name);
            }
            for key in entry.thresholds {
                assert!(settings.contains_key(*key), "{}: no key {key}", entry.name);
            }
            // These keys belong to every entry of a recipe.
            for key in ["name", "sources", "action", "tag"] {
                assert!(!settings.contains_key(key), "{}: {key}", entry.name);
            }
            assert!(!entry.actions.is_empty(), "{}", entry.name);
            settings.insert("no_such_key".into(), Value::from(1));
            assert!((entry.accepts)(&Value::Object(settings)).is_err(), "{}", entry.name);
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, entry) in REGISTRY.iter().enumerate() {
            assert!(REGISTRY[..i].iter().all(|other| other.name != entry.name), "{}", entry.name);
        }
    }
}
