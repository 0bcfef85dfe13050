//! The fused operations as functions of tensors: the kernel of the CPU or that of GPUs.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{HostKernels, is_host};

/// Softmax of each row and `log(sum(exp(row)))` in f32 on the CPU, without gradient: for the loss,
/// which computes its own.
///
/// # Shapes
/// - x: `[rows, columns]`
/// - results: `[rows, columns]` and `[rows, 1]`
pub fn softmax_and_log_sum(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let (probabilities, log_sum) = Dispatch::k_softmax(x.into_dispatch());
    (Tensor::from_dispatch(probabilities), Tensor::from_dispatch(log_sum))
}

/// `silu(gate) * up`, element by element.
///
/// # Shapes
/// - gate, up: `[rows, columns]`, and so is the result
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match is_host(&gate) {
        true => Tensor::from_dispatch(Dispatch::k_swiglu(gate.into_dispatch(), up.into_dispatch())),
        false => moe_kernels::swiglu::swiglu(gate, up),
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` for each row.
///
/// # Shapes
/// - x: `[rows, columns]`, and so is the result
/// - weight: `[columns]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    match is_host(&x) {
        true => Tensor::from_dispatch(Dispatch::k_rms_norm(x.into_dispatch(), weight.into_dispatch(), eps)),
        false => moe_kernels::norm::rms_norm(x, weight, eps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use burn::tensor::{Device, TensorData, activation};
    use moe_kernels::norm::rms_norm_plain;
    use moe_kernels::swiglu::swiglu_plain;

    fn softmax_plain(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let max = x.clone().max_dim(1);
        let probabilities = activation::softmax(x, 1);
        // From the largest probability, which never underflows: p_max = exp(x_max) / sum.
        let log_sum = max - probabilities.clone().max_dim(1).log();
        (probabilities, log_sum)
    }

    fn noise<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
        let stream = Stream::new(seed, "kernel");
        let n = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..n).map(|i| 3.0 * stream.normal(i) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
    }

    fn close<const D: usize>(what: &str, a: Tensor<D>, b: Tensor<D>) {
        let host = |t: Tensor<D>| -> Vec<f32> { t.into_data().try_into_vec().expect("f32") };
        let (a, b) = (host(a), host(b));
        assert!(b.iter().any(|b| b.abs() > 1e-3), "{what}: all zero proves nothing");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 2e-6 + 2e-6 * b.abs(), "{what}: {a} {b}");
        }
    }

    /// Compares two functions of the same inputs: values and both gradients.
    fn check<const D: usize>(
        shape: [usize; D],
        fused: fn(Tensor<2>, Tensor<D>) -> Tensor<2>,
        plain: fn(Tensor<2>, Tensor<D>) -> Tensor<2>,
    ) {
        // More rows than one block of a sum over rows, and columns that are no whole vector.
        let (x, w) = (noise(1, [131, 19]), noise(2, shape));
        let direction = noise(3, [131, 19]).detach();
        let (y, expected) = (fused(x.clone(), w.clone()), plain(x.clone(), w.clone()));
        close("value", y.clone(), expected.clone());
        let grads = (y * direction.clone()).sum().backward();
        let wanted = (expected * direction).sum().backward();
        close("gradient of x", x.grad(&grads).expect("x"), x.grad(&wanted).expect("x"));
        if let Some(wanted) = w.grad(&wanted) {
            close("gradient of w", w.grad(&grads).expect("w"), wanted);
        }
    }

    #[test]
    fn fused_softmax_equals_its_twin() {
        let x = noise(1, [131, 19]).without_autodiff();
        let (fused, plain) = (softmax_and_log_sum(x.clone()), softmax_plain(x));
        close("probabilities", fused.0, plain.0);
        close("log of the sum", fused.1, plain.1);
    }

    #[test]
    fn fused_swiglu_equals_its_twin() {
        check([131, 19], swiglu, swiglu_plain);
    }

    #[test]
    fn fused_rms_norm_equals_its_twin() {
        check([19], |x, w| rms_norm(x, w, 1e-5), |x, w| rms_norm_plain(x, w, 1e-5));
    }
}
