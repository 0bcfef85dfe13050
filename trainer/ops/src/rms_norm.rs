//! Root-mean-square normalization (Zhang & Sennrich 2019, arXiv 1910.07467, section 3).

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::Form;
use super::cpu::{unwritten, vectorized};
use super::flex::{BLOCK_ROWS, dot, fill_rows, row, shape2, tensor, values};
use crate::gradient_of_two;

/// `x / sqrt(mean(x^2) + eps) * weight` for each row, in f32.
///
/// # Shapes
/// - x: `[rows, columns]`, and so is the result
/// - weight: `[columns]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    match Form::of(&x) {
        Form::Plain => moe_kernels::norm::rms_norm_plain(x, weight, eps),
        Form::Cpu => {
            Tensor::from_dispatch(Dispatch::k_rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
        }
        Form::Gpu => moe_kernels::norm::rms_norm(x, weight, eps),
    }
}

/// The CPU form. Matrices are `[rows, columns]`.
#[backend_extension(Flex, Autodiff)]
trait RmsNormRows: Backend {
    /// `x / rms(x) * weight` for each row.
    fn k_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
    /// Gradients of [`RmsNormRows::k_rms_norm`].
    fn k_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

gradient_of_two!(RmsNormRows: k_rms_norm, k_rms_norm_backward, (eps: f64));

impl RmsNormRows for Flex {
    fn k_rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        let (rows, columns) = shape2(&x);
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let (x, weight) = (values(&x), values(&weight));
        fill_rows(
            [rows, columns],
            #[inline(always)]
            |i, out| {
                let x = row(x, i, columns);
                let inverse = inverse_rms(x, eps);
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * inverse * weight;
                }
            },
        )
    }

    /// With `r = 1 / rms(x)` and `h = grad * weight`:
    /// `dx = r h - r^3 x mean(h x)` and `dweight = sum_rows(grad x r)`.
    fn k_rms_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        eps: f64,
    ) -> (FlexTensor, FlexTensor) {
        let (rows, columns) = shape2(&x);
        let (x, weight, grad) = (x.to_contiguous(), weight.to_contiguous(), grad.to_contiguous());
        let (x, weight, grad) = (values(&x), values(&weight), values(&grad));
        let mut d_x = unwritten(rows * columns);
        let size = BLOCK_ROWS * columns;
        let partial = d_x.par_chunks_mut(size).enumerate().map(|(block, d_x)| {
            let mut d_weight = vec![0.0f32; columns];
            let at = block * size..block * size + d_x.len();
            vectorized(
                #[inline(always)]
                || backward_rows(d_x, &mut d_weight, &x[at.clone()], &grad[at], weight, eps),
            );
            d_weight
        });
        let mut d_weight = vec![0.0f32; columns];
        // Collected in block order, then added one after the other.
        for block in partial.collect::<Vec<_>>() {
            d_weight.iter_mut().zip(block).for_each(|(sum, value)| *sum += value);
        }
        (tensor(d_x, [rows, columns]), tensor(d_weight, [columns]))
    }
}

/// The gradient of some rows, and their contribution to that of the weight.
#[inline(always)]
fn backward_rows(d_x: &mut [f32], d_weight: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32], eps: f64) {
    let columns = weight.len();
    let rows = x.chunks_exact(columns).zip(grad.chunks_exact(columns));
    for (d_x, (x, grad)) in d_x.chunks_exact_mut(columns).zip(rows) {
        let r = inverse_rms(x, eps);
        // First the products of gradient and weight, then the correction by the mean.
        for ((d_x, grad), weight) in d_x.iter_mut().zip(grad).zip(weight) {
            *d_x = grad * weight;
        }
        let slope = r * r * r * dot(d_x, x) / columns as f32;
        for (d_x, x) in d_x.iter_mut().zip(x) {
            *d_x = r * *d_x - slope * x;
        }
        for ((d_weight, grad), x) in d_weight.iter_mut().zip(grad).zip(x) {
            *d_weight += grad * x * r;
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f64) -> f32 {
    (dot(x, x) / x.len() as f32 + eps as f32).sqrt().recip()
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        check([19], |x, w| rms_norm(x, w, 1e-5));
    }
}
