//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) as one kernel, and the sum of
//! squares that clipping by the norm needs.
//!
//! Element by element: value, gradient and both moments are read once, value and moments written once, 28
//! bytes for each parameter (26 with a bf16 gradient), into their own buffers if nothing else refers to them.
//! The clipping factor stays on the device, so that no step waits for the norm; if it is not finite, nothing
//! changes. The sum of squares is added by a number of cubes that depends only on the size, then by one cube:
//! the same bits in every run on one device.

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod kernels;

use burn::tensor::{FloatDType, Tensor};

/// Constants of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Memory of the mean of gradients.
    pub beta1: f64,
    /// Memory of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the corrected second moment.
    pub eps: f64,
    /// Factor of the value: `1 - rate * weight_decay`, or 1 without decay.
    pub decay: f64,
    /// Learning rate.
    pub rate: f64,
    /// `1 - beta1^t` for update number t, from 1.
    pub correction1: f64,
    /// `sqrt(1 - beta2^t)`.
    pub correction2: f64,
}

/// The same with fewer multiplications for each element, in f32.
#[derive(Debug, Clone, Copy)]
struct Scalars {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    decay: f32,
    step: f32,
}

impl AdamW {
    /// The corrections of both moments, folded into the step and into eps:
    /// `(m / c1) / (sqrt(v) / c2 + eps) = c2 / c1 * m / (sqrt(v) + c2 * eps)`.
    fn scalars(&self) -> Scalars {
        Scalars {
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            eps: (self.eps * self.correction2) as f32,
            decay: self.decay as f32,
            step: (self.rate * self.correction2 / self.correction1) as f32,
        }
    }
}

/// The sum of the squares of all elements, in f32.
///
/// # Shapes
/// - x: `[n]`, f32 or bf16
/// - result: `[1]`, f32
pub fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::sum_of_squares(x);
    }
    sum_of_squares_plain(x)
}

/// [`sum_of_squares`] by plain operations.
pub fn sum_of_squares_plain(x: Tensor<1>) -> Tensor<1> {
    let x = x.cast(FloatDType::F32);
    (x.clone() * x).sum()
}

/// One update of parameters: the new value and moments. With `g = factor * gradient`:
///
/// - `first = beta1 first + (1 - beta1) g`, `second = beta2 second + (1 - beta2) g^2`
/// - `value = decay value - rate (first / correction1) / (sqrt(second) / correction2 + eps)`
///
/// An absent gradient is a gradient of zero: the moments decay and the parameters still move by
/// what they remember. A factor that is not finite leaves value and moments as they are. Called
/// outside of autodiff; no gradient.
///
/// # Shapes
/// - value, first, second: `[n]`, f32
/// - gradient: `[n]`, f32 or bf16
/// - factor: `[1]`, f32
///
/// # Panics
/// When the shapes do not agree, and on a GPU when anything but the gradient is not f32.
pub fn adamw(
    value: Tensor<1>,
    gradient: Option<Tensor<1>>,
    first: Tensor<1>,
    second: Tensor<1>,
    factor: Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let n = value.dims();
    assert_eq!((first.dims(), second.dims(), factor.dims()), (n, n, [1]), "shapes for a value {n:?}");
    assert!(
        gradient.as_ref().is_none_or(|gradient| gradient.dims() == n),
        "a gradient is not of shape {n:?}"
    );
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&value.device()) {
        return gpu::adamw(value, gradient, first, second, factor, constants);
    }
    adamw_plain(value, gradient, first, second, factor, constants)
}

/// [`adamw`] by plain operations.
pub fn adamw_plain(
    value: Tensor<1>,
    gradient: Option<Tensor<1>>,
    first: Tensor<1>,
    second: Tensor<1>,
    factor: Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let Scalars { beta1, rest1, beta2, rest2, eps, decay, step } = constants.scalars();
    let gradient = match gradient {
        Some(gradient) => gradient.cast(FloatDType::F32) * factor.clone(),
        None => value.zeros_like(),
    };
    let new_first = first.clone() * beta1 + gradient.clone() * rest1;
    let new_second = second.clone() * beta2 + gradient.clone() * gradient * rest2;
    let ratio = new_first.clone() / new_second.clone().sqrt().add_scalar(eps);
    let new_value = value.clone() * decay - ratio * step;
    let is_off = factor.is_finite().bool_not().expand(value.dims());
    (
        new_value.mask_where(is_off.clone(), value),
        new_first.mask_where(is_off.clone(), first),
        new_second.mask_where(is_off, second),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn one(value: f32) -> Tensor<1> {
        Tensor::from_data([value], &Device::flex())
    }

    fn host(x: Tensor<1>) -> f32 {
        x.into_scalar()
    }

    /// Update number t with betas 0.9 and 0.99, a rate of 0.5 and a decay of 0.1.
    fn constants(t: i32) -> AdamW {
        let correction1 = 1.0 - 0.9f64.powi(t);
        let correction2 = (1.0 - 0.99f64.powi(t)).sqrt();
        AdamW { beta1: 0.9, beta2: 0.99, eps: 0.0, decay: 0.95, rate: 0.5, correction1, correction2 }
    }

    #[test]
    fn two_steps_by_hand() {
        // The first step is exactly the rate, against the gradient: 2 * 0.95 - 0.5.
        let (value, first, second) =
            adamw(one(2.0), Some(one(6.0)), one(0.0), one(0.0), one(0.5), constants(1));
        assert!((host(value.clone()) - 1.4).abs() < 1e-5);
        // m = 0.27, v = 0.0891; corrected m = 0.27 / 0.19, v = 0.0891 / 0.0199.
        let (value, first, second) = adamw(value, None, first, second, one(1.0), constants(2));
        assert!((host(first) - 0.27).abs() < 1e-6);
        assert!((host(second) - 0.0891).abs() < 1e-6);
        let expected = 1.4 * 0.95 - 0.5 * (0.27 / 0.19) / (0.0891f32 / 0.0199).sqrt();
        assert!((host(value) - expected).abs() < 1e-5);
    }

    #[test]
    fn a_factor_that_is_not_finite_changes_nothing() {
        for factor in [f32::NAN, f32::INFINITY] {
            let (value, first, second) =
                adamw(one(2.0), Some(one(f32::NAN)), one(3.0), one(4.0), one(factor), constants(1));
            assert_eq!([host(value), host(first), host(second)], [2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn squares_add_up() {
        let x = Tensor::from_data([3.0f32, -4.0], &Device::flex());
        assert_eq!(host(sum_of_squares(x)), 25.0);
    }
}
