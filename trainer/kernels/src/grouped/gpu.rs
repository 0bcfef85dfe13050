//! Launches and gradients.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{CubeCount, CubeDim};

use super::plain;
use crate::launch::{element, empty, grid, grid_of_units, into_contiguous};
use crate::swiglu::gpu::SwigluOps;

pub(super) fn grouped_matmul(x: Tensor<2>, w: Tensor<3>, offsets: Tensor<1, Int>) -> Tensor<2> {
    let (x, w, offsets) = (x.into_dispatch(), w.into_dispatch(), offsets.into_dispatch());
    Tensor::from_dispatch(Dispatch::grouped_matmul(x, w, offsets))
}

pub(super) fn grouped_swiglu(
    x: Tensor<2>,
    w_gate: Tensor<3>,
    w_up: Tensor<3>,
    offsets: Tensor<1, Int>,
) -> Tensor<2> {
    let (w_gate, w_up) = (w_gate.into_dispatch(), w_up.into_dispatch());
    let (y, _, _) = Dispatch::grouped_swiglu(x.into_dispatch(), w_gate, w_up, offsets.into_dispatch());
    Tensor::from_dispatch(y)
}

/// The kernels, as an extension of burn's GPU backends.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait GroupedOps: Backend {
    /// `x w[e]`.
    #[fusion(dtype = x, shape = Shape::from([x[0], w[2]]))]
    fn grouped_matmul(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
    /// `grad w[e]^T`; w has the type of grad.
    #[fusion(dtype = grad, shape = Shape::from([grad[0], w[1]]))]
    fn grouped_matmul_transposed(
        grad: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
    /// `x[e]^T grad[e]` for each expert, as `dtype`.
    #[fusion(meta = |x, grad, offsets, dtype| weight_spec(x, grad, offsets, *dtype))]
    fn grouped_weight_gradient(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        dtype: DType,
    ) -> FloatTensor<Self>;
    /// SwiGLU of both products, and the products, gate and up.
    #[fusion(meta = |x, w_gate, _w_up, _offsets| swiglu_specs(x, w_gate))]
    fn grouped_swiglu(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// `d_gate w_gate[e]^T + d_up w_up[e]^T`; the weights have the type of the gradients.
    #[fusion(dtype = d_gate, shape = Shape::from([d_gate[0], w_gate[1]]))]
    fn grouped_swiglu_backward_x(
        d_gate: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        d_up: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "fusion")]
fn weight_spec(x: &TensorSpec, grad: &TensorSpec, offsets: &TensorSpec, dtype: DType) -> TensorSpec {
    TensorSpec::new(Shape::from([offsets.shape[0] - 1, x.shape[1], grad.shape[1]]), dtype)
}

#[cfg(feature = "fusion")]
fn swiglu_specs(x: &TensorSpec, w_gate: &TensorSpec) -> (TensorSpec, TensorSpec, TensorSpec) {
    let spec = TensorSpec::new(Shape::from([x.shape[0], w_gate.shape[2]]), x.dtype);
    (spec.clone(), spec.clone(), spec)
}

/// Tiles of rows that suffice however the rows are distributed, rows of nobody included.
fn row_tiles(rows: usize, offsets: &CubeTensor, tile: usize) -> usize {
    let groups = offsets.shape()[0];
    (rows + groups * (tile - 1)) / tile
}

/// Which rows of which expert each tile of `tile` rows has.
fn make_plan(rows: usize, offsets: CubeTensor, tile: usize) -> CubeTensor {
    let tiles = row_tiles(rows, &offsets, tile);
    let plan = empty(&offsets, [tiles, plain::PLAN], DType::I32);
    plain::make_plan::launch(
        &plan.client,
        grid_of_units(tiles, plain::UNITS),
        CubeDim::new_1d(plain::UNITS),
        offsets.clone().into_tensor_arg(),
        plan.clone().into_tensor_arg(),
        rows as u32,
        tile,
        element(offsets.dtype),
    );
    plan
}

/// One cube for each tile of a result.
fn grid_of_tiles(plan: &CubeTensor, y: &CubeTensor, tile: usize) -> CubeCount {
    grid(plan.shape()[0] * y.shape()[1].div_ceil(tile))
}

/// `w`, contiguous and as `dtype`.
fn weights(w: CubeTensor, dtype: DType) -> CubeTensor {
    let w = if w.dtype == dtype { w } else { CubeBackend::float_cast(w, dtype.into()) };
    into_contiguous(w)
}

fn product(x: CubeTensor, w: CubeTensor, offsets: CubeTensor, is_transposed: bool) -> CubeTensor {
    let (x, w, offsets) = (into_contiguous(x.clone()), weights(w, x.dtype), into_contiguous(offsets));
    let rows = x.shape()[0];
    let columns = if is_transposed { w.shape()[1] } else { w.shape()[2] };
    let y = empty(&x, [rows, columns], x.dtype);
    let plan = make_plan(rows, offsets, plain::TILE);
    plain::product::launch(
        &y.client,
        grid_of_tiles(&plan, &y, plain::TILE),
        CubeDim::new_1d(plain::UNITS),
        x.into_tensor_arg(),
        w.into_tensor_arg(),
        plan.into_tensor_arg(),
        y.clone().into_tensor_arg(),
        is_transposed,
        element(y.dtype),
    );
    y
}

impl GroupedOps for CubeBackend {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        product(x, w, offsets, false)
    }

    fn grouped_matmul_transposed(
        grad: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        product(grad, w, offsets, true)
    }

    fn grouped_weight_gradient(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        dtype: DType,
    ) -> FloatTensor<Self> {
        let (x, grad, offsets) = (into_contiguous(x), into_contiguous(grad), into_contiguous(offsets));
        let (experts, k, n) = (offsets.shape()[0] - 1, x.shape()[1], grad.shape()[1]);
        let d_w = empty(&x, [experts, k, n], dtype);
        let elements = [element(x.dtype), element(dtype), element(offsets.dtype)];
        plain::weight_gradient::launch(
            &d_w.client,
            grid(experts * k.div_ceil(plain::TILE) * n.div_ceil(plain::TILE)),
            CubeDim::new_1d(plain::UNITS),
            x.into_tensor_arg(),
            grad.into_tensor_arg(),
            offsets.into_tensor_arg(),
            d_w.clone().into_tensor_arg(),
            elements,
        );
        d_w
    }

    fn grouped_swiglu(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, offsets) = (into_contiguous(x), into_contiguous(offsets));
        let (w_gate, w_up) = (weights(w_gate, x.dtype), weights(w_up, x.dtype));
        let shape = [x.shape()[0], w_gate.shape()[2]];
        let [y, gate, up] = [(); 3].map(|()| empty(&x, shape, x.dtype));
        let plan = make_plan(shape[0], offsets, plain::TILE);
        plain::swiglu::launch(
            &y.client,
            grid_of_tiles(&plan, &y, plain::TILE),
            CubeDim::new_1d(plain::UNITS),
            x.into_tensor_arg(),
            w_gate.into_tensor_arg(),
            w_up.into_tensor_arg(),
            plan.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            gate.clone().into_tensor_arg(),
            up.clone().into_tensor_arg(),
            element(y.dtype),
        );
        (y, gate, up)
    }

    fn grouped_swiglu_backward_x(
        d_gate: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        d_up: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let (d_gate, d_up, offsets) =
            (into_contiguous(d_gate), into_contiguous(d_up), into_contiguous(offsets));
        let (w_gate, w_up) = (weights(w_gate, d_gate.dtype), weights(w_up, d_gate.dtype));
        let shape = [d_gate.shape()[0], w_gate.shape()[1]];
        let y = empty(&d_gate, shape, d_gate.dtype);
        let plan = make_plan(shape[0], offsets, plain::TILE);
        plain::two_products::launch(
            &y.client,
            grid_of_tiles(&plan, &y, plain::TILE),
            CubeDim::new_1d(plain::UNITS),
            d_gate.into_tensor_arg(),
            w_gate.into_tensor_arg(),
            d_up.into_tensor_arg(),
            w_up.into_tensor_arg(),
            plan.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            element(y.dtype),
        );
        y
    }
}

