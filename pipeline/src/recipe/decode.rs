//! Reads a recipe file. Every problem is found in one pass and named with its line and key: an
//! unknown key (with the nearest right one), a value of the wrong type or range, an unknown
//! filter or source, a name given twice.

use std::path::Path;

use moe_cli::nearest;
use serde_json::Value;
use toml::de::DeTable;

use super::dedup::Keep;
use super::profile::Override;
use super::quality::QualityConfig;
use super::{
    ChatConfig, DedupConfig, FilterConfig, MinhashConfig, Recipe, RephraseConfig, SourceConfig,
    TokenizerConfig, TrainConfig,
};
use crate::decontaminate::config::{BenchmarkConfig, DecontaminateConfig};
use crate::dedup::cuts::config::{ParagraphConfig, SubstringConfig};
use crate::error::{Error, Problem, Result};
use crate::filter::{self, Action};
use crate::read::MAX_TAG_BYTES;
use crate::strict_toml::{Decoder, Table};

const SECTIONS: [&str; 12] = [
    "source",
    "normalize",
    "filters",
    "filter",
    "dedup",
    "decontaminate",
    "quality",
    "tokenizer",
    "shard",
    "limits",
    "rephrase",
    "chat",
];

/// Decodes the text of a recipe; `file` is for messages only.
///
/// # Errors
/// [`crate::Error::Recipe`] with everything that is wrong.
pub fn decode(text: &str, file: &Path) -> Result<Recipe> {
    whole(decode_as_far(text, file))
}

/// Decodes the text of a recipe that may lack `[tokenizer]`.
///
/// # Errors
/// As [`decode`].
pub fn decode_without_tokenizer(text: &str, file: &Path) -> Result<Recipe> {
    whole(decode_as_far_without_tokenizer(text, file))
}

/// The readable part of a recipe, and every problem of the rest.
pub fn decode_as_far(text: &str, file: &Path) -> (Recipe, Vec<Problem>) {
    decode_with(text, file, |decoder| {
        decoder.problem(1, "tokenizer", "is missing; write a [tokenizer] section with `file` or `train`");
    })
}

/// The same of a recipe that may lack `[tokenizer]`.
pub fn decode_as_far_without_tokenizer(text: &str, file: &Path) -> (Recipe, Vec<Problem>) {
    decode_with(text, file, |_| {})
}

fn whole((recipe, problems): (Recipe, Vec<Problem>)) -> Result<Recipe> {
    if problems.is_empty() { Ok(recipe) } else { Err(Error::Recipe { problems }) }
}

