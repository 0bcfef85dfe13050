//! The recipe: a strict TOML file that says what `moe-data build` reads and makes. This module
//! holds the typed form; `decode` reads the file and reports every problem at once, `inputs`
//! finds the files.

mod chat;
pub mod decode;
pub mod dedup;
pub mod inputs;
mod limits;
pub mod profile;
pub mod quality;
pub mod rephrase;
pub mod size;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use moe_shards::Hash;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::chat::{ChatConfig, ChatKind, ChatTemplate};
pub use self::dedup::{DedupConfig, MinhashConfig};
pub use self::limits::LimitsConfig;
pub use self::quality::QualityConfig;
pub use self::rephrase::RephraseConfig;
pub use self::size::ByteSize;
pub use self::source::SourceConfig;
pub use crate::decontaminate::config::DecontaminateConfig;
use crate::filter;
pub use crate::filter::FilterConfig;
use crate::json;
use crate::normalize::NormalizeConfig;
use crate::read::Limits;
use crate::strict_toml::{Docs, Fault, Section, documented};
use crate::tokenizer::{EOD, EncoderOptions, EngineChoice, SpecialInText, train};

/// A whole recipe, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Recipe {
    /// `[[source]]`, in order: earlier sources win over later ones in deduplication.
    pub source: Vec<SourceConfig>,
    /// `[normalize]`.
    pub normalize: NormalizeConfig,
    /// `[[filter]]`, in order: the first to drop a document gives the reason.
    pub filter: Vec<FilterConfig>,
    /// `[dedup]`.
    pub dedup: DedupConfig,
    /// `[decontaminate]`.
    pub decontaminate: Option<DecontaminateConfig>,
    /// `[quality]`.
    pub quality: Option<QualityConfig>,
    /// `[tokenizer]`.
    pub tokenizer: TokenizerConfig,
    /// `[shard]`.
    pub shard: ShardConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[rephrase]`.
    pub rephrase: Option<RephraseConfig>,
    /// `[chat]`.
    pub chat: Option<ChatConfig>,
    /// The chat template, if a source has conversations, once found.
    #[serde(skip)]
    pub chat_template: Option<ChatTemplate>,
}

/// Name of the variant of a source without variants.
pub const ORIGINAL: &str = "original";

documented! {
    /// `[tokenizer]`: exactly one of `file` and `train`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct TokenizerConfig {
        /// A Hugging Face `tokenizer.json`, relative to the recipe's folder.
        pub file: Option<PathBuf>,
        /// The end-of-document token, if it cannot be derived from `file`.
        pub eod: Option<String>,
        /// A special token that begins every document.
        pub bos: Option<String>,
        /// What happens to special-token strings in text.
        pub special_in_text: SpecialInText,
        /// Which engine may encode. The ids are the same.
        pub engine: EngineChoice,
        /// The reference also encodes one in this many documents, to compare; 0 for none.
        pub verify_every: u64,
        /// Train a byte-level BPE on the kept documents instead.
        pub train: Option<TrainConfig>,
    }
}

impl TokenizerConfig {
    /// Encoding options of this section.
    pub fn encoder_options(&self) -> EncoderOptions {
        EncoderOptions {
            eod: match self.train {
                Some(_) => Some(EOD.to_owned()),
                None => self.eod.clone(),
            },
            bos: self.bos.clone(),
            special_in_text: self.special_in_text,
            engine: self.engine,
        }
    }
}

impl Section for TokenizerConfig {
    fn docs() -> Docs {
        TokenizerConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.file.is_some() == self.train.is_some() {
            let example = "`file = \"tokenizer.json\"` or `train = { vocab_size = 4096 }`";
            wrong.push(("", format!("give exactly one of {example}")));
        }
        if self.eod.is_some() && self.train.is_some() {
            wrong.push(("eod", "belongs to `file`; a trained tokenizer brings its own".to_owned()));
        }
        if let (Some(bos), Some(train)) = (&self.bos, &self.train)
            && bos != EOD
            && !train.special_tokens.contains(bos)
        {
            wrong.push(("bos", format!("`{bos}` is not among `train.special_tokens`; add it there")));
        }
        wrong
    }
}