/// `w` as `dtype`.
fn cast<B: Backend>(w: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if w.dtype() == dtype { w } else { B::float_cast(w, FloatDType::from(dtype)) }
}

#[derive(Debug)]
struct MatmulBackward;

impl<B: GroupedOps> Backward<B, 2> for MatmulBackward {
    /// x, w as the type of x, offsets, the type of w.
    type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>, DType);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_parent, w_parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, w, offsets, dtype) = ops.state;
        if let Some(parent) = x_parent {
            let d_x = B::grouped_matmul_transposed(grad.clone(), w, offsets.clone());
            grads.register::<B>(parent.id, d_x);
        }
        if let Some(parent) = w_parent {
            grads.register::<B>(parent.id, B::grouped_weight_gradient(x, grad, offsets, dtype));
        }
    }
}

#[derive(Debug)]
struct SwigluBackward;

/// What the gradient of [`GroupedOps::grouped_swiglu`] needs.
#[derive(Debug, Clone)]
struct SwigluState<B: Backend> {
    x: FloatTensor<B>,
    /// The weights as the type of x.
    w_gate: FloatTensor<B>,
    w_up: FloatTensor<B>,
    offsets: IntTensor<B>,
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    /// The types of the weights.
    dtypes: [DType; 2],
}

impl<B: GroupedOps + SwigluOps> Backward<B, 3> for SwigluBackward {
    type State = SwigluState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_parent, gate_parent, up_parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let SwigluState { x, w_gate, w_up, offsets, gate, up, dtypes } = ops.state;
        let (d_gate, d_up) = B::swiglu_backward(gate, up, grad);
        if let Some(parent) = x_parent {
            let offsets = offsets.clone();
            let d_x = B::grouped_swiglu_backward_x(d_gate.clone(), w_gate, d_up.clone(), w_up, offsets);
            grads.register::<B>(parent.id, d_x);
        }
        if let Some(parent) = gate_parent {
            let d_w = B::grouped_weight_gradient(x.clone(), d_gate, offsets.clone(), dtypes[0]);
            grads.register::<B>(parent.id, d_w);
        }
        if let Some(parent) = up_parent {
            grads.register::<B>(parent.id, B::grouped_weight_gradient(x, d_up, offsets, dtypes[1]));
        }
    }
}

