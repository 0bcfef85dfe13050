//! Products over the rows of ragged experts: dropless mixture-of-experts layers without padding
//! (Gale et al. 2022, MegaBlocks, arXiv 2211.15841, section 5).
//!
//! Rows are sorted by expert: expert `e` owns the rows `offsets[e]..offsets[e + 1]`. The offsets stay on the
//! device. The host knows only the number of rows, so it launches as many cubes as the worst distribution
//! needs (`rows / tile + experts + 1` tiles of rows); a small kernel, the plan, says which expert's rows each
//! tile has, and surplus cubes exit at once. No expert has a capacity, and none is padded beyond its last
//! tile.
//!
//! A cube computes one tile of the result from tiles of both factors in shared memory. Cubes of
//! consecutive numbers share the tile's rows, and soon its expert, so both stay in the L2 cache:
//! from main memory a product reads about its inputs once and writes its result once, which is
//! `rows * (k + n) + experts * k * n` elements. The gate and up products of SwiGLU share each tile
//! of x in shared memory and are combined before anything is written; its gradient of x sums both
//! products in registers. The gradient of the weights has one cube for each tile of each expert,
//! which adds the expert's rows in order: no atomics, and the same bits in every run.
//!
//! Two sets of kernels do the same: `plain` for every device, with 4 by 4 results in the registers
//! of each unit, and `tensor` for bf16 on devices with matrix units ("tensor cores").

use burn::tensor::{DType, FloatDType, Int, Tensor};

use crate::swiglu::swiglu_plain;

#[cfg(feature = "gpu")]
mod form;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod plain;
#[cfg(feature = "gpu")]
mod products;
#[cfg(feature = "gpu")]
mod tensor;

/// `y[r] = x[r] w[e(r)]`, where `e(r)` is the expert of row r; rows of no expert are 0.
///
/// Sums are f32. Weights of f32 with bf16 rows are rounded to bf16 once; their gradient is f32.
///
/// # Shapes
/// - x: `[rows, k]`, f32 or bf16, at least one row
/// - w: `[experts, k, n]`, f32 or the type of x
/// - offsets: `[experts + 1]`, rising from 0 to at most `rows`
/// - result: `[rows, n]`, the type of x
///
/// # Panics
/// If the shapes do not match.
pub fn grouped_matmul(x: Tensor<2>, w: Tensor<3>, offsets: Tensor<1, Int>) -> Tensor<2> {
    assert_shapes(&x, &w, &offsets);
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::grouped_matmul(x, w, offsets, gpu::Choice::Device);
    }
    grouped_matmul_plain(x, w, offsets)
}

/// `y[r] = silu(x[r] w_gate[e(r)]) * (x[r] w_up[e(r)])`, where `e(r)` is the expert of row r; rows
/// of no expert are 0 (SwiGLU: Shazeer 2020, arXiv 2002.05202, section 2).
///
/// Sums, and what follows them, are f32. Weights of f32 with bf16 rows are rounded to bf16 once;
/// their gradients are f32.
///
/// # Shapes
/// - x: `[rows, k]`, f32 or bf16, at least one row
/// - w_gate, w_up: `[experts, k, n]`, f32 or the type of x
/// - offsets: `[experts + 1]`, rising from 0 to at most `rows`
/// - result: `[rows, n]`, the type of x
///
/// # Panics
/// If the shapes do not match.
pub fn grouped_swiglu(
    x: Tensor<2>,
    w_gate: Tensor<3>,
    w_up: Tensor<3>,
    offsets: Tensor<1, Int>,
) -> Tensor<2> {
    assert_shapes(&x, &w_gate, &offsets);
    assert_eq!(w_gate.dims(), w_up.dims(), "both weights must have one shape");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::grouped_swiglu(x, w_gate, w_up, offsets, gpu::Choice::Device);
    }
    grouped_swiglu_plain(x, w_gate, w_up, offsets)
}

/// [`grouped_matmul`] by the kernels for tensor cores, with products in plain arithmetic: what tests
/// need on a GPU without tensor cores.
#[cfg(feature = "gpu")]
#[doc(hidden)]
pub fn grouped_matmul_emulated(x: Tensor<2>, w: Tensor<3>, offsets: Tensor<1, Int>) -> Tensor<2> {
    gpu::grouped_matmul(x, w, offsets, gpu::Choice::Emulated)
}

/// [`grouped_swiglu`] by the kernels for tensor cores, with products in plain arithmetic: what tests
/// need on a GPU without tensor cores.
#[cfg(feature = "gpu")]
#[doc(hidden)]
pub fn grouped_swiglu_emulated(
    x: Tensor<2>,
    w_gate: Tensor<3>,
    w_up: Tensor<3>,
    offsets: Tensor<1, Int>,
) -> Tensor<2> {
    gpu::grouped_swiglu(x, w_gate, w_up, offsets, gpu::Choice::Emulated)
}

/// [`grouped_matmul`] by plain operations, one expert after the other. Reads the offsets to the host.
pub fn grouped_matmul_plain(x: Tensor<2>, w: Tensor<3>, offsets: Tensor<1, Int>) -> Tensor<2> {
    let dtype = x.dtype();
    products(x, w, &bounds(offsets)).cast(dtype)
}

