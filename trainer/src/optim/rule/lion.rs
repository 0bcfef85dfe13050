//! Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2): steps of constant size, in the direction of a mean
//! of gradients.

use burn::tensor::Tensor;

use super::{Rule, Update};
use crate::model::parameters::Parameter;
use crate::settings;
use crate::settings::float;

settings! {
    /// Settings of Lion. Its learning rate is a third to a tenth of AdamW's, its decay 3 to 10 times as large
    /// (section 5 of the paper).
    pub struct Lion in "optim.lion" {
        /// memory of the mean of gradients that gives the direction of a step
        beta1: f64 = 0.9, float(0.0, 0.999_999);
        /// memory of the mean of gradients that is kept
        beta2: f64 = 0.99, float(0.0, 0.999_999);
        /// decay of matrices, including routers, per step and unit of learning rate; norms, biases,
        /// embeddings and the output projection have none
        weight_decay: f64 = 0.3, float(0.0, 10.0);
    }
}

impl Rule for Lion {
    /// Decaying mean of gradients.
    fn state(&self) -> &'static [&'static str] {
        &["m"]
    }

    fn update(
        &self,
        parameter: &Parameter,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        update: &Update,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let Self { beta1, beta2, weight_decay } = *self;
        let value = parameter.value.clone();
        let [old] = super::kept(state);
        let gradient = update.clipped(gradient);
        let direction = (old.clone() * beta1 + gradient.clone() * (1.0 - beta1)).sign();
        let mean = old.clone() * beta2 + gradient * (1.0 - beta2);
        let moved = value.clone() * update.decay(parameter, weight_decay) - direction * update.rate;
        (update.unless_off(moved, value), vec![update.unless_off(mean, old)])
    }
}
