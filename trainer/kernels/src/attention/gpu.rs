//! Launches and the gradient.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeDim;

use super::AttentionShape;
use super::kernels::{self, Form, SIDE};
use crate::launch::{element, empty, grid, into_contiguous};

/// Queries and keys of a tile, where shared memory allows it.
const LARGE_TILE: usize = 64;
/// Queries and keys of a tile otherwise: 15 KiB of shared memory, which every GPU has.
const SMALL_TILE: usize = 32;

pub(super) fn attention(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    let (out, _) = Dispatch::flash_attention(qkv.into_dispatch(), first.into_dispatch(), shape);
    Tensor::from_dispatch(out)
}

/// The kernels, as an extension of burn's GPU backends.
#[backend_extension(Cube, Autodiff, Fusion)]
pub trait AttentionOps: Backend {
    /// The output, and the logarithms of the sums of exponentials, `[heads, tokens]`.
    #[fusion(meta = |qkv, _first, shape| (out_spec(qkv, *shape), log_sums_spec(qkv, *shape)))]
    fn flash_attention(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        shape: AttentionShape,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The gradient of qkv.
    #[fusion(meta = |qkv, _first, _out, _log_sums, _grad, _shape| qkv.clone())]
    fn flash_attention_backward(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;
}

fn out_spec(qkv: &TensorSpec, shape: AttentionShape) -> TensorSpec {
    TensorSpec::new(Shape::from([qkv.shape[0], shape.heads * shape.head_dim]), qkv.dtype)
}

fn log_sums_spec(qkv: &TensorSpec, shape: AttentionShape) -> TensorSpec {
    TensorSpec::new(Shape::from([shape.heads, qkv.shape[0]]), DType::F32)
}

/// The tile that fits the device.
fn tile(like: &CubeTensor, shape: AttentionShape) -> usize {
    let available = like.client.properties().hardware.max_shared_memory_size;
    match available >= Form::shared_bytes(LARGE_TILE) && shape.seq > SMALL_TILE {
        true => LARGE_TILE,
        false => SMALL_TILE,
    }
}

impl AttentionOps for CubeBackend {
    fn flash_attention(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        shape: AttentionShape,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (qkv, first) = (into_contiguous(qkv), into_contiguous(first));
        let tokens = qkv.shape()[0];
        let out = empty(&qkv, [tokens, shape.heads * shape.head_dim], qkv.dtype);
        let log_sums = empty(&qkv, [shape.heads, tokens], DType::F32);
        let form = Form::new(shape, tile(&qkv, shape));
        kernels::forward::launch(
            &out.client,
            grid(tokens / shape.seq * shape.seq.div_ceil(form.tile) * shape.heads),
            CubeDim::new_1d((SIDE * SIDE) as u32),
            qkv.clone().into_tensor_arg(),
            first.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            log_sums.clone().into_tensor_arg(),
            shape.seq,
            form,
            [element(qkv.dtype), element(first.dtype)],
        );
        (out, log_sums)
    }

    fn flash_attention_backward(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        let (qkv, first, out) = (into_contiguous(qkv), into_contiguous(first), into_contiguous(out));
        let (log_sums, grad) = (into_contiguous(log_sums), into_contiguous(grad));
        let tokens = qkv.shape()[0];
        let form = Form::new(shape, tile(&qkv, shape));
        let tiles = tokens / shape.seq * shape.seq.div_ceil(form.tile);
        let units = CubeDim::new_1d((SIDE * SIDE) as u32);
        let elements = [element(qkv.dtype), element(first.dtype)];

        let dots = empty(&qkv, [shape.heads, tokens], DType::F32);
        kernels::row_dot::launch(
            &qkv.client,
            grid((tokens * shape.heads).div_ceil(kernels::DOTS_PER_CUBE)),
            units,
            out.into_tensor_arg(),
            grad.clone().into_tensor_arg(),
            dots.clone().into_tensor_arg(),
            form,
            element(qkv.dtype),
        );
        let d_qkv = empty(&qkv, qkv.shape(), qkv.dtype);
        kernels::backward_queries::launch(
            &qkv.client,
            grid(tiles * shape.heads),
            units,
            qkv.clone().into_tensor_arg(),
            first.clone().into_tensor_arg(),
            grad.clone().into_tensor_arg(),
            log_sums.clone().into_tensor_arg(),
            dots.clone().into_tensor_arg(),
            d_qkv.clone().into_tensor_arg(),
            shape.seq,
            form,
            elements,
        );
        kernels::backward_keys::launch(
            &qkv.client,
            grid(tiles * shape.kv_heads),
            units,
            qkv.clone().into_tensor_arg(),
            first.into_tensor_arg(),
            grad.into_tensor_arg(),
            log_sums.into_tensor_arg(),
            dots.into_tensor_arg(),
            d_qkv.clone().into_tensor_arg(),
            shape.seq,
            form,
            elements,
        );
        d_qkv
    }
}

#[derive(Debug)]
struct AttentionBackward {
    shape: AttentionShape,
}

impl<B: AttentionOps> Backward<B, 1> for AttentionBackward {
    type State = (FloatTensor<B>, IntTensor<B>, FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (qkv, first, out, log_sums) = ops.state;
        if let Some(parent) = parent {
            let d_qkv = B::flash_attention_backward(qkv, first, out, log_sums, grad, self.shape);
            grads.register::<B>(parent.id, d_qkv);
        }
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn flash_attention(
        qkv: FloatTensor<Self>,
        first: IntTensor<Self>,
        shape: AttentionShape,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let prep = AttentionBackward { shape }.prepare::<C>([qkv.node()]).compute_bound().stateful();
        let qkv = qkv.into_primitive();
        let (out, log_sums) = B::flash_attention(qkv.clone(), first.clone(), shape);
        let tracked = match prep {
            OpsKind::Tracked(prep) => prep.finish((qkv, first, out.clone(), log_sums.clone()), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        (tracked, Self::from_inner(log_sums))
    }

    /// # Panics
    /// Always: gradients of gradients are never asked for.
    fn flash_attention_backward(
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: AttentionShape,
    ) -> FloatTensor<Self> {
        panic!("kernels have gradients of the first order only")
    }
}
