//! Profiles: lists of filters with the thresholds of published pipelines. They are data in `profiles.toml`, read
//! with the same checks as a recipe.

use std::path::Path;

use moe_cli::nearest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SourceConfig;
use crate::error::Result;
use crate::filter::{Entry, FilterConfig};
use crate::strict_toml::{Decoder, Docs, Section, Table, documented, join};

const TEXT: &str = include_str!("profiles.toml");
const FILE: &str = "profiles.toml";

/// A list of filters under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Name in recipes.
    pub name: String,
    /// A few words, with the paper.
    pub summary: String,
    /// The filters, in order.
    pub filters: Vec<ProfileFilter>,
}

/// A filter of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileFilter {
    /// Rule, settings and action, for all sources.
    pub config: FilterConfig,
    /// Where the thresholds are published.
    pub source: String,
}

documented! {
    /// `[filters]`: settings for all `[[filter]]` entries.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct FiltersConfig {
        /// The profile that the entries modify.
        pub profile: Option<String>,
        /// Rules of the profile that are left out.
        pub without: Vec<String>,
    }
}

impl Section for FiltersConfig {
    fn docs() -> Docs {
        FiltersConfig::DOCS
    }
}

/// All profiles, in the order of the file.
///
/// # Errors
/// The built-in file is wrong, which a test rules out.
pub fn all() -> Result<Vec<Profile>> {
    let mut decoder = Decoder::new(TEXT, Path::new(FILE));
    let mut profiles = Vec::new();
    if let Some(tables) = decoder.parse_any() {
        let mut keys: Vec<_> = tables.get_ref().iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in keys {
            let name = key.get_ref().to_string();
            let Some(spans) = value.get_ref().as_table() else { continue };
            let table = decoder.read_table(FILE, spans, 0);
            let summary = table.values.get("summary").and_then(Value::as_str).unwrap_or_default().to_owned();
            let filters = decoder.tables(spans, "filter").into_iter().filter_map(|mut table| {
                let source =
                    table.values.remove("source").and_then(|value| value.as_str().map(str::to_owned));
                let (entry, config) = decoder.filter_entry(table, &[])?;
                let config = config.over(&FilterConfig::with_defaults(entry));
                Some(ProfileFilter { config, source: source.unwrap_or_default() })
            });
            profiles.push(Profile { summary, filters: filters.collect(), name });
        }
    }
    decoder.finish(profiles)
}

/// An entry of a recipe, without defaults.
pub(super) struct Override {
    pub name: String,
    pub sources: Vec<String>,
    /// Action and tag, if the entry has either.
    pub action: Option<(crate::filter::Action, Option<String>)>,
    /// Its own keys.
    pub settings: crate::filter::Settings,
}

impl Override {
    /// The entry applied to what it changes.
    pub fn over(&self, base: &FilterConfig) -> FilterConfig {
        let mut config = FilterConfig { sources: self.sources.clone(), ..base.clone() };
        if let Some((action, tag)) = &self.action {
            (config.action, config.tag) = (*action, tag.clone());
        }
        config.settings.extend(self.settings.clone());
        config
    }
}

