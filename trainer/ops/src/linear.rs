//! A product with a parameter.

use burn::tensor::{DType, FloatDType, Tensor};

use super::matmul::matmul;

/// `x w` in the type of x: parameters are f32, activations may be bf16. The gradient of `w` is f32.
///
/// # Shapes
/// - x: `[rows, k]`
/// - w: `[k, n]`
/// - result: `[rows, n]`
pub fn linear(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let w = cast_like(w, &x);
    matmul(x, w)
}

/// The tensor in f32.
pub fn cast_f32<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(FloatDType::F32) }
}

/// The tensor in the type of another one.
pub fn cast_like<const D: usize>(tensor: Tensor<D>, like: &Tensor<2>) -> Tensor<D> {
    if tensor.dtype() == like.dtype() { tensor } else { tensor.cast(like.dtype()) }
}
