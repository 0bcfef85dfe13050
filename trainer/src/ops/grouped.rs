//! Products over the rows of ragged experts: expert e owns the rows `offsets[e]..offsets[e + 1]`, and no
//! row is padding.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape, Slice, Tensor};
use moe_kernels::grouped;

use super::Form;
use super::flex::{integers, shape2, tensor, values};
use super::swiglu::swiglu;
use crate::gradient_of_two;

/// `y_r = x_r W_e(r)`, where e(r) is the expert of row r; rows of no expert are 0.
///
/// # Shapes
/// - x: `[rows, k]`
/// - w: `[experts, k, n]`
/// - offsets: `[experts + 1]`, rising from 0 to at most `rows`
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
        Form::Cpu => {
            let gate = grouped_matmul(x.clone(), w_gate, offsets.clone());
            swiglu(gate, grouped_matmul(x, w_up, offsets))
        }
    }
}

/// The form of the CPU: one product of burn for each expert that has rows.
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
        let columns = w.shape()[2];
        let (n_rows, _) = shape2(&x);
        let parts = groups(&offsets)
            .into_iter()
            .map(|(expert, rows)| Self::float_matmul(row_slice(x.clone(), rows), matrix(w.clone(), expert)));
        concatenate(parts.collect(), [n_rows, columns])
    }

    fn k_grouped_backward(
        x: FlexTensor,
        w: FlexTensor,
        grad: FlexTensor,
        offsets: IntTensor<Self>,
    ) -> (FlexTensor, FlexTensor) {
        let (n_rows, columns) = shape2(&x);
        let shape = w.shape();
        let (n_experts, size) = (shape[0], shape[1] * shape[2]);
        let mut d_w = vec![0.0f32; n_experts * size];
        let mut d_x = Vec::new();
        for (expert, rows) in groups(&offsets) {
            let (x, grad) = (row_slice(x.clone(), rows.clone()), row_slice(grad.clone(), rows));
            let transposed = Self::float_transpose(matrix(w.clone(), expert));
            d_x.push(Self::float_matmul(grad.clone(), transposed));
            let product = Self::float_matmul(Self::float_transpose(x), grad).to_contiguous();
            d_w[expert * size..(expert + 1) * size].copy_from_slice(values(&product));
        }
        (concatenate(d_x, [n_rows, columns]), tensor(d_w, [n_experts, shape[1], shape[2]]))
    }
}

/// Experts that have rows, with those rows.
fn groups(offsets: &FlexTensor) -> Vec<(usize, Range<usize>)> {
    let offsets = offsets.to_contiguous();
    let offsets = integers(&offsets);
    let bounds = offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize);
    bounds.enumerate().filter(|(_, rows)| !rows.is_empty()).collect()
}

fn row_slice(x: FlexTensor, rows: Range<usize>) -> FlexTensor {
    let columns = x.shape()[1];
    Flex::float_slice(x, &[Slice::from(rows), Slice::from(0..columns)])
}

fn matrix(w: FlexTensor, expert: usize) -> FlexTensor {
    let shape = w.shape();
    let slices = [Slice::from(expert..expert + 1), Slice::from(0..shape[1]), Slice::from(0..shape[2])];
    Flex::float_reshape(Flex::float_slice(w, &slices), Shape::from([shape[1], shape[2]]))
}

/// The parts one below the other, and zeros up to `n_rows`.
fn concatenate(mut parts: Vec<FlexTensor>, [n_rows, columns]: [usize; 2]) -> FlexTensor {
    let found: usize = parts.iter().map(|part| part.shape()[0]).sum();
    if found < n_rows {
        parts.push(tensor(vec![0.0; (n_rows - found) * columns], [n_rows - found, columns]));
    }
    Flex::float_cat(parts, 0)
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
    }
}
