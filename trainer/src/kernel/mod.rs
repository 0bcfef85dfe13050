//! Operations that are much faster as one pass over memory than as the five to ten tensor
//! operations they stand for: the kernels of the CPU. Those of GPUs are the crate `moe-kernels`.
//!
//! Each has a hand-written backward, and is compared with the twin of plain tensor operations of
//! the kernel for GPUs. All results are independent of the number of threads: rows are computed
//! apart, and sums over rows are made in blocks of fixed size.

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

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::error::{Error, Result};

/// Which kernels compute a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Those of this module: routes and spans are made on the host.
    Host,
    /// Those of `moe-kernels`: nothing is read back to the host. On the CPU they are their twins of
    /// plain operations, for tests.
    Gpu,
}

impl Kernels {
    /// The kernels made for a device.
    pub fn of(device: &Device) -> Self {
        if device.clone().without_autodiff() == Device::flex() { Self::Host } else { Self::Gpu }
    }
}

/// Type of activations and products. Parameters, their gradients and moments, the router, softmax,
/// norms and the loss are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl Compute {
    /// The type as burn names it.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a value.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The values of an f32 tensor on the host. It waits for the device, so nothing inside of a training
/// step may call it but its end; every call is counted.
///
/// # Errors
/// What the device says: of a kernel that could not be compiled or launched, it says so when values are
/// read that depend on it.
pub fn read(tensor: Tensor<1>) -> Result<Vec<f32>> {
    READS.set(READS.get() + 1);
    let start = Instant::now();
    let data = tensor.try_into_data();
    WAITED.set(WAITED.get() + start.elapsed());
    let data = data.map_err(|error| {
        Error::Device(format!(
            "the device could not compute what a step needs; nothing of this step is kept.\n{error}"
        ))
    })?;
    // Cannot fail: all that is read is f32 by construction.
    Ok(data.try_into_vec().expect("f32 values"))
}

/// How often this thread has called [`read`].
pub fn reads() -> u64 {
    READS.get()
}

/// How long this thread has waited in [`read`].
pub fn waited() -> Duration {
    WAITED.get()
}

/// Whether the kernels of this module can compute this tensor: f32 on the CPU.
fn is_host(x: &Tensor<2>) -> bool {
    Kernels::of(&x.device()) == Kernels::Host && x.dtype() == DType::F32
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
