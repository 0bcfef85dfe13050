//! Operations that are much faster as one pass over memory than as the five to ten tensor
//! operations they stand for. They exist for the CPU, whose time goes into such passes.
//!
//! Each has a hand-written backward, and a twin of plain tensor operations beside it: other devices
//! run the twin, and the tests compare the two. All results are independent of the number of
//! threads: rows are computed apart, and sums over rows are made in blocks of fixed size.

mod attention;
mod autodiff;
mod grouped;
mod host;
mod ops;
mod routes;

pub use attention::{Angles, Spans, attention_softmax, rotate};
pub use grouped::grouped_matmul;
pub use ops::{rms_norm, softmax_and_log_sum, swiglu};
pub use routes::{Routes, combine_rows, gather_rows};

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::Device;

/// Whether tensors of this device are computed by the kernels of this module.
pub fn is_host(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// The kernels, as an extension of burn's CPU backend. Matrices are `[rows, columns]`.
#[backend_extension(Flex, Autodiff)]
pub trait HostKernels: Backend {
    /// Softmax of each row, and the logarithm of its sum of exponentials.
    fn k_softmax(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Softmax of each row of attention scores, times `scale`, over the keys it may see; 0 elsewhere.
    fn k_attention(x: FloatTensor<Self>, spans: Arc<Spans>, scale: f64) -> FloatTensor<Self>;
    /// Gradient of [`HostKernels::k_attention`] from its output.
    fn k_attention_backward(
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spans: Arc<Spans>,
        scale: f64,
    ) -> FloatTensor<Self>;
    /// Turns pairs of channels by the angles of their token, or back.
    fn k_rotate(x: FloatTensor<Self>, angles: Arc<Angles>, is_back: bool) -> FloatTensor<Self>;
    /// `silu(gate) * up`.
    fn k_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Gradients of [`HostKernels::k_swiglu`].
    fn k_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// `x / rms(x) * weight` for each row.
    fn k_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
    /// Gradients of [`HostKernels::k_rms_norm`].
    fn k_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The token of each row.
    fn k_gather(x: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self>;
    /// For each token the sum of its rows.
    fn k_gather_backward(grad: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self>;
    /// For each token the weighted sum of its rows.
    fn k_combine(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> FloatTensor<Self>;
    /// Gradients of [`HostKernels::k_combine`].
    fn k_combine_backward(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Rows of each group times the matrix of the group, `[groups, k, n]`.
    fn k_grouped(x: FloatTensor<Self>, w: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self>;
    /// Gradients of [`HostKernels::k_grouped`].
    fn k_grouped_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}
