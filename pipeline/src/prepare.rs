//! From flags to a checked plan of a build: the recipe, its files, and everything that can be
//! found wrong before any work.

mod chat;
mod fields;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moe_cli::nearest;
use moe_shards::Hash;
use serde_json::json;

pub use self::sources::InputFilters;
use self::sources::sources_of;
use crate::decontaminate::config::BenchmarkConfig;
use crate::decontaminate::load::Benchmark;
use crate::dedup::earlier::EarlierBuild;
use crate::error::{Error, Problem, Result};
use crate::filter::{self, Chain, FilterConfig, RuleFile};
use crate::json;
use crate::normalize::Unicode;
use crate::objects;
use crate::read;
use crate::recipe::dedup::AGAINST_WITHOUT_METHOD;
use crate::recipe::inputs::{self, Found, InputFile, Skipped};
use crate::recipe::{ORIGINAL, Recipe, TokenizerConfig, decode};
use crate::rephrase::record;

/// File names of fastText's language model.
const LANGUAGE_MODELS: [&str; 2] = ["lid.176.ftz", "lid.176.bin"];

/// The default recipe of `moe-data build`.
pub const DEFAULT_RECIPE: &str = "configs/build.toml";

/// A build that is ready to start.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The recipe.
    pub recipe: Recipe,
    /// Where it came from, for people.
    pub origin: String,
    /// The files of each source, in the order of the sources.
    pub inputs: Vec<Vec<InputFile>>,
    /// Files of each source that are skipped.
    pub skipped: Vec<Vec<Skipped>>,
    /// Fields of the first records of each source, where records have fields.
    pub first_fields: Vec<Option<BTreeSet<String>>>,
    /// The variants of each source made by rephrasing, if any.
    pub rephrased: Vec<Option<InputFile>>,
    /// The tokenizer file, if the recipe names one.
    pub tokenizer: Option<InputFile>,
    /// The evaluation sets of `[decontaminate]`, in its order.
    pub benchmarks: Vec<Benchmark>,
    /// The other builds of `dedup.against`.
    pub against: Vec<EarlierBuild>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// The recipe file, for messages.
    file: Option<PathBuf>,
}

/// What a build is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Shards, which need a tokenizer.
    Shards,
    /// Curated text only: the recipe's tokenizer is ignored.
    Texts,
}

impl Prepared {
    /// Reads the recipe and finds its files.
    ///
    /// `recipe` is the recipe file, `input` replaces its sources by one for each path, named after
    /// the path. With neither, [`DEFAULT_RECIPE`] is read; with `input` alone, the built-in recipe. `against` are
    /// output folders of other builds in addition to those of the recipe.
    ///
    /// # Errors
    /// [`Error::Recipe`] with every problem; [`Error::Io`] when the recipe cannot be read.
    pub fn new(
        recipe: Option<&Path>,
        input: &[PathBuf],
        against: &[PathBuf],
        goal: Goal,
        filters: &InputFilters,
    ) -> Result<Prepared> {
        let default = Path::new(DEFAULT_RECIPE);
        let file = match recipe {
            Some(file) => Some(file),
            None if !input.is_empty() => None,
            None if default.exists() => Some(default),
            None => {
                let message = format!(
                    "there is nothing to build: write {DEFAULT_RECIPE}, or name a recipe with --recipe or text with --input"
                );
                return Err(Error::Usage(message));
            }
        };
        let (mut recipe, mut problems) = match file {
            Some(file) => {
                let text = fs::read_to_string(file).map_err(Error::io(file, "read"))?;
                match goal {
                    Goal::Shards => decode::decode_as_far(&text, file),
                    Goal::Texts => decode::decode_as_far_without_tokenizer(&text, file),
                }
            }
            None => (Recipe::built_in(Vec::new()), Vec::new()),
        };
        let is_whole = problems.is_empty();
        if goal == Goal::Texts {
            recipe.tokenizer = TokenizerConfig::default();
        }
        let base = file.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let source_base = if input.is_empty() { base.clone() } else { PathBuf::new() };
        if !input.is_empty() {
            recipe.source = sources_of(input, filters)?;
        }
        if let Some(limit) = filters.limit {
            recipe.source.iter_mut().for_each(|source| source.max_records = Some(limit));
        }
        let origin = match (file, input.is_empty()) {
            (Some(file), true) => file.display().to_string(),
            (Some(file), false) => format!("{} with --input", file.display()),
            (None, _) => "the built-in recipe".to_owned(),
        };
        let mut prepared = Prepared {
            recipe,
            origin,
            inputs: Vec::new(),
            skipped: Vec::new(),
            first_fields: Vec::new(),
            rephrased: Vec::new(),
            tokenizer: None,
            benchmarks: Vec::new(),
            against: Vec::new(),
            warnings: Vec::new(),
            file: file.filter(|_| input.is_empty()).map(Path::to_owned),
        };
        problems.extend(prepared.find_files(&base, &source_base));
        problems.extend(prepared.find_benchmarks(&base));
        problems.extend(prepared.find_builds(&base, against));
        // With replaced sources its hint would be wrong.
        if is_whole {
            problems.extend(prepared.find_rephrased(&base));
            problems.extend(prepared.find_chat(&base, goal));
        }
        if problems.is_empty() { Ok(prepared) } else { Err(Error::Recipe { problems }) }
    }

