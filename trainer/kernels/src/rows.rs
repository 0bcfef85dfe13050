//! Tokens to the rows of their experts and back (MegaBlocks, Gale et al. 2022, arXiv 2211.15841,
//! section 4: the permutation of tokens).
//!
//! Both directions of the permutation are stored ([`Routes`]), so that each kernel writes every
//! place of its result once and in order, and only reads are scattered, by whole rows: nothing is
//! added atomically. Units read and write vectors of 16 bytes where the columns allow.
//!
//! - [`gather_rows`]: reads and writes each row once. Its gradient reads each row once and writes
//!   each token once.
//! - [`combine_rows`]: the same traffic as that gradient. Its own gradient is one kernel with 32
//!   units for each choice: a row and its token's gradient are read once for both the row's
//!   gradient, written once, and the weight's, their scalar product.

use burn::tensor::{FloatDType, Int, Tensor};

use crate::routing::Routes;

/// Copies each token to its rows; rows of nobody, behind the last, are zero.
///
/// # Shapes
/// - x: `[tokens, columns]`, f32 or bf16, and so is the result
/// - result: `[tokens * top_k, columns]`
///
/// # Panics
/// When the routes are of another number of tokens.
pub fn gather_rows(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
    check_tokens(x.dims()[0], routes);
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::gather_rows(x, routes);
    }
    gather_rows_plain(x, routes)
}

/// [`gather_rows`] by plain operations.
pub fn gather_rows_plain(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let token_of_row = routes.choice_of_row.clone().clamp_min(0).div_scalar(routes.top_k as i64);
    zero_where_absent(x.select(0, token_of_row), &routes.choice_of_row)
}

/// The weighted sum of each token's rows, in f32 and in the order of its choices; zero for padding.
///
/// # Shapes
/// - rows: `[tokens * top_k, columns]`, f32 or bf16, and so is the result
/// - weights: `[tokens, top_k]`, f32; those of padding are not used
/// - result: `[tokens, columns]`
///
/// # Panics
/// When rows, weights and routes are of different numbers of tokens, and on a GPU when the weights
/// are not f32.
pub fn combine_rows(rows: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let [tokens, top_k] = weights.dims();
    check_tokens(tokens, routes);
    assert_eq!((top_k, tokens * top_k), (routes.top_k, rows.dims()[0]), "choices of weights and rows");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&rows.device()) {
        return gpu::combine_rows(rows, weights, routes);
    }
    combine_rows_plain(rows, weights, routes)
}

/// [`combine_rows`] by plain operations, in f32.
pub fn combine_rows_plain(rows: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let dtype = rows.dtype();
    let [_, columns] = rows.dims();
    let [tokens, top_k] = weights.dims();
    let of_choices = rows.cast(FloatDType::F32).select(0, routes.row_of_choice.clone().clamp_min(0));
    let of_choices = zero_where_absent(of_choices, &routes.row_of_choice);
    let weighted = of_choices.reshape([tokens, top_k, columns]) * weights.reshape([tokens, top_k, 1]);
    weighted.sum_dim(1).reshape([tokens, columns]).cast(dtype)
}

fn check_tokens(tokens: usize, routes: &Routes) {
    let [choices] = routes.row_of_choice.dims();
    assert_eq!(tokens * routes.top_k, choices, "choices of {tokens} tokens");
}

