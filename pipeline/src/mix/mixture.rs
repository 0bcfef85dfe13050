//! The mixture: a strict TOML file that says how often, in which shares and in which form the pools
//! are shown. Without a file the built-in defaults show every source for the same number of epochs.

use std::path::Path;

use moe_shards::{Manifest, Packing};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Problem, Result};
use crate::nearest;
use crate::strict_toml::{Decoder, Fault, Section};

/// Tables that a mixture may have.
const SECTIONS: [&str; 2] = ["mix", "pool"];
/// A plan of more passes than this is a typing error.
const MAX_EPOCHS: u32 = 1000;

/// A whole mixture, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// `[mix]`.
    pub mix: MixConfig,
    /// `[[pool]]`; empty means one for each source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<PoolConfig>,
}

/// `[mix]`: what all pools have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixConfig {
    /// Passes over each family, at most; every pass shows each family once.
    pub epochs: u32,
    /// Tokens of a training sequence.
    pub seq_len: u32,
    /// Seed of all shuffling.
    pub seed: u64,
    /// `best-fit` cuts no document that fits into a sequence; `concat` needs no index.
    pub packing: Packing,
    /// Share of originals among the families that have variants, per pass, in [0, 1].
    pub original_share: f64,
    /// Share of families kept for validation, in [0, 0.5].
    pub holdout: f64,
    /// Windows of a pass: two sightings of a family are at least 1 - 1/windows of a pass apart.
    pub windows: u32,
    /// Trained tokens of the whole plan; needed when pools have weights, else all epochs are used.
    pub tokens: Option<u64>,
}

impl Default for MixConfig {
    fn default() -> MixConfig {
        MixConfig {
            epochs: 4,
            seq_len: 2048,
            seed: 1,
            packing: Packing::BestFit,
            original_share: 0.5,
            holdout: 0.01,
            windows: 16,
            tokens: None,
        }
    }
}

/// `[[pool]]`: one stream of the mixture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Source of the build.
    pub source: String,
    /// Passes, instead of `mix.epochs`.
    pub epochs: Option<u32>,
    /// Share of `mix.tokens`, relative to the other pools' weights.
    pub weight: Option<f64>,
}

impl Section for MixConfig {
    fn check(&self) -> Vec<Fault> {
        let mut problems = Vec::new();
        let mut range = |key, ok: bool, found: String, expected: &str| {
            if !ok {
                problems.push((key, format!("expected {expected}, found {found}")));
            }
        };
        range("epochs", (1..=MAX_EPOCHS).contains(&self.epochs), self.epochs.to_string(), "1 to 1000");
        range(
            "seq_len",
            (2..=1 << 24).contains(&self.seq_len),
            self.seq_len.to_string(),
            "2 to 16777216 tokens",
        );
        let share = self.original_share;
        range("original_share", (0.0..=1.0).contains(&share), share.to_string(), "a share from 0 to 1");
        range(
            "holdout",
            (0.0..=0.5).contains(&self.holdout),
            self.holdout.to_string(),
            "a share from 0 to 0.5",
        );
        range("windows", (1..=4096).contains(&self.windows), self.windows.to_string(), "1 to 4096");
        range("tokens", self.tokens != Some(0), "0".to_owned(), "at least 1 token");
        problems
    }
}

impl Section for PoolConfig {
    fn check(&self) -> Vec<Fault> {
        let mut problems = Vec::new();
        if self.source.is_empty() {
            problems.push(("source", "is missing; name a source of the build".to_owned()));
        }
        if self.epochs.is_some_and(|epochs| !(1..=MAX_EPOCHS).contains(&epochs)) {
            problems
                .push(("epochs", format!("expected 1 to {MAX_EPOCHS}, found {}", self.epochs.unwrap_or(0))));
        }
        if let Some(weight) = self.weight.filter(|weight| !(weight.is_finite() && *weight > 0.0)) {
            problems.push((
                "weight",
                format!("expected a number above 0, found {weight}; leave the pool out to switch it off"),
            ));
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
        }
        decoder.finish(mixture)
    }

