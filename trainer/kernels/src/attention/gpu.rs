//! Launches and the gradient.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeDim;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};

use super::AttentionShape;
use super::kernels::{self, Form, SIDE};
use super::tensor::{self, Emulated, PART, TensorCores};
use crate::launch::{element, empty, grid, into_contiguous};

/// Heads wider than this leave no registers for the fragments of two gradients.
const MAX_TENSOR_HEAD_DIM: usize = 128;

/// Which kernels to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Those suited to the device.
    Device,
    /// Those for tensor cores, with their products in plain arithmetic.
    Emulated,
}

/// The kernels of one call.
#[derive(Debug, Clone, Copy)]
enum Path {
    Plain(Form),
    TensorCores(Form),
    Emulated(Form),
}

pub(super) fn attention(
    qkv: Tensor<2>,
    first: Tensor<1, Int>,
    shape: AttentionShape,
    choice: Choice,
) -> Tensor<2> {
    let (qkv, first) = (qkv.into_dispatch(), first.into_dispatch());
    let (out, _) = Dispatch::flash_attention(qkv, first, shape, choice);
    Tensor::from_dispatch(out)
}

/// The kernels, as an extension of burn's GPU backends.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait AttentionOps: Backend {
    /// The output, and the logarithms of the sums of exponentials, `[heads, tokens]`.
    #[fusion(meta = |qkv, _first, shape, _choice| (out_spec(qkv, *shape), log_sums_spec(qkv, *shape)))]
    fn flash_attention(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        shape: AttentionShape,
        choice: Choice,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The gradient of qkv.
    #[fusion(meta = |qkv, _first, _out, _log_sums, _grad, _shape, _choice| qkv.clone())]
    fn flash_attention_backward(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: AttentionShape,
        choice: Choice,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "fusion")]
fn out_spec(qkv: &TensorSpec, shape: AttentionShape) -> TensorSpec {
    TensorSpec::new(Shape::from([qkv.shape[0], shape.heads * shape.head_dim]), qkv.dtype)
}

#[cfg(feature = "fusion")]
fn log_sums_spec(qkv: &TensorSpec, shape: AttentionShape) -> TensorSpec {
    TensorSpec::new(Shape::from([shape.heads, qkv.shape[0]]), DType::F32)
}

impl Path {
    fn new(qkv: &CubeTensor, shape: AttentionShape, choice: Choice) -> Self {
        let available = qkv.client.properties().hardware.max_shared_memory_size;
        let largest = |bytes: &dyn Fn(usize) -> usize| {
            let fits = |tile: &usize| bytes(*tile) <= available && (*tile == 16 || shape.seq > tile / 2);
            [64, 32, 16].into_iter().find(fits)
        };
        let tensor_bytes = |tile| Form::tensor_shared_bytes(shape.head_dim, tile, qkv.dtype.size());
        let tensor_tile = largest(&tensor_bytes);
        match (choice, tensor_tile) {
            (Choice::Emulated, Some(tile)) => Self::Emulated(Form::new(shape, tile)),
            (Choice::Device, Some(tile)) if crate::may_use_tensor_cores() && has_tensor_cores(qkv, shape) => {
                Self::TensorCores(Form::new(shape, tile))
            }
            _ => Self::Plain(Form::new(shape, largest(&Form::shared_bytes).unwrap_or(16))),
        }
    }

    fn form(self) -> Form {
        match self {
            Self::Plain(form) | Self::TensorCores(form) | Self::Emulated(form) => form,
        }
    }
}

/// Whether the device multiplies tiles of this type.
fn has_tensor_cores(qkv: &CubeTensor, shape: AttentionShape) -> bool {
    let properties = qkv.client.properties();
    let (input, part) = (element(qkv.dtype), PART as u32);
    let product = MmaConfig {
        a_type: input,
        b_type: input,
        cd_type: ElemType::Float(FloatKind::F32),
        m: part,
        n: part,
        k: part,
    };
    let planes = (properties.hardware.plane_size_min, properties.hardware.plane_size_max);
    matches!(qkv.dtype, DType::BF16 | DType::F16)
        && planes == (32, 32)
        && shape.head_dim.is_multiple_of(PART)
        && shape.head_dim <= MAX_TENSOR_HEAD_DIM
        && properties.features.matmul.cmma.contains(&product)
}

