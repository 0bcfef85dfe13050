//! Kernels for mixture-of-experts training on GPUs, written in CubeCL.
//!
//! Each operation is one file: its kernels, their launches, its gradient, the function that a model calls,
//! and a plain form in tensor operations with the same meaning, which the tests compare it with. No kernel
//! adds floating-point numbers atomically, so every result is the same in every run on one device. Sums,
//! norms and exponentials are f32 regardless of the type of the tensors.
//!
//! The kernels need the feature `cuda` or `wgpu`; the plain forms need neither.

#![cfg_attr(not(feature = "fusion"), allow(unused_imports, reason = "shapes are named for fusion alone"))]

#[cfg(feature = "gpu")]
mod launch;
#[cfg(feature = "gpu")]
mod reduce;

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
pub mod grouped;
pub mod norm;
pub mod rotary;
pub mod routing;
pub mod rows;
pub mod swiglu;

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

/// Whether tensors of this device are computed by the kernels of this crate; the plain forms compute on
/// all others.
pub fn is_gpu(device: &Device) -> bool {
    cfg!(feature = "gpu") && device.clone().without_autodiff() != Device::flex()
}

static MAY_USE_TENSOR_CORES: AtomicBool = AtomicBool::new(true);

/// Sets whether kernels for tensor cores are used if the device has them (the default), for all devices of
/// the process. The plain kernels give the same results except for rounding.
pub fn allow_tensor_cores(is_allowed: bool) {
    MAY_USE_TENSOR_CORES.store(is_allowed, Ordering::Relaxed);
}

/// The last setting of [`allow_tensor_cores`].
pub fn may_use_tensor_cores() -> bool {
    MAY_USE_TENSOR_CORES.load(Ordering::Relaxed)
}
