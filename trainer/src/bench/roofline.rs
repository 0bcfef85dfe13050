//! What the machine can do: copying, and one large dense product.

use burn::tensor::Tensor;

use super::{Setup, noise, time};
use crate::kernel::Kernels;

/// Measured limits.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Roofline {
    /// Bytes read and written by adding a number to every value of a large tensor, in GB/s.
    pub copy_gb_per_s: f64,
    /// A square product in the type of computation, in TFLOP/s.
    pub matmul_tflops: f64,
    /// Rows of that product.
    pub matmul_rows: usize,
}

impl Roofline {
    pub(super) fn measure(setup: &Setup) -> crate::Result<Self> {
        // A GPU needs more work than a CPU to show what it can do.
        let (copied, rows) = match setup.step.kernels {
            Kernels::Gpu => (1 << 28, 8192),
            // Below the size from which every allocation would fetch new pages.
            Kernels::Host => (1 << 22, 1024),
        };
        let device = &setup.device;
        let values = Tensor::<1>::zeros([copied], device);
        let seconds = time(device, setup.n_repeats, || values.clone() + 1.0)?;
        let copy_gb_per_s = (2 * 4 * copied) as f64 / seconds / 1e9;
        drop(values);
        let dtype = setup.geometry.compute.dtype();
        let [a, b] = ["a", "b"].map(|name| noise(name, [rows, rows], device).cast(dtype));
        let seconds = time(device, setup.n_repeats, || a.clone().matmul(b.clone()))?;
        let matmul_tflops = 2.0 * (rows as f64).powi(3) / seconds / 1e12;
        Ok(Self { copy_gb_per_s, matmul_tflops, matmul_rows: rows })
    }
}