/// Zeros in the rows whose index is negative.
fn zero_where_absent(x: Tensor<2>, indices: &Tensor<1, Int>) -> Tensor<2> {
    let shape = x.dims();
    let is_absent = indices.clone().lower_elem(0).unsqueeze_dim::<2>(1).expand(shape);
    x.mask_fill(is_absent, 0.0)
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    /// Row r of the result is row `choice_of_row[r] / top_k` of `x`, or zero.
    #[cube(launch)]
    pub(super) fn gather<F: Float, I: Int, N: Size>(
        x: &Tensor<Vector<F, N>>,
        choice_of_row: &Tensor<I>,
        rows: &mut Tensor<Vector<F, N>>,
        #[comptime] top_k: usize,
        #[define(F, I)] _elements: [ElemType; 2],
    ) {
        let columns = x.shape(1) / x.vector_size();
        let position = ABSOLUTE_POS;
        if position >= rows.shape(0) * columns {
            terminate!();
        }
        let (row, column) = (position / columns, position % columns);
        let choice = i32::cast_from(choice_of_row[row]);
        let mut value = Vector::<F, N>::new(F::new(0.0));
        if choice >= 0 {
            value = x[usize::cast_from(choice) / top_k * columns + column];
        }
        rows[position] = value;
    }

    /// The sum of each token's rows, each times its weight where there are weights.
    #[cube(launch)]
    pub(super) fn combine<F: Float, I: Int, N: Size>(
        rows: &Tensor<Vector<F, N>>,
        row_of_choice: &Tensor<I>,
        y: &mut Tensor<Vector<F, N>>,
        weights: ComptimeOption<&Tensor<f32>>,
        #[comptime] top_k: usize,
        #[define(F, I)] _elements: [ElemType; 2],
    ) {
        let columns = rows.shape(1) / rows.vector_size();
        let position = ABSOLUTE_POS;
        if position >= y.shape(0) * columns {
            terminate!();
        }
        let (token, column) = (position / columns, position % columns);
        let mut sum = Vector::<f32, N>::new(0.0f32);
        // Unrolled, so that the loads of all rows are under way at once.
        #[unroll]
        for j in 0..top_k {
            let choice = token * top_k + j;
            let row = i32::cast_from(row_of_choice[choice]);
            if row >= 0 {
                let value = Vector::<f32, N>::cast_from(rows[usize::cast_from(row) * columns + column]);
                #[comptime]
                match weights {
                    ComptimeOption::Some(weights) => {
                        sum += value * Vector::<f32, N>::new(weights[choice]);
                    }
                    ComptimeOption::None => {
                        sum += value;
                    }
                };
            }
        }
        y[position] = Vector::<F, N>::cast_from(sum);
    }

    /// Both gradients of `combine`, by `lanes` units for each choice, a power of two. The choice
    /// with the number of a row of nobody fills that row's gradient with zeros.
    #[cube(launch)]
    pub(super) fn combine_backward<F: Float, I: Int, N: Size>(
        rows: &Tensor<Vector<F, N>>,
        weights: &Tensor<f32>,
        grad: &Tensor<Vector<F, N>>,
        row_of_choice: &Tensor<I>,
        choice_of_row: &Tensor<I>,
        d_rows: &mut Tensor<Vector<F, N>>,
        d_weights: &mut Tensor<f32>,
        #[comptime] top_k: usize,
        #[comptime] lanes: usize,
        #[comptime] units: usize,
        #[define(F, I)] _elements: [ElemType; 2],
    ) {
        let mut scratch = Shared::<[f32]>::new_slice(units);
        let columns = rows.shape(1) / rows.vector_size();
        let choices = rows.shape(0);
        let unit = UNIT_POS as usize;
        let lane = unit % lanes;
        let choice = CUBE_POS * comptime!(units / lanes) + unit / lanes;
        let mut products = Vector::<f32, N>::new(0.0f32);
        if choice < choices {
            let row = i32::cast_from(row_of_choice[choice]);
            if row >= 0 {
                let of_row = usize::cast_from(row) * columns;
                let of_token = choice / top_k * columns;
                let weight = Vector::<f32, N>::new(weights[choice]);
                let mut column = lane;
                while column < columns {
                    let grad = Vector::<f32, N>::cast_from(grad[of_token + column]);
                    products += grad * Vector::<f32, N>::cast_from(rows[of_row + column]);
                    d_rows[of_row + column] = Vector::<F, N>::cast_from(grad * weight);
                    column += lanes;
                }
            }
            if i32::cast_from(choice_of_row[choice]) < 0 {
                let mut column = lane;
                while column < columns {
                    d_rows[choice * columns + column] = Vector::<F, N>::new(F::new(0.0));
                    column += lanes;
                }
            }
        }
        let mut product = 0.0f32;
        #[unroll]
        for i in 0..N::value() {
            product += products.extract(i);
        }
        scratch[unit] = product;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(lanes.ilog2()) {
            let half = comptime!(lanes >> (level + 1));
            if lane < half {
                let other = scratch[unit + half];
                scratch[unit] += other;
            }
            sync_cube();
        }
        if lane == 0 && choice < choices {
            d_weights[choice] = scratch[unit];
        }
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::fusion::custom::TensorSpec;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::{Shape, Tensor};
    use burn_cubecl::CubeBackend;
    use burn_cubecl::tensor::CubeTensor;
    use cubecl::CubeDim;

    use super::{Routes, kernels};
    use crate::launch::{assert_f32, element, empty, grid_of_units, into_contiguous, vector_size};
    use crate::reduce::UNITS;

    /// Units that compute the gradients of one choice.
    const LANES: usize = 32;

    pub(super) fn gather_rows(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
        Tensor::from_dispatch(Dispatch::gather_rows(
            x.into_dispatch(),
            routes.row_of_choice.clone().into_dispatch(),
            routes.choice_of_row.clone().into_dispatch(),
            routes.top_k,
        ))
    }

    pub(super) fn combine_rows(rows: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
        assert_f32("weights", weights.dtype());
        Tensor::from_dispatch(Dispatch::combine_rows(
            rows.into_dispatch(),
            weights.into_dispatch(),
            routes.row_of_choice.clone().into_dispatch(),
            routes.choice_of_row.clone().into_dispatch(),
        ))
    }

    /// The kernels, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion)]
    pub trait RowsOps: Backend {
        /// Tokens to rows.
        #[fusion(meta = |x, _row_of_choice, choice_of_row, _top_k| with_rows(x, choice_of_row.shape[0]))]
        fn gather_rows(
            x: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
            top_k: usize,
        ) -> FloatTensor<Self>;
        /// The sum of each token's rows.
        #[fusion(meta = |grad, row_of_choice, top_k| with_rows(grad, row_of_choice.shape[0] / top_k))]
        fn gather_rows_backward(
            grad: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            top_k: usize,
        ) -> FloatTensor<Self>;
        /// The weighted sum of each token's rows.
        #[fusion(meta = |rows, weights, _row_of_choice, _choice_of_row| with_rows(rows, weights.shape[0]))]
        fn combine_rows(
            rows: FloatTensor<Self>,
            weights: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
        ) -> FloatTensor<Self>;
        /// Gradients of rows and weights.
        #[fusion(meta = |rows, weights, _grad, _row_of_choice, _choice_of_row| (rows.clone(), weights.clone()))]
        fn combine_rows_backward(
            rows: FloatTensor<Self>,
            weights: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }

    fn with_rows(like: &TensorSpec, rows: usize) -> TensorSpec {
        TensorSpec::new(Shape::from([rows, like.shape[1]]), like.dtype)
    }

    /// The sum of each token's rows, weighted or not.
    fn combine(
        rows: CubeTensor,
        weights: Option<CubeTensor>,
        row_of_choice: CubeTensor,
        top_k: usize,
    ) -> CubeTensor {
        let (rows, row_of_choice) = (into_contiguous(rows), into_contiguous(row_of_choice));
        let weights = weights.map(into_contiguous);
        let columns = rows.shape()[1];
        let tokens = row_of_choice.shape()[0] / top_k;
        let y = empty(&rows, [tokens, columns], rows.dtype);
        let vector = vector_size(&rows, columns);
        kernels::combine::launch(
            &y.client,
            grid_of_units(tokens * columns / vector, UNITS),
            CubeDim::new_1d(UNITS),
            vector,
            rows.into_tensor_arg(),
            row_of_choice.clone().into_tensor_arg(),
            y.clone().into_tensor_arg(),
            weights.map(CubeTensor::into_tensor_arg).into(),
            top_k,
            [element(y.dtype), element(row_of_choice.dtype)],
        );
        y
    }

    impl RowsOps for CubeBackend {
        fn gather_rows(
            x: FloatTensor<Self>,
            _: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
            top_k: usize,
        ) -> FloatTensor<Self> {
            let (x, choice_of_row) = (into_contiguous(x), into_contiguous(choice_of_row));
            let (n, columns) = (choice_of_row.shape()[0], x.shape()[1]);
            let rows = empty(&x, [n, columns], x.dtype);
            let vector = vector_size(&x, columns);
            kernels::gather::launch(
                &rows.client,
                grid_of_units(n * columns / vector, UNITS),
                CubeDim::new_1d(UNITS),
                vector,
                x.into_tensor_arg(),
                choice_of_row.clone().into_tensor_arg(),
                rows.clone().into_tensor_arg(),
                top_k,
                [element(rows.dtype), element(choice_of_row.dtype)],
            );
            rows
        }

        fn gather_rows_backward(
            grad: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            top_k: usize,
        ) -> FloatTensor<Self> {
            combine(grad, None, row_of_choice, top_k)
        }

        fn combine_rows(
            rows: FloatTensor<Self>,
            weights: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            _: IntTensor<Self>,
        ) -> FloatTensor<Self> {
            let top_k = weights.shape()[1];
            combine(rows, Some(weights), row_of_choice, top_k)
        }

        fn combine_rows_backward(
            rows: FloatTensor<Self>,
            weights: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (rows, weights) = (into_contiguous(rows), into_contiguous(weights));
            let (grad, row_of_choice) = (into_contiguous(grad), into_contiguous(row_of_choice));
            let choice_of_row = into_contiguous(choice_of_row);
            let (shape, top_k) = (rows.shape(), weights.shape()[1]);
            let d_rows = empty(&rows, shape.clone(), rows.dtype);
            let d_weights = empty(&rows, weights.shape(), weights.dtype);
            kernels::combine_backward::launch(
                &d_rows.client,
                grid_of_units(shape[0] * LANES, UNITS),
                CubeDim::new_1d(UNITS),
                vector_size(&rows, shape[1]),
                rows.into_tensor_arg(),
                weights.into_tensor_arg(),
                grad.into_tensor_arg(),
                row_of_choice.clone().into_tensor_arg(),
                choice_of_row.into_tensor_arg(),
                d_rows.clone().into_tensor_arg(),
                d_weights.clone().into_tensor_arg(),
                top_k,
                LANES,
                UNITS as usize,
                [element(d_rows.dtype), element(row_of_choice.dtype)],
            );
            (d_rows, d_weights)
        }
    }

    #[derive(Debug)]
    struct GatherBackward;

    impl<B: RowsOps> Backward<B, 1> for GatherBackward {
        type State = (IntTensor<B>, usize);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [parent] = ops.parents;
            let grad = grads.consume::<B>(&ops.node);
            let (row_of_choice, top_k) = ops.state;
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::gather_rows_backward(grad, row_of_choice, top_k));
            }
        }
    }

    #[derive(Debug)]
    struct CombineBackward;

    impl<B: RowsOps> Backward<B, 2> for CombineBackward {
        type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>, IntTensor<B>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [rows_parent, weights_parent] = ops.parents;
            let grad = grads.consume::<B>(&ops.node);
            let (rows, weights, row_of_choice, choice_of_row) = ops.state;
            let (d_rows, d_weights) =
                B::combine_rows_backward(rows, weights, grad, row_of_choice, choice_of_row);
            if let Some(parent) = rows_parent {
                grads.register::<B>(parent.id, d_rows);
            }
            if let Some(parent) = weights_parent {
                grads.register::<B>(parent.id, d_weights);
            }
        }
    }

    impl<B: RowsOps, C: CheckpointStrategy> RowsOps for Autodiff<B, C> {
        fn gather_rows(
            x: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
            top_k: usize,
        ) -> FloatTensor<Self> {
            let prep = GatherBackward.prepare::<C>([x.node()]).compute_bound().stateful();
            let rows = B::gather_rows(x.into_primitive(), row_of_choice.clone(), choice_of_row, top_k);
            match prep {
                OpsKind::Tracked(prep) => prep.finish((row_of_choice, top_k), rows),
                OpsKind::UnTracked(prep) => prep.finish(rows),
            }
        }

        /// # Panics
        /// Always: gradients of gradients are never asked for.
        fn gather_rows_backward(_: FloatTensor<Self>, _: IntTensor<Self>, _: usize) -> FloatTensor<Self> {
            panic!("kernels have gradients of the first order only")
        }

        fn combine_rows(
            rows: FloatTensor<Self>,
            weights: FloatTensor<Self>,
            row_of_choice: IntTensor<Self>,
            choice_of_row: IntTensor<Self>,
        ) -> FloatTensor<Self> {
            let prep = CombineBackward.prepare::<C>([rows.node(), weights.node()]).compute_bound().stateful();
            let (rows, weights) = (rows.into_primitive(), weights.into_primitive());
            let forward =
                |rows, weights| B::combine_rows(rows, weights, row_of_choice.clone(), choice_of_row.clone());
            match prep {
                OpsKind::Tracked(prep) => {
                    let y = forward(rows.clone(), weights.clone());
                    prep.finish((rows, weights, row_of_choice, choice_of_row), y)
                }
                OpsKind::UnTracked(prep) => prep.finish(forward(rows, weights)),
            }
        }

        /// # Panics
        /// Always: gradients of gradients are never asked for.
        fn combine_rows_backward(
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
            _: IntTensor<Self>,
            _: IntTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            panic!("kernels have gradients of the first order only")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{from_integers, sort_by_expert};
    use burn::tensor::{Device, TensorData};

    /// Tokens 0 and 2 choose experts 2 and 0; token 1 is padding.
    fn routes() -> Routes {
        sort_by_expert(&from_integers(vec![2, 0, -1, -1, 2, 0], &Device::flex()).reshape([3, 2]), 3)
    }

    fn tensor(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        let device = Device::flex().autodiff();
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &device).require_grad()
    }

    fn host(x: Tensor<2>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    #[test]
    fn rows_are_copies_and_their_gradients_add_up() {
        let x = tensor(&[1.0, 2.0, 3.0], [3, 1]);
        let rows = gather_rows(x.clone(), &routes());
        assert_eq!(host(rows.clone()), [1.0, 3.0, 1.0, 3.0, 0.0, 0.0]);
        let grads = (rows * tensor(&[1.0, 2.0, 10.0, 20.0, 5.0, 5.0], [6, 1])).sum().backward();
        assert_eq!(host(x.grad(&grads).expect("x")), [11.0, 0.0, 22.0]);
    }

    #[test]
    fn tokens_are_weighted_sums_of_their_rows() {
        let rows = tensor(&[1.0, 2.0, 3.0, 4.0, 9.0, 9.0], [6, 1]);
        let weights = tensor(&[0.5, 2.0, 7.0, 7.0, 1.0, 0.0], [3, 2]);
        let y = combine_rows(rows.clone(), weights.clone(), &routes());
        // Rows of token 0 are 2 and 0, those of token 2 are 3 and 1.
        assert_eq!(host(y.clone()), [0.5 * 3.0 + 2.0, 0.0, 4.0]);
        let grads = (y * tensor(&[1.0, 5.0, 10.0], [3, 1])).sum().backward();
        assert_eq!(host(rows.grad(&grads).expect("rows")), [2.0, 0.0, 0.5, 10.0, 0.0, 0.0]);
        assert_eq!(host(weights.grad(&grads).expect("weights")), [3.0, 1.0, 0.0, 0.0, 40.0, 20.0]);
    }
}
