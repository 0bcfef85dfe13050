//! Launches and gradients.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeDim;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};

use super::form::Form;
use super::plain;
use super::products::{Emulated, PART, PLANE, TensorCores};
use super::tensor;
use crate::launch::{element, empty, grid, grid_of_units, into_contiguous};
use crate::swiglu::gpu::SwigluOps;

/// Which kernels to use.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// The fastest that the device can run.
    Device,
    /// Those for tensor cores, with products in plain arithmetic.
    Emulated,
}

pub(super) fn grouped_matmul(
    x: Tensor<2>,
    w: Tensor<3>,
    offsets: Tensor<1, Int>,
    choice: Choice,
) -> Tensor<2> {
    let (x, w, offsets) = (x.into_dispatch(), w.into_dispatch(), offsets.into_dispatch());
    Tensor::from_dispatch(Dispatch::grouped_matmul(x, w, offsets, choice))
}

pub(super) fn grouped_swiglu(
    x: Tensor<2>,
    w_gate: Tensor<3>,
    w_up: Tensor<3>,
    offsets: Tensor<1, Int>,
    choice: Choice,
) -> Tensor<2> {
    let (x, offsets) = (x.into_dispatch(), offsets.into_dispatch());
    let (w_gate, w_up) = (w_gate.into_dispatch(), w_up.into_dispatch());
    let (y, _, _) = Dispatch::grouped_swiglu(x, w_gate, w_up, offsets, choice);
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
        choice: Choice,
    ) -> FloatTensor<Self>;
    /// `grad w[e]^T`; w has the type of grad.
    #[fusion(dtype = grad, shape = Shape::from([grad[0], w[1]]))]
    fn grouped_matmul_transposed(
        grad: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> FloatTensor<Self>;
    /// `x[e]^T grad[e]` for each expert, as `dtype`.
    #[fusion(meta = |x, grad, offsets, dtype, _choice| weight_spec(x, grad, offsets, *dtype))]
    fn grouped_weight_gradient(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        dtype: DType,
        choice: Choice,
    ) -> FloatTensor<Self>;
    /// SwiGLU of both products, and the products, gate and up.
    #[fusion(meta = |x, w_gate, _w_up, _offsets, _choice| swiglu_specs(x, w_gate))]
    fn grouped_swiglu(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// `d_gate w_gate[e]^T + d_up w_up[e]^T`; the weights have the type of the gradients.
    #[fusion(dtype = d_gate, shape = Shape::from([d_gate[0], w_gate[1]]))]
    fn grouped_swiglu_backward_x(
        d_gate: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        d_up: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
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

/// The kernels that compute one operation.
#[derive(Clone, Copy)]
enum Path {
    Plain,
    /// With this many elements per load.
    TensorCores(usize),
    Emulated(usize),
}

impl Path {
    /// For factors of the type of `x`, whose rows, like those of results, have these lengths.
    fn new(x: &CubeTensor, columns: [usize; 2], choice: Choice) -> Self {
        let widest = VECTOR_BYTES / x.dtype.size();
        let size = if columns.iter().all(|n| n.is_multiple_of(widest)) { widest } else { 1 };
        match choice {
            Choice::Emulated => Self::Emulated(size),
            Choice::Device if crate::may_use_tensor_cores() && has_tensor_cores(x) => Self::TensorCores(size),
            Choice::Device => Self::Plain,
        }
    }

    fn form(self) -> Form {
        match self {
            Self::Plain => Form::PLAIN,
            Self::TensorCores(_) => Form::TENSOR_CORES,
            Self::Emulated(_) => Form::EMULATED,
        }
    }

    /// Elements in each load.
    fn size(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::TensorCores(size) | Self::Emulated(size) => size,
        }
    }
}

/// Bytes that a unit loads or stores at a time, if rows are multiples of them.
const VECTOR_BYTES: usize = 16;

/// Whether the device multiplies tiles of bf16.
fn has_tensor_cores(x: &CubeTensor) -> bool {
    let properties = x.client.properties();
    let hardware = &properties.hardware;
    let part = PART as u32;
    let product = MmaConfig {
        a_type: ElemType::Float(FloatKind::BF16),
        b_type: ElemType::Float(FloatKind::BF16),
        cd_type: ElemType::Float(FloatKind::F32),
        m: part,
        n: part,
        k: part,
    };
    let form = Form::TENSOR_CORES;
    x.dtype == DType::BF16
        && properties.features.matmul.cmma.contains(&product)
        && (hardware.plane_size_min, hardware.plane_size_max) == (PLANE as u32, PLANE as u32)
        && hardware.max_units_per_cube >= form.units()
        && hardware.max_shared_memory_size >= form.shared_bytes(x.dtype.size())
}

/// Launches a kernel with these sizes of vectors, tensors and last arguments. A macro, because each
/// of the kernels has a launch of its own type.
macro_rules! launch {
    ($kernel:ident, $path:expr, $cubes:expr, [$($size:expr),*], [$first:expr $(, $tensor:expr)*], $($last:expr),*) => {{
        let (client, form) = ($first.client.clone(), $path.form());
        let (cubes, units) = (grid($cubes), CubeDim::new_1d(form.units()));
        let first = $first.into_tensor_arg();
        match $path {
            Path::Plain => plain::$kernel::launch(
                &client, cubes, units, first, $($tensor.into_tensor_arg(),)* $($last),*
            ),
            Path::TensorCores(_) => tensor::$kernel::launch::<TensorCores>(
                &client, cubes, units, $($size,)* first, $($tensor.into_tensor_arg(),)* form, $($last),*
            ),
            Path::Emulated(_) => tensor::$kernel::launch::<Emulated>(
                &client, cubes, units, $($size,)* first, $($tensor.into_tensor_arg(),)* form, $($last),*
            ),
        }
    }};
}

/// Which rows of which expert each tile of this many rows has.
fn make_plan(rows: usize, offsets: CubeTensor, tile: usize) -> CubeTensor {
    // This many tiles are enough for any distribution of rows, including rows of no expert.
    let groups = offsets.shape()[0];
    let tiles = (rows + groups * (tile - 1)) / tile;
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

/// `w`, contiguous and as `dtype`.
fn weights(w: CubeTensor, dtype: DType) -> CubeTensor {
    into_contiguous(cast::<CubeBackend>(w, dtype))
}

fn product(
    x: CubeTensor,
    w: CubeTensor,
    offsets: CubeTensor,
    is_transposed: bool,
    choice: Choice,
) -> CubeTensor {
    let (x, offsets) = (into_contiguous(x), into_contiguous(offsets));
    let w = weights(w, x.dtype);
    let (rows, k) = (x.shape()[0], x.shape()[1]);
    let columns = if is_transposed { w.shape()[1] } else { w.shape()[2] };
    let y = empty(&x, [rows, columns], x.dtype);
    let path = Path::new(&x, [k, columns], choice);
    let form = path.form();
    let plan = make_plan(rows, offsets, form.rows);
    let cubes = plan.shape()[0] * columns.div_ceil(form.columns);
    let element = element(x.dtype);
    launch!(product, path, cubes, [path.size()], [x, w, plan, y.clone()], is_transposed, element);
    y
}

impl GroupedOps for CubeBackend {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> FloatTensor<Self> {
        product(x, w, offsets, false, choice)
    }

    fn grouped_matmul_transposed(
        grad: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> FloatTensor<Self> {
        product(grad, w, offsets, true, choice)
    }

    fn grouped_weight_gradient(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        dtype: DType,
        choice: Choice,
    ) -> FloatTensor<Self> {
        let (x, grad, offsets) = (into_contiguous(x), into_contiguous(grad), into_contiguous(offsets));
        let (experts, k, n) = (offsets.shape()[0] - 1, x.shape()[1], grad.shape()[1]);
        let d_w = empty(&x, [experts, k, n], dtype);
        let path = Path::new(&x, [k, n], choice);
        let form = path.form();
        let result_size = path.size().min(VECTOR_BYTES / dtype.size());
        let cubes = experts * k.div_ceil(form.rows) * n.div_ceil(form.columns);
        let elements = [element(x.dtype), element(dtype), element(offsets.dtype)];
        let sizes = (path.size(), result_size);
        launch!(weight_gradient, path, cubes, [sizes.0, sizes.1], [x, grad, offsets, d_w.clone()], elements);
        d_w
    }

    fn grouped_swiglu(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, offsets) = (into_contiguous(x), into_contiguous(offsets));
        let (w_gate, w_up) = (weights(w_gate, x.dtype), weights(w_up, x.dtype));
        let (rows, columns) = (x.shape()[0], w_gate.shape()[2]);
        let [y, gate, up] = [(); 3].map(|()| empty(&x, [rows, columns], x.dtype));
        let path = Path::new(&x, [x.shape()[1], columns], choice);
        let form = path.form();
        let plan = make_plan(rows, offsets, form.rows);
        let cubes = plan.shape()[0] * columns.div_ceil(form.swiglu_columns);
        let outputs = (y.clone(), gate.clone(), up.clone());
        let element = element(x.dtype);
        launch!(swiglu, path, cubes, [path.size()], [x, w_gate, w_up, plan, y, gate, up], element);
        outputs
    }

    fn grouped_swiglu_backward_x(
        d_gate: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        d_up: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> FloatTensor<Self> {
        let (d_gate, d_up, offsets) =
            (into_contiguous(d_gate), into_contiguous(d_up), into_contiguous(offsets));
        let (w_gate, w_up) = (weights(w_gate, d_gate.dtype), weights(w_up, d_gate.dtype));
        let (rows, columns) = (d_gate.shape()[0], w_gate.shape()[1]);
        let y = empty(&d_gate, [rows, columns], d_gate.dtype);
        let path = Path::new(&d_gate, [d_gate.shape()[1], columns], choice);
        let form = path.form();
        let plan = make_plan(rows, offsets, form.rows);
        let cubes = plan.shape()[0] * columns.div_ceil(form.columns);
        let element = element(y.dtype);
        launch!(
            two_products,
            path,
            cubes,
            [path.size()],
            [d_gate, w_gate, d_up, w_up, plan, y.clone()],
            element
        );
        y
    }
}

/// `w` as `dtype`.
fn cast<B: Backend>(w: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if w.dtype() == dtype { w } else { B::float_cast(w, FloatDType::from(dtype)) }
}

#[derive(Debug)]
struct MatmulBackward {
    choice: Choice,
}

impl<B: GroupedOps> Backward<B, 2> for MatmulBackward {
    /// x, w as the type of x, offsets, the type of w.
    type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>, DType);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_parent, w_parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, w, offsets, dtype) = ops.state;
        if let Some(parent) = x_parent {
            let d_x = B::grouped_matmul_transposed(grad.clone(), w, offsets.clone(), self.choice);
            grads.register::<B>(parent.id, d_x);
        }
        if let Some(parent) = w_parent {
            let d_w = B::grouped_weight_gradient(x, grad, offsets, dtype, self.choice);
            grads.register::<B>(parent.id, d_w);
        }
    }
}

#[derive(Debug)]
struct SwigluBackward {
    choice: Choice,
}

/// Saved for the gradient of [`GroupedOps::grouped_swiglu`].
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
        let choice = self.choice;
        let [x_parent, gate_parent, up_parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let SwigluState { x, w_gate, w_up, offsets, gate, up, dtypes } = ops.state;
        let (d_gate, d_up) = B::swiglu_backward(gate, up, grad);
        if let Some(parent) = x_parent {
            let (d_gate, d_up, offsets) = (d_gate.clone(), d_up.clone(), offsets.clone());
            let d_x = B::grouped_swiglu_backward_x(d_gate, w_gate, d_up, w_up, offsets, choice);
            grads.register::<B>(parent.id, d_x);
        }
        if let Some(parent) = gate_parent {
            let (x, offsets) = (x.clone(), offsets.clone());
            let d_w = B::grouped_weight_gradient(x, d_gate, offsets, dtypes[0], choice);
            grads.register::<B>(parent.id, d_w);
        }
        if let Some(parent) = up_parent {
            let d_w = B::grouped_weight_gradient(x, d_up, offsets, dtypes[1], choice);
            grads.register::<B>(parent.id, d_w);
        }
    }
}