/// [`grouped_swiglu`] by plain operations, one expert after the other. Reads the offsets to the host.
pub fn grouped_swiglu_plain(
    x: Tensor<2>,
    w_gate: Tensor<3>,
    w_up: Tensor<3>,
    offsets: Tensor<1, Int>,
) -> Tensor<2> {
    let dtype = x.dtype();
    let bounds = bounds(offsets);
    let gate = products(x.clone(), w_gate, &bounds);
    swiglu_plain(gate, products(x, w_up, &bounds)).cast(dtype)
}

fn assert_shapes(x: &Tensor<2>, w: &Tensor<3>, offsets: &Tensor<1, Int>) {
    let [_, k] = x.dims();
    let [experts, w_k, _] = w.dims();
    assert_eq!(k, w_k, "columns of x and rows of the weights");
    assert_eq!(offsets.dims(), [experts + 1], "one offset for each expert, and the end");
}

fn bounds(offsets: Tensor<1, Int>) -> Vec<usize> {
    offsets.into_data().iter::<i64>().map(|offset| offset as usize).collect()
}

/// The products as f32.
fn products(x: Tensor<2>, w: Tensor<3>, bounds: &[usize]) -> Tensor<2> {
    let dtype: FloatDType = x.dtype().into();
    let ([rows, k], [_, _, n]) = (x.dims(), w.dims());
    let x = x.cast(FloatDType::F32);
    let w = w.cast(dtype).cast(FloatDType::F32);
    let end = bounds[bounds.len() - 1];
    let mut parts = Vec::new();
    for (expert, pair) in bounds.windows(2).enumerate().filter(|(_, pair)| pair[0] < pair[1]) {
        let w = w.clone().slice([expert..expert + 1, 0..k, 0..n]).reshape([k, n]);
        parts.push(x.clone().slice([pair[0]..pair[1], 0..k]).matmul(w));
    }
    if end < rows {
        parts.push(Tensor::zeros([rows - end, n], (&x.device(), DType::F32)));
    }
    let y = Tensor::cat(parts, 0);
    // Without any row of an expert, the zeros must still be part of the graph.
    if end == 0 { y + zero(x) + zero(w) } else { y }
}

/// 0, with gradients of 0.
fn zero<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let everywhere = Tensor::<D, Int>::zeros(x.dims(), &x.device()).equal_elem(0);
    x.mask_fill(everywhere, 0.0).sum().reshape([1, 1])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tensors(offsets: [i64; 3]) -> (Tensor<2>, Tensor<3>, Tensor<1, Int>) {
        let device = Device::flex().autodiff();
        let x = Tensor::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device).require_grad();
        let w = Tensor::from_data([[[1.0], [10.0]], [[100.0], [1000.0]]], &device).require_grad();
        (x, w, Tensor::from_data(offsets, &device))
    }

    fn check<const D: usize>(found: Tensor<D>, expected: &[f32]) {
        let found: Vec<f32> = found.into_data().try_into_vec().expect("f32");
        assert_eq!(found, expected);
    }

    #[test]
    fn rows_meet_the_weights_of_their_expert() {
        let (x, w, offsets) = tensors([0, 1, 3]);
        let y = grouped_matmul(x.clone(), w.clone(), offsets);
        check(y.clone(), &[21.0, 4300.0, 6500.0]);
        let grads = y.sum().backward();
        check(x.grad(&grads).expect("x"), &[1.0, 10.0, 100.0, 1000.0, 100.0, 1000.0]);
        check(w.grad(&grads).expect("w"), &[1.0, 2.0, 8.0, 10.0]);
    }

    #[test]
    fn empty_experts_have_no_gradient_and_rows_of_nobody_are_zero() {
        let (x, w, offsets) = tensors([0, 0, 2]);
        let y = grouped_matmul(x.clone(), w.clone(), offsets);
        check(y.clone(), &[2100.0, 4300.0, 0.0]);
        let grads = y.sum().backward();
        check(x.grad(&grads).expect("x"), &[100.0, 1000.0, 100.0, 1000.0, 0.0, 0.0]);
        check(w.grad(&grads).expect("w"), &[0.0, 0.0, 4.0, 6.0]);
    }

    #[test]
    fn no_rows_at_all() {
        let (x, w, offsets) = tensors([0, 0, 0]);
        let y = grouped_matmul(x.clone(), w.clone(), offsets);
        check(y.clone(), &[0.0; 3]);
        let grads = y.sum().backward();
        check(x.grad(&grads).expect("x"), &[0.0; 6]);
        check(w.grad(&grads).expect("w"), &[0.0; 4]);
    }

    #[test]
    fn swiglu_of_both_products() {
        let device = Device::flex();
        let x = Tensor::<2>::from_data([[1.0, 2.0], [0.0, 1.0], [9.0, 9.0]], &device);
        let w_gate = Tensor::<3>::from_data([[[1.0], [0.0]], [[0.0], [-1.0]]], &device);
        let w_up = Tensor::<3>::from_data([[[2.0], [1.0]], [[1.0], [2.0]]], &device);
        let offsets = Tensor::<1, Int>::from_data(TensorData::from([0i64, 1, 2]), &device);
        let y = grouped_swiglu(x, w_gate, w_up, offsets);
        let found: Vec<f32> = y.into_data().try_into_vec().expect("f32");
        // silu(1) * 4 and silu(-1) * 2
        for (found, expected) in found.iter().zip([2.9242343, -0.5378828, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "expected {expected}, found {found}");
        }
    }
}