documented! {
    /// `[tokenizer] train = { .. }`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct TrainConfig {
        /// Size of the vocabulary, including the 256 bytes and the special tokens; a small corpus gives fewer.
        pub vocab_size: u32,
        /// Text to train on, chosen by a hash of the document ids.
        pub sample_bytes: ByteSize,
        /// Special tokens beside the end of document, which has id 0; they get the ids from 1 on.
        pub special_tokens: Vec<String>,
    }
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig { vocab_size: 4096, sample_bytes: ByteSize(64_000_000), special_tokens: Vec::new() }
    }
}

impl Section for TrainConfig {
    fn docs() -> Docs {
        TrainConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        let least = 257 + self.special_tokens.len();
        if !(least..=1_000_000).contains(&(self.vocab_size as usize)) {
            let message = format!(
                "is {}; expected {least} (256 bytes and the special tokens) to 1000000",
                self.vocab_size
            );
            wrong.push(("vocab_size", message));
        }
        // The trainer counts pairs in 32 signed bits.
        if !(1..=2_000_000_000).contains(&self.sample_bytes.0) {
            wrong.push(("sample_bytes", format!("is {}; expected 1 to 2000000000", self.sample_bytes.0)));
        }
        if let Err(message) = train::check_specials(&self.special_tokens) {
            wrong.push(("special_tokens", message));
        }
        wrong
    }
}

documented! {
    /// `[shard]`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct ShardConfig {
        /// Target size of a `.bin` file; a source is cut into a power of two of shards to stay below it.
        pub target_bytes: ByteSize,
    }
}

impl Default for ShardConfig {
    fn default() -> ShardConfig {
        ShardConfig { target_bytes: ByteSize(1 << 30) }
    }
}

impl Section for ShardConfig {
    fn docs() -> Docs {
        ShardConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.target_bytes.0 {
            0 => vec![("target_bytes", "is 0; expected at least 1".to_owned())],
            _ => Vec::new(),
        }
    }
}

/// Rules of a build without a recipe.
const BUILT_IN_FILTERS: [&str; 2] = ["length", "gopher_quality"];

impl Recipe {
    /// What `--input` gets without a recipe: a length filter, the Gopher quality rules, exact
    /// deduplication and a small trained tokenizer.
    pub fn built_in(source: Vec<SourceConfig>) -> Recipe {
        Recipe {
            source,
            filter: (filter::REGISTRY.iter())
                .filter(|entry| BUILT_IN_FILTERS.contains(&entry.name))
                .map(FilterConfig::with_defaults)
                .collect(),
            tokenizer: TokenizerConfig { train: Some(TrainConfig::default()), ..TokenizerConfig::default() },
            ..Recipe::default()
        }
    }