impl Decoder<'_> {
    /// The filters of a recipe: those of the profile, changed by entries of the same rule, then the other entries.
    pub(super) fn filters(
        &mut self,
        config: Option<Table<'_>>,
        entries: Vec<Table<'_>>,
        sources: &[SourceConfig],
    ) -> Vec<FilterConfig> {
        let profile = config.map(|table| self.profile(table)).unwrap_or_default();
        let all: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
        let mut chain = Merge::new(profile, all);
        for table in entries {
            let name = table.name.to_owned();
            let lines = table.line_of("name");
            let keys: Vec<(String, usize)> =
                table.values.keys().map(|key| (key.clone(), table.line_of(key))).collect();
            let Some((entry, changes)) = self.filter_entry(table, sources) else { continue };
            let merged = chain.add(entry, &changes);
            for (key, message) in (entry.check)(&merged.settings) {
                let line = keys.iter().find(|(found, _)| found == key).map_or(lines, |(_, line)| *line);
                self.problem(line, &join(&name, key), message);
            }
        }
        chain.finish()
    }

    /// The filters of the profile that `[filters]` names.
    fn profile(&mut self, table: Table<'_>) -> Vec<FilterConfig> {
        let (profile_line, without_line) = (table.line_of("profile"), table.line_of("without"));
        let config: FiltersConfig = self.section(table);
        let profiles = match all() {
            Ok(profiles) => profiles,
            Err(error) => {
                self.problem(profile_line, "filters.profile", error.to_string());
                return Vec::new();
            }
        };
        let Some(name) = &config.profile else {
            if !config.without.is_empty() {
                self.problem(
                    without_line,
                    "filters.without",
                    "needs `profile`, from which rules are left out",
                );
            }
            return Vec::new();
        };
        let names = || profiles.iter().map(|profile| profile.name.as_str());
        let Some(profile) = profiles.iter().find(|profile| profile.name == *name) else {
            let message = format!("unknown profile `{name}`; {}", nearest::hint(name, names()));
            self.problem(profile_line, "filters.profile", message);
            return Vec::new();
        };
        let rules = || profile.filters.iter().map(|filter| filter.config.name.as_str());
        for unknown in config.without.iter().filter(|wanted| rules().all(|rule| rule != **wanted)) {
            let message = format!("`{name}` has no filter `{unknown}`; {}", nearest::hint(unknown, rules()));
            self.problem(without_line, "filters.without", message);
        }
        let kept = profile.filters.iter().filter(|filter| !config.without.contains(&filter.config.name));
        kept.map(|filter| filter.config.clone()).collect()
    }
}

/// A chain of filters under construction.
struct Merge {
    filters: Vec<Merged>,
    all_sources: Vec<String>,
}

/// A filter with its remaining sources; only those of a profile can lose any.
struct Merged {
    config: FilterConfig,
    /// `None` for an entry of the recipe.
    of_profile: Option<Vec<String>>,
}

impl Merge {
    fn new(profile: Vec<FilterConfig>, all_sources: Vec<String>) -> Merge {
        let of_profile = Some(all_sources.clone());
        let filters = profile.into_iter().map(|config| Merged { config, of_profile: of_profile.clone() });
        Merge { filters: filters.collect(), all_sources }
    }

    /// An entry changes the profile's first filter of its rule that still has all the entry's sources, for those sources; without
    /// such a filter it is appended. Returns the result.
    fn add(&mut self, entry: &Entry, changes: &Override) -> FilterConfig {
        let wanted = if changes.sources.is_empty() { &self.all_sources } else { &changes.sources };
        let place = self.filters.iter().position(|filter| {
            let left = filter.of_profile.as_deref().unwrap_or_default();
            filter.config.name == changes.name
                && filter.of_profile.is_some()
                && wanted.iter().all(|source| left.contains(source))
        });
        let Some(place) = place else {
            let config = changes.over(&FilterConfig::with_defaults(entry));
            self.filters.push(Merged { config: config.clone(), of_profile: None });
            return config;
        };
        let changed = &mut self.filters[place];
        let config = changes.over(&changed.config);
        if let Some(left) = &mut changed.of_profile {
            left.retain(|source| !wanted.contains(source));
        }
        self.filters.insert(place, Merged { config: config.clone(), of_profile: None });
        config
    }

