//! All keys of recipes and mixtures with their defaults and documentation. Both come from the structs that the files are read into,
//! so the documentation matches the parser.

use moe_cli::nearest;
use serde_json::{Map, Value};

use crate::decontaminate::config::{BenchmarkConfig, DecontaminateConfig};
use crate::dedup::cuts::config::{ParagraphConfig, SubstringConfig};
use crate::filter::REGISTRY;
use crate::mix::mixture::{MixConfig, PhaseConfig, PoolConfig};
use crate::normalize::NormalizeConfig;
use crate::recipe::profile::FiltersConfig;
use crate::recipe::{
    ChatConfig, DedupConfig, LimitsConfig, MinhashConfig, QualityConfig, RephraseConfig, ShardConfig,
    SourceConfig, TokenizerConfig, TrainConfig,
};
use crate::strict_toml::{Docs, Section as Keys};

/// A file that people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// Of `moe-data build`.
    Recipe,
    /// Of `moe-data mix`.
    Mixture,
}

/// A section of a file.
#[derive(Clone, Debug)]
pub struct Section {
    /// The file.
    pub file: File,
    /// Its name, `filter.RULE` for the keys of a rule.
    pub name: String,
    /// Its first line, such as `[[source]]`.
    pub head: String,
    /// What it is.
    pub about: String,
    /// Its keys, in the order in which they are documented.
    pub keys: Vec<Key>,
}

/// A key of a section.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Its default; null if it is off or derived, as the documentation says.
    pub default: Value,
    /// What it does.
    pub doc: String,
}

/// All sections, those of the recipe first.
pub fn sections() -> Vec<Section> {
    let recipe = |name, head, about| (File::Recipe, name, head, about);
    let mixture = |name, head, about| (File::Mixture, name, head, about);
    let mut sections = vec![
        section::<SourceConfig>(recipe(
            "source",
            "[[source]]",
            "one named origin of documents; earlier ones win over later ones in deduplication",
        )),
        section::<NormalizeConfig>(recipe("normalize", "[normalize]", "the normal form of texts")),
        section::<FiltersConfig>(recipe(
            "filters",
            "[filters]",
            "a published list of filters, see `moe-data filters`",
        )),
        filter_section(),
    ];
    sections.extend(REGISTRY.iter().map(|entry| {
        let values = (entry.defaults)();
        let about = format!("the keys of the rule `{}`: {}", entry.name, entry.summary);
        Section {
            file: File::Recipe,
            name: format!("filter.{}", entry.name),
            head: format!("[[filter]]\nname = \"{}\"", entry.name),
            about,
            keys: keys((entry.docs)(), &values),
        }
    }));
    sections.extend([
        section::<DedupConfig>(recipe("dedup", "[dedup]", "which documents are removed as duplicates")),
        section::<MinhashConfig>(recipe(
            "dedup.minhash",
            "[dedup.minhash]",
            "near-duplicates; off without the table",
        )),
        section::<ParagraphConfig>(recipe(
            "dedup.paragraph",
            "[dedup.paragraph]",
            "cuts repeated paragraphs; off without the table",
        )),
        section::<SubstringConfig>(recipe(
            "dedup.substring",
            "[dedup.substring]",
            "cuts repeated stretches of bytes; off without the table",
        )),
        section::<DecontaminateConfig>(recipe(
            "decontaminate",
            "[decontaminate]",
            "removes text of evaluation sets; off without the table",
        )),
        section::<BenchmarkConfig>(recipe(
            "decontaminate.benchmark",
            "[[decontaminate.benchmark]]",
            "an evaluation set",
        )),
        section::<QualityConfig>(recipe(
            "quality",
            "[quality]",
            "buckets of the score of a classifier; off without the table",
        )),
        section::<TokenizerConfig>(recipe("tokenizer", "[tokenizer]", "the tokenizer: `file` or `train`")),
        section::<TrainConfig>(recipe(
            "tokenizer.train",
            "[tokenizer.train]",
            "a tokenizer that is trained on the kept documents",
        )),
        section::<ShardConfig>(recipe("shard", "[shard]", "the files of tokens")),
        section::<LimitsConfig>(recipe("limits", "[limits]", "limits of records and files")),
        section::<RephraseConfig>(recipe(
            "rephrase",
            "[rephrase]",
            "variants that `moe-data rephrase` made; off without the table",
        )),
        section::<ChatConfig>(recipe("chat", "[chat]", "how conversations are written, see docs/chat.md")),
        section::<MixConfig>(mixture("mix", "[mix]", "settings shared by all pools")),
        section::<PoolConfig>(mixture(
            "pool",
            "[[pool]]",
            "one stream of the mixture; without any, one for each source",
        )),
        section::<PhaseConfig>(mixture(
            "phase",
            "[[phase]]",
            "a stretch of the plan with its own budget, weights and length of sequences",
        )),
    ]);
    sections
}

