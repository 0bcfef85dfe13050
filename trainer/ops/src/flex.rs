//! Building blocks of the fast CPU forms: loops over contiguous rows of f32, distributed over threads by
//! rows, and the node in the gradient graph that such a form needs.

use std::borrow::Cow;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, TensorData};
use rayon::prelude::*;

use super::cpu::{unwritten, vectorized};

/// Rows per task. Fixed, so that sums over rows do not depend on the threads.
pub const BLOCK_ROWS: usize = 64;

/// A matrix whose rows are filled on all threads; the function, which should always be inlined, gets the
/// number of a row, and the row with zeros.
#[inline]
pub fn fill_rows([rows, columns]: [usize; 2], fill: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let mut out = unwritten(rows * columns);
    out.par_chunks_mut(BLOCK_ROWS * columns).enumerate().for_each(|(block, out)| {
        // Here rather than by the allocation, which would do it on one thread.
        out.fill(0.0);
        vectorized(
            #[inline(always)]
            || {
                for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                    fill(block * BLOCK_ROWS + i, out);
                }
            },
        );
    });
    tensor(out, [rows, columns])
}

/// Row `i` of a matrix.
#[inline(always)]
pub fn row(matrix: &[f32], i: usize, columns: usize) -> &[f32] {
    &matrix[i * columns..(i + 1) * columns]
}

/// Rows and columns of a matrix.
pub fn shape2(tensor: &FlexTensor) -> (usize, usize) {
    let shape = tensor.shape();
    (shape[0], shape[1])
}

/// The values of a contiguous tensor.
pub fn values(tensor: &FlexTensor) -> &[f32] {
    // Cannot fail: callers make their tensors contiguous, and all of this crate's are f32.
    tensor.as_slice().expect("a contiguous f32 tensor")
}

/// A tensor of f32 values.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The values of a contiguous tensor of integers.
pub fn integers(tensor: &FlexTensor) -> Cow<'_, [i64]> {
    match tensor.dtype() {
        // Cannot fail: callers make their tensors contiguous.
        DType::I64 => Cow::Borrowed(tensor.as_slice().expect("a contiguous tensor of i64")),
        _ => Cow::Owned(tensor.clone().into_data().iter::<i64>().collect()),
    }
}

/// `out = softmax(scale * x)`; returns `log(sum(exp(scale * x)))`.
#[inline(always)]
pub fn softmax_row(out: &mut [f32], x: &[f32], scale: f32) -> f32 {
    let max = max(x) * scale;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = exp(x * scale - max);
    }
    let sum = sum(out);
    let factor = sum.recip();
    out.iter_mut().for_each(|out| *out *= factor);
    max + sum.ln()
}

/// The scalar product, as eight sums side by side, which the compiler turns into vectors.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `out += factor * row`.
#[inline(always)]
pub fn add(out: &mut [f32], row: &[f32], factor: f32) {
    for (out, value) in out.iter_mut().zip(row) {
        *out += value * factor;
    }
}

/// The sum, as in [`dot`].
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let a8 = a.chunks_exact(8);
    let rest: f32 = a8.remainder().iter().sum();
    for a in a8 {
        for i in 0..8 {
            sums[i] += a[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The largest value. NaN may be skipped: it propagates through the exponentials of every value that follow.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; 8];
    let a8 = a.chunks_exact(8);
    let rest = a8.remainder().iter().copied().fold(f32::NEG_INFINITY, greater);
    for a in a8 {
        for i in 0..8 {
            largest[i] = greater(largest[i], a[i]);
        }
    }
    largest.into_iter().fold(rest, greater)
}

/// The larger one, and the second if either is NaN: a single instruction, unlike `f32::max`.
#[inline(always)]
pub fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x` for `x < 87`, 0 for `x < -87`, to about 2 units in the last place; without branches or
/// calls, so that loops over it become vector code (after Cephes' `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let is_zero = x < -87.0;
    let x = x.clamp(-87.0, 87.0);
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    // The low bits of `rounded` are n itself: shifted into the exponent, they make 2^n.
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let y = (p * r * r + r + 1.0) * scale;
    if is_zero { 0.0 } else { y }
}

/// Gives a fast form with two differentiable inputs its place in the gradient graph: the trait `$trait` has
/// `$forward(a, b, args) -> y` and `$backward(a, b, grad, args) -> (d_a, d_b)`; both inputs are kept.
/// Call it once in a module; types of tensors in `args` are those of a backend `B`.
#[macro_export]
macro_rules! gradient_of_two {
    ($trait:ident: $forward:ident, $backward:ident, ($($arg:ident: $type:ty),*)) => {
        #[derive(Debug)]
        struct OfTwo;

        impl<B: $trait> burn::backend::autodiff::ops::Backward<B, 2> for OfTwo {
            type State =
                (burn::backend::tensor::FloatTensor<B>, burn::backend::tensor::FloatTensor<B>, ($($type,)*));

            fn backward(
                self,
                ops: burn::backend::autodiff::ops::Ops<Self::State, 2>,
                grads: &mut burn::backend::autodiff::grads::Gradients,
                _: &mut burn::backend::autodiff::checkpoint::base::Checkpointer,
            ) {
                let parents = ops.parents;
                let grad = grads.consume::<B>(&ops.node);
                let (a, b, ($($arg,)*)) = ops.state;
                let (d_a, d_b) = B::$backward(a, b, grad, $($arg),*);
                for (parent, gradient) in parents.into_iter().zip([d_a, d_b]) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }

        impl<B: $trait, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy> $trait
            for burn::backend::Autodiff<B, C>
        {
            fn $forward(
                a: burn::backend::tensor::FloatTensor<Self>,
                b: burn::backend::tensor::FloatTensor<Self>,
                $($arg: $type),*
            ) -> burn::backend::tensor::FloatTensor<Self> {
                use burn::backend::autodiff::ops::{Backward, OpsKind};
                let prep = OfTwo.prepare::<C>([a.node(), b.node()]).compute_bound().stateful();
                let (a, b) = (a.into_primitive(), b.into_primitive());
                let y = B::$forward(a.clone(), b.clone(), $($arg.clone()),*);
                match prep {
                    OpsKind::Tracked(prep) => prep.finish((a, b, ($($arg,)*)), y),
                    OpsKind::UnTracked(prep) => prep.finish(y),
                }
            }

            fn $backward(
                _: burn::backend::tensor::FloatTensor<Self>,
                _: burn::backend::tensor::FloatTensor<Self>,
                _: burn::backend::tensor::FloatTensor<Self>,
                $(_: $type),*
            ) -> (burn::backend::tensor::FloatTensor<Self>, burn::backend::tensor::FloatTensor<Self>) {
                $crate::flex::first_order_only()
            }
        }
    };
}

/// Stands in for the gradient of a gradient, which is never needed: the optimizer works outside the
/// graph.
///
/// # Panics
/// Always: reaching it is a bug of this crate.
pub fn first_order_only() -> ! {
    panic!("fast forms only have first-order gradients")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -8690..=8690 {
            let x = i as f32 / 100.0;
            let (fast, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((fast / exact - 1.0).abs() < 3e-7, "exp({x}) = {fast}, not {exact}");
        }
        assert!(exp(-1e30) == 0.0 && exp(1e30).is_finite() && exp(f32::NAN).is_nan());
    }
}
