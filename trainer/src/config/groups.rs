//! `[[optim.group]]`: parameters with their own optimizer settings, selected by name; the last group that
//! matches counts.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use moe_cli::nearest::near;

use crate::optim::Moments;
use crate::optim::rule;
use crate::settings::value::{Kind, Value};
use crate::settings::{Key, float};

/// The key of the list of groups.
pub const GROUP: &str = "optim.group";

/// What `moe-train config --explain optim.group` says.
pub const GROUP_DOC: &str = "parameters that move otherwise than the rest; the last group that matches counts
  names    patterns of names of parameters, as in [\"blocks.*.feed_forward.experts.*\"]; * is any characters
  rule     rule by which they move; absent: optim.kind
  lr       their highest learning rate; absent: optim.lr
  clip     largest norm of their gradients, which are then no part of the norm that optim.clip limits; absent: they are
  moments  as optim.moments; absent: that
  frozen   true: they are not updated and need no memory for moments; allowed only with names
  and every setting of the rule, as in weight_decay; absent: that of the rule for all
  example  [[optim.group]]
           names = [\"embedding\", \"head\"]
           lr = 3e-4
  `moe-train config --groups` shows which parameter falls into which group";

/// A group as it was given.
#[derive(Debug, Clone)]
pub(super) struct GroupValues {
    /// Where, for people.
    pub(super) at: String,
    pub(super) names: Vec<String>,
    /// The other given values, each of the type of its key.
    pub(super) settings: BTreeMap<&'static str, Value>,
}

/// Groups are equal regardless of where they were given.
impl PartialEq for GroupValues {
    fn eq(&self, other: &Self) -> bool {
        (&self.names, &self.settings) == (&other.names, &other.settings)
    }
}

/// The keys that all groups share.
pub(super) fn own_keys() -> [(&'static str, Kind); 5] {
    static RULES: LazyLock<Vec<&str>> = LazyLock::new(rule::kinds);
    [
        ("rule", Kind::Choice(&RULES)),
        ("lr", float(0.0, 10.0)),
        ("clip", float(1e-6, 1e9)),
        ("moments", Kind::Choice(Moments::WORDS)),
        ("frozen", Kind::Bool),
    ]
}

/// The name of a key in its section.
pub(super) fn short(key: &Key) -> &'static str {
    key.name.rsplit('.').next().unwrap_or(key.name)
}

/// The key of a group by this name, with its type; the same name has one type in all rules.
fn find(name: &str) -> Result<(&'static str, Kind), String> {
    let of_rules = rule::REGISTRY.iter().flat_map(|entry| (entry.keys)());
    let all: Vec<(&str, Kind)> =
        own_keys().into_iter().chain(of_rules.map(|key| (short(&key), key.kind))).collect();
    if let Some(found) = all.iter().find(|(known, _)| *known == name) {
        return Ok(found.clone());
    }
    let mut known: Vec<&str> = all.into_iter().map(|(known, _)| known).collect();
    known.push("names");
    Err(match near(name, &known) {
        Some(near) => format!("unknown key `{name}` of [[{GROUP}]]; did you mean `{near}`?"),
        None => {
            format!("unknown key `{name}` of [[{GROUP}]]; `moe-train config --explain {GROUP}` lists them")
        }
    })
}

/// Reads the groups of a TOML value; problems go to `problems`, each with the place that `at` gives a key of
/// the group of this number, from 0, or the group itself.
pub(super) fn read(
    value: &toml::Value,
    at: impl Fn(usize, Option<&str>) -> String,
    problems: &mut Vec<String>,
) -> Vec<GroupValues> {
    let tables: Option<Vec<&toml::Table>> =
        value.as_array().and_then(|list| list.iter().map(toml::Value::as_table).collect());
    let Some(tables) = tables else {
        problems.push(format!("{}: `{GROUP}`: expected [[{GROUP}]] tables, found {value}", at(0, None)));
        return Vec::new();
    };
    let mut groups = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let mut group = GroupValues { at: at(index, None), names: Vec::new(), settings: BTreeMap::new() };
        if !table.contains_key("names") {
            problems
                .push(format!("{}: [[{GROUP}]] without `names`, the patterns for its parameters", group.at));
        }
        for (name, value) in table {
            if let Err(problem) = group.put(name, value) {
                problems.push(format!("{}: {problem}", at(index, Some(name))));
            }
        }
        groups.push(group);
    }
    groups
}

impl GroupValues {
    fn put(&mut self, name: &str, value: &toml::Value) -> Result<(), String> {
        if name == "names" {
            let names: Option<Vec<String>> = value
                .as_array()
                .and_then(|list| list.iter().map(|name| Some(name.as_str()?.to_string())).collect());
            self.names = names.filter(|names| !names.is_empty()).ok_or_else(|| {
                format!("`names`: expected patterns as in [\"blocks.*.experts.*\"], found {value}")
            })?;
            return Ok(());
        }
        let (name, kind) = find(name)?;
        let value =
            Value::of_toml(value).ok_or_else(|| format!("`{name}`: expected {kind}, found {value}"))?;
        let value = kind.check(&value).map_err(|problem| format!("`{name}`: {problem}"))?;
        self.settings.insert(name, value);
        Ok(())
    }

    fn word(&self, name: &str) -> Option<&str> {
        match self.settings.get(name) {
            Some(Value::Text(word)) => Some(word),
            _ => None,
        }
    }

    /// The named rule.
    pub(super) fn rule(&self) -> Option<&str> {
        self.word("rule")
    }

    pub(super) fn moments(&self) -> Option<Moments> {
        self.word("moments").map(moments_of)
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.settings.get("frozen") == Some(&Value::Bool(true))
    }

    /// The given values as `key = value`, names first and `rule` second.
    pub(super) fn lines(&self) -> Vec<String> {
        let names: Vec<String> =
            self.names.iter().map(|name| toml::Value::from(name.as_str()).to_string()).collect();
        let rule = self.settings.get_key_value("rule").into_iter();
        let rest = self.settings.iter().filter(|(name, _)| **name != "rule");
        let settings = rule.chain(rest).map(|(name, value)| format!("{name} = {value}"));
        std::iter::once(format!("names = [{}]", names.join(", "))).chain(settings).collect()
    }
}

/// The type of a word that its key has checked.
pub(super) fn moments_of(word: &str) -> Moments {
    if word == "bf16" { Moments::Bf16 } else { Moments::F32 }
}
