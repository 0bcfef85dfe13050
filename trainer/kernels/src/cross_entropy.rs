//! Cross-entropy of logits and their gradient in one kernel.
//!
//! With the loss `log(sum_j exp z_j) - z_target`, the gradient of a logit is `softmax(z)_j - [j = target]`,
//! times the factor of the row: its weight in the mean, or zero. Probabilities are never stored. One cube for
//! each row: the first reading finds the maximum and the sum of exponentials together (the online normalizer
//! of Milakov & Gimelshein 2018, arXiv 1805.02867, algorithm 3), the second, which a cache of 50 MB mostly
//! serves, writes the gradient: 6 bytes for each bf16 logit, over the logits themselves if nothing else
//! refers to them.

use burn::tensor::{FloatDType, Int, Tensor, activation::log_softmax};

/// The loss of each row, `-log softmax(logits)[target]` regardless of the factor, and the gradient of the sum
/// of losses times factors. Called outside of autodiff; no gradient of its own.
///
/// # Shapes
/// - logits: `[rows, vocabulary]`, f32 or bf16, and so is the gradient
/// - targets: `[rows]`, each of the vocabulary; the loss of another is undefined
/// - factors: `[rows]`, f32
/// - result: losses `[rows]`, f32, and gradients `[rows, vocabulary]`
///
/// # Panics
/// When targets or factors are not one for each row, and on a GPU when the factors are not f32.
pub fn cross_entropy_rows(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    factors: Tensor<1>,
) -> (Tensor<1>, Tensor<2>) {
    let [rows, _] = logits.dims();
    assert_eq!((targets.dims(), factors.dims()), ([rows], [rows]), "targets and factors of {rows} rows");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&logits.device()) {
        return gpu::cross_entropy_rows(logits, targets, factors);
    }
    cross_entropy_rows_plain(logits, targets, factors)
}

