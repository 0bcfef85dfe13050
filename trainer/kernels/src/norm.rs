//! Root-mean-square normalization (Zhang & Sennrich 2019, arXiv 1910.07467, section 3).
//!
//! One cube for each row: the row is read twice and written once. The gradient of the weight is a
//! sum over rows; each cube of the second kernel adds the rows of one block for all columns, and a
//! third kernel adds the blocks in order.

use burn::tensor::{FloatDType, Tensor};

/// `x / sqrt(mean(x^2) + eps) * weight` for each row.
///
/// # Shapes
/// - x: `[rows, columns]`, f32 or bf16, and so is the result
/// - weight: `[columns]`, f32
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::rms_norm(x, weight, eps);
    }
    rms_norm_plain(x, weight, eps)
}

/// [`rms_norm`] by plain operations, in f32.
pub fn rms_norm_plain(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let x = x.cast(FloatDType::F32);
    let inverse = (x.clone() * x.clone()).mean_dim(1).add_scalar(eps).sqrt().recip();
    (x * inverse * weight.unsqueeze()).cast(dtype)
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    use crate::reduce::cube_sum;

    #[cube(launch)]
    pub(super) fn forward<F: Float>(
        x: &Tensor<F>,
        weight: &Tensor<f32>,
        y: &mut Tensor<F>,
        inverse: &mut Tensor<f32>,
        eps: f32,
        #[comptime] units: u32,
        #[define(F)] _element: ElemType,
    ) {
        let row = CUBE_POS;
        let columns = x.shape(1);
        if row >= x.shape(0) {
            terminate!();
        }
        let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
        let first = row * columns;
        let unit = UNIT_POS as usize;
        let step = comptime!(units as usize);
        let mut squares = 0.0f32;
        let mut column = unit;
        while column < columns {
            let value = f32::cast_from(x[first + column]);
            squares += value * value;
            column += step;
        }
        let squares = cube_sum(squares, &mut scratch, units);
        let r = (squares / f32::cast_from(columns) + eps).inverse_sqrt();
        if unit == 0 {
            inverse[row] = r;
        }
        column = unit;
        while column < columns {
            let value = f32::cast_from(x[first + column]) * r * weight[column];
            y[first + column] = F::cast_from(value);
            column += step;
        }
    }

    /// With `h = grad * weight`: `dx = r h - r^3 x mean(h x)`.
    #[cube(launch)]
    pub(super) fn backward_x<F: Float>(
        x: &Tensor<F>,
        weight: &Tensor<f32>,
        grad: &Tensor<F>,
        inverse: &Tensor<f32>,
        d_x: &mut Tensor<F>,
        #[comptime] units: u32,
        #[define(F)] _element: ElemType,
    ) {
        let row = CUBE_POS;
        let columns = x.shape(1);
        if row >= x.shape(0) {
            terminate!();
        }
        let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
        let first = row * columns;
        let unit = UNIT_POS as usize;
        let step = comptime!(units as usize);
        let r = inverse[row];
        let mut product = 0.0f32;
        let mut column = unit;
        while column < columns {
            let at = first + column;
            product += f32::cast_from(x[at]) * f32::cast_from(grad[at]) * weight[column];
            column += step;
        }
        let product = cube_sum(product, &mut scratch, units);
        let slope = r * r * r * product / f32::cast_from(columns);
        column = unit;
        while column < columns {
            let at = first + column;
            let value = r * f32::cast_from(grad[at]) * weight[column] - slope * f32::cast_from(x[at]);
            d_x[at] = F::cast_from(value);
            column += step;
        }
    }

    /// `partial[block, column] = sum of grad x r` over the rows of the block.
    #[cube(launch)]
    pub(super) fn backward_weight<F: Float>(
        x: &Tensor<F>,
        grad: &Tensor<F>,
        inverse: &Tensor<f32>,
        partial: &mut Tensor<f32>,
        #[comptime] rows_per_block: usize,
        #[define(F)] _element: ElemType,
    ) {
        let (rows, columns) = (x.shape(0), x.shape(1));
        let blocks = partial.shape(0);
        let position = ABSOLUTE_POS;
        if position >= blocks * columns {
            terminate!();
        }
        let block = position / columns;
        let column = position % columns;
        let start = block * rows_per_block;
        let end = usize::min(start + rows_per_block, rows);
        let mut sum = 0.0f32;
        for row in start..end {
            let at = row * columns + column;
            sum += f32::cast_from(grad[at]) * f32::cast_from(x[at]) * inverse[row];
        }
        partial[position] = sum;
    }

    /// Adds the rows of `partial` in order.
    #[cube(launch)]
    pub(super) fn add_rows(partial: &Tensor<f32>, sum: &mut Tensor<f32>) {
        let column = ABSOLUTE_POS;
        let (rows, columns) = (partial.shape(0), partial.shape(1));
        if column >= columns {
            terminate!();
        }
        let mut total = 0.0f32;
        for row in 0..rows {
            total += partial[row * columns + column];
        }
        sum[column] = total;
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    #[cfg(feature = "fusion")]
    use burn::backend::fusion::custom::TensorSpec;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::{DType, Shape, Tensor};
    use burn_cubecl::CubeBackend;
    use cubecl::CubeDim;

    use super::kernels;
    use crate::launch::{element, empty, grid, grid_of_units, into_contiguous};
    use crate::reduce::UNITS;

    /// Rows whose weight gradients one unit adds.
    const ROWS_PER_BLOCK: usize = 64;

    pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
        let (y, _) = Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps);
        Tensor::from_dispatch(y)
    }

    /// The kernels, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
    pub trait NormOps: Backend {
        /// The normalized rows, and `1 / rms` of each.
        #[fusion(meta = |x, _weight, _eps| (x.clone(), inverse_spec(x)))]
        fn rms_norm(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            eps: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
        /// Gradients of x and weight.
        #[fusion(meta = |x, weight, _grad, _inverse| (x.clone(), weight.clone()))]
        fn rms_norm_backward(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }

    #[cfg(feature = "fusion")]
    fn inverse_spec(x: &TensorSpec) -> TensorSpec {
        TensorSpec::new(Shape::from([x.shape[0]]), DType::F32)
    }

    impl NormOps for CubeBackend {
        fn rms_norm(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            eps: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (x, weight) = (into_contiguous(x), into_contiguous(weight));
            let shape = x.shape();
            let y = empty(&x, shape.clone(), x.dtype);
            let inverse = empty(&x, [shape[0]], DType::F32);
            kernels::forward::launch(
                &y.client,
                grid(shape[0]),
                CubeDim::new_1d(UNITS),
                x.clone().into_tensor_arg(),
                weight.into_tensor_arg(),
                y.clone().into_tensor_arg(),
                inverse.clone().into_tensor_arg(),
                eps as f32,
                UNITS,
                element(x.dtype),
            );
            (y, inverse)
        }

        fn rms_norm_backward(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (x, weight) = (into_contiguous(x), into_contiguous(weight));
            let (grad, inverse) = (into_contiguous(grad), into_contiguous(inverse));
            let shape = x.shape();
            let (rows, columns) = (shape[0], shape[1]);
            let d_x = empty(&x, shape, x.dtype);
            kernels::backward_x::launch(
                &x.client,
                grid(rows),
                CubeDim::new_1d(UNITS),
                x.clone().into_tensor_arg(),
                weight.clone().into_tensor_arg(),
                grad.clone().into_tensor_arg(),
                inverse.clone().into_tensor_arg(),
                d_x.clone().into_tensor_arg(),
                UNITS,
                element(x.dtype),
            );
            let blocks = rows.div_ceil(ROWS_PER_BLOCK).max(1);
            let partial = empty(&x, [blocks, columns], DType::F32);
            kernels::backward_weight::launch(
                &x.client,
                grid_of_units(blocks * columns, UNITS),
                CubeDim::new_1d(UNITS),
                x.clone().into_tensor_arg(),
                grad.into_tensor_arg(),
                inverse.into_tensor_arg(),
                partial.clone().into_tensor_arg(),
                ROWS_PER_BLOCK,
                element(x.dtype),
            );
            let d_weight = empty(&x, [columns], DType::F32);
            kernels::add_rows::launch(
                &x.client,
                grid_of_units(columns, UNITS),
                CubeDim::new_1d(UNITS),
                partial.into_tensor_arg(),
                d_weight.clone().into_tensor_arg(),
            );
            (d_x, d_weight)
        }
    }

    #[derive(Debug)]
    struct RmsNormBackward;

    impl<B: NormOps> Backward<B, 2> for RmsNormBackward {
        type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [x_parent, weight_parent] = ops.parents;
            let grad = grads.consume::<B>(&ops.node);
            let (x, weight, inverse) = ops.state;
            let (d_x, d_weight) = B::rms_norm_backward(x, weight, grad, inverse);
            if let Some(parent) = x_parent {
                grads.register::<B>(parent.id, d_x);
            }
            if let Some(parent) = weight_parent {
                grads.register::<B>(parent.id, d_weight);
            }
        }
    }

    impl<B: NormOps, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
        fn rms_norm(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            eps: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let prep = RmsNormBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
            let (x, weight) = (x.into_primitive(), weight.into_primitive());
            let (y, inverse) = B::rms_norm(x.clone(), weight.clone(), eps);
            let y = match prep {
                OpsKind::Tracked(prep) => prep.finish((x, weight, inverse.clone()), y),
                OpsKind::UnTracked(prep) => prep.finish(y),
            };
            (y, Self::from_inner(inverse))
        }

        /// # Panics
        /// Always: gradients of gradients are never needed.
        fn rms_norm_backward(
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            panic!("kernels have gradients of the first order only")
        }
    }
}
