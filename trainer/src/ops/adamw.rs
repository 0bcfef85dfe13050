//! One update of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2), outside of the graph.

use burn::tensor::Tensor;
pub use moe_kernels::adamw::AdamW;
use moe_kernels::adamw::adamw_plain;

use super::Form;

/// The new value and moments. With `g = factor * gradient`:
///
/// - `first = beta1 first + (1 - beta1) g`, `second = beta2 second + (1 - beta2) g^2`
/// - `value = decay value - rate (first / correction1) / (sqrt(second) / correction2 + eps)`
///
/// A factor that is not finite leaves value and moments as they are.
///
/// # Shapes
/// - value, gradient and moments: `[n]`, f32
/// - factor: `[1]`
pub fn adamw(
    value: Tensor<1>,
    gradient: Tensor<1>,
    moments: [Tensor<1>; 2],
    factor: &Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let form = Form::of(&value);
    if form == Form::Cpu {
        return adamw_on_cpu(value, gradient, moments, factor, constants);
    }
    let compute = match form {
        Form::Gpu => moe_kernels::adamw::adamw,
        Form::Plain | Form::Cpu => adamw_plain,
    };
    let ([first, second], factor) = (moments, factor.clone().cast(value.dtype()));
    let (value, first, second) = compute(value, Some(gradient), first, second, factor, constants);
    (value, [first, second])
}

/// The factor is on the host already, and joins the constants.
fn adamw_on_cpu(
    value: Tensor<1>,
    gradient: Tensor<1>,
    [first, second]: [Tensor<1>; 2],
    factor: &Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let AdamW { beta1, beta2, eps, decay, rate, correction1, correction2 } = constants;
    let factor: f64 = factor.clone().into_data().iter().next().unwrap_or(f64::NAN);
    if !factor.is_finite() {
        return (value, [first, second]);
    }
    let second = second * beta2 + gradient.clone() * gradient.clone() * ((1.0 - beta2) * factor * factor);
    let first = first * beta1 + gradient * ((1.0 - beta1) * factor);
    // The corrections of both moments, folded into the step and into eps:
    // (m / c1) / (sqrt(v) / c2 + eps) = c2 / c1 * m / (sqrt(v) + c2 * eps).
    let step = first.clone() / second.clone().sqrt().add_scalar(eps * correction2);
    let value = value * decay - step * (rate * correction2 / correction1);
    (value, [first, second])
}

#[cfg(test)]
mod tests {
    use super::super::plainly;
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

    fn check() {
        // The first step moves by exactly the rate, against the gradient: 2 * 0.95 - 0.5.
        let (value, moments) = adamw(one(2.0), one(6.0), [one(0.0), one(0.0)], &one(0.5), constants(1));
        assert!((host(value.clone()) - 1.4).abs() < 1e-5);
        // m = 0.27, v = 0.0891; corrected m = 0.27 / 0.19, v = 0.0891 / 0.0199.
        let (value, [first, second]) = adamw(value, one(0.0), moments, &one(1.0), constants(2));
        assert!((host(first) - 0.27).abs() < 1e-6);
        assert!((host(second) - 0.0891).abs() < 1e-6);
        let expected = 1.4 * 0.95 - 0.5 * (0.27 / 0.19) / (0.0891f32 / 0.0199).sqrt();
        assert!((host(value) - expected).abs() < 1e-5);
        for factor in [f32::NAN, f32::INFINITY] {
            let (value, [first, second]) =
                adamw(one(2.0), one(f32::NAN), [one(3.0), one(4.0)], &one(factor), constants(1));
            assert_eq!([host(value), host(first), host(second)], [2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn two_steps_by_hand_in_every_form() {
        check();
        plainly(check);
    }
}
