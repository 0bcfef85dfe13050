//! Which rule updates which parameters: groups by name, of which the last match counts.

use std::sync::Arc;

use burn::tensor::FloatDType;
use glob::Pattern;

use super::rule::Rule;
use crate::error::{Error, Result};
use crate::model::parameters::Parameter;

/// Parameters that are updated alike.
#[derive(Debug, Clone)]
pub struct Group {
    names: Vec<Pattern>,
    /// How they are updated.
    pub rule: Arc<dyn Rule>,
    /// Factor of the learning rate.
    pub rate: f64,
    /// Maximum norm of their gradients; absent: they are clipped together with all others that have none.
    pub clip: Option<f64>,
    /// Type of the rule's state, where it may be rounded.
    pub moments: Moments,
    /// Whether they are frozen: no update, no decay, no state, no part in the norm of the gradient,
    /// and no step of a router's selection bias.
    pub is_frozen: bool,
}

/// Types of optimizer state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moments {
    /// All of it in f32.
    #[default]
    F32,
    /// Sums and means of gradients in bf16; means of squares stay in f32, in which steps far smaller than the
    /// mean count.
    Bf16,
}

impl Moments {
    /// The words for them, in the order of declaration.
    pub const WORDS: &[&str] = &["f32", "bf16"];
}

/// A tensor that a rule keeps for a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its name, as in `m.embedding`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its type in memory; checkpoints store it in f32, which can represent every bf16 value.
    pub dtype: FloatDType,
}

impl Kept {
    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        let size = if self.dtype == FloatDType::BF16 { 2 } else { 4 };
        size * self.shape.iter().map(|n| *n as u64).product::<u64>()
    }
}

/// Groups; the first matches every parameter.
#[derive(Debug, Clone)]
pub struct Groups(Vec<Group>);

impl Group {
    /// A group with a rule at the full learning rate. Names are those of
    /// [`parameters`](crate::model::parameters::parameters), with `*` for any characters, as in `*.router.*`.
    ///
    /// # Errors
    /// [`Error::Config`] when a pattern is not valid.
    pub fn new(names: &[&str], rule: Arc<dyn Rule>) -> Result<Self> {
        let pattern = |name: &&str| {
            Pattern::new(name).map_err(|error| {
                Error::Config(vec![format!("{name:?} is not a pattern of parameter names: {error}")])
            })
        };
        Ok(Self { names: names.iter().map(pattern).collect::<Result<_>>()?, ..Self::of_rule(rule) })
    }

    fn of_rule(rule: Arc<dyn Rule>) -> Self {
        Self { names: Vec::new(), rule, rate: 1.0, clip: None, moments: Moments::F32, is_frozen: false }
    }

    /// The rule that updates a parameter of the group.
    pub fn rule_of(&self, parameter: &Parameter) -> Arc<dyn Rule> {
        self.rule.instead(parameter).map_or_else(|| self.rule.clone(), |(_, rule)| rule)
    }

    /// The same group, at a fraction of the learning rate.
    pub fn at_rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// The same group, with its gradients clipped separately to this norm.
    pub fn clipped(self, norm: f64) -> Self {
        Self { clip: Some(norm), ..self }
    }

    /// The same group, with its state in this type.
    pub fn remembering(self, moments: Moments) -> Self {
        Self { moments, ..self }
    }

    /// The same group, frozen.
    pub fn frozen(self) -> Self {
        Self { is_frozen: true, ..self }
    }
}

impl Groups {
    /// One group of all parameters.
    pub fn of_all(rule: Arc<dyn Rule>) -> Self {
        Self(vec![Group::of_rule(rule)])
    }

    /// The same, with the first group's state in this type.
    pub fn remembering(mut self, moments: Moments) -> Self {
        self.0[0].moments = moments;
        self
    }

    /// All groups, the one for all parameters first.
    pub fn all(&self) -> &[Group] {
        &self.0
    }

    /// The same with another group, which takes precedence over the earlier ones.
    pub fn with(mut self, group: Group) -> Self {
        self.0.push(group);
        self
    }

    /// The group of a parameter: the last that matches, or else the first.
    pub fn of(&self, name: &str) -> &Group {
        &self.0[self.find(name).0]
    }

    /// The number of that group, from 0, and its pattern that matches.
    pub fn find(&self, name: &str) -> (usize, Option<&str>) {
        let groups = self.0.iter().enumerate().rev();
        let mut patterns = groups.flat_map(|(index, group)| group.names.iter().map(move |p| (index, p)));
        let found = patterns.find(|(_, pattern)| pattern.matches(name));
        found.map_or((0, None), |(index, pattern)| (index, Some(pattern.as_str())))
    }

    /// The tensors that are kept for a parameter.
    pub fn kept(&self, parameter: &Parameter) -> Vec<Kept> {
        let group = self.of(&parameter.name);
        if group.is_frozen {
            return Vec::new();
        }
        let rule = group.rule_of(parameter);
        let tensor = |kind: &&str| Kept {
            name: format!("{kind}.{}", parameter.name),
            shape: rule.state_shape(kind, parameter),
            dtype: match group.moments == Moments::Bf16 && rule.may_round(kind) {
                true => FloatDType::BF16,
                false => FloatDType::F32,
            },
        };
        rule.state().iter().map(tensor).collect()
    }
}

impl From<Arc<dyn Rule>> for Groups {
    fn from(rule: Arc<dyn Rule>) -> Self {
        Self::of_all(rule)
    }
}

impl<R: Rule + 'static> From<R> for Groups {
    fn from(rule: R) -> Self {
        Self::of_all(Arc::new(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::AdamWConfig;

    #[test]
    fn the_last_group_that_matches_counts() {
        let adamw = || Arc::new(AdamWConfig::default());
        let group = |names: &[&str]| Group::new(names, adamw()).expect("patterns");
        let groups = Groups::of_all(adamw())
            .with(group(&["blocks.*"]).at_rate(0.5))
            .with(group(&["*.router.*", "embedding"]).frozen());
        let found = |name: &str| (groups.of(name).rate, groups.of(name).is_frozen);
        assert_eq!(found("norm.weight"), (1.0, false));
        assert_eq!(found("blocks.1.attention.w_out"), (0.5, false));
        assert_eq!(found("blocks.1.feed_forward.router.balance_bias"), (1.0, true));
        assert_eq!(found("embedding"), (1.0, true));
        assert!(Group::new(&["***"], adamw()).is_err());
    }
}
