//! The gated unit SwiGLU (Shazeer 2020, arXiv 2002.05202, section 2): `silu(gate) * up`.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::Form;
use super::cpu::{unwritten, vectorized};
use super::flex::{BLOCK_ROWS, fill_rows, row, shape2, sigmoid, tensor, values};
use crate::gradient_of_two;

/// `silu(gate) * up`, element by element.
///
/// # Shapes
/// - gate, up: `[rows, columns]`, and so is the result
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match Form::of(&gate) {
        Form::Plain => moe_kernels::swiglu::swiglu_plain(gate, up),
        Form::Cpu => Tensor::from_dispatch(Dispatch::k_swiglu(gate.into_dispatch(), up.into_dispatch())),
        Form::Gpu => moe_kernels::swiglu::swiglu(gate, up),
    }
}

/// The CPU form. Matrices are `[rows, columns]`.
#[backend_extension(Flex, Autodiff)]
trait SwiGluRows: Backend {
    /// `silu(gate) * up`.
    fn k_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Gradients of [`SwiGluRows::k_swiglu`].
    fn k_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

gradient_of_two!(SwiGluRows: k_swiglu, k_swiglu_backward, ());

/// `silu(gate) * up`.
#[inline(always)]
pub(super) fn swiglu_rows(out: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate * sigmoid(gate) * up;
    }
}

/// Gradients of gate and up from gate, up and the gradient of the result.
#[inline(always)]
pub(super) fn swiglu_backward_rows([d_gate, d_up]: [&mut [f32]; 2], [gate, up, grad]: [&[f32]; 3]) {
    let inputs = gate.iter().zip(up).zip(grad);
    for ((d_gate, d_up), ((&gate, &up), &grad)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
        let sigmoid = sigmoid(gate);
        *d_up = grad * gate * sigmoid;
        *d_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
    }
}

impl SwiGluRows for Flex {
    fn k_swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (rows, columns) = shape2(&gate);
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let (gate, up) = (values(&gate), values(&up));
        fill_rows(
            [rows, columns],
            #[inline(always)]
            |i, out| swiglu_rows(out, row(gate, i, columns), row(up, i, columns)),
        )
    }

    fn k_swiglu_backward(gate: FlexTensor, up: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (rows, columns) = shape2(&gate);
        let (gate, up, grad) = (gate.to_contiguous(), up.to_contiguous(), grad.to_contiguous());
        let (gate, up, grad) = (values(&gate), values(&up), values(&grad));
        let (mut d_gate, mut d_up) = (unwritten(rows * columns), unwritten(rows * columns));
        let size = BLOCK_ROWS * columns;
        let outputs = d_gate.par_chunks_mut(size).zip(d_up.par_chunks_mut(size));
        outputs.enumerate().for_each(|(block, (d_gate, d_up))| {
            let at = block * size..block * size + d_gate.len();
            vectorized(
                #[inline(always)]
                || swiglu_backward_rows([d_gate, d_up], [&gate[at.clone()], &up[at.clone()], &grad[at]]),
            );
        });
        (tensor(d_gate, [rows, columns]), tensor(d_up, [rows, columns]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        check([131, 19], swiglu);
    }
}
