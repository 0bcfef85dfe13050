//! Causal attention inside of the documents of packed samples, with grouped queries (Ainslie et al. 2023,
//! arXiv 2305.13245, section 2.2): `softmax(q k^T / sqrt(h)) v` over the keys that a query may see.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Int, Tensor};
pub use moe_kernels::attention::AttentionShape;

use super::Form;
use super::flex::{blocks, dot, first_order_only, integers, shape2, softmax_row, tensor, values};

/// Causal attention of each token to the tokens of its own document piece, itself included.
///
/// # Shapes
/// - qkv: `[batch * seq, (heads + 2 * kv_heads) * head_dim]`: queries, keys and values side by side
/// - first: `[batch * seq]`, the position inside of the sample at which the token's piece begins
/// - result: `[batch * seq, heads * head_dim]`
pub fn attention(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    match Form::of(&qkv) {
        Form::Plain => moe_kernels::attention::attention_plain(qkv, first, shape),
        Form::Gpu => moe_kernels::attention::attention(qkv, first, shape),
        Form::Cpu => attention_on_cpu(qkv, first, shape),
    }
}

/// Products of burn, and the softmax of the visible scores in one pass.
fn attention_on_cpu(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    let AttentionShape { seq, heads, kv_heads, head_dim: dim } = shape;
    let batch = qkv.dims()[0] / seq;
    let by_head = |from: usize, n: usize| {
        let x = qkv.clone().narrow(1, from * dim, n * dim);
        x.reshape([batch, seq, n, dim]).swap_dims(1, 2)
    };
    let (key, value) = (by_head(heads, kv_heads), by_head(heads + kv_heads, kv_heads));
    // The queries of one group lie one below the other, so that keys and values are used where they
    // are and never repeated.
    let query = by_head(0, heads).reshape([batch, kv_heads, heads / kv_heads * seq, dim]);
    let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch * heads * seq, seq]);
    let scale = (dim as f64).powf(-0.5);
    let weights = Dispatch::k_attention(scores.into_dispatch(), first.into_dispatch(), heads, scale);
    let weights = Tensor::<2>::from_dispatch(weights);
    let weights = weights.reshape([batch, kv_heads, heads / kv_heads * seq, seq]);
    let output = weights.matmul(value).reshape([batch, heads, seq, dim]);
    output.swap_dims(1, 2).reshape([batch * seq, heads * dim])
}

/// Which keys each row of scores may see: those of its own document piece up to itself.
struct Spans {
    seq: usize,
    /// Rows of scores for each sample: heads times queries.
    rows_per_sample: usize,
    first: Vec<i64>,
}

impl Spans {
    fn new(first: &FlexTensor, heads: usize, seq: usize) -> Self {
        let first = first.to_contiguous();
        Self { seq, rows_per_sample: heads * seq, first: integers(&first).into_owned() }
    }

    fn keys(&self, row: usize) -> Range<usize> {
        let (sample, query) = (row / self.rows_per_sample, row % self.seq);
        self.first[sample * self.seq + query] as usize..query + 1
    }
}

/// What is not a product, in the form of the CPU.
#[backend_extension(Flex, Autodiff)]
trait AttentionRows: Backend {
    /// Softmax of each row of scores `[batch * heads * seq, seq]`, times `scale`, over the keys it may
    /// see; 0 elsewhere.
    fn k_attention(
        x: FloatTensor<Self>,
        first: IntTensor<Self>,
        heads: usize,
        scale: f64,
    ) -> FloatTensor<Self>;
    /// Gradient of [`AttentionRows::k_attention`] from its output.
    fn k_attention_backward(
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: IntTensor<Self>,
        heads: usize,
        scale: f64,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct Attention;

impl<B: AttentionRows> Backward<B, 1> for Attention {
    type State = (FloatTensor<B>, IntTensor<B>, usize, f64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (y, first, heads, scale) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::k_attention_backward(y, grad, first, heads, scale));
        }
    }
}

impl<B: AttentionRows, C: CheckpointStrategy> AttentionRows for Autodiff<B, C> {
    fn k_attention(
        x: FloatTensor<Self>,
        first: IntTensor<Self>,
        heads: usize,
        scale: f64,
    ) -> FloatTensor<Self> {
        let prep = Attention.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::k_attention(x.into_primitive(), first.clone(), heads, scale);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((y.clone(), first, heads, scale), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: usize,
        _: f64,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

impl AttentionRows for Flex {
    fn k_attention(x: FlexTensor, first: IntTensor<Self>, heads: usize, scale: f64) -> FlexTensor {
        let (rows, columns) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let spans = Spans::new(&first, heads, columns);
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let row = first + i;
                let keys = spans.keys(row);
                let x = &x[row * columns..(row + 1) * columns];
                softmax_row(&mut out[keys.clone()], &x[keys], scale as f32);
            }
        });
        tensor(out, [rows, columns])
    }

    fn k_attention_backward(
        y: FlexTensor,
        grad: FlexTensor,
        first: IntTensor<Self>,
        heads: usize,
        scale: f64,
    ) -> FlexTensor {
        let (rows, columns) = shape2(&y);
        let (y, grad) = (y.to_contiguous(), grad.to_contiguous());
        let (y, grad) = (values(&y), values(&grad));
        let spans = Spans::new(&first, heads, columns);
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let row = first + i;
                let keys = spans.keys(row);
                let at = row * columns + keys.start..row * columns + keys.end;
                let (y, grad) = (&y[at.clone()], &grad[at]);
                let dot = dot(y, grad);
                for ((out, y), grad) in out[keys].iter_mut().zip(y).zip(grad) {
                    *out = y * (grad - dot) * scale as f32;
                }
            }
        });
        tensor(out, [rows, columns])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::super::testing::check;
    use super::*;

    #[test]
    fn keys_begin_with_the_piece_and_end_with_the_query() {
        // Two samples of three tokens, two heads: rows are sample, head, query.
        let spans = Spans { seq: 3, rows_per_sample: 6, first: vec![0, 0, 2, 0, 1, 1] };
        let keys: Vec<Range<usize>> = (0..12).map(|row| spans.keys(row)).collect();
        assert_eq!(keys[..3], [0..1, 0..2, 2..3]);
        assert_eq!(keys[3..6], keys[..3]);
        assert_eq!(keys[6..9], [0..1, 1..2, 1..3]);
    }

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        // Two samples of 65 tokens, four heads of width 2 with two of keys and values; in each sample a
        // piece begins at 7.
        let first: Vec<i64> = (0..130).map(|token| if token % 65 < 7 { 0 } else { 7 }).collect();
        let shape = AttentionShape { seq: 65, heads: 4, kv_heads: 2, head_dim: 2 };
        check([1, 1], |x, _| {
            let first = Tensor::from_data(TensorData::new(first.clone(), [130]), &Device::flex().autodiff());
            attention(x.narrow(0, 0, 130).narrow(1, 0, 16), first, shape)
        });
    }
}
