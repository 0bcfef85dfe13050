//! Products over the rows of ragged experts: expert e owns the rows `offsets[e]..offsets[e + 1]`, and no
//! row is padding.

mod gated;
mod tasks;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor};
use moe_kernels::grouped;
use rayon::prelude::*;

use super::Form;
use super::cpu::{Packed, View, rows, unwritten};
use super::flex::{shape2, tensor, values};
use super::linear::linear;
use super::routing::from_integers;
use super::swiglu::swiglu;
use crate::gradient_of_two;
use tasks::{Groups, of_matrices};

/// `y_r = x_r W_e(r)`, where e(r) is the expert of row r; rows of no expert are 0.
///
/// # Shapes
/// - x: `[rows, k]`
/// - w: `[experts, k, n]`
/// - offsets: `[experts + 1]`, ascending from 0 to at most `rows`
/// - result: `[rows, n]`
pub fn grouped_matmul(x: Tensor<2>, w: Tensor<3>, offsets: Tensor<1, Int>) -> Tensor<2> {
    match Form::of(&x) {
        Form::Plain => grouped::grouped_matmul_plain(x, w, offsets),
        Form::Gpu => grouped::grouped_matmul(x, w, offsets),
        Form::Cpu => {
            let (x, w, offsets) = (x.into_dispatch(), w.into_dispatch(), offsets.into_dispatch());
            Tensor::from_dispatch(Dispatch::k_grouped(x, w, offsets))
        }
    }
}

/// `silu(x_r W_gate,e(r)) * (x_r W_up,e(r))`; rows of no expert are 0.
///
/// # Shapes
/// As in [`grouped_matmul`].
pub fn grouped_swiglu(
    x: Tensor<2>,
    w_gate: Tensor<3>,
    w_up: Tensor<3>,
    offsets: Tensor<1, Int>,
) -> Tensor<2> {
    match Form::of(&x) {
        Form::Plain => grouped::grouped_swiglu_plain(x, w_gate, w_up, offsets),
        Form::Gpu => grouped::grouped_swiglu(x, w_gate, w_up, offsets),
        Form::Cpu => gated::gated(x, w_gate, w_up, offsets),
    }
}

/// `silu(x W_gate) * (x W_up)`.
///
/// # Shapes
/// - x: `[rows, k]`; w_gate, w_up: `[k, n]`
/// - result: `[rows, n]`
pub fn linear_swiglu(x: Tensor<2>, w_gate: Tensor<2>, w_up: Tensor<2>) -> Tensor<2> {
    match Form::of(&x) {
        Form::Cpu => {
            let all = from_integers(vec![0, x.dims()[0] as i64], [2], &x.device());
            gated::gated(x, w_gate.unsqueeze(), w_up.unsqueeze(), all)
        }
        Form::Plain | Form::Gpu => swiglu(linear(x.clone(), w_gate), linear(x, w_up)),
    }
}

/// The CPU form: experts in parallel on all threads, each value of a product by one of them.
#[backend_extension(Flex, Autodiff)]
trait GroupedRows: Backend {
    /// Rows of each group times the matrix of the group, `[groups, k, n]`.
    fn k_grouped(x: FloatTensor<Self>, w: FloatTensor<Self>, offsets: IntTensor<Self>) -> FloatTensor<Self>;
    /// Gradients of [`GroupedRows::k_grouped`].
    fn k_grouped_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

gradient_of_two!(GroupedRows: k_grouped, k_grouped_backward, (offsets: IntTensor<B>));

impl GroupedRows for Flex {
    fn k_grouped(x: FlexTensor, w: FlexTensor, offsets: IntTensor<Self>) -> FlexTensor {
        let ((n_rows, width), columns) = (shape2(&x), w.shape()[2]);
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let groups = Groups::new(&offsets, n_rows);
        let mut out = unwritten(n_rows * columns);
        let x = View::rows(values(&x), width);
        multiply(x, &groups.packed(values(&w), [width, columns], false), &groups, &mut out, columns);
        tensor(out, [n_rows, columns])
    }

    fn k_grouped_backward(
        x: FlexTensor,
        w: FlexTensor,
        grad: FlexTensor,
        offsets: IntTensor<Self>,
    ) -> (FlexTensor, FlexTensor) {
        let ((n_rows, width), shape) = (shape2(&x), w.shape());
        let (n_experts, columns) = (shape[0], shape[2]);
        let (x, w, grad) = (x.to_contiguous(), w.to_contiguous(), grad.to_contiguous());
        let groups = Groups::new(&offsets, n_rows);
        let mut d_x = unwritten(n_rows * width);
        let packed = groups.packed(values(&w), [width, columns], true);
        multiply(View::rows(values(&grad), columns), &packed, &groups, &mut d_x, width);
        let d_w = of_matrices(values(&x), values(&grad), [width, columns], &groups, n_experts);
        (tensor(d_x, [n_rows, width]), tensor(d_w, [n_experts, width, columns]))
    }
}

/// The rows of each group times its matrix.
fn multiply(x: View, packed: &[Packed], groups: &Groups, out: &mut [f32], columns: usize) {
    groups.tasks([(out, columns)]).into_par_iter().for_each(|task| {
        let [out] = task.outs;
        rows(x.from_row(task.first), &packed[task.group], out, false);
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, noise, routes};
    use super::*;

    #[test]
    fn the_fast_forms_equal_the_plain_ones() {
        let offsets = routes().offsets;
        check([3, 19, 5], |x, w| grouped_matmul(x, w, offsets.clone()));
        let up = noise(4, [3, 19, 5]);
        check([3, 19, 5], |x, gate| grouped_swiglu(x, gate, up.clone(), offsets.clone()));
        check([3, 19, 5], |x, up_too| grouped_swiglu(x, up.clone(), up_too, offsets.clone()));
        let up = noise(4, [19, 5]);
        check([19, 5], |x, gate| linear_swiglu(x, gate, up.clone()));
    }
}