    /// Finds the files of the evaluation sets.
    fn find_benchmarks(&mut self, base: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        for benchmark in self.recipe.decontaminate.iter().flat_map(|config| &config.benchmark) {
            let files = inputs::find(base, &benchmark.paths).unwrap_or_else(|messages| {
                let key = format!("decontaminate.benchmark.{}.paths", benchmark.name);
                problems.extend(messages.into_iter().map(|message| self.problem(&key, message)));
                Vec::new()
            });
            let BenchmarkConfig { name, fields, prefix, .. } = benchmark.clone();
            self.benchmarks.push(Benchmark { name, files, fields, prefix });
        }
        problems
    }

    /// Opens the builds of the recipe, whose paths are relative to `base`, then those of the flags.
    fn find_builds(&mut self, base: &Path, flags: &[PathBuf]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let of_recipe = self.recipe.dedup.against.clone();
        let of_recipe = of_recipe.iter().map(|name| (base.join(name), name.clone(), "dedup.against"));
        let of_flags = flags.iter().map(|path| (path.clone(), path.display().to_string(), "--against"));
        let mut folders = BTreeSet::new();
        for (folder, name, key) in of_recipe.chain(of_flags) {
            let is_new = folders.insert(fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone()));
            let opened = match is_new {
                true => EarlierBuild::open(&folder, &name),
                false => Err(format!("`{name}` is named twice")),
            };
            let own = match self.recipe.normalize.unicode {
                Unicode::Nfc => "nfc",
                Unicode::None => "none",
            };
            match opened {
                Err(message) => problems.push(self.problem(key, message)),
                Ok(other) if other.unicode.as_deref().is_some_and(|unicode| unicode != own) => {
                    let unicode = other.unicode.unwrap_or_default();
                    let message = format!(
                        "`{name}` was built with `normalize.unicode = \"{unicode}\"`, this recipe has \"{own}\", so equal texts would not be found; use the same"
                    );
                    problems.push(self.problem(key, message));
                }
                Ok(other) => self.against.push(other),
            }
        }
        self.recipe.dedup.against.extend(flags.iter().map(|path| path.display().to_string()));
        let dedup = &self.recipe.dedup;
        if !dedup.against.is_empty() && !dedup.exact && dedup.minhash.is_none() {
            problems.push(self.problem("dedup.against", AGAINST_WITHOUT_METHOD.to_owned()));
        }
        problems
    }

    /// Finds the accepted variants of `[rephrase]`; a source may have none, but not all of them.
    fn find_rephrased(&mut self, base: &Path) -> Vec<Problem> {
        let Some(config) = self.recipe.rephrase.clone() else { return Vec::new() };
        let folder = base.join(&config.from);
        let found = record::accepted_files(&folder).unwrap_or_default();
        let known = |name: &String| self.recipe.source.iter().any(|source| source.name == *name);
        if let Some(other) = found.keys().find(|name| !known(name)) {
            let hint = nearest::hint(other, self.recipe.source.iter().map(|source| source.name.as_str()));
            let file = record::accepted_name(other);
            let message = format!("{}: {file} is of no source of the recipe; {hint}", folder.display());
            return vec![self.problem("rephrase.from", message)];
        }
        let mut problems = Vec::new();
        for source in &self.recipe.source {
            let input = found.contains_key(&source.name).then(|| {
                inputs::find(&folder, &[record::accepted_name(&source.name)])
                    .map_err(|messages| self.problem("rephrase.from", messages.join("; ")))
            });
            match input.transpose() {
                Ok(files) => self.rephrased.push(files.and_then(|files| files.into_iter().next())),
                Err(problem) => problems.push(problem),
            }
        }
        if found.is_empty() {
            let message = format!(
                "{} has no accepted-SOURCE.jsonl; run moe-data rephrase, or leave [rephrase] out",
                folder.display()
            );
            problems.push(self.problem("rephrase.from", message));
        }
        problems
    }

    /// Names of the variants of a source, the original first.
    pub fn variants(&self, source: usize) -> Vec<String> {
        let Some(config) = self.recipe.source.get(source) else { return Vec::new() };
        match (&self.recipe.rephrase, self.is_rephrased(source)) {
            (Some(rephrase), true) => rephrase.variants(config),
            _ if config.variants.is_empty() => vec![ORIGINAL.to_owned()],
            _ => config.variants.clone(),
        }
    }

    /// Whether rephrasing made variants of a source.
    pub fn is_rephrased(&self, source: usize) -> bool {
        self.rephrased.get(source).is_some_and(Option::is_some)
    }

    /// Whether a source has families of more than one document.
    pub fn has_families(&self, source: usize) -> bool {
        self.is_rephrased(source)
            || self.recipe.source.get(source).is_some_and(|source| source.family.is_some())
    }

    fn find_files(&mut self, base: &Path, source_base: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        // A source without paths is already reported.
        for source in self.recipe.source.iter().filter(|source| !source.paths.is_empty()) {
            let key = format!("source.{}.paths", source.name);
            let found =
                inputs::find_input(source_base, &source.paths, &source.choice()).unwrap_or_else(|messages| {
                    problems.extend(messages.into_iter().map(|message| self.problem(&key, message)));
                    Found::default()
                });
            // In a folder such a file is skipped; naming it means it.
            for path in &found.named {
                match read::refusal(path, source.form(), self.recipe.limits.of_readers()) {
                    Ok(None) => {}
                    Ok(Some(what)) => {
                        problems.push(self.problem(&key, format!("{} is {what}", path.display())));
                    }
                    Err(error) => problems.push(self.problem(&key, error.to_string())),
                }
            }
            self.warnings.extend(found.warnings());
            self.inputs.push(found.files);
            self.skipped.push(found.skipped);
        }
        problems.extend(self.find_filter_files(base));
        if let Some(file) = &self.recipe.tokenizer.file {
            let found = match objects::is_url(file) {
                true => Err(vec!["names an object; copy the file to this machine first".to_owned()]),
                false => inputs::find(base, &[file.to_string_lossy().into_owned()]),
            };
            match found {
                Ok(found) => self.tokenizer = found.into_iter().next(),
                Err(messages) => {
                    problems
                        .extend(messages.into_iter().map(|message| self.problem("tokenizer.file", message)));
                }
            }
        }
        problems
    }

    /// Finds the files of the filters and builds each filter once, so that problems of a file are known
    /// before the work starts.
    fn find_filter_files(&mut self, base: &Path) -> Vec<Problem> {
        let mut wrong = Vec::new();
        for config in &mut self.recipe.filter {
            let key = format!("filter.{}", config.name);
            if let Some(model) = language_model(config, base) {
                self.warnings.push(format!(
                    "{key}: {model} is next to the recipe and replaces the built-in language detector"
                ));
                config.settings.insert("model".to_owned(), model.into());
            }
            let n_wrong = wrong.len();
            for name in config.file_names() {
                match rule_file(base, &name) {
                    Ok(file) => config.files.push(file),
                    Err(message) => wrong.push((key.clone(), message)),
                }
            }
            if wrong.len() == n_wrong
                && let Err(message) = Chain::new([&*config])
            {
                wrong.push((key, message));
            }
        }
        wrong.into_iter().map(|(key, message)| self.problem(&key, message)).collect()
    }

    fn problem(&self, key: &str, message: String) -> Problem {
        Problem { file: self.file.clone(), line: None, key: key.to_owned(), message }
    }

    /// Digest of everything the result depends on, including the identity of every file. If it equals that
    /// of a finished build, there is nothing to do.
    pub fn fingerprint(&self) -> Hash {
        json::digest(&json!({
            "version": (crate::BUILD_VERSION, crate::WORK_VERSION),
            "recipe": self.recipe,
            "chat": self.recipe.chat_template,
            "inputs": self.inputs,
            "rephrased": self.rephrased,
            "tokenizer": self.tokenizer,
            "benchmarks": self.benchmarks,
            "against": self.identities(),
        }))
    }

    /// Digest of everything that decides the bytes of the shards, see [`Recipe::identity`]; evaluation sets count by
    /// their content. `tokenizer` is the digest of the tokenizer's file, if the recipe names one.
    ///
    /// # Errors
    /// An evaluation set cannot be read.
    pub fn identity(&self, tokenizer: Option<Hash>) -> Result<Hash> {
        let identity = self.recipe.identity(tokenizer, &self.identities());
        let Recipe { decontaminate, quality, .. } = &self.recipe;
        // Absent values are left out, so that old identities stay.
        if decontaminate.is_none() && quality.is_none() {
            return Ok(identity);
        }
        let benchmarks = self.benchmarks.iter().map(|benchmark| {
            let contents = benchmark.files.iter().map(|file| Ok(Hash::of_file(&file.path)?));
            Ok((&benchmark.fields, &benchmark.prefix, contents.collect::<Result<Vec<Hash>>>()?))
        });
        let benchmarks = benchmarks.collect::<Result<Vec<_>>>()?;
        let decontaminate = decontaminate.as_ref().map(|config| {
            json!({
                "settings": config.settings(),
                "action": config.action,
                "tag": config.tag,
                "min_chars_left": config.min_chars_left,
                "sources": config.sources,
                "benchmarks": benchmarks,
            })
        });
        Ok(json::digest(&json!({ "recipe": identity, "decontaminate": decontaminate, "quality": quality })))
    }

    /// Checks that files read by many tasks have not changed; each task checks its own input.
    ///
    /// # Errors
    /// [`Error::Data`] naming a file that changed.
    pub fn check_unchanged(&self) -> Result<()> {
        let benchmarks = self.benchmarks.iter().flat_map(|benchmark| &benchmark.files);
        benchmarks.chain(&self.tokenizer).try_for_each(|file| file.check_unchanged().map(drop))?;
        for file in self.recipe.filter.iter().flat_map(|config| &config.files) {
            if Hash::of_file(&file.path)? != file.blake3 {
                let message = "changed while the filters read it; let what writes it finish, and run again";
                return Err(Error::data(&file.path, message));
            }
        }
        for other in &self.against {
            let again = EarlierBuild::open(&other.folder, &other.name).map_err(Error::Usage)?;
            if again.identity != other.identity {
                return Err(Error::data(&other.folder, "was built anew while it was read; run again"));
            }
        }
        Ok(())
    }

    /// Identities of the other builds.
    pub fn identities(&self) -> Vec<Hash> {
        self.against.iter().map(|other| other.identity).collect()
    }
}