impl<B: GroupedOps + SwigluOps, C: CheckpointStrategy> GroupedOps for Autodiff<B, C> {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        choice: Choice,
    ) -> FloatTensor<Self> {
        let prep = MatmulBackward { choice }.prepare::<C>([x.node(), w.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let dtype = w.dtype();
        let w = cast::<B>(w, x.dtype());
        let y = B::grouped_matmul(x.clone(), w.clone(), offsets.clone(), choice);
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
        choice: Choice,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), w_gate.node(), w_up.node()];
        let prep = SwigluBackward { choice }.prepare::<C>(nodes).compute_bound().stateful();
        let (x, w_gate, w_up) = (x.into_primitive(), w_gate.into_primitive(), w_up.into_primitive());
        let dtypes = [w_gate.dtype(), w_up.dtype()];
        let (w_gate, w_up) = (cast::<B>(w_gate, x.dtype()), cast::<B>(w_up, x.dtype()));
        let (y, gate, up) =
            B::grouped_swiglu(x.clone(), w_gate.clone(), w_up.clone(), offsets.clone(), choice);
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
    /// Always: gradients of gradients are never needed.
    fn grouped_matmul_transposed(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: Choice,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }

    /// # Panics
    /// Always: gradients of gradients are never needed.
    fn grouped_weight_gradient(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: DType,
        _: Choice,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }

    /// # Panics
    /// Always: gradients of gradients are never needed.
    fn grouped_swiglu_backward_x(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: Choice,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }
}
