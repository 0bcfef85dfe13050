//! The one table of configuration keys: it drives parsing, defaults, ranges, `config --explain`,
//! the fingerprint, and the comparison on resume.

use std::sync::LazyLock;

use moe_cli::nearest::near;

use super::RunSettings;
use crate::data::DataSettings;
use crate::model::attention::PatternSettings;
use crate::model::attention::pattern::FULL;
use crate::model::config::{AttentionConfig, BalanceConfig, Parametrization, RouterConfig};
use crate::model::moe::{CapacitySettings, MoeSettings};
use crate::model::rope::RopeSettings;
use crate::model::{ModelSettings, PrecisionSettings};
use crate::optim::{OptimSettings, ScheduleSettings, rule};
use crate::settings::Section;
use crate::settings::value::{Kind, Value};

pub use crate::settings::Key;

/// All keys, by section. Each part of the program declares its own in a struct of settings; here are their
/// order, and the keys that choose among kinds of a part.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let rules: &'static [&'static str] = Vec::leak(rule::kinds());
    let of_rules = rule::REGISTRY.iter().map(|entry| (entry.kind, (entry.keys)())).collect();
    let keys = [
        RunSettings::keys(),
        DataSettings::keys(),
        ModelSettings::keys(),
        choice("model.parametrization", Parametrization::KINDS, PARAMETRIZATION, Parametrization::keys()),
        PrecisionSettings::keys(),
        attention(),
        MoeSettings::keys(),
        choice(
            "moe.router.kind",
            RouterConfig::KINDS,
            "how tokens are assigned to experts",
            RouterConfig::keys(),
        ),
        BalanceConfig::keys(),
        CapacitySettings::keys(),
        choice("optim.kind", rules, "rule that updates parameters", of_rules),
        OptimSettings::keys(),
        ScheduleSettings::keys(),
    ];
    by_section(keys.concat())
});

const PARAMETRIZATION: &str = "what follows from the shape of the model, so that settings tuned on the model of model.base \
     serve it. standard: nothing but the scale of initial weights; mup: initial weights, learning rates, scores of attention \
     and logits by width; complete: the same, decay and outputs of blocks by width, depth and active width of experts";

/// The keys grouped by section, in the order of each section's first key: TOML allows a section only once.
fn by_section(mut keys: Vec<Key>) -> Vec<Key> {
    let mut sections: Vec<&str> = Vec::new();
    for key in &keys {
        if !sections.contains(&section(key)) {
            sections.push(section(key));
        }
    }
    keys.sort_by_key(|key| sections.iter().position(|found| *found == section(key)));
    keys
}

/// The section of a key.
fn section(key: &Key) -> &'static str {
    key.name.rsplit_once('.').map_or("", |(section, _)| section)
}

/// The key that chooses among kinds of a part, and the keys of each kind.
fn choice(
    name: &'static str,
    kinds: &'static [&'static str],
    doc: &'static str,
    keys: Vec<(&'static str, Vec<Key>)>,
) -> Vec<Key> {
    let default = Some(Value::Text(kinds[0].into()));
    let chosen = Key { name, kind: Kind::Choice(kinds), default, identity: true, doc, of: None };
    let mut all = vec![chosen];
    for (word, keys) in keys {
        for key in keys {
            // Kinds may share keys.
            match all.iter_mut().find(|known| known.name == key.name) {
                Some(known) => known.of.iter_mut().for_each(|(_, words)| words.push(word)),
                None => all.push(Key { of: Some((name, vec![word])), ..key }),
            }
        }
    }
    all
}

/// The keys of attention: its kind, which counts where the pattern asks for it, the pattern, and the keys of
/// each kind.
fn attention() -> Vec<Key> {
    let doc = "kind of attention in every block, or in those that attention.pattern calls \"full\"";
    let mut all = choice("attention.kind", AttentionConfig::KINDS, doc, AttentionConfig::keys());
    all[0].of = Some(("attention.pattern", vec![FULL]));
    all.splice(1..1, [PatternSettings::keys(), RopeSettings::keys()].concat());
    all
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether a key affects only the learning rate of each step. A resumed run may change it if that does not
/// affect the rate of a past step.
pub fn is_of_schedule(name: &str) -> bool {
    name.starts_with("schedule.") || ["run.steps", "optim.lr"].contains(&name)
}

/// The key whose name, or the last part of it, is near `name`, if any is.
pub fn nearest(name: &str) -> Option<&'static Key> {
    let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    let parts: Vec<&str> = names.iter().map(|name| last(name)).collect();
    near(name, &names).and_then(find).or_else(|| {
        let part = near(name.rsplit('.').next()?, &parts)?;
        KEYS.iter().find(|key| last(key.name) == part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_section_a_doc_and_a_default_in_range() {
        for key in KEYS.iter() {
            assert!(key.name.contains('.') && key.doc.len() > 5, "{}", key.name);
            if let Some(default) = &key.default {
                assert_eq!(key.kind.check(default), Ok(default.clone()), "{}", key.name);
            }
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
        }
    }

    #[test]
    fn misspelled_keys_find_the_nearest_key() {
        assert_eq!(nearest("moe.topk").map(|key| key.name), Some("moe.top_k"));
        assert_eq!(nearest("optim.weigth_decay").map(|key| key.name), Some("optim.weight_decay"));
        assert!(nearest("x.qqqqqq").is_none());
    }
}
