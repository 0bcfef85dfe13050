//! `[[pool]]` and `[[phase]]` of a mixture.

use std::collections::BTreeMap;

use moe_shards::family::Order;
use moe_shards::variant::{Layout, Turns};
use moe_shards::{Packing, Selection};
use serde::{Deserialize, Serialize};

use super::MAX_EPOCHS;
use crate::mix::count::Count;
use crate::mix::share::Share;
use crate::strict_toml::{Docs, Fault, Section, documented};

/// One name or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a name or a list of names")]
pub enum Names {
    /// `"a"`.
    One(String),
    /// `["a", "b"]`.
    Many(Vec<String>),
}

impl Default for Names {
    fn default() -> Names {
        Names::Many(Vec::new())
    }
}

impl Names {
    /// The names.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }
}

impl From<&str> for Names {
    fn from(name: &str) -> Names {
        Names::One(name.to_owned())
    }
}

/// Upsampling by quality: how often a bucket is repeated grows with its place among all buckets (Olmo 3,
/// arXiv 2512.13961: quality-aware upsampling).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Share of the tokens, the worst ones, to leave out, in [0, 1).
    pub discard: f64,
    /// How often the very best tokens are shown, at least 1.
    pub max_factor: f64,
}

documented! {
    /// `[[pool]]`: one stream of the mixture, or one for each quality bucket with a `curve`.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct PoolConfig {
        /// Name; the source's when absent.
        pub name: Option<String>,
        /// Sources of the build.
        pub source: Names,
        /// Lowest and highest quality bucket.
        pub quality: Option<[u8; 2]>,
        /// Languages: any of them.
        pub language: Option<Vec<String>>,
        /// Tags: any of them.
        pub tag: Option<Vec<String>>,
        /// Share of the budget of a phase, relative to the other pools' weights.
        pub weight: Option<f64>,
        /// Passes: 2.6 means two whole ones and 0.6 of a third.
        pub repeat: Option<f64>,
        /// Trained tokens.
        pub tokens: Option<Count>,
        /// Most passes over all phases; `mix.epochs` when absent.
        pub max_epochs: Option<u32>,
        /// Upsampling by quality.
        pub curve: Option<Curve>,
        /// Instead of `mix.variants`.
        pub variants: Option<Turns>,
        /// Instead of `mix.layout`.
        pub layout: Option<Layout>,
        /// Instead of `mix.order`.
        pub order: Option<Order>,
        /// Share of originals, instead of `mix.original_share`.
        pub original_share: Option<Share>,
        /// Instead of `mix.max_uses_per_text`.
        pub max_uses_per_text: Option<u32>,
        /// Instead of `mix.packing`.
        pub packing: Option<Packing>,
    }
}

impl PoolConfig {
    /// The pool's name.
    pub fn name(&self) -> &str {
        let source = || self.source.as_slice().first().map_or("", String::as_str);
        self.name.as_deref().unwrap_or_else(source)
    }

    /// Its conditions; `None` if it takes everything.
    pub fn selection(&self) -> Option<Selection> {
        let selection = Selection {
            quality: self.quality,
            languages: self.language.clone().unwrap_or_default(),
            tags: self.tag.clone().unwrap_or_default(),
        };
        (!selection.is_all()).then_some(selection)
    }

    /// Whether it gives its own amount.
    pub fn has_amount(&self) -> bool {
        self.repeat.is_some() || self.tokens.is_some()
    }
}

/// Settings that choose one text, which conflict with showing all.
pub(super) fn stitched_fault(
    layout: Option<Layout>,
    variants: Option<Turns>,
    share: Option<Share>,
) -> Option<Fault> {
    let key = variants.map(|_| "variants").or(share.map(|_| "original_share"));
    let message = "layout = \"stitched\" shows all texts of a family in every pass: leave it out";
    key.filter(|_| layout == Some(Layout::Stitched)).map(|key| (key, message.to_owned()))
}

