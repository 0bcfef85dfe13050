//! The mixture: a strict TOML file that says how often, in which shares and in which form the pools
//! are shown. Without a file the built-in defaults show every source for the same number of epochs.

mod pool;
mod resolve;

use std::ops::RangeInclusive;
use std::path::Path;

use moe_shards::Packing;
use moe_shards::family::Order;
use moe_shards::variant::{Layout, Turns};
use serde::{Deserialize, Serialize, Serializer};

pub use self::pool::{Curve, Names, PhaseConfig, PoolConfig};
use super::count::Count;
use super::share::Share;
use crate::error::{Error, Problem, Result};
use crate::strict_toml::{Decoder, Docs, Fault, Section, documented};

/// Tables that a mixture may have.
const SECTIONS: [&str; 3] = ["mix", "pool", "phase"];
/// More passes than this in a plan are a typo.
pub(super) const MAX_EPOCHS: u32 = 1000;
/// Possible lengths of sequences.
const SEQ_LENS: RangeInclusive<u32> = 2..=1 << 24;

/// A whole mixture, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// `[mix]`.
    pub mix: MixConfig,
    /// `[[pool]]`; empty means one for each source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<PoolConfig>,
    /// `[[phase]]`; empty means one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phase: Vec<PhaseConfig>,
}

/// What to do with a request beyond a cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCap {
    /// Fail, and say what is possible and how to allow it.
    #[default]
    Error,
    /// Clip it, give the rest to the other pools, and print what was clipped.
    Redistribute,
}

documented! {
    /// `[mix]`: settings shared by all pools.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct MixConfig {
        /// Most passes over each family; every pass shows each family once. 1.5 means one and a half.
        #[serde(serialize_with = "whole_if_it_is")]
        pub epochs: f64,
        /// Tokens of a training sequence.
        pub seq_len: u32,
        /// Seed of all shuffling.
        pub seed: u64,
        /// `best-fit` cuts no document that fits into a sequence; `concat` needs no index.
        pub packing: Packing,
        /// `"each-once"` shows each text of a family once before any of them is shown again; without it `original_share` decides.
        pub variants: Option<Turns>,
        /// `"stitched"` shows all texts of a family in every pass, joined as one document, so that later texts attend to
        /// earlier ones; `"separate"`, the default, one text as a document of its own.
        pub layout: Option<Layout>,
        /// How passes differ: `"gap"`, the default, keeps windows in place and shuffles the families in them; `"documents"` shuffles the
        /// families of the whole pass; `"reshuffle"` keeps the sequences and shuffles them in their windows; `"fixed"` repeats the pass.
        pub order: Option<Order>,
        /// Share of originals among the families that have variants, per pass, in [0, 1]: a number or a fraction such as `"1/3"`.
        pub original_share: Share,
        /// Share of families kept for validation, in [0, 0.5].
        pub holdout: f64,
        /// Windows of a pass: two sightings of a family are at least 1 - 1/windows of a pass apart.
        pub windows: u32,
        /// Trained tokens of the whole plan; needed when pools have weights and there are no phases.
        pub tokens: Option<Count>,
        /// A family rests in passes that would show one of its texts more often than this.
        pub max_uses_per_text: Option<u32>,
        /// Most trained tokens of the plan that may come from texts written by a model, as a share.
        pub max_synthetic_share: Option<Share>,
        /// Fewest trained tokens of the plan that may come from originals, as a share.
        pub min_original_share: Option<Share>,
        /// What to do with a request beyond a cap; `error` when absent.
        pub on_cap: Option<OnCap>,
    }
}

/// A whole number is written as one, as mixtures have always been.
fn whole_if_it_is<S: Serializer>(epochs: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match epochs.fract() == 0.0 && *epochs <= f64::from(MAX_EPOCHS) {
        true => serializer.serialize_u32(*epochs as u32),
        false => serializer.serialize_f64(*epochs),
    }
}

impl Default for MixConfig {
    fn default() -> MixConfig {
        MixConfig {
            epochs: 4.0,
            seq_len: 2048,
            seed: 1,
            packing: Packing::BestFit,
            variants: None,
            layout: None,
            order: None,
            original_share: Share::Decimal(0.5),
            holdout: 0.01,
            windows: 16,
            tokens: None,
            max_uses_per_text: None,
            max_synthetic_share: None,
            min_original_share: None,
            on_cap: None,
        }
    }
}

