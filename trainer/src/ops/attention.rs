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
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
pub use moe_kernels::attention::AttentionShape;

use super::Form;
use super::flex::{blocks, dot, first_order_only, integers, shape2, softmax_row, tensor, values};
use super::linear::cast_f32;

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

/// [`attention`] of each token to the last `window` tokens of its document piece, itself included.
///
/// # Shapes
/// - qkv and result: as in [`attention`]
/// - starts: `batch * seq` positions inside of the sample at which the token's piece begins
pub fn attention_in_window(
    qkv: Tensor<2>,
    starts: &[usize],
    window: usize,
    shape: AttentionShape,
) -> Tensor<2> {
    let AttentionShape { seq, heads, kv_heads, head_dim: dim } = shape;
    if Form::of(&qkv) == Form::Gpu {
        // The kernels take any first key that never falls inside of a sample, and skip what nobody sees.
        let first = integer_tensor(&first_in_window(starts, seq, window), &qkv.device());
        return attention(qkv, first, shape);
    }
    let columns = |from: usize, n: usize| by_head(qkv.clone().narrow(1, from * dim, n * dim), seq, n);
    let parts = [columns(0, heads), columns(heads, kv_heads), columns(heads + kv_heads, kv_heads)];
    by_token(attend_in_window(parts, starts, window, (dim as f64).powf(-0.5), None))
}

fn integer_tensor(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// [`attention`] in the form of the CPU.
fn attention_on_cpu(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    let AttentionShape { seq, heads, kv_heads, head_dim: dim } = shape;
    let by_head = |from: usize, n: usize| by_head(qkv.clone().narrow(1, from * dim, n * dim), seq, n);
    let (key, value) = (by_head(heads, kv_heads), by_head(heads + kv_heads, kv_heads));
    let scale = (dim as f64).powf(-0.5);
    by_token(attend_on_cpu(by_head(0, heads), key, value, first, scale))
}

/// The columns of `n` heads, one head below the other.
///
/// # Shapes
/// - x: `[batch * seq, n * width]`
/// - result: `[batch, n, seq, width]`
pub fn by_head(x: Tensor<2>, seq: usize, n: usize) -> Tensor<4> {
    let [tokens, columns] = x.dims();
    x.reshape([tokens / seq, seq, n, columns / n]).swap_dims(1, 2)
}

/// The heads of each token side by side: the inverse of [`by_head`].
///
/// # Shapes
/// - x: `[batch, n, seq, width]`
/// - result: `[batch * seq, n * width]`
pub fn by_token(x: Tensor<4>) -> Tensor<2> {
    let [batch, n, seq, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch * seq, n * width])
}

/// Attention of each query to the keys from its first one up to the one at its own place, the last query being at the
/// place of the last key: `softmax(scale * q k^T) v`. Keys and values may differ in width. A sink is a logit of each
/// head that takes its share of the softmax and has no value.
///
/// # Shapes
/// - query: `[n, heads, queries, key_width]`
/// - key, value: `[n, kv_heads, keys, key_width]` and `[n, kv_heads, keys, value_width]`, with at least as many keys as
///   queries; kv_heads divides heads
/// - first: `n * queries` numbers of keys, none beyond the place of its query
/// - sinks: `[heads]`
/// - result: `[n, heads, queries, value_width]`, in the type of the query
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    first: &[usize],
    scale: f64,
    sinks: Option<Tensor<1>>,
) -> Tensor<4> {
    match Form::of(&query) {
        Form::Cpu if sinks.is_none() => {
            let first = integer_tensor(first, &query.device());
            attend_on_cpu(query, key, value, first, scale)
        }
        _ => attend_plain(query, key, value, first, scale, sinks),
    }
}