fn decode_with(text: &str, file: &Path, no_tokenizer: fn(&mut Decoder<'_>)) -> (Recipe, Vec<Problem>) {
    let mut decoder = Decoder::new(text, file);
    let tables = decoder.parse(&SECTIONS);
    let recipe = tables.map(|tables| decoder.recipe(tables.get_ref(), no_tokenizer)).unwrap_or_default();
    (recipe, decoder.into_problems())
}

impl Decoder<'_> {
    fn recipe(&mut self, spans: &DeTable<'_>, no_tokenizer: fn(&mut Decoder<'_>)) -> Recipe {
        let tables = self.tables(spans, "source");
        let name_lines: Vec<usize> = tables.iter().map(|table| table.line_of("name")).collect();
        let source: Vec<SourceConfig> = tables.into_iter().map(|table| self.section(table)).collect();
        self.check_names(&source, &name_lines);
        let filters = self.table(spans, "filters");
        let entries = self.tables(spans, "filter");
        let filter = self.filters(filters, entries, &source);
        let dedup = self.dedup(spans, &source);
        let decontaminate = self.decontaminate(spans, &source);
        let quality = self.quality(spans, &filter);
        let rephrase = self.rephrase(spans, &source);
        Recipe {
            source,
            normalize: self.one(spans, "normalize"),
            filter,
            dedup,
            decontaminate,
            quality,
            tokenizer: self.tokenizer(spans, no_tokenizer),
            shard: self.one(spans, "shard"),
            limits: self.one(spans, "limits"),
            rephrase,
            chat: self.table(spans, "chat").map(|table| self.section::<ChatConfig>(table)),
            chat_template: None,
        }
    }

    fn rephrase(&mut self, spans: &DeTable<'_>, sources: &[SourceConfig]) -> Option<RephraseConfig> {
        let table = self.table(spans, "rephrase")?;
        let line = table.line_of("styles");
        let config: RephraseConfig = self.section(table);
        for message in sources.iter().filter_map(|source| config.conflict(source)) {
            self.problem(line, "rephrase.styles", message);
        }
        Some(config)
    }

    fn check_names(&mut self, sources: &[SourceConfig], lines: &[usize]) {
        if sources.is_empty() {
            self.problem(1, "source", "is missing; a recipe reads at least one [[source]]");
        }
        // A source is two bytes in a shard.
        if sources.len() > usize::from(u16::MAX) {
            self.problem(1, "source", format!("there are {}, at most 65535 are possible", sources.len()));
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

    /// An entry of `[[filter]]`, as far as readable, with its rule.
    pub(super) fn filter_entry(
        &mut self,
        mut table: Table<'_>,
        sources: &[SourceConfig],
    ) -> Option<(&'static filter::Entry, Override)> {
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
        let says_action = table.values.contains_key("action") || table.values.contains_key("tag");
        let action = self.action(&mut table, entry);
        let mut settings = self.values(&table, (entry.defaults)(), &entry.accepts);
        settings.retain(|key, _| table.values.contains_key(key));
        Some((
            entry,
            Override {
                name: name.to_owned(),
                sources: chosen,
                action: says_action.then_some(action),
                settings,
            },
        ))
    }

    /// The action of an entry on its rule's findings.
    fn action(&mut self, table: &mut Table<'_>, entry: &filter::Entry) -> (Action, Option<String>) {
        let default = entry.actions.first().copied().unwrap_or_default();
        let action = match table.values.remove("action") {
            None => default,
            Some(value) => {
                let known = entry.actions.iter().find(|action| value == action.name());
                if known.is_none() {
                    let names: Vec<&str> = entry.actions.iter().map(|action| action.name()).collect();
                    let message = format!("is {value}; `{}` supports `{}`", entry.name, names.join("`, `"));
                    self.problem(table.line_of("action"), "filter.action", message);
                }
                known.copied().unwrap_or(default)
            }
        };
        let tag = table.values.remove("tag").map(|value| value.as_str().unwrap_or_default().to_owned());
        if let Some(tag) = &tag {
            let line = table.line_of("tag");
            if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.chars().any(char::is_control) {
                let message = format!("expected a text of 1 to {MAX_TAG_BYTES} bytes without line ends");
                self.problem(line, "filter.tag", message);
            }
            if action != Action::Tag {
                self.problem(line, "filter.tag", "needs `action = \"tag\"`");
            }
        }
        (action, tag)
    }

    fn dedup(&mut self, spans: &DeTable<'_>, sources: &[SourceConfig]) -> DedupConfig {
        let Some(mut table) = self.table(spans, "dedup") else { return DedupConfig::default() };
        self.nested::<MinhashConfig>(spans, &mut table, "dedup.minhash", "{ verify = { jaccard = 0.7 } }");
        self.nested::<ParagraphConfig>(spans, &mut table, "dedup.paragraph", "{ min_documents = 3 }");
        self.nested::<SubstringConfig>(spans, &mut table, "dedup.substring", "{ min_bytes = 500 }");
        let line = table.line_of("minhash");
        let config: DedupConfig = self.section(table);
        let needed = match config.minhash.map(|minhash| minhash.keep) {
            Some(Keep::Newest) if sources.iter().all(|source| source.date.is_none()) => Some("date"),
            Some(Keep::BestScore) if sources.iter().all(|source| source.score.is_none()) => Some("score"),
            _ => None,
        };
        if let Some(key) = needed {
            let message = format!("orders by a key that no source names; add `{key}` to a [[source]]");
            self.problem(line, "dedup.minhash.keep", message);
        }
        config
    }

    fn quality(&mut self, spans: &DeTable<'_>, filters: &[FilterConfig]) -> Option<QualityConfig> {
        let table = self.table(spans, "quality")?;
        let line = table.line_of("");
        if filters.iter().all(|config| config.name != filter::classifier::NAME) {
            let message = "makes buckets of a score; add a [[filter]] with `name = \"classifier\"`";
            self.problem(line, "quality", message);
        }
        Some(self.section(table))
    }

    fn decontaminate(
        &mut self,
        spans: &DeTable<'_>,
        sources: &[SourceConfig],
    ) -> Option<DecontaminateConfig> {
        let mut table = self.table(spans, "decontaminate")?;
        let inner = spans.get("decontaminate").and_then(|value| value.get_ref().as_table());
        let tables = inner.map(|inner| self.tables(inner, "benchmark")).unwrap_or_default();
        let lines: Vec<usize> = tables.iter().map(|table| table.line_of("name")).collect();
        let benchmark: Vec<BenchmarkConfig> = tables.into_iter().map(|table| self.section(table)).collect();
        for (i, one) in benchmark.iter().enumerate() {
            if benchmark[..i].iter().any(|other| other.name == one.name) && !one.name.is_empty() {
                let message = format!("`{}` is already the name of another benchmark", one.name);
                self.problem(lines[i], "decontaminate.benchmark.name", message);
            }
        }
        table.values.insert("benchmark".to_owned(), serde_json::to_value(&benchmark).unwrap_or_default());
        let sources_line = table.line_of("sources");
        let config: DecontaminateConfig = self.section(table);
        for wanted in config.sources.iter().filter(|wanted| sources.iter().all(|s| s.name != **wanted)) {
            let hint = nearest::hint(wanted, sources.iter().map(|s| s.name.as_str()));
            let message = format!("no source is called `{wanted}`; {hint}");
            self.problem(sources_line, "decontaminate.sources", message);
        }
        Some(config)
    }

    fn tokenizer(&mut self, spans: &DeTable<'_>, missing: fn(&mut Decoder<'_>)) -> TokenizerConfig {
        let Some(table) = self.table(spans, "tokenizer") else {
            missing(self);
            return TokenizerConfig::default();
        };
        // The section's own check needs to know whether `train` exists, and its valid values.
        let mut table = table;
        self.nested::<TrainConfig>(spans, &mut table, "tokenizer.train", "{ vocab_size = 4096 }");
        self.section(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "[[source]]\nname = \"a\"\npaths = [\"a.jsonl\"]\n";
    const TOKENIZER: &str = "[tokenizer]\ntrain = { vocab_size = 300 }\n";

    fn check(text: &str, expected: &[&str]) {
        let error = decode(text, Path::new("r.toml")).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(error.lines().collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn a_small_recipe_gets_all_defaults() {
        let recipe = decode(&format!("{SOURCE}{TOKENIZER}"), Path::new("r.toml")).unwrap();
        assert_eq!(recipe.source[0].text, "text");
        assert!(recipe.dedup.exact);
        assert_eq!(recipe.limits.max_bad_fraction, 0.001);
        assert_eq!(recipe.tokenizer.train.unwrap().sample_bytes.0, 64_000_000);
        assert!(recipe.filter.is_empty());
    }

    #[test]
    fn sizes_integers_and_floats_are_read_as_written() {
        let text = format!(
            "{SOURCE}{TOKENIZER}[limits]\nmax_doc_bytes = 1_000\nmax_bad_fraction = 1\n[shard]\ntarget_bytes = \"2MiB\"\n\
             [[filter]]\nname = \"gopher_quality\"\nmax_bullet_lines = 1\nmin_alphabetic_words = 5e-1\n"
        );
        let recipe = decode(&text, Path::new("r.toml")).unwrap();
        assert_eq!((recipe.limits.max_doc_bytes.0, recipe.limits.max_bad_fraction), (1000, 1.0));
        assert_eq!(recipe.shard.target_bytes.0, 2 << 20);
        assert_eq!(recipe.filter[0].settings["min_alphabetic_words"], 0.5);
    }

    #[test]
    fn all_problems_come_at_once_in_the_order_of_the_lines() {
        let text = "[[source]]\nname = \"A\"\npath = [\"a\"]\n[[source]]\nname = \"b\"\npaths = \"b\"\n\
                    [[filter]]\nname = \"gopher\"\n[[filter]]\nname = \"length\"\nmin_chars = 9\nmax_chars = 3\nsources = [\"c\"]\n\
                    [limit]\nx = 1\n[tokenizer]\ntrain = { vocab_size = 3 }\nfile = \"t.json\"\n[dedup]\nexact = \"yes\"\n";
        check(
            text,
            &[
                "r.toml:1: `source.paths`: is missing; list files, folders or globs",
                "r.toml:2: `source.name`: `A` may hold only a-z, 0-9, `_` and `-`",
                "r.toml:3: `source.path`: unknown key; did you mean `paths`?",
                "r.toml:6: `source.paths`: expected a list such as [\"a\", \"b\"], found `b`",
                "r.toml:8: `filter.name`: unknown filter `gopher`; did you mean `gopher_quality`?",
                "r.toml:11: `filter.min_chars`: is 9, above max_chars = 3",
                "r.toml:13: `filter.sources`: no source is called `c`; expected one of `A`, `b`",
                "r.toml:14: `limit`: unknown section; did you mean `limits`?",
                "r.toml:16: `tokenizer`: give exactly one of `file = \"tokenizer.json\"` or `train = { vocab_size = 4096 }`",
                "r.toml:17: `tokenizer.train.vocab_size`: is 3; expected 257 (256 bytes and the special tokens) to 1000000",
                "r.toml:20: `dedup.exact`: expected true or false, found `yes`",
            ],
        );
    }

    #[test]
    fn actions_and_tags_of_filters() {
        let filter = |more: &str| format!("{SOURCE}{TOKENIZER}[[filter]]\nname = \"length\"\n{more}");
        let text = filter("action = \"tag\"\ntag = \"odd length\"\n");
        let recipe = decode(&text, Path::new("r.toml")).unwrap();
        let config = &recipe.filter[0];
        assert_eq!((config.action, config.tag.as_deref()), (Action::Tag, Some("odd length")));
        assert_eq!(decode(&recipe.to_toml().unwrap(), Path::new("lock.toml")).unwrap(), recipe);
        check(
            &filter("action = \"cut\"\ntag = \"\"\n"),
            &[
                "r.toml:8: `filter.action`: is \"cut\"; `length` supports `drop`, `tag`",
                "r.toml:9: `filter.tag`: expected a text of 1 to 64 bytes without line ends",
                "r.toml:9: `filter.tag`: needs `action = \"tag\"`",
            ],
        );
    }

    #[test]
    fn names_are_unique_and_sections_present() {
        check(
            &format!("{SOURCE}{SOURCE}"),
            &[
                "r.toml:1: `tokenizer`: is missing; write a [tokenizer] section with `file` or `train`",
                "r.toml:5: `source.name`: `a` is already the name of the source in line 2",
            ],
        );
        check(TOKENIZER, &["r.toml:1: `source`: is missing; a recipe reads at least one [[source]]"]);
    }

    #[test]
    fn wrong_shapes_are_named() {
        check(
            &format!("[source]\nname = \"a\"\n{TOKENIZER}"),
            &[
                "r.toml:1: `source`: expected [[source]] with double brackets, found a table",
                "r.toml:1: `source`: is missing; a recipe reads at least one [[source]]",
            ],
        );
        check(
            &format!("limits = 3\n{SOURCE}{TOKENIZER}"),
            &["r.toml:1: `limits`: expected a section [limits], found a integer"],
        );
        let syntax = decode("[[source]\n", Path::new("r.toml")).unwrap_err().to_string();
        assert!(syntax.starts_with("r.toml:1: "), "{syntax}");
    }
}