impl<B: GroupedOps + SwigluOps, C: CheckpointStrategy> GroupedOps for Autodiff<B, C> {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = MatmulBackward.prepare::<C>([x.node(), w.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let dtype = w.dtype();
        let w = cast::<B>(w, x.dtype());
        let y = B::grouped_matmul(x.clone(), w.clone(), offsets.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((x, w, offsets, dtype), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn grouped_swiglu(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), w_gate.node(), w_up.node()];
        let prep = SwigluBackward.prepare::<C>(nodes).compute_bound().stateful();
        let (x, w_gate, w_up) = (x.into_primitive(), w_gate.into_primitive(), w_up.into_primitive());
        let dtypes = [w_gate.dtype(), w_up.dtype()];
        let (w_gate, w_up) = (cast::<B>(w_gate, x.dtype()), cast::<B>(w_up, x.dtype()));
        let (y, gate, up) = B::grouped_swiglu(x.clone(), w_gate.clone(), w_up.clone(), offsets.clone());
        let outputs = (Self::from_inner(gate.clone()), Self::from_inner(up.clone()));
        let y = match prep {
            OpsKind::Tracked(prep) => {
                prep.finish(SwigluState { x, w_gate, w_up, offsets, gate, up, dtypes }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, outputs.0, outputs.1)
    }

    /// # Panics
    /// Always: gradients of gradients are never asked for.
    fn grouped_matmul_transposed(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }

    /// # Panics
    /// Always: gradients of gradients are never asked for.
    fn grouped_weight_gradient(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: DType,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }

    /// # Panics
    /// Always: gradients of gradients are never asked for.
    fn grouped_swiglu_backward_x(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }
}