/// [`cross_entropy_rows`] by plain operations, in f32.
pub fn cross_entropy_rows_plain(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    factors: Tensor<1>,
) -> (Tensor<1>, Tensor<2>) {
    let dtype = logits.dtype();
    let shape = logits.dims();
    let log_p = log_softmax(logits.cast(FloatDType::F32), 1);
    let targets = targets.unsqueeze_dim::<2>(1);
    let losses = log_p.clone().gather(1, targets.clone()).neg().squeeze_dim(1);
    let columns = Tensor::<1, Int>::arange(0..shape[1] as i64, &targets.device()).unsqueeze::<2>();
    let is_target = columns.expand(shape).equal(targets.expand(shape));
    let p = log_p.exp();
    let gradients = p.clone().mask_where(is_target, p - 1.0) * factors.unsqueeze_dim::<2>(1);
    (losses, gradients.cast(dtype))
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    use crate::reduce::{cube_max, cube_sum};

    /// Below every logit; minus infinity cannot be written in WGSL.
    const LOWEST: f32 = -3.0e38;

    /// `gradients` may be `logits` themselves: each unit writes only what it alone has read, after
    /// the maximum of all.
    #[cube(launch)]
    pub(super) fn cross_entropy<F: Float, I: Int, N: Size>(
        logits: &Tensor<Vector<F, N>>,
        targets: &Tensor<I>,
        factors: &Tensor<f32>,
        losses: &mut Tensor<f32>,
        gradients: &mut Tensor<Vector<F, N>>,
        #[comptime] units: u32,
        #[define(F, I)] _elements: [ElemType; 2],
    ) {
        let row = CUBE_POS;
        let columns = logits.shape(1) / logits.vector_size();
        if row >= logits.shape(0) {
            terminate!();
        }
        let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
        let first = row * columns;
        let unit = UNIT_POS as usize;
        let step = comptime!(units as usize);
        let mut largest = f32::new(LOWEST);
        let mut sum = 0.0f32;
        let mut column = unit;
        while column < columns {
            let values = Vector::<f32, N>::cast_from(logits[first + column]);
            let before = largest;
            #[unroll]
            for i in 0..N::value() {
                let value = values.extract(i);
                if value > largest {
                    largest = value;
                }
            }
            sum *= (before - largest).exp();
            #[unroll]
            for i in 0..N::value() {
                sum += (values.extract(i) - largest).exp();
            }
            column += step;
        }
        let of_row = cube_max(largest, &mut scratch, units);
        let sum = cube_sum(sum * (largest - of_row).exp(), &mut scratch, units);
        // Kept apart from the maximum, whose subtraction from a logit near it is exact.
        let log_sum = sum.ln();
        let target = usize::cast_from(targets[row]);
        let factor = factors[row];
        column = unit;
        while column < columns {
            let mut values = logits[first + column];
            #[unroll]
            for i in 0..N::value() {
                let log_p = f32::cast_from(values.extract(i)) - of_row - log_sum;
                let mut slope = log_p.exp();
                if column * N::value() + i == target {
                    losses[row] = -log_p;
                    slope -= 1.0f32;
                }
                values.insert(i, F::cast_from(slope * factor));
            }
            gradients[first + column] = values;
            column += step;
        }
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    #[cfg(feature = "fusion")]
    use burn::backend::fusion::custom::TensorSpec;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::{DType, Int, Shape, Tensor};
    use burn_cubecl::CubeBackend;
    use cubecl::CubeDim;

    use super::kernels;
    use crate::launch::{assert_f32, element, empty, grid, in_place_or_new, into_contiguous, vector_size};
    use crate::reduce::UNITS;

    pub(super) fn cross_entropy_rows(
        logits: Tensor<2>,
        targets: Tensor<1, Int>,
        factors: Tensor<1>,
    ) -> (Tensor<1>, Tensor<2>) {
        assert_f32("factors", factors.dtype());
        let (logits, factors) = (logits.into_dispatch(), factors.into_dispatch());
        let (losses, gradients) = Dispatch::cross_entropy_rows(logits, targets.into_dispatch(), factors);
        (Tensor::from_dispatch(losses), Tensor::from_dispatch(gradients))
    }

    /// The kernel, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
    pub trait CrossEntropyOps: Backend {
        /// Losses and gradients.
        #[fusion(meta = |logits, _targets, _factors| (losses_spec(logits), logits.clone()))]
        fn cross_entropy_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            factors: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }

    #[cfg(feature = "fusion")]
    fn losses_spec(logits: &TensorSpec) -> TensorSpec {
        TensorSpec::new(Shape::from([logits.shape[0]]), DType::F32)
    }

    impl CrossEntropyOps for CubeBackend {
        fn cross_entropy_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            factors: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (logits, targets) = (into_contiguous(logits), into_contiguous(targets));
            let factors = into_contiguous(factors);
            let shape = logits.shape();
            let losses = empty(&logits, [shape[0]], DType::F32);
            let vector = vector_size(&logits, shape[1]);
            let client = logits.client.clone();
            let elements = [element(logits.dtype), element(targets.dtype)];
            let (gradients, gradients_arg) = in_place_or_new(&logits, 0);
            kernels::cross_entropy::launch(
                &client,
                grid(shape[0]),
                CubeDim::new_1d(UNITS),
                vector,
                logits.into_tensor_arg(),
                targets.into_tensor_arg(),
                factors.into_tensor_arg(),
                losses.clone().into_tensor_arg(),
                gradients_arg,
                UNITS,
                elements,
            );
            (losses, gradients)
        }
    }

    impl<B: CrossEntropyOps, C: CheckpointStrategy> CrossEntropyOps for Autodiff<B, C> {
        fn cross_entropy_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            factors: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (logits, factors) = (logits.into_primitive(), factors.into_primitive());
            let (losses, gradients) = B::cross_entropy_rows(logits, targets, factors);
            (Self::from_inner(losses), Self::from_inner(gradients))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn a_row_by_hand() {
        let device = Device::flex();
        // Probabilities 1/4 and 3/4, once with logits that no exponential could hold.
        let logits = vec![0.0, 3f32.ln(), 500.0, 500.0 + 3f32.ln()];
        let logits = Tensor::from_data(TensorData::new(logits, [2, 2]), &device);
        let targets = Tensor::from_data([0, 1], &device);
        let factors = Tensor::from_data([2.0f32, 0.0], &device);
        let (losses, gradients) = cross_entropy_rows(logits, targets, factors);
        let losses: Vec<f32> = losses.into_data().iter().collect();
        assert!((losses[0] - 4f32.ln()).abs() < 1e-6);
        assert!((losses[1] - (4f32 / 3.0).ln()).abs() < 1e-4);
        let gradients: Vec<f32> = gradients.into_data().iter().collect();
        assert!((gradients[0] + 1.5).abs() < 1e-6 && (gradients[1] - 1.5).abs() < 1e-6);
        assert_eq!(gradients[2..], [0.0, 0.0]);
    }
}
