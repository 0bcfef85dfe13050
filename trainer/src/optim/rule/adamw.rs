//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2): Adam with weight decay that
//! bypasses the moments.

use burn::tensor::Tensor;

use super::{Rule, Update};
use crate::model::parameters::Parameter;
use crate::ops::adamw::{AdamW, adamw};
use crate::settings;
use crate::settings::float;

settings! {
    /// Constants of the update.
    pub struct AdamWConfig in "optim" {
        /// memory of the mean of gradients
        beta1: f64 = 0.9, float(0.0, 0.999_999);
        /// memory of the mean of squared gradients
        beta2: f64 = 0.95, float(0.0, 0.999_999);
        /// added to the root of the second moment
        eps: f64 = 1e-8, float(1e-20, 1.0);
        /// decay of matrices, including routers, per step and unit of learning rate; norms, biases,
        /// embeddings and the output projection have none
        weight_decay: f64 = 0.1, float(0.0, 10.0);
    }
}

impl Rule for AdamWConfig {
    /// Decaying means of gradients and of squared gradients.
    fn state(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn may_round(&self, name: &str) -> bool {
        name != "v"
    }

    fn update(
        &self,
        parameter: &Parameter,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        update: &Update,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let Self { beta1, beta2, eps, weight_decay } = *self;
        let number = update.number.min(i32::MAX as u64) as i32;
        let constants = AdamW {
            beta1,
            beta2,
            eps: eps * update.multipliers.eps,
            decay: update.decay(parameter, weight_decay),
            rate: update.rate,
            correction1: 1.0 - beta1.powi(number),
            correction2: (1.0 - beta2.powi(number)).sqrt(),
        };
        let moments = super::kept(state);
        let (value, moments) = adamw(parameter.value.clone(), gradient, moments, update.factor, constants);
        (value, moments.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::host;
    use crate::model::transfer::Multipliers;
    use burn::tensor::{Device, TensorData};

    fn one(value: f32) -> Tensor<1> {
        Tensor::from_data(TensorData::from([value]), &Device::flex())
    }

    /// Value and moments after the first update of a parameter with value 2 by a gradient of 3.
    fn first_update(name: &str, shape: &[usize], factor: f32) -> [f32; 3] {
        let adamw = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 0.0, weight_decay: 0.1 };
        let parameter =
            Parameter { name: name.into(), shape: shape.to_vec(), value: one(2.0), widths: Vec::new() };
        let update =
            Update { number: 1, rate: 0.5, factor: &one(factor), multipliers: Multipliers::default() };
        let (value, state) = adamw.update(&parameter, one(3.0), vec![one(0.0); 2], &update);
        [value, state[0].clone(), state[1].clone()].map(|x| host(x)[0])
    }

    #[test]
    fn the_first_update_moves_by_the_rate_and_decays_matrices() {
        // The moments are those of the clipped gradient 1.5; the value moves by the learning rate regardless.
        let close = |found: [f32; 3], value: f32| {
            let wanted = [value, 0.15, 0.0225];
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {wanted:?}");
        };
        close(first_update("w_up", &[1, 1], 0.5), 2.0 * 0.95 - 0.5);
        close(first_update("norm.weight", &[1], 0.5), 2.0 - 0.5);
        close(first_update("embedding", &[1, 1], 0.5), 2.0 - 0.5);
    }
}
