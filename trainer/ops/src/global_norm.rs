//! The norm over all gradients, and the factor that clips it (Pascanu et al. 2013, arXiv 1211.5063, algorithm
//! 1). Both stay on the device.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor, TensorData};
use moe_kernels::adamw::{sum_of_squares, sum_of_squares_plain};
use rayon::prelude::*;

use super::cpu::vectorized;
use super::flex::{dot, tensor, values};
use super::{Form, widened};

/// Values whose squares are summed in one block, in f32.
const BLOCK: usize = 1 << 14;

/// Euclidean norm over all gradients, `[1]`; `None` without gradients. Each block is summed in f32, the
/// blocks in f64 on the CPU and in f32 elsewhere, both in a fixed order: the norm does not depend on the
/// number of threads or, on the CPU, on its vectors.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a Tensor<1>>) -> Option<Tensor<1>> {
    norm_of(gradients.into_iter().map(squares).collect())
}

/// The sums of squares of a gradient's blocks, `[blocks]`.
pub fn squares(gradient: &Tensor<1>) -> Tensor<1> {
    match Form::of(gradient) {
        Form::Plain => sum_of_squares_plain(gradient.clone()),
        Form::Cpu => Tensor::from_dispatch(Dispatch::k_squares(gradient.clone().into_dispatch())),
        Form::Gpu => sum_of_squares(gradient.clone()),
    }
}

/// The norm over all gradients with these [`squares`], `[1]`; `None` without any.
pub fn norm_of(squares: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    let first = squares.first()?;
    if Form::of(first) != Form::Cpu {
        return Some(widened(Tensor::cat(squares, 0)).sum().sqrt());
    }
    let device = first.device();
    let host = |squares: Tensor<1>| squares.into_data().iter::<f64>().collect::<Vec<_>>();
    let norm = squares.into_iter().flat_map(host).sum::<f64>().sqrt();
    Some(Tensor::from_data(TensorData::new(vec![norm], [1]), (&device, DType::F64)))
}

/// The CPU form.
#[backend_extension(Flex)]
trait SquareRows: Backend {
    /// The sum of the squares of each block of a flat tensor, `[blocks]`.
    fn k_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SquareRows for Flex {
    fn k_squares(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let blocks = values(&x).par_chunks(BLOCK);
        let sums: Vec<f32> = blocks
            .map(|block| {
                vectorized(
                    #[inline(always)]
                    || dot(block, block),
                )
            })
            .collect();
        let n = sums.len();
        tensor(sums, [n])
    }
}

/// The factor that scales a gradient of this norm to at most `max_norm`, `[1]`; NaN if norm or loss is not
/// finite.
pub fn clip_factor(norm: Tensor<1>, loss: Tensor<1>, max_norm: f64) -> Tensor<1> {
    let loss = loss.cast(norm.dtype());
    let poison = (norm.clone() + loss) * 0.0;
    // Not a product with the inverse, which would round twice.
    let largest = TensorData::new(vec![max_norm], [1]).convert_dtype(norm.dtype());
    let largest = Tensor::<1>::from_data(largest, (&norm.device(), norm.dtype()));
    (largest / norm).clamp_max(1.0) + poison
}

/// A value, or NaN if it or another one is above its limit; a limit of NaN is no limit.
///
/// # Shapes
/// All `[1]`.
pub fn within(value: Tensor<1>, limit: f64, other: Tensor<1>, other_limit: f64) -> Tensor<1> {
    let other = other.cast(value.dtype());
    let is_off = value.clone().greater_elem(limit).bool_or(other.greater_elem(other_limit));
    value.mask_fill(is_off, f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::super::plainly;
    use super::*;
    use burn::tensor::Device;

    fn tensor<const N: usize>(values: [f32; N]) -> Tensor<1> {
        Tensor::from_data(TensorData::from(values), &Device::flex())
    }

    fn number(x: Tensor<1>) -> f64 {
        x.into_data().iter().next().expect("one value")
    }

    #[test]
    fn norm_is_taken_over_all_tensors() {
        let gradients = [tensor([3.0, 4.0]), tensor([12.0, 0.0])];
        for norm in [global_norm(&gradients), plainly(|| global_norm(&gradients))] {
            // sqrt(3^2 + 4^2 + 12^2) = 13
            let norm = norm.expect("gradients");
            assert!((number(norm.clone()) - 13.0).abs() < 1e-6);
            assert_eq!(number(clip_factor(norm.clone(), tensor([1.0]), 26.0)), 1.0);
            assert!((number(clip_factor(norm.clone(), tensor([1.0]), 1.3)) - 0.1).abs() < 1e-7);
            assert!(number(clip_factor(norm, tensor([f32::INFINITY]), 1.3)).is_nan());
        }
        assert!(global_norm(&[]).is_none());
    }

    #[test]
    fn values_above_their_limit_become_nan() {
        let value =
            |limit: f64, other_limit: f64| number(within(tensor([2.0]), limit, tensor([5.0]), other_limit));
        assert_eq!(value(2.0, 5.0), 2.0);
        assert!(value(1.9, 5.0).is_nan() && value(2.0, 4.9).is_nan());
        assert_eq!(value(f64::NAN, f64::INFINITY), 2.0);
    }

    #[test]
    fn the_norm_of_four_million_values_depends_on_no_thread() {
        let device = Device::flex();
        let stream = crate::random::Stream::new(1, "gradient");
        let few: Vec<f32> = (0..1 << 16).map(|i| stream.normal(i) as f32).collect();
        // Every value occurs many times, but no two blocks are scaled alike.
        let scaled = |n: usize| -> Vec<f32> {
            (0..n).map(|i| few[i % few.len()] * (1.0 + (i / few.len()) as f32 / 7.0)).collect()
        };
        for n in [1 << 22, (1 << 22) + 12_345, (1 << 24) + 1] {
            let gradient = [Tensor::from_data(TensorData::new(scaled(n), [n]), &device)];
            let norm = || number(global_norm(&gradient).expect("a gradient"));
            let exact = scaled(n).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let expected = norm();
            assert!((expected / exact - 1.0).abs() < 1e-5, "{expected} {exact}");
            for threads in [1, 2, 3, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                for _ in 0..8 {
                    let found = pool.install(|| {
                        // Other work in the same pool, so that tasks are stolen at random.
                        rayon::join(norm, || scaled(1 << 16).len()).0
                    });
                    assert_eq!(found.to_bits(), expected.to_bits(), "{n} values, {threads} threads");
                }
            }
        }
    }
}