/// fastText's language model, if it is next to the recipe and the language filter names no other.
fn language_model(config: &FilterConfig, base: &Path) -> Option<&'static str> {
    let is_open = config.name == filter::LANGUAGE
        && config.settings.get("model").is_none_or(serde_json::Value::is_null);
    LANGUAGE_MODELS.into_iter().find(|name| is_open && base.join(name).is_file())
}

/// A file that a filter reads. A folder or a pattern is not allowed: settings have room for one file only.
fn rule_file(base: &Path, name: &str) -> std::result::Result<RuleFile, String> {
    let path = base.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(RuleFile { name: name.to_owned(), path, blake3: Hash::of(&bytes) }),
        Err(e) => Err(format!("`{name}`: cannot read {}: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_file_and_field_is_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jsonl"), "{\"text\":\"x\",\"ident\":1}\n").unwrap();
        let recipe = dir.path().join("r.toml");
        let head = "[[source]]\nname = \"a\"\npaths = [\"a.jsonl\"]\ntext = \"txt\"\nid = \"idnt\"\n";
        let tail = "[tokenizer]\ntrain = { vocab_size = 300 }\n";
        fs::write(&recipe, format!("{head}{tail}")).unwrap();
        let error = Prepared::new(Some(&recipe), &[], &[], Goal::Shards, &InputFilters::default())
            .unwrap()
            .check_fields()
            .unwrap_err()
            .to_string();
        assert!(error.contains("`txt`; did you mean `text`?"), "{error}");
        assert!(error.contains("`idnt`; did you mean `ident`?"), "{error}");

        let more = "[[source]]\nname = \"b\"\npaths = [\"b.jsonl\", \"c/*.jsonl\"]\n";
        fs::write(&recipe, format!("{head}{more}{tail}")).unwrap();
        let error = Prepared::new(Some(&recipe), &[], &[], Goal::Shards, &InputFilters::default())
            .unwrap_err()
            .to_string();
        assert_eq!(error.lines().count(), 2, "{error}");
    }

    #[test]
    fn a_bad_name_does_not_hide_a_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = dir.path().join("r.toml");
        let text = "[[source]]\nname = \"Bad Name\"\npaths = [\"nowhere.jsonl\"]\n[[filter]]\nname = \"lenght\"\n\
                    [tokenizer]\nfile = \"no-tokenizer.json\"\n";
        fs::write(&recipe, text).unwrap();
        let error = Prepared::new(Some(&recipe), &[], &[], Goal::Shards, &InputFilters::default());
        let error = error.unwrap_err().to_string();
        for expected in
            ["`Bad Name` may hold only", "nowhere.jsonl", "did you mean `length`?", "no-tokenizer.json"]
        {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
