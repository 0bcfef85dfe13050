//! Which block has which kind of attention: one kind for all, or a repeating pattern.

use std::collections::BTreeSet;

use super::AttentionConfig;
use super::grouped_query::RotaryBlocks;
use crate::model::cost::Cost;
use crate::model::rope::{RopeSettings, Stretch};
use crate::settings;
use crate::settings::value::{Kind, Value};
use crate::settings::{MANY, Values, int, read};

/// By default, latent attention keeps scores on the CPU in samples shorter than this.
pub const TILE_FROM: usize = 1024;

/// The word for the kind that `attention.kind` chooses.
pub const FULL: &str = "full";

settings! {
    /// Kinds of attention by block.
    pub struct PatternSettings in "attention" {
        /// kinds of attention of the blocks, repeated from the first on, as in ["swa", "swa", "full"], where
        /// "full" is attention.kind. Absent: attention.kind in every block
        pattern: Option<Vec<String>> = None, Kind::Words(AttentionConfig::WORDS);
        /// kind of attention of the last block, regardless of the pattern
        last: Option<String> = None, Kind::Choice(AttentionConfig::WORDS);
        /// sample length in tokens from which the CPU computes "mla" and the blocks of "nsa" tile by tile,
        /// with memory that grows with the length instead of its square; rounding differs. "gqa" and "swa"
        /// keep no scores at any length, nor do GPUs
        tile_from: usize = TILE_FROM, int(1, MANY);
    }
}

/// The attentions of a model's blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionPattern {
    in_turn: Vec<AttentionConfig>,
    last: Option<AttentionConfig>,
    tile_from: usize,
    rope: RopeSettings,
}

impl From<AttentionConfig> for AttentionPattern {
    fn from(config: AttentionConfig) -> Self {
        Self::in_turn(vec![config])
    }
}

impl AttentionPattern {
    /// These attentions in turn.
    ///
    /// # Panics
    /// If there are none.
    pub fn in_turn(in_turn: Vec<AttentionConfig>) -> Self {
        assert!(!in_turn.is_empty(), "a block has some attention");
        Self { in_turn, last: None, tile_from: TILE_FROM, rope: RopeSettings::default() }
    }

    /// The attentions that the keys describe.
    ///
    /// # Errors
    /// Why there are none.
    pub fn read(values: &dyn Values) -> Result<Self, String> {
        let PatternSettings { pattern, last, tile_from } = read(values)?;
        let of = |word: &String| AttentionConfig::read(&kind_of(word, values)?, values);
        let in_turn = match pattern {
            Some(words) => words.iter().map(of).collect::<Result<_, _>>()?,
            None => vec![of(&FULL.to_string())?],
        };
        Ok(Self { in_turn, last: last.as_ref().map(of).transpose()?, tile_from, rope: read(values)? })
    }

    /// The attention of block `layer` (from 0) of `n_layers`.
    pub fn of(&self, layer: usize, n_layers: usize) -> &AttentionConfig {
        match &self.last {
            Some(last) if layer + 1 == n_layers => last,
            _ => &self.in_turn[layer % self.in_turn.len()],
        }
    }

    /// Sample length in tokens from which the CPU keeps no scores.
    pub fn tile_from(&self) -> usize {
        self.tile_from
    }

    /// How rotary positions are stretched.
    pub fn stretch(&self) -> Option<Stretch> {
        self.rope.stretch()
    }

    /// What the attention of block `layer` (from 0) of `n_layers` costs.
    pub fn cost(&self, layer: usize, n_layers: usize, d_model: usize, seq_len: usize) -> Cost {
        let cost = self.of(layer, n_layers).cost(d_model, seq_len);
        if seq_len >= self.tile_from { Cost { scores: 0, ..cost } } else { cost }
    }

    /// Problems with these attentions, each with the reason.
    pub fn problems(&self, d_model: usize, n_layers: usize) -> Vec<String> {
        let all = || self.in_turn.iter().chain(&self.last);
        let mut problems: Vec<String> = Vec::new();
        for problem in all().flat_map(|config| config.problems(d_model)) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems.extend(self.rope.problems());
        if self.stretch().is_some() && all().all(|config| config.rotary(d_model).is_none()) {
            problems.push("attention.rope.scaling: no block has rotary positions".to_string());
        }
        let n = self.in_turn.len();
        if n > n_layers {
            problems.push(format!("attention.pattern names {n} blocks, more than model.layers = {n_layers}"));
        }
        let turns_windows = |config: &AttentionConfig| match config {
            AttentionConfig::GroupedQuery(settings) => settings.rotary == RotaryBlocks::Window,
            _ => false,
        };
        let has_window = all().any(|config| matches!(config, AttentionConfig::SlidingWindow(_)));
        if all().any(turns_windows) && !has_window {
            problems.push(
                "attention.rotary = \"window\" has no effect if no block of attention.pattern is \"swa\"; \
                 \"none\" says so"
                    .to_string(),
            );
        }
        problems
    }
}

/// The distinct words of the pattern and the last block.
pub fn words(values: &dyn Values) -> BTreeSet<String> {
    let mut words: BTreeSet<String> = match values.value("attention.pattern") {
        Some(Value::Words(words)) => words.into_iter().collect(),
        _ => BTreeSet::from([FULL.to_string()]),
    };
    if let Some(Value::Text(last)) = values.value("attention.last") {
        words.insert(last.into_owned());
    }
    words
}

/// The distinct kinds of all blocks.
pub fn kinds(values: &dyn Values) -> BTreeSet<String> {
    words(values).iter().filter_map(|word| kind_of(word, values).ok()).collect()
}

fn kind_of(word: &str, values: &dyn Values) -> Result<String, String> {
    match values.value("attention.kind") {
        _ if word != FULL => Ok(word.to_string()),
        Some(Value::Text(kind)) => Ok(kind.into_owned()),
        other => Err(format!("`attention.kind`: expected a word, found {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attention::{GroupedQuerySettings, SlidingWindowSettings};

    #[test]
    fn the_pattern_repeats_and_the_last_block_is_as_configured() {
        let full = AttentionConfig::GroupedQuery(GroupedQuerySettings::default());
        let local = AttentionConfig::SlidingWindow(SlidingWindowSettings::default());
        let in_turn = vec![local.clone(), local.clone(), full.clone()];
        let pattern = AttentionPattern { last: Some(full.clone()), ..AttentionPattern::in_turn(in_turn) };
        let kinds: Vec<bool> = (0..5).map(|layer| *pattern.of(layer, 5) == full).collect();
        assert_eq!(kinds, [false, false, true, false, true]);
        assert!(pattern.problems(64, 3).is_empty());
        assert_eq!(pattern.problems(64, 2), ["attention.pattern names 3 blocks, more than model.layers = 2"]);
    }
}
