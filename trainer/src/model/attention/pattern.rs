//! Which block has which kind of attention: one kind for all, or several in turn.

use std::collections::BTreeSet;

use super::AttentionConfig;
use super::grouped_query::RotaryBlocks;
use crate::settings;
use crate::settings::value::{Kind, Value};
use crate::settings::{Values, read};

/// The word for the kind that `attention.kind` chooses.
pub const FULL: &str = "full";

settings! {
    /// Kinds of attention by block.
    pub struct PatternSettings in "attention" {
        /// kinds of attention of the blocks, in turn and from the first on, as in ["swa", "swa", "full"], where "full"
        /// is attention.kind. Absent: attention.kind in every block
        pattern: Option<Vec<String>> = None, Kind::Words(AttentionConfig::WORDS);
        /// kind of attention of the last block, whatever its turn
        last: Option<String> = None, Kind::Choice(AttentionConfig::WORDS);
    }
}

/// The attentions of a model's blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionPattern {
    in_turn: Vec<AttentionConfig>,
    last: Option<AttentionConfig>,
}

impl From<AttentionConfig> for AttentionPattern {
    fn from(config: AttentionConfig) -> Self {
        Self { in_turn: vec![config], last: None }
    }
}

impl AttentionPattern {
    /// These attentions in turn.
    ///
    /// # Panics
    /// If there are none.
    pub fn in_turn(in_turn: Vec<AttentionConfig>) -> Self {
        assert!(!in_turn.is_empty(), "a block has some attention");
        Self { in_turn, last: None }
    }

    /// The attentions that the keys describe.
    ///
    /// # Errors
    /// Why there are none.
    pub fn read(values: &dyn Values) -> Result<Self, String> {
        let PatternSettings { pattern, last } = read(values)?;
        let of = |word: &String| AttentionConfig::read(&kind_of(word, values)?, values);
        let in_turn = match pattern {
            Some(words) => words.iter().map(of).collect::<Result<_, _>>()?,
            None => vec![of(&FULL.to_string())?],
        };
        Ok(Self { in_turn, last: last.as_ref().map(of).transpose()? })
    }

    /// The attention of block `layer` (from 0) of `n_layers`.
    pub fn of(&self, layer: usize, n_layers: usize) -> &AttentionConfig {
        match &self.last {
            Some(last) if layer + 1 == n_layers => last,
            _ => &self.in_turn[layer % self.in_turn.len()],
        }
    }

    /// What is wrong with these attentions, each with the reason.
    pub fn problems(&self, d_model: usize, n_layers: usize) -> Vec<String> {
        let all = || self.in_turn.iter().chain(&self.last);
        let mut problems: Vec<String> = Vec::new();
        for problem in all().flat_map(|config| config.problems(d_model)) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
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
                "attention.rotary = \"window\" turns nothing where no block of attention.pattern is \"swa\"; \
                 \"none\" says so"
                    .to_string(),
            );
        }
        problems
    }
}

/// The words of the pattern and the last block, each once.
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

/// The kinds of all blocks, each once.
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
    fn blocks_take_turns_and_the_last_is_as_asked() {
        let full = AttentionConfig::GroupedQuery(GroupedQuerySettings::default());
        let local = AttentionConfig::SlidingWindow(SlidingWindowSettings::default());
        let in_turn = vec![local.clone(), local.clone(), full.clone()];
        let pattern = AttentionPattern { in_turn, last: Some(full.clone()) };
        let kinds: Vec<bool> = (0..5).map(|layer| *pattern.of(layer, 5) == full).collect();
        assert_eq!(kinds, [false, false, true, false, true]);
        assert!(pattern.problems(64, 3).is_empty());
        assert_eq!(pattern.problems(64, 2), ["attention.pattern names 3 blocks, more than model.layers = 2"]);
    }
}