impl Section for MixConfig {
    fn docs() -> Docs {
        MixConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut problems = Vec::new();
        problems.extend(pool::stitched_fault(self.layout, self.variants, None));
        let mut range = |key, ok: bool, found: String, expected: &str| {
            if !ok {
                problems.push((key, format!("expected {expected}, found {found}")));
            }
        };
        let is_possible = self.epochs > 0.0 && self.epochs <= f64::from(MAX_EPOCHS);
        range("epochs", is_possible, self.epochs.to_string(), "a number of passes above 0, at most 1000");
        range("seq_len", SEQ_LENS.contains(&self.seq_len), self.seq_len.to_string(), "2 to 16777216 tokens");
        let share = self.original_share;
        range("original_share", share.is_share(), share.to_string(), "a share from 0 to 1");
        range(
            "holdout",
            (0.0..=0.5).contains(&self.holdout),
            self.holdout.to_string(),
            "a share from 0 to 0.5",
        );
        range("windows", (1..=4096).contains(&self.windows), self.windows.to_string(), "1 to 4096");
        range("tokens", self.tokens != Some(Count(0)), "0".to_owned(), "at least 1 token");
        range("max_uses_per_text", self.max_uses_per_text != Some(0), "0".to_owned(), "at least 1");
        for (key, share) in [
            ("max_synthetic_share", self.max_synthetic_share),
            ("min_original_share", self.min_original_share),
        ] {
            if let Some(share) = share {
                range(key, share.is_share(), share.to_string(), "a share from 0 to 1");
            }
        }
        problems
    }
}

impl Mixture {
    /// Decodes the text of a mixture; `file` is for messages only.
    ///
    /// # Errors
    /// [`Error::Recipe`] with everything that is wrong.
    pub fn decode(text: &str, file: &Path) -> Result<Mixture> {
        let mut decoder = Decoder::new(text, file);
        let mut mixture = Mixture::default();
        if let Some(tables) = decoder.parse(&SECTIONS) {
            mixture.mix = decoder.one(tables.get_ref(), "mix");
            mixture.pool =
                decoder.tables(tables.get_ref(), "pool").into_iter().map(|t| decoder.section(t)).collect();
            mixture.phase =
                decoder.tables(tables.get_ref(), "phase").into_iter().map(|t| decoder.section(t)).collect();
        }
        decoder.finish(mixture)
    }

    /// Overrides the file's values with flags.
    ///
    /// # Errors
    /// [`Error::Recipe`] when a flag is out of range.
    pub fn override_with(
        &mut self,
        epochs: Option<f64>,
        seq_len: Option<u32>,
        seed: Option<u64>,
    ) -> Result<()> {
        let mix = &mut self.mix;
        mix.epochs = epochs.unwrap_or(mix.epochs);
        mix.seq_len = seq_len.unwrap_or(mix.seq_len);
        mix.seed = seed.unwrap_or(mix.seed);
        let problems: Vec<Problem> = mix
            .check()
            .into_iter()
            .map(|(key, message)| Problem {
                file: None,
                line: None,
                key: format!("--{}", key.replace('_', "-")),
                message,
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Recipe { problems }) }
    }

    /// Passes of a pool, at most.
    pub fn max_epochs(&self, pool: &PoolConfig) -> f64 {
        let by_curve = pool.curve.map(|curve| curve.max_factor.ceil());
        by_curve.or(pool.max_epochs.map(f64::from)).unwrap_or(self.mix.epochs)
    }

    /// Rule for the text of a family that a pass of a pool shows.
    pub fn variants(&self, pool: &PoolConfig) -> Turns {
        pool.variants.or(self.mix.variants).unwrap_or_default()
    }

    /// Whether a pass of a pool shows one text of a family or all.
    pub fn layout(&self, pool: &PoolConfig) -> Layout {
        pool.layout.or(self.mix.layout).unwrap_or_default()
    }

    /// How the order differs between passes of a pool.
    pub fn order(&self, pool: &PoolConfig) -> Order {
        pool.order.or(self.mix.order).unwrap_or_default()
    }

