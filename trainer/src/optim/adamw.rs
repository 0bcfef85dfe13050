//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2): Adam with weight decay that
//! does not pass through the moments.

use burn::tensor::Tensor;
use moe_kernels::adamw::{AdamW, adamw};

use crate::model::parameters::Parameter;

/// Constants of the update.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWConfig {
    /// Memory of the mean of gradients.
    pub beta1: f64,
    /// Memory of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of matrices, per step and unit of learning rate.
    pub weight_decay: f64,
}

/// Both moments of one parameter, flat, in f32.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Decaying mean of gradients.
    pub first: Tensor<1>,
    /// Decaying mean of squared gradients.
    pub second: Tensor<1>,
}

impl Moments {
    /// Moments before the first step.
    pub fn zeros(parameter: &Parameter) -> Self {
        let zeros = parameter.value.zeros_like();
        Self { first: zeros.clone(), second: zeros }
    }
}

/// What one update needs besides parameter and gradient.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// Number of this update, from 1.
    pub number: u64,
    /// Learning rate.
    pub rate: f64,
    /// Factor of the gradient, from clipping.
    pub gradient_factor: f64,
    /// Whether weight decay applies.
    pub decay: bool,
}

impl Update {
    /// The numbers of the update formula; `correction2` is the root of that of the second moment.
    fn constants(&self, config: &AdamWConfig) -> AdamW {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = *config;
        let number = self.number.min(i32::MAX as u64) as i32;
        AdamW {
            beta1,
            beta2,
            eps,
            decay: if self.decay { 1.0 - self.rate * weight_decay } else { 1.0 },
            rate: self.rate,
            correction1: 1.0 - beta1.powi(number),
            correction2: (1.0 - beta2.powi(number)).sqrt(),
        }
    }
}

/// [`update`] on a GPU in one pass. `factor` `[1]` multiplies the gradient instead of
/// [`Update::gradient_factor`]; one that is not a number leaves everything as it was.
pub fn update_on_gpu(
    config: &AdamWConfig,
    value: Tensor<1>,
    gradient: Option<Tensor<1>>,
    moments: Moments,
    update: Update,
    factor: Tensor<1>,
) -> (Tensor<1>, Moments) {
    let constants = update.constants(config);
    let (value, first, second) = adamw(value, gradient, moments.first, moments.second, factor, constants);
    (value, Moments { first, second })
}

/// One update of one parameter. An absent gradient is a gradient of zero: the moments decay and
/// the parameter still moves by what they remember.
pub fn update(
    config: &AdamWConfig,
    value: Tensor<1>,
    gradient: Option<Tensor<1>>,
    moments: Moments,
    update: Update,
) -> (Tensor<1>, Moments) {
    let AdamW { beta1, beta2, eps, decay, rate, correction1, correction2 } = update.constants(config);
    let (mut first, mut second) = (moments.first * beta1, moments.second * beta2);
    if let Some(gradient) = gradient {
        let factor = update.gradient_factor;
        second = second + gradient.clone() * gradient.clone() * ((1.0 - beta2) * factor * factor);
        first = first + gradient * ((1.0 - beta1) * factor);
    }
    // The corrections of both moments, folded into the step and into eps:
    // (m / c1) / (sqrt(v / c2) + eps) = sqrt(c2) / c1 * m / (sqrt(v) + sqrt(c2) * eps).
    let step = first.clone() / second.clone().sqrt().add_scalar(eps * correction2);
    let value = value * decay - step * (rate * correction2 / correction1);
    (value, Moments { first, second })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::host;
    use burn::tensor::{Device, TensorData};

    const CONFIG: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 0.0, weight_decay: 0.1 };

    fn one(value: f32) -> Tensor<1> {
        Tensor::from_data(TensorData::from([value]), &Device::flex())
    }

    fn step(number: u64, gradient_factor: f64) -> Update {
        Update { number, rate: 0.5, gradient_factor, decay: true }
    }

    #[test]
    fn two_steps_by_hand() {
        let moments = Moments { first: one(0.0), second: one(0.0) };
        // The first step moves by exactly the rate, against the gradient: 2 * 0.95 - 0.5.
        let (value, moments) = update(&CONFIG, one(2.0), Some(one(3.0)), moments, step(1, 1.0));
        assert!((host(value.clone())[0] - 1.4).abs() < 1e-5);
        // m = 0.27, v = 0.0891; corrected m = 0.27 / 0.19, v = 0.0891 / 0.0199.
        let (value, moments) = update(&CONFIG, value, None, moments, step(2, 1.0));
        assert!((host(moments.first)[0] - 0.27).abs() < 1e-6);
        assert!((host(moments.second)[0] - 0.0891).abs() < 1e-6);
        let expected = 1.4 * 0.95 - 0.5 * (0.27 / 0.19) / (0.0891f32 / 0.0199).sqrt();
        assert!((host(value)[0] - expected).abs() < 1e-5);
    }

    #[test]
    fn the_factor_scales_the_gradient() {
        let start = || Moments { first: one(0.0), second: one(0.0) };
        let (_, clipped) = update(&CONFIG, one(2.0), Some(one(3.0)), start(), step(1, 0.5));
        let (_, small) = update(&CONFIG, one(2.0), Some(one(1.5)), start(), step(1, 1.0));
        assert_eq!(host(clipped.first), host(small.first));
        assert_eq!(host(clipped.second), host(small.second));
    }
}
