//! Operations: the definition of each, and which form of it is used.
//!
//! One file is one operation. Its plain form, in burn's tensor operations, is the definition: it works on
//! every device and is differentiated by burn. There may also be fast forms with hand-written gradients: one
//! for the CPU, as loops over rows, and one for GPUs, a kernel in `moe-kernels`, which also has the plain
//! form of such an operation. Tests compare every fast form with the plain one.
//!
//! This crate decides which form computes a tensor; nothing above it knows. All results are independent of
//! the number of threads: rows are computed separately, and sums over rows are made in blocks of fixed size.

pub mod adamw;
pub mod attention;
pub mod cpu;
pub mod cross_entropy;
pub mod delta_rule;
pub mod embedding;
pub mod flex;
pub mod global_norm;
pub mod grouped;
pub mod linear;
pub mod matmul;
pub mod native_sparse;
pub mod newton_schulz;
pub mod random;
pub mod rms_norm;
pub mod rotary;
pub mod routing;
pub mod row_functions;
pub mod rows;
pub mod short_conv;
pub mod swiglu;

use std::cell::Cell;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, FloatDType, Tensor};

/// Type of activations and products. Parameters, their gradients and moments, the router, softmax,
/// norms and the loss are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// The forms of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Tensor operations.
    Plain,
    /// Loops over rows, for f32 on the CPU.
    Cpu,
    /// A kernel of `moe-kernels`.
    Gpu,
}

impl Form {
    /// The form that computes tensors of this device: the fastest, unless [`plainly`] asks otherwise.
    pub fn on(device: &Device) -> Self {
        if IS_PLAIN.get() {
            Self::Plain
        } else if is_cpu(device) {
            Self::Cpu
        } else if moe_kernels::is_gpu(device) {
            Self::Gpu
        } else {
            Self::Plain
        }
    }

    /// The form that computes this tensor: those for the CPU only support f32.
    pub fn of<const D: usize>(x: &Tensor<D>) -> Self {
        match Self::on(&x.device()) {
            Self::Cpu if x.dtype() != DType::F32 => Self::Plain,
            form => form,
        }
    }
}

thread_local! {
    static IS_PLAIN: Cell<bool> = const { Cell::new(false) };
    static READS: Cell<u64> = const { Cell::new(0) };
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Computes with plain forms only: within `call`, this thread follows the definitions,
/// to test the other forms and to find out whether one of them is wrong.
pub fn plainly<T>(call: impl FnOnce() -> T) -> T {
    /// Restores the flag even if `call` panics.
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_PLAIN.set(self.0);
        }
    }
    let _reset = Reset(IS_PLAIN.replace(true));
    call()
}

/// Name of the order in which a device adds contributions to a parameter: runs with the same order and
/// configuration make the same steps, bit for bit. All processors share one, except for sums by burn, which
/// `docs/determinism.md` lists; what GPUs have in common has not been measured.
pub fn arithmetic(device: &Device) -> &'static str {
    if is_cpu(device) { cpu::ARITHMETIC } else { "gpu" }
}

/// Whether a device is the CPU, whose values are already on the host.
pub fn is_cpu(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// The values of an f32 tensor on the host. It waits for the device, so within a training step
/// only its end may call it; every call is counted.
///
/// # Errors
/// If the device reports an error: that a kernel could not be compiled or launched is reported when values
/// that depend on it are read.
pub fn read(tensor: Tensor<1>) -> Result<Vec<f32>, DeviceFailed> {
    READS.set(READS.get() + 1);
    let start = Instant::now();
    let data = tensor.try_into_data();
    WAITED.set(WAITED.get() + start.elapsed());
    let data = data.map_err(|error| DeviceFailed(error.to_string()))?;
    // Cannot fail: everything that is read is f32 by construction.
    Ok(data.try_into_vec().expect("f32 values"))
}

/// The device could not compile or launch a kernel; its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFailed(pub String);

/// How often this thread has called [`read`].
pub fn reads() -> u64 {
    READS.get()
}

/// How long this thread has waited in [`read`].
pub fn waited() -> Duration {
    WAITED.get()
}

/// A few values in the widest type that costs nothing: f64 on the CPU, f32 elsewhere.
pub fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_cpu(&x.device()) { x.cast(FloatDType::F64) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_forms_are_used_only_when_asked_for() {
        let cpu = Device::flex();
        assert_eq!(Form::on(&cpu), Form::Cpu);
        assert_eq!(plainly(|| plainly(|| Form::on(&cpu))), Form::Plain);
        assert_eq!(Form::on(&cpu.clone().autodiff()), Form::Cpu);
        let half = Tensor::<1>::zeros([1], &cpu).cast(FloatDType::BF16);
        assert_eq!(Form::of(&half), Form::Plain);
    }
}

/// Shared by the tests of fast forms.
#[cfg(test)]
mod testing {
    use burn::tensor::TensorData;

    use super::routing::{Routes, from_integers, sort_by_expert};
    use super::*;
    use crate::random::Stream;

    /// Tracked normal numbers.
    pub(super) fn noise<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
        let stream = Stream::new(seed, "kernel");
        let n = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..n).map(|i| 3.0 * stream.normal(i) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
    }

    /// 131 tokens with two of three experts each: every fifth is padding, and none chooses expert 1.
    pub(super) fn routes() -> Routes {
        let choice = |i: i64| if i / 2 % 5 == 4 { -1 } else { 2 * ((i / 2 + i) % 2) };
        let choices = from_integers((0..262).map(choice).collect(), [131, 2], &Device::flex().autodiff());
        sort_by_expert(&choices, 3)
    }

    /// Compares the CPU form with the plain one on the same inputs, the first of `[131, 19]`, the other of
    /// the given shape: values and both gradients.
    pub(super) fn check<const D: usize>(shape: [usize; D], op: impl Fn(Tensor<2>, Tensor<D>) -> Tensor<2>) {
        // More rows than one block of a sum over rows, and columns that are not whole vectors.
        let (x, w) = (noise(1, [131, 19]), noise(2, shape));
        let (y, expected) = (op(x.clone(), w.clone()), plainly(|| op(x.clone(), w.clone())));
        let direction = noise(3, y.dims()).detach();
        close("value", y.clone(), expected.clone());
        let grads = (y * direction.clone()).sum().backward();
        let wanted = (expected * direction).sum().backward();
        close("gradient of x", x.grad(&grads).expect("x"), x.grad(&wanted).expect("x"));
        if let Some(wanted) = w.grad(&wanted) {
            close("gradient of w", w.grad(&grads).expect("w"), wanted);
        }
    }

    pub(super) fn close<const D: usize>(what: &str, a: Tensor<D>, b: Tensor<D>) {
        let host = |t: Tensor<D>| -> Vec<f32> { t.into_data().try_into_vec().expect("f32") };
        let (a, b) = (host(a), host(b));
        assert!(b.iter().any(|b| b.abs() > 1e-3), "{what}: all zero proves nothing");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-4 + 1e-5 * b.abs(), "{what}: {a} {b}");
        }
    }
}