impl Section for PoolConfig {
    fn docs() -> Docs {
        PoolConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut problems = Vec::new();
        let sources = self.source.as_slice();
        if sources.is_empty() || sources.iter().any(String::is_empty) {
            problems.push(("source", "is missing; name a source of the build".to_owned()));
        }
        if self.name.is_none() && sources.len() > 1 {
            problems.push(("name", "is missing; a pool of several sources needs one".to_owned()));
        }
        let plain = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if let Some(name) = self.name.as_deref().filter(|name| !plain(name)) {
            problems.push(("name", format!("expected letters, digits, `-`, `_` and `.`, found `{name}`")));
        }
        if let Some([low, high]) = self.quality.filter(|[low, high]| low > high) {
            problems.push((
                "quality",
                format!("expected [lowest, highest] bucket, found [{low}, {high}]: no text fits"),
            ));
        }
        for (key, names) in [("language", &self.language), ("tag", &self.tag)] {
            if names.as_ref().is_some_and(Vec::is_empty) {
                problems.push((key, "expected at least one name; leave the key out to take all".to_owned()));
            }
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        for (key, value) in [("weight", self.weight), ("repeat", self.repeat)] {
            if let Some(value) = value.filter(|&value| !positive(value)) {
                let hint = "leave the pool out to switch it off";
                problems.push((key, format!("expected a number above 0, found {value}; {hint}")));
            }
        }
        if self.tokens == Some(Count(0)) {
            problems.push(("tokens", "expected at least 1 token, found 0".to_owned()));
        }
        let given = [self.weight.is_some(), self.repeat.is_some(), self.tokens.is_some()];
        if given.iter().filter(|&&given| given).count() > 1 {
            problems.push(("weight", "give one of `weight`, `repeat` and `tokens`".to_owned()));
        }
        if let Some(epochs) = self.max_epochs.filter(|epochs| !(1..=MAX_EPOCHS).contains(epochs)) {
            problems.push(("max_epochs", format!("expected 1 to {MAX_EPOCHS}, found {epochs}")));
        }
        if let Some(Curve { discard, max_factor }) = self.curve {
            if !(0.0..1.0).contains(&discard) {
                problems
                    .push(("curve", format!("discard: expected a share from 0 to below 1, found {discard}")));
            }
            if !(1.0..=f64::from(MAX_EPOCHS)).contains(&max_factor) {
                problems
                    .push(("curve", format!("max_factor: expected 1 to {MAX_EPOCHS}, found {max_factor}")));
            }
            if self.max_epochs.is_some() {
                let message = "a pool with a `curve` is capped by `curve.max_factor`: leave max_epochs out";
                problems.push(("max_epochs", message.to_owned()));
            }
        }
        problems.extend(stitched_fault(self.layout, self.variants, self.original_share));
        if self.variants == Some(Turns::EachOnce) && self.original_share.is_some() {
            let message = "a pool with variants = \"each-once\" shows every text equally often: leave it out";
            problems.push(("original_share", message.to_owned()));
        }
        if let Some(share) = self.original_share.filter(|share| !share.is_share()) {
            problems.push(("original_share", format!("expected a share from 0 to 1, found {share}")));
        }
        if self.max_uses_per_text == Some(0) {
            problems.push(("max_uses_per_text", "expected at least 1, found 0".to_owned()));
        }
        problems
    }
}

documented! {
    /// `[[phase]]`: a stretch of the plan with its own budget, weights and length of sequences.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct PhaseConfig {
        /// Name, of letters, digits, `-` and `_`.
        pub name: String,
        /// Trained tokens.
        pub tokens: Count,
        /// Tokens of a sequence, instead of `mix.seq_len`.
        pub seq_len: Option<u32>,
        /// Weight of each pool, instead of the pools' own; pools not listed are not shown.
        pub weights: Option<BTreeMap<String, f64>>,
    }
}

impl Section for PhaseConfig {
    fn docs() -> Docs {
        PhaseConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut problems = Vec::new();
        if self.name.is_empty()
            || !self.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        {
            problems.push(("name", format!("expected letters, digits, `-` and `_`, found `{}`", self.name)));
        }
        if self.tokens.0 == 0 {
            problems.push((
                "tokens",
                "is missing; say how many trained tokens the phase has, such as \"8B\"".to_owned(),
            ));
        }
        if let Some(seq_len) = self.seq_len.filter(|len| !super::SEQ_LENS.contains(len)) {
            problems.push(("seq_len", format!("expected 2 to 16777216 tokens, found {seq_len}")));
        }
        if let Some(weights) = &self.weights {
            if weights.is_empty() {
                problems.push(("weights", "expected at least one pool".to_owned()));
            }
            for (pool, weight) in weights.iter().filter(|(_, w)| !(w.is_finite() && **w > 0.0)) {
                let hint = "leave the pool out to switch it off";
                problems
                    .push(("weights", format!("{pool}: expected a number above 0, found {weight}; {hint}")));
            }
        }
        problems
    }
}