/// The arguments of a kernel for tensor cores after its tensors, in a macro because each of the
/// kernels has a launch of its own type.
macro_rules! launch {
    ($kernel:ident, $path:expr, $client:expr, $cubes:expr, [$($tensor:expr),*], $seq:expr, $elements:expr) => {{
        let form = $path.form();
        let client = $client;
        let tensor_units = CubeDim::new_1d(Form::tensor_units(form.tile) as u32);
        let is_wide = client.properties().features.memory_reinterpret;
        match $path {
            Path::Plain(_) => {
                let units = CubeDim::new_1d((SIDE * SIDE) as u32);
                kernels::$kernel::launch(
                    client, grid($cubes), units, $($tensor.clone().into_tensor_arg(),)* $seq, form, $elements,
                )
            }
            Path::TensorCores(_) => tensor::$kernel::launch::<TensorCores>(
                client, grid($cubes), tensor_units, $($tensor.clone().into_tensor_arg(),)* $seq, is_wide, form, $elements,
            ),
            Path::Emulated(_) => tensor::$kernel::launch::<Emulated>(
                client, grid($cubes), tensor_units, $($tensor.clone().into_tensor_arg(),)* $seq, false, form, $elements,
            ),
        }
    }};
}

impl AttentionOps for CubeBackend {
    fn flash_attention(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        shape: AttentionShape,
        choice: Choice,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (qkv, first) = (into_contiguous(qkv), into_contiguous(first));
        let tokens = qkv.shape()[0];
        let out = empty(&qkv, [tokens, shape.heads * shape.head_dim], qkv.dtype);
        let log_sums = empty(&qkv, [shape.heads, tokens], DType::F32);
        let path = Path::new(&qkv, shape, choice);
        let tiles = tokens / shape.seq * shape.seq.div_ceil(path.form().tile);
        let elements = [element(qkv.dtype), element(first.dtype)];
        let cubes = tiles * shape.heads;
        launch!(forward, path, &qkv.client, cubes, [qkv, first, out, log_sums], shape.seq, elements);
        (out, log_sums)
    }

    fn flash_attention_backward(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: AttentionShape,
        choice: Choice,
    ) -> FloatTensor<Self> {
        let (qkv, first, out) = (into_contiguous(qkv), into_contiguous(first), into_contiguous(out));
        let (log_sums, grad) = (into_contiguous(log_sums), into_contiguous(grad));
        let tokens = qkv.shape()[0];
        let path = Path::new(&qkv, shape, choice);
        let tiles = tokens / shape.seq * shape.seq.div_ceil(path.form().tile);
        let elements = [element(qkv.dtype), element(first.dtype)];

        let dots = empty(&qkv, [shape.heads, tokens], DType::F32);
        kernels::row_dot::launch(
            &qkv.client,
            grid((tokens * shape.heads).div_ceil(kernels::DOTS_PER_CUBE)),
            CubeDim::new_1d((SIDE * SIDE) as u32),
            out.into_tensor_arg(),
            grad.clone().into_tensor_arg(),
            dots.clone().into_tensor_arg(),
            path.form(),
            element(qkv.dtype),
        );
        let d_qkv = empty(&qkv, qkv.shape(), qkv.dtype);
        let cubes = tiles * shape.heads;
        launch!(
            backward_queries,
            path,
            &qkv.client,
            cubes,
            [qkv, first, grad, log_sums, dots, d_qkv],
            shape.seq,
            elements
        );
        let cubes = tiles * shape.kv_heads;
        launch!(
            backward_keys,
            path,
            &qkv.client,
            cubes,
            [qkv, first, grad, log_sums, dots, d_qkv],
            shape.seq,
            elements
        );
        d_qkv
    }
}

#[derive(Debug)]
struct AttentionBackward {
    shape: AttentionShape,
    choice: Choice,
}

impl<B: AttentionOps> Backward<B, 1> for AttentionBackward {
    type State = (FloatTensor<B>, IntTensor<B>, FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (qkv, first, out, log_sums) = ops.state;
        if let Some(parent) = parent {
            let d_qkv = B::flash_attention_backward(qkv, first, out, log_sums, grad, self.shape, self.choice);
            grads.register::<B>(parent.id, d_qkv);
        }
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn flash_attention(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        shape: AttentionShape,
        choice: Choice,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let prep = AttentionBackward { shape, choice }.prepare::<C>([qkv.node()]).compute_bound().stateful();
        let qkv = qkv.into_primitive();
        let (out, log_sums) = B::flash_attention(qkv.clone(), first.clone(), shape, choice);
        let tracked = match prep {
            OpsKind::Tracked(prep) => prep.finish((qkv, first, out.clone(), log_sums.clone()), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        (tracked, Self::from_inner(log_sums))
    }

    /// # Panics
    /// Always: gradients of gradients are never needed.
    fn flash_attention_backward(
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: AttentionShape,
        _: Choice,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }
}
