//! Attention on the CPU that keeps the whole softmax of each query: burn's products, and the softmax of the
//! visible scores in one pass. For sequences that are short enough.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Int, Tensor};

use super::super::flex::{dot, fill_rows, first_order_only, integers, row, shape2, softmax_row, values};
use super::super::matmul::matmul;

/// As [`super::attend`], where each query sees the keys from its first one up to its own position.
pub(super) fn attend([query, key, value]: [Tensor<4>; 3], first: Tensor<1, Int>, scale: f64) -> Tensor<4> {
    let ([n, heads, queries, width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let (rows, value_width) = (heads / kv_heads * queries, value.dims()[3]);
    // The queries of one group are stacked, so that keys and values are used in place and never repeated.
    let query = query.reshape([n, kv_heads, rows, width]);
    let scores = matmul(query, key.swap_dims(2, 3)).reshape([n * heads * queries, keys]);
    let weights = Dispatch::k_attention(scores.into_dispatch(), first.into_dispatch(), heads, queries, scale);
    let weights = Tensor::<2>::from_dispatch(weights).reshape([n, kv_heads, rows, keys]);
    matmul(weights, value).reshape([n, heads, queries, value_width])
}

/// Which keys each row of scores may see: those from its first one up to its own position.
struct Spans {
    queries: usize,
    /// Rows of scores for each sample: heads times queries.
    rows_per_sample: usize,
    /// Keys before the first query.
    ahead: usize,
    first: Vec<i64>,
}

impl Spans {
    fn new(first: &FlexTensor, heads: usize, queries: usize, keys: usize) -> Self {
        let first = integers(&first.to_contiguous()).into_owned();
        Self { queries, rows_per_sample: heads * queries, ahead: keys - queries, first }
    }

    fn keys(&self, row: usize) -> Range<usize> {
        let (sample, query) = (row / self.rows_per_sample, row % self.queries);
        self.first[sample * self.queries + query] as usize..query + self.ahead + 1
    }
}

/// The part that is not a product.
#[backend_extension(Flex, Autodiff)]
trait AttentionRows: Backend {
    /// Softmax of each row of scores `[n * heads * queries, keys]`, times `scale`, over the keys it may
    /// see; 0 elsewhere.
    fn k_attention(
        x: FloatTensor<Self>,
        first: IntTensor<Self>,
        heads: usize,
        queries: usize,
        scale: f64,
    ) -> FloatTensor<Self>;
    /// Gradient of [`AttentionRows::k_attention`] from its output.
    fn k_attention_backward(
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: IntTensor<Self>,
        heads: usize,
        queries: usize,
        scale: f64,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct Attention;

impl<B: AttentionRows> Backward<B, 1> for Attention {
    type State = (FloatTensor<B>, IntTensor<B>, usize, usize, f64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (y, first, heads, queries, scale) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::k_attention_backward(y, grad, first, heads, queries, scale));
        }
    }
}

impl<B: AttentionRows, C: CheckpointStrategy> AttentionRows for Autodiff<B, C> {
    fn k_attention(
        x: FloatTensor<Self>,
        first: IntTensor<Self>,
        heads: usize,
        queries: usize,
        scale: f64,
    ) -> FloatTensor<Self> {
        let prep = Attention.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::k_attention(x.into_primitive(), first.clone(), heads, queries, scale);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((y.clone(), first, heads, queries, scale), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: usize,
        _: usize,
        _: f64,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

impl AttentionRows for Flex {
    fn k_attention(
        x: FlexTensor,
        first: IntTensor<Self>,
        heads: usize,
        queries: usize,
        scale: f64,
    ) -> FlexTensor {
        let (rows, columns) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let spans = Spans::new(&first, heads, queries, columns);
        fill_rows(
            [rows, columns],
            #[inline(always)]
            |i, out| {
                let keys = spans.keys(i);
                softmax_row(&mut out[keys.clone()], &row(x, i, columns)[keys], scale as f32);
            },
        )
    }

    fn k_attention_backward(
        y: FlexTensor,
        grad: FlexTensor,
        first: IntTensor<Self>,
        heads: usize,
        queries: usize,
        scale: f64,
    ) -> FlexTensor {
        let (rows, columns) = shape2(&y);
        let (y, grad) = (y.to_contiguous(), grad.to_contiguous());
        let (y, grad) = (values(&y), values(&grad));
        let spans = Spans::new(&first, heads, queries, columns);
        fill_rows(
            [rows, columns],
            #[inline(always)]
            |i, out| {
                let keys = spans.keys(i);
                let (y, grad) = (&row(y, i, columns)[keys.clone()], &row(grad, i, columns)[keys.clone()]);
                let dot = dot(y, grad);
                for ((out, y), grad) in out[keys].iter_mut().zip(y).zip(grad) {
                    *out = y * (grad - dot) * scale as f32;
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_begin_with_the_piece_and_end_with_the_query() {
        // Two samples of three tokens, two heads: rows are sample, head, query.
        let spans = Spans { queries: 3, rows_per_sample: 6, ahead: 0, first: vec![0, 0, 2, 0, 1, 1] };
        let keys: Vec<Range<usize>> = (0..12).map(|row| spans.keys(row)).collect();
        assert_eq!(keys[..3], [0..1, 0..2, 2..3]);
        assert_eq!(keys[3..6], keys[..3]);
        assert_eq!(keys[6..9], [0..1, 1..2, 1..3]);
        // Two queries at the end of four keys.
        let spans = Spans { queries: 2, rows_per_sample: 2, ahead: 2, first: vec![1, 3] };
        assert_eq!([spans.keys(0), spans.keys(1)], [1..3, 3..4]);
    }
}
