//! Gradient descent with momentum (Polyak 1964; Nesterov 1983 in the form of Sutskever et al. 2013), with
//! decay as part of the gradient, as in PyTorch.

use burn::tensor::Tensor;

use super::{Rule, Update};
use crate::model::parameters::Parameter;
use crate::model::transfer::StepKind;
use crate::settings;
use crate::settings::float;
use crate::settings::value::Kind;

settings! {
    /// Settings of gradient descent.
    pub struct Sgd in "optim.sgd" {
        /// memory of the sum of gradients; 0 means none
        momentum: f64 = 0.9, float(0.0, 0.999_999);
        /// whether a step looks ahead by its future momentum (Nesterov)
        nesterov: bool = false, Kind::Bool;
        /// fraction of the value that is added to the gradient of matrices; norms, biases, embeddings and the
        /// output projection have none
        weight_decay: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Rule for Sgd {
    /// Decaying sum of gradients.
    fn state(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn kind(&self) -> StepKind {
        StepKind::Gradient
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
        let clipped = update.clipped(gradient);
        let gradient = match parameter.is_decayed() && self.weight_decay > 0.0 {
            true => clipped + value.clone() * (self.weight_decay * update.multipliers.decay),
            false => clipped,
        };
        let momentum = old.clone() * self.momentum + gradient.clone();
        let step = if self.nesterov { gradient + momentum.clone() * self.momentum } else { momentum.clone() };
        let moved = value.clone() - step * update.rate;
        (update.unless_off(moved, value), vec![update.unless_off(momentum, old)])
    }
}
