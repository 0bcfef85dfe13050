//! NorMuon (Li et al. 2025, arXiv 2510.05491, algorithm 1): Muon whose steps have the same size for each
//! output neuron over time. Everything but hidden matrices uses AdamW, as in Muon.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::muon::{Scale, is_hidden, orthogonal_momentum, step_of};
use super::{AdamWConfig, Rule, Update};
use crate::model::parameters::Parameter;
use crate::model::transfer::StepKind;
use crate::ops::newton_schulz::frobenius_norms;
use crate::settings;
use crate::settings::float;
use crate::settings::value::Kind;

settings! {
    /// Settings of NorMuon, and of AdamW for everything else.
    pub struct NorMuon in "optim.normuon" {
        /// memory of the sum of gradients
        momentum: f64 = 0.95, float(0.0, 0.999_999);
        /// whether a step looks ahead by its future momentum (Nesterov)
        nesterov: bool = true, Kind::Bool;
        /// memory of the mean square of each output neuron's steps
        neurons: f64 = 0.95, float(0.0, 0.999_999);
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

/// Added to roots and norms before dividing by them; a neuron's steps are of order 1.
const EPS: f64 = 1e-8;

impl Rule for NorMuon {
    /// Decaying sum of gradients, and decaying mean square of the steps of each output neuron.
    fn state(&self) -> &'static [&'static str] {
        &["momentum", "neurons"]
    }

    fn state_shape(&self, kind: &str, parameter: &Parameter) -> Vec<usize> {
        let mut shape = parameter.shape.clone();
        if let (Some(rows), "neurons") = (shape.len().checked_sub(2), kind) {
            shape[rows] = 1;
        }
        shape
    }

    fn instead(&self, parameter: &Parameter) -> Option<(&'static str, Arc<dyn Rule>)> {
        let Self { beta1, beta2, eps, weight_decay, .. } = *self;
        let adamw = AdamWConfig { beta1, beta2, eps, weight_decay };
        (!is_hidden(parameter, self.routers)).then(|| ("adamw", Arc::new(adamw) as Arc<dyn Rule>))
    }

    fn may_round(&self, name: &str) -> bool {
        name != "neurons"
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
        let [old_momentum, old_squares] = super::kept(state);
        let gradient = update.clipped(gradient);
        let (momentum, matrices) =
            orthogonal_momentum(parameter, gradient, old_momentum.clone(), self.momentum, self.nesterov);
        let columns = parameter.shape.last().copied().unwrap_or(1);
        let all_squares = old_squares.clone().reshape([-1, 1, columns as i32]);
        let (mut steps, mut squares) = (Vec::new(), Vec::new());
        for (columns, direction) in matrices {
            let [_, inputs, outputs] = direction.dims();
            let new_squares = (direction.clone() * direction.clone()).mean_dim(1);
            let old = all_squares.clone().narrow(2, columns.start, columns.len());
            let new = old * self.neurons + new_squares * (1.0 - self.neurons);
            let norm = frobenius_norms(direction.clone());
            let direction = direction / (new.clone().sqrt() + EPS);
            // The step of the whole matrix keeps its length.
            let direction = direction.clone() * (norm / (frobenius_norms(direction) + EPS));
            steps.push(direction * (update.rate * self.scale.factor(inputs, outputs)));
            squares.push(new);
        }
        let moved = value.clone() * update.decay(parameter, self.weight_decay) - step_of(steps);
        let squares = step_of(squares);
        let state = vec![update.unless_off(momentum, old_momentum), update.unless_off(squares, old_squares)];
        (update.unless_off(moved, value), state)
    }
}