    /// The share of originals of a pool.
    pub fn original_share(&self, pool: &PoolConfig) -> Share {
        pool.original_share.unwrap_or(self.mix.original_share)
    }

    /// Most uses of a text of a pool.
    pub fn max_uses_per_text(&self, pool: &PoolConfig) -> Option<u32> {
        pool.max_uses_per_text.or(self.mix.max_uses_per_text)
    }

    /// Whether resting texts are an error if only `epochs` asks for them: `on_cap = "error"` is explicit.
    pub fn is_strict(&self) -> bool {
        self.mix.on_cap == Some(OnCap::Error)
    }

    /// Whether requests beyond a cap are clipped.
    pub fn redistributes(&self) -> bool {
        self.mix.on_cap == Some(OnCap::Redistribute)
    }

    /// Held-out families per million.
    pub fn holdout_ppm(&self) -> u32 {
        (self.mix.holdout * 1e6).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = Mixture::decode(text, Path::new("mix.toml")).map_err(|e| e.to_string());
        assert_eq!(found.map(|_| String::new()).unwrap_or_else(|e| e), expected);
    }

    #[test]
    fn mistakes_are_named_all_at_once() {
        check("[mix]\nepochs = 2\n", "");
        check("[mix]\noriginal_share = '1/3'\nmax_synthetic_share = '2/3'\n", "");
        check(
            "[mix]\noriginal_share = '4/3'\n",
            "mix.toml:2: `mix.original_share`: expected a share from 0 to 1, found 4/3",
        );
        let found = "[mix]\nepoch = 2\nholdout = 0.9\n[[pool]]\nsource = 'a'\nweight = 0.0\n[pools]\n";
        let expected = "mix.toml:2: `mix.epoch`: unknown key; did you mean `epochs`?\n\
                        mix.toml:3: `mix.holdout`: expected a share from 0 to 0.5, found 0.9\n\
                        mix.toml:6: `pool.weight`: expected a number above 0, found 0; leave the pool out to switch it off\n\
                        mix.toml:7: `pools`: unknown section; did you mean `pool`?";
        check(found, expected);
    }

    #[test]
    fn pools_and_phases_are_checked_before_anything_is_read() {
        let good = "[mix]\ntokens = '1.5M'\n[[pool]]\nname = 'x'\nsource = ['a', 'b']\nquality = [3, 9]\nlanguage = ['en']\n\
                    curve = { discard = 0.4, max_factor = 7.0 }\npacking = 'concat'\nweight = 2\n\
                    [[phase]]\nname = 'main'\ntokens = '8B'\nseq_len = 4096\nweights = { x = 1.0 }\n";
        check(good, "");
        let bad = "[[pool]]\nsource = ['a', 'b']\nrepeat = 2.6\nweight = 1\nquality = [9, 3]\nmax_epochs = 2\n\
                   curve = { discard = 1.0, max_factor = 7 }\n[[phase]]\nname = 'a b'\ntokens = '8 GB'\nweights = { x = 0 }\n\
                   [[pool]]\nsource = 'a'\ncurve = { discard = 0.4, factor = 7 }\n";
        let error = Mixture::decode(bad, Path::new("mix.toml")).unwrap_err().to_string();
        for expected in [
            "`pool.name`: is missing; a pool of several sources needs one",
            "mix.toml:4: `pool.weight`: give one of `weight`, `repeat` and `tokens`",
            "mix.toml:5: `pool.quality`: expected [lowest, highest] bucket, found [9, 3]: no text fits",
            "mix.toml:6: `pool.max_epochs`: a pool with a `curve` is capped by `curve.max_factor`",
            "mix.toml:7: `pool.curve`: discard: expected a share from 0 to below 1, found 1",
            "mix.toml:9: `phase.name`: expected letters, digits, `-` and `_`, found `a b`",
            "mix.toml:10: `phase.tokens`: `8 GB` is not a count",
            "mix.toml:11: `phase.weights`: x: expected a number above 0, found 0",
            "mix.toml:14: `pool.curve`: unknown field `factor`",
        ] {
            assert!(error.contains(expected), "{expected}\n{error}");
        }
    }
}
