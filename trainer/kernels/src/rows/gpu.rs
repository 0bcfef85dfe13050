//! Launches of the kernels, and their place in autodiff and fusion.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "fusion")]
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
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
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

#[cfg(feature = "fusion")]
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
        let (d_rows, d_weights) = B::combine_rows_backward(rows, weights, grad, row_of_choice, choice_of_row);
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
    /// Always: gradients of gradients are never needed.
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
    /// Always: gradients of gradients are never needed.
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