    /// Puts flags in the place of the file's values.
    ///
    /// # Errors
    /// [`Error::Recipe`] when a flag is out of range.
    pub fn override_with(
        &mut self,
        epochs: Option<u32>,
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

    /// The mixture with one `[[pool]]` for each pool that will exist, checked against the build.
    ///
    /// # Errors
    /// [`Error::Recipe`] with everything that does not fit: a source that is not there (with the
    /// nearest one), a source named twice, weights on some pools only, a budget without weights.
    pub fn resolve(mut self, manifest: &Manifest, file: Option<&Path>) -> Result<Mixture> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String| {
            problems.push(Problem {
                file: file.map(Path::to_owned),
                line: None,
                key: key.to_owned(),
                message,
            });
        };
        if self.pool.is_empty() {
            let sources = manifest.sources.iter().map(|source| source.name.clone());
            self.pool = sources.map(|source| PoolConfig { source, ..PoolConfig::default() }).collect();
        }
        for (i, pool) in self.pool.iter().enumerate() {
            if manifest.sources.iter().all(|source| source.name != pool.source) {
                let hint =
                    nearest::hint(&pool.source, manifest.sources.iter().map(|source| source.name.as_str()));
                problem("pool.source", format!("the build has no source `{}`; {hint}", pool.source));
            }
            if self.pool[..i].iter().any(|other| other.source == pool.source) {
                problem("pool.source", format!("`{}` is named twice; one pool serves a source", pool.source));
            }
        }
        let weighted = self.pool.iter().filter(|pool| pool.weight.is_some()).count();
        if weighted != 0 && weighted != self.pool.len() {
            let without: Vec<&str> = self
                .pool
                .iter()
                .filter(|pool| pool.weight.is_none())
                .map(|pool| pool.source.as_str())
                .collect();
            problem(
                "pool.weight",
                format!("all pools have a weight or none; `{}` has none", without.join("`, `")),
            );
        }
        match (weighted, self.mix.tokens) {
            (0, Some(_)) => problem("mix.tokens", "a budget needs a `weight` in every [[pool]]".to_owned()),
            (1.., None) => {
                problem("mix.tokens", "is missing; weights share out this many trained tokens".to_owned())
            }
            _ => {}
        }
        match problems.is_empty() {
            true => Ok(self),
            false => Err(Error::Recipe { problems }),
        }
    }

    /// Passes of a pool, at most.
    pub fn epochs(&self, pool: &PoolConfig) -> u32 {
        pool.epochs.unwrap_or(self.mix.epochs)
    }

    /// The share of originals as a reduced fraction, exact to a millionth.
    pub fn original_share(&self) -> [u64; 2] {
        let (mut a, mut b) = ((self.mix.original_share * 1e6).round() as u64, 1_000_000);
        let fraction = [a, b];
        while b != 0 {
            (a, b) = (b, a % b);
        }
        fraction.map(|part| part / a.max(1))
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
        let found = "[mix]\nepoch = 2\nholdout = 0.9\n[[pool]]\nsource = 'a'\nweight = 0.0\n[pools]\n";
        let expected = "mix.toml:2: `mix.epoch`: unknown key; did you mean `epochs`?\n\
                        mix.toml:3: `mix.holdout`: expected a share from 0 to 0.5, found 0.9\n\
                        mix.toml:6: `pool.weight`: expected a number above 0, found 0; leave the pool out to switch it off\n\
                        mix.toml:7: `pools`: unknown section; did you mean `pool`?";
        check(found, expected);
    }

    #[test]
    fn shares_become_reduced_fractions() {
        let share = |original_share| {
            Mixture { mix: MixConfig { original_share, ..MixConfig::default() }, pool: Vec::new() }
                .original_share()
        };
        assert_eq!([share(0.5), share(0.0), share(1.0), share(0.3)], [[1, 2], [0, 1], [1, 1], [3, 10]]);
    }
}