    fn finish(self) -> Vec<FilterConfig> {
        let all = self.all_sources;
        let left = self.filters.into_iter().filter_map(|Merged { config, of_profile }| match of_profile {
            Some(left) if left.is_empty() && !all.is_empty() => None,
            Some(left) if left != all => Some(FilterConfig { sources: left, ..config }),
            _ => Some(config),
        });
        left.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::*;

    const HEAD: &str = "[[source]]\nname = \"a\"\npaths = [\"a\"]\n[[source]]\nname = \"b\"\npaths = [\"b\"]\n\
                        [tokenizer]\ntrain = { vocab_size = 300 }\n";

    fn check(more: &str, expected: &[(&str, &[&str], &str, &str)]) {
        let recipe = decode(&format!("{HEAD}{more}"), Path::new("r.toml")).unwrap();
        let found: Vec<_> = (recipe.filter.iter())
            .zip(expected)
            .map(|(f, (.., key, _))| (f.name.as_str(), f.sources.clone(), *key, f.settings[*key].to_string()))
            .collect();
        let wanted: Vec<_> = (expected.iter())
            .map(|(name, sources, key, value)| {
                (*name, sources.iter().map(|s| (*s).to_owned()).collect(), *key, (*value).to_owned())
            })
            .collect();
        assert_eq!((found, recipe.filter.len()), (wanted, expected.len()), "{more}");
        // The lock file says the same without the profile.
        let lock = recipe.to_toml().unwrap();
        assert!(!lock.contains("profile"));
        assert_eq!(decode(&lock, Path::new("lock.toml")).unwrap(), recipe);
    }

    #[test]
    fn every_profile_is_a_good_recipe_with_its_sources() {
        let profiles = all().unwrap();
        for profile in &profiles {
            assert!(!profile.summary.is_empty(), "{}", profile.name);
            assert!(profile.filters.iter().all(|filter| !filter.source.is_empty()), "{}", profile.name);
            let more = format!("[filters]\nprofile = {:?}\n", profile.name);
            let recipe = decode(&format!("{HEAD}{more}"), Path::new("r.toml")).unwrap();
            let configs: Vec<FilterConfig> =
                profile.filters.iter().map(|filter| filter.config.clone()).collect();
            assert_eq!(recipe.filter, configs, "{}", profile.name);
        }
        let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        for wanted in ["gopher", "c4", "fineweb", "dclm", "dolma3", "gopher-dolma", "code", "none"] {
            assert!(names.contains(&wanted), "{wanted}");
        }
    }

    #[test]
    fn entries_change_the_profile_in_its_place_and_others_follow() {
        let profile = "[filters]\nprofile = \"gopher\"\n";
        let (quality, repetition) = ("gopher_quality", "gopher_repetition");
        check(profile, &[(quality, &[], "min_words", "50"), (repetition, &[], "max_dup_lines", "0.3")]);
        check(
            &format!(
                "{profile}[[filter]]\nname = \"length\"\n[[filter]]\nname = \"gopher_quality\"\nmin_words = 9\n"
            ),
            &[
                (quality, &[], "min_words", "9"),
                (repetition, &[], "max_dup_lines", "0.3"),
                ("length", &[], "min_chars", "50"),
            ],
        );
        check(
            &format!("{profile}[[filter]]\nname = \"gopher_quality\"\nsources = [\"b\"]\nmin_words = 9\n"),
            &[
                (quality, &["b"], "min_words", "9"),
                (quality, &["a"], "min_words", "50"),
                (repetition, &[], "max_dup_lines", "0.3"),
            ],
        );
        // A second entry for the same source is a filter of its own.
        let entry = "[[filter]]\nname = \"gopher_quality\"\nmin_words = ";
        check(
            &format!("{profile}without = [\"gopher_repetition\"]\n{entry}9\n{entry}10\n"),
            &[(quality, &[], "min_words", "9"), (quality, &[], "min_words", "10")],
        );
        // The profile's other keys stay.
        let recipe = decode(&format!("{HEAD}[filters]\nprofile = \"fineweb\"\n[[filter]]\nname = \"c4_quality\"\nmin_num_sentences = 1\n"), Path::new("r.toml")).unwrap();
        let c4 = recipe.filter.iter().find(|filter| filter.name == "c4_quality").unwrap();
        assert_eq!(
            (&c4.settings["filter_no_terminal_punct"], &c4.settings["min_num_sentences"]),
            (&false.into(), &1.into())
        );
        assert_eq!(c4.action.name(), "cut");
    }

    #[test]
    fn problems_are_named_with_their_lines() {
        let check = |more: &str, expected: &[&str]| {
            let error = decode(&format!("{HEAD}{more}"), Path::new("r.toml")).err().map(|e| e.to_string());
            assert_eq!(error.unwrap_or_default().lines().collect::<Vec<_>>(), expected, "{more}");
        };
        check(
            "[filters]\nprofile = \"finweb\"\n",
            &["r.toml:10: `filters.profile`: unknown profile `finweb`; did you mean `fineweb`?"],
        );
        check(
            "[filters]\nprofile = \"gopher\"\nwithout = [\"gopher_qualty\"]\n",
            &[
                "r.toml:11: `filters.without`: `gopher` has no filter `gopher_qualty`; did you mean `gopher_quality`?",
            ],
        );
        check(
            "[filters]\nwithout = [\"length\"]\n",
            &["r.toml:10: `filters.without`: needs `profile`, from which rules are left out"],
        );
        check(
            "[filters]\nprofile = \"dolma3\"\n[[filter]]\nname = \"length\"\nmax_chars = 100\n",
            &["r.toml:12: `filter.min_chars`: is 150, above max_chars = 100"],
        );
    }
}
