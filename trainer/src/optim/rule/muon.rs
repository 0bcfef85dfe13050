//! Muon (Jordan et al. 2024) as Moonlight uses it (Liu et al. 2025, arXiv 2502.16982, section 2.2): momentum
//! whose singular values are all brought near 1, for each matrix separately, including experts and the
//! queries, keys and values of a fused projection.
//!
//! It is a rule for hidden matrices. Embeddings, the output projection, norms, biases and routers use AdamW,
//! at the same learning rate.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{AdamWConfig, Rule, Update};
use crate::model::parameters::Parameter;
use crate::model::transfer::StepKind;
use crate::ops::newton_schulz::newton_schulz;
use crate::settings;
use crate::settings::float;
use crate::settings::value::Kind;

settings! {
    /// Settings of Muon, and of AdamW for everything else.
    pub struct Muon in "optim.muon" {
        /// memory of the sum of gradients
        momentum: f64 = 0.95, float(0.0, 0.999_999);
        /// whether a step looks ahead by its future momentum (Nesterov)
        nesterov: bool = true, Kind::Bool;
        /// step size for a matrix from n to m features: match_rms: 0.2 sqrt(max(n, m)), for AdamW's learning
        /// rates; rms_operator: sqrt(m / n); original: sqrt(max(1, m / n))
        scale: Scale = Scale::MatchRms, Kind::Choice(Scale::WORDS);
        /// decay of matrices, including routers, per step and unit of learning rate; norms, biases,
        /// embeddings and the output projection have none
        weight_decay: f64 = 0.1, float(0.0, 10.0);
        /// whether it also updates routers, instead of AdamW
        routers: bool = false, Kind::Bool;
        /// AdamW's memory of the mean of gradients, for everything but hidden matrices
        beta1: f64 = 0.9, float(0.0, 0.999_999);
        /// AdamW's memory of the mean of squared gradients
        beta2: f64 = 0.95, float(0.0, 0.999_999);
        /// added to the root of AdamW's second moment
        eps: f64 = 1e-8, float(1e-20, 1.0);
    }
}

/// How the step size is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The root mean square of an AdamW update (Liu et al. 2025, section 2.2).
    MatchRms,
    /// A change of outputs with root mean square 1 (Bernstein & Newhouse 2024, arXiv 2409.20325).
    RmsOperator,
    /// As first published (Jordan et al. 2024).
    Original,
}

impl Scale {
    /// The words for them, in the order of declaration.
    pub(super) const WORDS: &[&str] = &["match_rms", "rms_operator", "original"];

    /// How the step size is chosen.
    pub(super) fn steps(self) -> StepKind {
        match self {
            Self::MatchRms => StepKind::Matched,
            Self::RmsOperator | Self::Original => StepKind::Orthogonal,
        }
    }

    /// The factor for a matrix from `inputs` to `outputs` features.
    pub(super) fn factor(self, inputs: usize, outputs: usize) -> f64 {
        let (inputs, outputs) = (inputs.max(1) as f64, outputs as f64);
        match self {
            Self::MatchRms => 0.2 * inputs.max(outputs).sqrt(),
            Self::RmsOperator => (outputs / inputs).sqrt(),
            Self::Original => (outputs / inputs).max(1.0).sqrt(),
        }
    }
}

/// Whether a parameter is a matrix, or a stack of them, between hidden features; routers only if asked for.
pub(super) fn is_hidden(parameter: &Parameter, routers: bool) -> bool {
    parameter.is_decayed() && (routers || !parameter.name.contains(".router."))
}

/// The momentum after a gradient, and the matrices of the parameter with singular values near 1, each with
/// its columns.
pub(super) fn orthogonal_momentum(
    parameter: &Parameter,
    gradient: Tensor<1>,
    old: Tensor<1>,
    memory: f64,
    nesterov: bool,
) -> (Tensor<1>, Vec<(Range<usize>, Tensor<3>)>) {
    let momentum = old * memory + gradient.clone();
    let ahead = if nesterov { gradient + momentum.clone() * memory } else { momentum.clone() };
    let ahead = parameter.matrices(ahead);
    let matrices = parameter.side_by_side().into_iter().map(|columns| {
        let matrix = ahead.clone().narrow(2, columns.start, columns.len());
        (columns, newton_schulz(matrix))
    });
    (momentum, matrices.collect())
}

/// The step of a parameter, flat, from those of its matrices.
pub(super) fn step_of(matrices: Vec<Tensor<3>>) -> Tensor<1> {
    Tensor::cat(matrices, 2).flatten(0, 2)
}

impl Rule for Muon {
    /// Decaying sum of gradients.
    fn state(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn instead(&self, parameter: &Parameter) -> Option<(&'static str, Arc<dyn Rule>)> {
        let Self { beta1, beta2, eps, weight_decay, .. } = *self;
        let adamw = AdamWConfig { beta1, beta2, eps, weight_decay };
        (!is_hidden(parameter, self.routers)).then(|| ("adamw", Arc::new(adamw) as Arc<dyn Rule>))
    }

    fn kind(&self) -> StepKind {
        self.scale.steps()
    }

    fn update(
        &self,
        parameter: &Parameter,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        update: &Update,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let value = parameter.value.clone();
        let [old] = super::kept(state);
        let gradient = update.clipped(gradient);
        let (momentum, matrices) =
            orthogonal_momentum(parameter, gradient, old.clone(), self.momentum, self.nesterov);
        let sized = matrices.into_iter().map(|(_, direction)| {
            let [_, inputs, outputs] = direction.dims();
            direction * (update.rate * self.scale.factor(inputs, outputs))
        });
        let step = step_of(sized.collect());
        let moved = value.clone() * update.decay(parameter, self.weight_decay) - step;
        (update.unless_off(moved, value), vec![update.unless_off(momentum, old)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_sizes_by_hand() {
        let factors = |inputs, outputs| {
            [Scale::MatchRms, Scale::RmsOperator, Scale::Original].map(|scale| scale.factor(inputs, outputs))
        };
        assert_eq!(factors(4, 16), [0.8, 2.0, 2.0]);
        assert_eq!(factors(16, 4), [0.8, 0.5, 1.0]);
    }
}