/// Products of burn, and the softmax of the visible scores in one pass.
fn attend_on_cpu(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    first: Tensor<1, Int>,
    scale: f64,
) -> Tensor<4> {
    let ([n, heads, queries, width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let (rows, value_width) = (heads / kv_heads * queries, value.dims()[3]);
    // The queries of one group lie one below the other, so that keys and values are used where they
    // are and never repeated.
    let query = query.reshape([n, kv_heads, rows, width]);
    let scores = query.matmul(key.swap_dims(2, 3)).reshape([n * heads * queries, keys]);
    let weights = Dispatch::k_attention(scores.into_dispatch(), first.into_dispatch(), heads, queries, scale);
    let weights = Tensor::<2>::from_dispatch(weights).reshape([n, kv_heads, rows, keys]);
    weights.matmul(value).reshape([n, heads, queries, value_width])
}

/// [`attend`] by tensor operations: the softmax of all scores in f32, with a mask added.
fn attend_plain(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    first: &[usize],
    scale: f64,
    sinks: Option<Tensor<1>>,
) -> Tensor<4> {
    let ([n, heads, queries, width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let (rows, value_width) = (heads / kv_heads * queries, value.dims()[3]);
    let dtype = query.dtype();
    let mask = mask(first, queries, keys, &query.device());
    let query = cast_f32(query).reshape([n, kv_heads, rows, width]);
    let scores = query.matmul(cast_f32(key).swap_dims(2, 3)).mul_scalar(scale);
    let scores = scores.reshape([n, heads, queries, keys]) + mask;
    let weights = match sinks {
        None => softmax(scores, 3),
        Some(sinks) => {
            let sinks = cast_f32(sinks).reshape([1, heads, 1, 1]).expand([n, heads, queries, 1]);
            softmax(Tensor::cat(vec![scores, sinks], 3), 3).narrow(3, 0, keys)
        }
    };
    let output = weights.reshape([n, kv_heads, rows, keys]).matmul(cast_f32(value));
    output.reshape([n, heads, queries, value_width]).cast(dtype)
}

/// Score added where a query must not look: after the softmax such an entry is exactly zero.
const FORBIDDEN: f32 = -1e30;

/// 0 where a query may look, a very negative number elsewhere, `[n, 1, queries, keys]`.
fn mask(first: &[usize], queries: usize, keys: usize, device: &Device) -> Tensor<4> {
    let mut values = vec![FORBIDDEN; first.len() * keys];
    for (row, scores) in values.chunks_exact_mut(keys).enumerate() {
        scores[first[row]..=row % queries + keys - queries].fill(0.0);
    }
    Tensor::from_data(TensorData::new(values, [first.len() / queries, 1, queries, keys]), device)
}

/// [`attend`] of the tokens of samples, each to the last `window` tokens up to itself, of its own document piece. Each
/// block of queries meets two blocks of keys, so that memory and time grow with `seq * window`.
///
/// # Shapes
/// - query, key, value: as in [`attend`], with `seq` queries and keys
/// - starts: `[batch * seq]`, the position inside of the sample at which the token's piece begins
pub fn attend_in_window(
    [query, key, value]: [Tensor<4>; 3],
    starts: &[usize],
    window: usize,
    scale: f64,
    sinks: Option<Tensor<1>>,
) -> Tensor<4> {
    let [batch, heads, seq, _] = query.dims();
    let first = first_in_window(starts, seq, window);
    if 2 * window >= seq {
        return attend(query, key, value, &first, scale, sinks);
    }
    let n_blocks = seq.div_ceil(window);
    let value_width = value.dims()[3];
    // Keys of a block begin one block before its queries. Queries behind the end see themselves.
    let first_of_block = |row: usize| {
        let (sample, token) = (row / (n_blocks * window), row % (n_blocks * window));
        let first = if token < seq { first[sample * seq + token] } else { token };
        first + window - token / window * window
    };
    let first: Vec<usize> = (0..batch * n_blocks * window).map(first_of_block).collect();
    let query = in_blocks(query, window, false);
    let (key, value) = (in_blocks(key, window, true), in_blocks(value, window, true));
    let output = attend(query, key, value, &first, scale, sinks);
    let output = output.reshape([batch, n_blocks, heads, window, value_width]).swap_dims(1, 2);
    output.reshape([batch, heads, n_blocks * window, value_width]).narrow(2, 0, seq)
}

/// The first token that each token sees: that of its piece, but at most `window - 1` before it.
///
/// # Shapes
/// - starts and result: `batch * seq`, positions inside of the sample
pub fn first_in_window(starts: &[usize], seq: usize, window: usize) -> Vec<usize> {
    let first = |(token, &start): (usize, &usize)| start.max((token % seq + 1).saturating_sub(window));
    starts.iter().enumerate().map(first).collect()
}

/// Blocks of `size` rows, the last one filled up with zeros; with the block before each if asked, zeros before the
/// first.
///
/// # Shapes
/// - x: `[batch, heads, seq, width]`
/// - result: `[batch * blocks, heads, size, width]`, or twice as many rows
fn in_blocks(x: Tensor<4>, size: usize, with_previous: bool) -> Tensor<4> {
    let [batch, heads, seq, width] = x.dims();
    let n_blocks = seq.div_ceil(size);
    let zeros = |rows: usize| Tensor::zeros([batch, heads, rows, width], (&x.device(), x.dtype()));
    let mut parts = vec![x.clone()];
    if n_blocks * size > seq {
        parts.push(zeros(n_blocks * size - seq));
    }
    let x = Tensor::cat(parts, 2);
    let x = if with_previous {
        let before = Tensor::cat(vec![zeros(size), x.clone().narrow(2, 0, (n_blocks - 1) * size)], 2);
        let blocks = |x: Tensor<4>| x.reshape([batch, heads, n_blocks, size, width]);
        Tensor::cat(vec![blocks(before), blocks(x)], 3)
    } else {
        x.reshape([batch, heads, n_blocks, size, width])
    };
    let rows = x.dims()[3];
    x.swap_dims(1, 2).reshape([batch * n_blocks, heads, rows, width])
}

/// Which keys each row of scores may see: those from its first one up to its own place.
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

/// What is not a product, in the form of the CPU.
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
        queries: usize,
        scale: f64,
    ) -> FlexTensor {
        let (rows, columns) = shape2(&y);
        let (y, grad) = (y.to_contiguous(), grad.to_contiguous());
        let (y, grad) = (values(&y), values(&grad));
        let spans = Spans::new(&first, heads, queries, columns);
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
    use super::super::testing::check;
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

    /// Four heads of 65 tokens in two samples, keys of width 2 for two of them, values of width 3.
    fn parts(x: Tensor<2>) -> [Tensor<4>; 3] {
        let x = x.narrow(0, 0, 130);
        let value = Tensor::cat(vec![x.clone().narrow(1, 12, 4), x.clone().narrow(1, 3, 2)], 1);
        [(x.clone().narrow(1, 0, 8), 4), (x.narrow(1, 8, 4), 2), (value, 2)].map(|(x, n)| by_head(x, 65, n))
    }

    #[test]
    fn blocks_of_a_window_see_what_a_mask_lets_through() {
        let starts: Vec<usize> = (0..130).map(|token| if token % 65 < 7 { 0 } else { 7 }).collect();
        for window in [1, 2, 8, 30, 40, 100] {
            let first = first_in_window(&starts, 65, window);
            for sinks in [false, true] {
                let sinks =
                    sinks.then(|| Tensor::from_data([0.5f32, -1.0, 2.0, 0.0], &Device::flex().autodiff()));
                check([1, 1], |x, _| {
                    let [query, key, value] = parts(x);
                    by_token(match Form::of(&query) {
                        Form::Plain => attend_plain(query, key, value, &first, 0.7, sinks.clone()),
                        _ => attend_in_window([query, key, value], &starts, window, 0.7, sinks.clone()),
                    })
                });
            }
        }
    }

    #[test]
    fn a_window_of_one_sees_itself_and_no_window_looks_out_of_its_piece() {
        assert_eq!(first_in_window(&[0, 0, 0, 3, 0, 0, 2, 2], 4, 1), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(first_in_window(&[0, 0, 0, 3, 0, 0, 2, 2], 4, 2), [0, 0, 1, 3, 0, 0, 2, 2]);
    }

    #[test]
    fn a_sink_takes_its_share() {
        // One query of score 0 and a sink of logit ln 3: a quarter of the value is left.
        let of = |x: f32| Tensor::<4>::from_data(TensorData::new(vec![x], [1, 1, 1, 1]), &Device::flex());
        let sinks = Tensor::from_data([3f32.ln()], &Device::flex());
        let found: f32 = attend(of(0.0), of(1.0), of(8.0), &[0], 1.0, Some(sinks)).into_scalar();
        assert!((found - 2.0).abs() < 1e-6, "{found}");
    }
}
