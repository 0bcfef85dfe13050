//! `[decontaminate]`: evaluation sets whose text must not be trained on.

use serde::{Deserialize, Serialize};

use crate::decontaminate::Settings;
use crate::decontaminate::index::SEED_WORDS;
use crate::strict_toml::{Docs, Fault, Section, documented};

/// What happens to a document that holds evaluation text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is dropped.
    #[default]
    Drop,
    /// The spans that were found are cut out.
    Cut,
    /// It is kept, gets a tag, and is reported.
    Tag,
}

documented! {
    /// `[decontaminate]`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct DecontaminateConfig {
        /// An evaluation text with fewer words must be found whole; longer ones by their share.
        pub ngram: u32,
        /// Share of an evaluation text's weight that counts as a match.
        pub threshold: f64,
        /// Words in a row that may differ inside a match.
        pub max_misses: u32,
        /// Evaluation texts with fewer words are not looked for.
        pub min_words: u32,
        /// What happens to a document with a match.
        pub action: Action,
        /// The tag of `action = "tag"`.
        pub tag: String,
        /// With `action = "cut"`, fewest characters that must be left of a document; with fewer it is dropped.
        pub min_chars_left: u64,
        /// Sources that are searched; all when empty.
        pub sources: Vec<String>,
        /// Share of the canaries of each kind that the self-test must find, else the build fails.
        pub min_recall: f64,
        /// The evaluation sets.
        pub benchmark: Vec<BenchmarkConfig>,
    }
}

impl Default for DecontaminateConfig {
    fn default() -> DecontaminateConfig {
        let Settings { ngram, threshold, max_misses, min_words } = Settings::default();
        DecontaminateConfig {
            ngram,
            threshold,
            max_misses,
            min_words,
            action: Action::default(),
            tag: "contaminated".to_owned(),
            min_chars_left: 50,
            sources: Vec::new(),
            min_recall: 0.9,
            benchmark: Vec::new(),
        }
    }
}

impl DecontaminateConfig {
    /// How to look.
    pub fn settings(&self) -> Settings {
        let DecontaminateConfig { ngram, threshold, max_misses, min_words, .. } = *self;
        Settings { ngram, threshold, max_misses, min_words }
    }

    /// Whether a source is searched.
    pub fn applies_to(&self, source: &str) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|name| name == source)
    }
}

/// Most words that may differ in a row: beyond it, spans are no longer the text they were matched with.
const MAX_MISSES: u32 = 20;

impl Section for DecontaminateConfig {
    fn docs() -> Docs {
        DecontaminateConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        let least = SEED_WORDS as u32;
        if !(least..=1000).contains(&self.ngram) {
            wrong.push(("ngram", format!("is {}; expected {least} to 1000", self.ngram)));
        }
        if !(0.0..=1.0).contains(&self.threshold) || self.threshold == 0.0 {
            wrong.push(("threshold", format!("is {}; expected above 0, to 1", self.threshold)));
        }
        if self.max_misses > MAX_MISSES {
            wrong.push(("max_misses", format!("is {}; expected 0 to {MAX_MISSES}", self.max_misses)));
        }
        if self.min_words < least {
            let message = format!(
                "is {}; expected at least {least}, since a match starts with {least} words in a row",
                self.min_words
            );
            wrong.push(("min_words", message));
        }
        if !(0.0..=1.0).contains(&self.min_recall) {
            wrong.push(("min_recall", format!("is {}; expected 0 to 1", self.min_recall)));
        }
        if self.benchmark.is_empty() {
            let example = "[[decontaminate.benchmark]] with `name`, `paths` and `fields`";
            wrong.push(("benchmark", format!("is missing; name at least one {example}")));
        }
        if self.benchmark.len() > usize::from(u16::MAX) {
            wrong.push((
                "benchmark",
                format!("there are {}, at most 65535 are possible", self.benchmark.len()),
            ));
        }
        wrong
    }
}

documented! {
    /// `[[decontaminate.benchmark]]`: an evaluation set.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct BenchmarkConfig {
        /// Name in reports.
        pub name: String,
        /// Files, folders or globs, relative to the recipe's folder; JSONL or Parquet, compressed or not.
        pub paths: Vec<String>,
        /// Fields that are looked for, each as a text of its own; dotted for nested ones.
        pub fields: Vec<String>,
        /// Prefix of values that is not part of the text, such as `Question: `.
        pub prefix: String,
    }
}

impl Section for BenchmarkConfig {
    fn docs() -> Docs {
        BenchmarkConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.name.is_empty() {
            wrong.push(("name", "is missing; give each benchmark a name".to_owned()));
        }
        if self.paths.is_empty() {
            wrong.push(("paths", "is missing; list files, folders or globs".to_owned()));
        }
        if self.fields.is_empty() || self.fields.iter().any(String::is_empty) {
            wrong
                .push(("fields", "is missing; name the fields whose text must not be trained on".to_owned()));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let keys =
            |config: &DecontaminateConfig| config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let benchmark = BenchmarkConfig {
            name: "a".into(),
            paths: vec!["a".into()],
            fields: vec!["question".into()],
            prefix: String::new(),
        };
        let good =
            DecontaminateConfig { benchmark: vec![benchmark.clone()], ..DecontaminateConfig::default() };
        assert_eq!(keys(&good), [""; 0]);
        let bad = DecontaminateConfig {
            ngram: 3,
            threshold: 0.0,
            max_misses: 99,
            min_words: 4,
            min_recall: 2.0,
            benchmark: Vec::new(),
            ..good
        };
        assert_eq!(keys(&bad), ["ngram", "threshold", "max_misses", "min_words", "min_recall", "benchmark"]);
        assert_eq!(benchmark.check(), []);
        let keys: Vec<_> = BenchmarkConfig::default().check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["name", "paths", "fields"]);
    }
}
