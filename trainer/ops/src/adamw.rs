//! One update of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2), outside of the graph.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
pub use moe_kernels::adamw::AdamW;
use moe_kernels::adamw::adamw_plain;
use rayon::prelude::*;

use super::Form;
use super::cpu::vectorized;
use super::flex::{tensor as tensor_of, values};

/// Values per task.
const PIECE: usize = 1 << 14;

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

/// The factor is already on the host, and is folded into the constants.
fn adamw_on_cpu(
    value: Tensor<1>,
    gradient: Tensor<1>,
    [first, second]: [Tensor<1>; 2],
    factor: &Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let factor: f64 = factor.clone().into_data().iter().next().unwrap_or(f64::NAN);
    if !factor.is_finite() {
        return (value, [first, second]);
    }
    let steps = Steps::new(factor, constants);
    let [value, gradient, first, second] = [value, gradient, first, second].map(Tensor::into_dispatch);
    let (value, first, second) = Dispatch::k_adamw(value, gradient, first, second, steps);
    (Tensor::from_dispatch(value), [Tensor::from_dispatch(first), Tensor::from_dispatch(second)])
}

/// Constants of one update.
#[derive(Debug, Clone, Copy)]
struct Steps {
    keep: [f32; 2],
    take: [f32; 2],
    eps: f32,
    decay: f32,
    rate: f32,
}

impl Steps {
    /// The corrections of both moments, folded into the step and into eps:
    /// (m / c1) / (sqrt(v) / c2 + eps) = c2 / c1 * m / (sqrt(v) + c2 * eps).
    fn new(factor: f64, constants: AdamW) -> Self {
        let AdamW { beta1, beta2, eps, decay, rate, correction1, correction2 } = constants;
        Self {
            keep: [beta1 as f32, beta2 as f32],
            take: [((1.0 - beta1) * factor) as f32, ((1.0 - beta2) * factor * factor) as f32],
            eps: (eps * correction2) as f32,
            decay: decay as f32,
            rate: (rate * correction2 / correction1) as f32,
        }
    }

    /// The new values replace the gradient.
    #[inline(always)]
    fn run(self, value: &[f32], gradient: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let moments = first.iter_mut().zip(second);
        for ((value, gradient), (first, second)) in value.iter().zip(gradient).zip(moments) {
            *first = *first * self.keep[0] + *gradient * self.take[0];
            *second = *second * self.keep[1] + *gradient * *gradient * self.take[1];
            *gradient = value * self.decay - *first / (second.sqrt() + self.eps) * self.rate;
        }
    }
}

/// The CPU form: one pass, in the memory of gradient and moments if nothing else refers to it.
#[backend_extension(Flex)]
trait AdamWRows: Backend {
    /// The new value and moments.
    fn k_adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        steps: Steps,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AdamWRows for Flex {
    fn k_adamw(
        value: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        steps: Steps,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let value = value.to_contiguous();
        let value = values(&value);
        let [mut gradient, mut first, mut second] = [gradient, first, second].map(owned);
        let moments =
            first.storage_mut().par_chunks_mut(PIECE).zip(second.storage_mut().par_chunks_mut(PIECE));
        let pieces = value.par_chunks(PIECE).zip(gradient.storage_mut().par_chunks_mut(PIECE)).zip(moments);
        pieces.for_each(|((value, gradient), (first, second))| {
            vectorized(
                #[inline(always)]
                || steps.run(value, gradient, first, second),
            );
        });
        (gradient, first, second)
    }
}

/// A tensor whose memory has exactly its values.
fn owned(tensor: FlexTensor) -> FlexTensor {
    let n = tensor.shape().num_elements();
    match tensor.layout().contiguous_offsets() {
        Some((0, end)) if end == n && tensor.bytes().len() == 4 * n => tensor,
        _ => tensor_of(tensor.to_contiguous().as_slice().unwrap_or_default().to_vec(), [n]),
    }
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
        // The first step is exactly the rate, against the gradient: 2 * 0.95 - 0.5.
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