fn section<T: Keys>((file, name, head, about): (File, &str, &str, &str)) -> Section {
    let Value::Object(values) = serde_json::to_value(T::default()).unwrap_or_default() else {
        return Section { file, name: name.into(), head: head.into(), about: about.into(), keys: Vec::new() };
    };
    Section {
        file,
        name: name.to_owned(),
        head: head.to_owned(),
        about: about.to_owned(),
        keys: keys(T::docs(), &values),
    }
}

fn keys(docs: Docs, values: &Map<String, Value>) -> Vec<Key> {
    let key = |(name, doc): &(&str, &str)| Key {
        name: (*name).to_owned(),
        default: values.get(*name).cloned().unwrap_or_default(),
        doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    docs.iter().map(key).collect()
}

/// The keys that every filter has, which no struct holds as written.
fn filter_section() -> Section {
    let key = |name: &str, default, doc: &str| Key { name: name.to_owned(), default, doc: doc.to_owned() };
    Section {
        file: File::Recipe,
        name: "filter".to_owned(),
        head: "[[filter]]".to_owned(),
        about: "a rule; rules apply in the order of the file. The keys of each rule follow".to_owned(),
        keys: vec![
            key("name", Value::Null, "Name of the rule, see `moe-data filters`."),
            key("sources", Value::Array(Vec::new()), "Sources that it applies to; all when empty."),
            key(
                "action",
                Value::Null,
                "Action on its findings: `drop`, `tag`, or `cut` for rules that rewrite; the rule's default when absent.",
            ),
            key(
                "tag",
                Value::Null,
                "With `action = \"tag\"`, the tag for the document; the reason when absent.",
            ),
        ],
    }
}

/// The keys that match a name: `mix.epochs`, a section with all its keys, or `epochs` in any section.
///
/// # Errors
/// There is none; the message suggests similar ones.
pub fn find(name: &str) -> Result<Vec<(Section, Key)>, String> {
    let all: Vec<(String, Section, Key)> = sections()
        .into_iter()
        .flat_map(|section| {
            let keys = section.keys.clone();
            keys.into_iter().map(move |key| (format!("{}.{}", section.name, key.name), section.clone(), key))
        })
        .collect();
    // A whole name first, then a section, then a key anywhere.
    for kind in 0..3 {
        let is_meant = |full: &str, section: &Section, key: &Key| match kind {
            0 => full == name,
            1 => section.name == name,
            _ => key.name == name,
        };
        let found: Vec<(Section, Key)> = (all.iter())
            .filter(|(full, section, key)| is_meant(full, section, key))
            .map(|(_, section, key)| (section.clone(), key.clone()))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let names: Vec<&str> =
        all.iter().flat_map(|(full, section, key)| [full.as_str(), &section.name, &key.name]).collect();
    Err(match nearest::near(name, &names) {
        Some(near) => format!("unknown key `{name}`; did you mean `{near}`?"),
        None => format!("unknown key `{name}`; `moe-data config` lists all keys"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// No key of a file is without documentation, and only keys are documented.
    #[test]
    fn every_key_is_documented_and_has_its_default() {
        let documented =
            |section: &Section| section.keys.iter().map(|key| key.name.clone()).collect::<BTreeSet<_>>();
        for section in sections() {
            assert!(!section.keys.is_empty() || section.name.starts_with("filter."), "{}", section.name);
            for key in &section.keys {
                assert!(key.doc.len() > 8, "{}.{}: {}", section.name, key.name, key.doc);
            }
            if let Some(rule) = section.name.strip_prefix("filter.") {
                let entry = REGISTRY.iter().find(|entry| entry.name == rule).unwrap();
                let keys: BTreeSet<String> = (entry.defaults)().keys().cloned().collect();
                assert_eq!(documented(&section), keys, "{rule}");
            }
        }
        let mix = sections().into_iter().find(|section| section.name == "mix").unwrap();
        let Value::Object(values) = serde_json::to_value(MixConfig::default()).unwrap() else { panic!() };
        assert_eq!(documented(&mix), values.keys().cloned().collect());
        let epochs = mix.keys.iter().find(|key| key.name == "epochs").unwrap();
        assert_eq!(epochs.default, 4);
    }

    #[test]
    fn names_are_found_whole_by_section_and_by_key() {
        let names = |name: &str| -> Vec<String> {
            find(name)
                .unwrap()
                .iter()
                .map(|(section, key)| format!("{}.{}", section.name, key.name))
                .collect()
        };
        assert_eq!(names("mix.epochs"), ["mix.epochs"]);
        assert_eq!(names("epochs"), ["mix.epochs"]);
        assert_eq!(names("filter.length"), ["filter.length.min_chars", "filter.length.max_chars"]);
        assert!(names("seq_len").contains(&"phase.seq_len".to_owned()));
        assert!(find("mix.epoch").unwrap_err().contains("did you mean `mix.epochs`?"));
        assert!(find("zzzzzzzz").unwrap_err().contains("lists all keys"));
    }
}