    /// Digest of everything that decides the bytes of the shards, and of nothing else: paths are left
    /// out, as are the limit on bad records, the size of slices, threads and the output folder;
    /// a tokenizer file counts by its content (`tokenizer`), other builds by their identities (`against`).
    pub fn identity(&self, tokenizer: Option<Hash>, against: &[Hash]) -> Hash {
        let sources: Vec<Value> = self.source.iter().map(|source| self.identity_of(source)).collect();
        // An absent method is left out, so that a new method does not change old identities.
        let mut dedup = serde_json::to_value(&self.dedup).unwrap_or_default();
        if let Some(dedup) = dedup.as_object_mut() {
            let mut identities = against.to_vec();
            identities.sort_unstable();
            dedup.insert("against".to_owned(), json!(identities));
        }
        drop_absent(&mut dedup);
        // The guards and the estimate do not affect the output.
        if let Some(minhash) = dedup.get_mut("minhash").and_then(Value::as_object_mut) {
            minhash
                .retain(|key, _| !["max_source_removed", "max_cluster", "estimate"].contains(&key.as_str()));
            // Older data sets lack the key.
            if minhash.get("action").is_some_and(|action| action == "remove") {
                minhash.remove("action");
            }
        }
        let filters: Vec<Value> = (self.filter.iter())
            .map(|filter| {
                let mut value = filter.identity();
                value["sources"] = json!(filter.sources);
                value
            })
            .collect();
        let mut identity = json!({
            "version": crate::BUILD_VERSION,
            "source": sources,
            "normalize": self.normalize,
            "filter": filters,
            "dedup": dedup,
            // The engine and the verification do not affect ids.
            "tokenizer": {
                "file": tokenizer,
                "eod": self.tokenizer.eod,
                "bos": self.tokenizer.bos,
                "special_in_text": self.tokenizer.special_in_text,
                "train": self.tokenizer.train,
            },
            "shard": self.shard,
            "max_doc_bytes": self.limits.max_doc_bytes,
        });
        // Absent where they are the defaults, so that old identities stay.
        let (limits, usual) = (self.limits.of_readers(), LimitsConfig::default().of_readers());
        if limits != (Limits { max_doc_bytes: limits.max_doc_bytes, ..usual }) {
            identity["limits"] = json!([limits.max_expansion, limits.max_window_bytes]);
        }
        // Absent where there is none, as in versions before it.
        if let (Some(rephrase), Some(map)) = (&self.rephrase, identity.as_object_mut()) {
            map.insert("rephrase".to_owned(), json!(rephrase.styles));
        }
        json::digest(&identity)
    }

    /// Everything that decides how the records of a source become documents.
    fn identity_of(&self, source: &SourceConfig) -> Value {
        let mut identity = source.identity();
        // Absent where there are no conversations, so that old identities stay.
        if let (Some(form), Some(items)) = (source.chat_form(), identity.as_array_mut()) {
            items.push(json!(self.chat_template.as_ref().map(|template| template.identity(&form))));
        }
        identity
    }

    /// Digest of the recipe's settings of one source, for its shards. The effects of other sources, deduplication and
    /// evaluation sets show in the documents themselves; so an unaffected shard keeps its
    /// bytes when a source is added, and plans that use it can be extended. `tokenizer` is the digest of the tokenizer.
    pub fn source_identity(&self, source: &SourceConfig, tokenizer: Hash) -> Hash {
        let filters = self.filter.iter().filter(|filter| filter.applies_to(&source.name));
        json::digest(&json!({
            "version": crate::BUILD_VERSION,
            "source": self.identity_of(source),
            "normalize": self.normalize,
            "filter": filters.map(FilterConfig::identity).collect::<Vec<Value>>(),
            "tokenizer": [json!(tokenizer), json!(self.tokenizer.eod), json!(self.tokenizer.bos), json!(self.tokenizer.special_in_text)],
            "shard": self.shard,
            "max_doc_bytes": self.limits.max_doc_bytes,
        }))
    }

    /// The recipe as TOML with all defaults written out.
    ///
    /// # Errors
    /// The TOML library's message; does not happen with a decoded recipe.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        drop_absent(&mut value);
        // That of a build of text alone.
        if self.tokenizer == TokenizerConfig::default()
            && let Some(recipe) = value.as_object_mut()
        {
            recipe.remove("tokenizer");
        }
        // A recipe without filters loses the key.
        for filter in value.get_mut("filter").and_then(Value::as_array_mut).into_iter().flatten() {
            filter.as_object_mut().and_then(|filter| filter.remove("files"));
            // In the file a filter's settings are next to its name.
            if let Some(Value::Object(settings)) = filter.as_object_mut().and_then(|f| f.remove("settings")) {
                filter.as_object_mut().into_iter().for_each(|f| f.extend(settings.clone()));
            }
        }
        toml::to_string_pretty(&value)
    }
}

/// TOML has no null, so null keys are not written.
fn drop_absent(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|items| !items.is_empty()));
            map.values_mut().for_each(drop_absent);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_absent),
        _ => {}
    }
}
