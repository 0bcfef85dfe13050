//! Causal attention inside the documents of packed samples, with grouped queries (Ainslie et al. 2023, arXiv
//! 2305.13245, section 2.2): `softmax(q k^T / sqrt(h)) v` over the keys that a query may see.

mod packed;
mod rows;
mod spans;
mod tiled;

use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
pub use moe_kernels::attention::AttentionShape;
pub use spans::Spans;

use super::Form;
use super::linear::cast_f32;

/// How products of queries and keys become weights of values.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// Factor of the products.
    pub scale: f64,
    /// Bound that scores approach, `c tanh(s / c)` (Gemma Team 2024, arXiv 2408.00118, section 2).
    pub softcap: Option<f64>,
    /// A logit of each head that takes part in the softmax and has no value, `[heads]`.
    pub sinks: Option<Tensor<1>>,
    /// On the CPU, number of keys from which no scores are kept: they are computed again for the gradient.
    pub tile_from: usize,
}

impl Scoring {
    /// Scores times `scale`.
    pub fn scaled(scale: f64, tile_from: usize) -> Self {
        Self { scale, softcap: None, sinks: None, tile_from }
    }

    /// Whether scores are only products times a factor.
    fn is_plain(&self) -> bool {
        self.sinks.is_none() && self.softcap.is_none()
    }

    /// Whether the CPU computes this many keys tile by tile.
    fn is_tiled(&self, keys: usize) -> bool {
        !self.is_plain() || keys >= self.tile_from
    }
}

/// Causal attention of each token to the tokens of its own document piece, including itself.
///
/// # Shapes
/// - qkv: `[batch * seq, (heads + 2 * kv_heads) * head_dim]`: queries, keys and values side by side
/// - first: `[batch * seq]`, the position in the sample at which the token's piece begins
/// - starts: the same on the host
/// - result: `[batch * seq, heads * head_dim]`
pub fn attention(
    qkv: Tensor<2>,
    first: Tensor<1, Int>,
    starts: &[usize],
    shape: AttentionShape,
    scoring: &Scoring,
) -> Tensor<2> {
    match Form::of(&qkv) {
        Form::Plain if scoring.is_plain() => moe_kernels::attention::attention_plain(qkv, first, shape),
        Form::Gpu if scoring.is_plain() => moe_kernels::attention::attention(qkv, first, shape),
        Form::Cpu if scoring.is_plain() => packed::attend(qkv, starts.to_vec(), shape, scoring.scale),
        _ => {
            let spans = Spans::causal(starts, shape.seq, shape.seq);
            by_token(attend(parts(qkv, shape), &Arc::new(spans), scoring))
        }
    }
}

/// [`attention`] of each token to the last `window` tokens of its document piece, including itself.
///
/// # Shapes
/// As in [`attention`].
pub fn attention_in_window(
    qkv: Tensor<2>,
    starts: &[usize],
    window: usize,
    shape: AttentionShape,
    scoring: &Scoring,
) -> Tensor<2> {
    // The fast forms take any first key that never decreases within a sample, and skip keys that no query
    // sees.
    let first = || first_in_window(starts, shape.seq, window);
    match Form::of(&qkv) {
        Form::Gpu if scoring.is_plain() => {
            let first = integer_tensor(&first(), &qkv.device());
            moe_kernels::attention::attention(qkv, first, shape)
        }
        Form::Cpu if scoring.is_plain() => packed::attend(qkv, first(), shape, scoring.scale),
        _ => by_token(attend_in_window(parts(qkv, shape), starts, window, scoring)),
    }
}

/// Queries, keys and values, side by side.
fn parts(qkv: Tensor<2>, shape: AttentionShape) -> [Tensor<4>; 3] {
    let AttentionShape { seq, heads, kv_heads, head_dim: dim } = shape;
    let columns = |from: usize, n: usize| by_head(qkv.clone().narrow(1, from * dim, n * dim), seq, n);
    [columns(0, heads), columns(heads, kv_heads), columns(heads + kv_heads, kv_heads)]
}

fn integer_tensor(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
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

/// Attention of each query to the keys of its spans: `softmax(scale * q k^T) v`; 0 where there are none. Keys
/// and values may differ in width.
///
/// # Shapes
/// - query: `[n, heads, queries, key_width]`
/// - key, value: `[n, kv_heads, keys, key_width]` and `[n, kv_heads, keys, value_width]`; kv_heads divides heads
/// - spans: of `n` samples with such queries and keys
/// - result: `[n, heads, queries, value_width]`, in the type of the query
pub fn attend(parts: [Tensor<4>; 3], spans: &Arc<Spans>, scoring: &Scoring) -> Tensor<4> {
    match Form::of(&parts[0]) {
        Form::Cpu => match spans.first().filter(|_| !scoring.is_tiled(parts[1].dims()[2])) {
            Some(first) => {
                let first = integer_tensor(&first, &parts[0].device());
                rows::attend(parts, first, scoring.scale)
            }
            None => tiled::attend(parts, spans, scoring),
        },
        Form::Plain | Form::Gpu => attend_plain(parts, spans, scoring),
    }
}

/// [`attend`] by tensor operations: the softmax of all scores in f32, with a mask added.
fn attend_plain([query, key, value]: [Tensor<4>; 3], spans: &Spans, scoring: &Scoring) -> Tensor<4> {
    let ([n, heads, queries, width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let (rows, value_width) = (heads / kv_heads * queries, value.dims()[3]);
    let (dtype, device) = (query.dtype(), query.device());
    let query = cast_f32(query).reshape([n, kv_heads, rows, width]);
    let mut scores = query.matmul(cast_f32(key).swap_dims(2, 3)).mul_scalar(scoring.scale);
    if let Some(cap) = scoring.softcap {
        scores = (scores / cap).tanh() * cap;
    }
    let shape = [n, kv_heads, heads / kv_heads, queries, keys];
    let scores = (scores.reshape(shape) + spans.mask(&device)).reshape([n, heads, queries, keys]);
    let weights = match &scoring.sinks {
        None => softmax(scores, 3),
        Some(sinks) => {
            let sinks = cast_f32(sinks.clone()).reshape([1, heads, 1, 1]).expand([n, heads, queries, 1]);
            softmax(Tensor::cat(vec![scores, sinks], 3), 3).narrow(3, 0, keys)
        }
    };
    let weights = match spans.sees(&device) {
        None => weights,
        Some(sees) => (weights.reshape(shape) * sees).reshape([n, heads, queries, keys]),
    };
    let output = weights.reshape([n, kv_heads, rows, keys]).matmul(cast_f32(value));
    output.reshape([n, heads, queries, value_width]).cast(dtype)
}

/// [`attend`] for the tokens of samples, each to the last `window` tokens up to itself, in its own document
/// piece. If scores are kept, each block of queries is compared with two blocks of keys, so that memory and
/// time grow with `seq * window`.
///
/// # Shapes
/// - query, key, value: as in [`attend`], with `seq` queries and keys
/// - starts: `[batch * seq]`, the position in the sample at which the token's piece begins
pub fn attend_in_window(
    [query, key, value]: [Tensor<4>; 3],
    starts: &[usize],
    window: usize,
    scoring: &Scoring,
) -> Tensor<4> {
    let [batch, heads, seq, _] = query.dims();
    let first = first_in_window(starts, seq, window);
    let is_tiled = Form::of(&query) == Form::Cpu && scoring.is_tiled(seq);
    if 2 * window >= seq || is_tiled {
        let spans = Arc::new(Spans::causal(&first, seq, seq));
        return attend([query, key, value], &spans, scoring);
    }
    let n_blocks = seq.div_ceil(window);
    let value_width = value.dims()[3];
    // Keys of a block begin one block before its queries. Queries after the end see themselves.
    let first_of_block = |row: usize| {
        let (sample, token) = (row / (n_blocks * window), row % (n_blocks * window));
        let first = if token < seq { first[sample * seq + token] } else { token };
        first + window - token / window * window
    };
    let first: Vec<usize> = (0..batch * n_blocks * window).map(first_of_block).collect();
    let spans = Arc::new(Spans::causal(&first, window, 2 * window));
    let query = in_blocks(query, window, false);
    let (key, value) = (in_blocks(key, window, true), in_blocks(value, window, true));
    let output = attend([query, key, value], &spans, scoring);
    let output = output.reshape([batch, n_blocks, heads, window, value_width]).swap_dims(1, 2);
    output.reshape([batch, heads, n_blocks * window, value_width]).narrow(2, 0, seq)
}

/// The first token that each token sees: that of its piece, but at most `window - 1` before it.
///
/// # Shapes
/// - starts and result: `batch * seq`, positions in the sample
pub fn first_in_window(starts: &[usize], seq: usize, window: usize) -> Vec<usize> {
    let first = |(token, &start): (usize, &usize)| start.max((token % seq + 1).saturating_sub(window));
    starts.iter().enumerate().map(first).collect()
}

/// Blocks of `size` rows, the last one filled up with zeros; optionally with the block before each, zeros
/// before the first.
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

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    fn documents() -> Vec<usize> {
        (0..130).map(|token| if token % 65 < 7 { 0 } else { 7 }).collect()
    }

    #[test]
    fn the_fast_forms_equal_the_plain_one() {
        // Two samples of 65 tokens, four heads of width 2 with two of keys and values; in each sample a
        // piece begins at 7.
        let shape = AttentionShape { seq: 65, heads: 4, kv_heads: 2, head_dim: 2 };
        for (tile_from, softcap) in [(66, None), (65, None), (66, Some(3.0))] {
            check([1, 1], |x, _| {
                let (qkv, starts) = (x.narrow(0, 0, 130).narrow(1, 0, 16), documents());
                let first = integer_tensor(&starts, &qkv.device());
                let scoring = Scoring { softcap, ..Scoring::scaled(2f64.powf(-0.5), tile_from) };
                attention(qkv, first, &starts, shape, &scoring)
            });
        }
    }

    #[test]
    fn a_window_of_every_token_has_the_bits_of_no_window() {
        let shape = AttentionShape { seq: 65, heads: 4, kv_heads: 2, head_dim: 2 };
        let values: Vec<f32> = (0..130 * 16).map(|i| (i * 7919 % 1000) as f32 / 250.0 - 2.0).collect();
        let (starts, device) = (documents(), Device::flex().autodiff());
        let bits = |of: &dyn Fn(Tensor<2>) -> Tensor<2>| {
            let x = Tensor::from_data(TensorData::new(values.clone(), [130, 16]), &device).require_grad();
            let y = of(x.clone());
            let gradients = (y.clone() * y.clone()).sum().backward();
            let bits = |x: Tensor<2>| x.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<u32>>();
            (bits(y), bits(x.grad(&gradients).expect("tracked")))
        };
        let scoring = Scoring::scaled(0.7, 66);
        let whole = bits(&|x| attention(x, integer_tensor(&starts, &device), &starts, shape, &scoring));
        assert_eq!(bits(&|x| attention_in_window(x, &starts, 65, shape, &scoring)), whole);
        assert_ne!(bits(&|x| attention_in_window(x, &starts, 8, shape, &scoring)), whole);
        for window in [1, 8, 40] {
            check([1, 1], |x, _| {
                let qkv = x.narrow(0, 0, 130).narrow(1, 0, 16);
                attention_in_window(qkv, &starts, window, shape, &scoring)
            });
        }
    }

    /// Four heads of 65 tokens in two samples, keys of width 2 for two of them, values of width 3.
    fn parts(x: Tensor<2>) -> [Tensor<4>; 3] {
        let x = x.narrow(0, 0, 130);
        let value = Tensor::cat(vec![x.clone().narrow(1, 12, 4), x.clone().narrow(1, 3, 2)], 1);
        [(x.clone().narrow(1, 0, 8), 4), (x.narrow(1, 8, 4), 2), (value, 2)].map(|(x, n)| by_head(x, 65, n))
    }

    #[test]
    fn blocks_of_a_window_see_what_a_mask_lets_through() {
        let starts = documents();
        for window in [1, 2, 8, 30, 40, 100] {
            let spans = Spans::causal(&first_in_window(&starts, 65, window), 65, 65);
            for (has_sinks, tile_from) in [(false, 66), (false, 1), (true, 66)] {
                let sinks = Tensor::from_data([0.5f32, -1.0, 2.0, 0.0], &Device::flex().autodiff());
                let scoring =
                    Scoring { sinks: has_sinks.then_some(sinks), ..Scoring::scaled(0.7, tile_from) };
                check([1, 1], |x, _| {
                    by_token(match Form::of(&x) {
                        Form::Plain => attend_plain(parts(x), &spans, &scoring),
                        _ => attend_in_window(parts(x), &starts, window, &scoring),
                    })
                });
            }
        }
    }

    #[test]
    fn a_query_may_see_several_spans_or_nothing() {
        // Different for each head of keys: query t sees t / 5 and t - 3 to t, except for the first ten.
        let row = |row: usize| {
            let (head, token) = (row / 65 % 2, row % 65);
            match token < 10 && head == 1 {
                true => vec![],
                false => {
                    vec![token / 5..token / 5 + 1, (token / 5 + 1).max(token.saturating_sub(3))..token + 1]
                }
            }
        };
        let spans = Arc::new(Spans::listed(2, 65, 65, (0..2 * 2 * 65).map(row)));
        check([1, 1], |x, _| by_token(attend(parts(x), &spans, &Scoring::scaled(0.7, 1))));
    }

    #[test]
    fn a_window_of_one_sees_itself_and_no_window_looks_out_of_its_piece() {
        assert_eq!(first_in_window(&[0, 0, 0, 3, 0, 0, 2, 2], 4, 1), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(first_in_window(&[0, 0, 0, 3, 0, 0, 2, 2], 4, 2), [0, 0, 1, 3, 0, 0, 2, 2]);
    }

    #[test]
    fn a_sink_takes_its_share() {
        // One query with score 0 and a sink with logit ln 3: a quarter of the value is left.
        let of = |x: f32| Tensor::<4>::from_data(TensorData::new(vec![x], [1, 1, 1, 1]), &Device::flex());
        let sinks = Tensor::from_data([3f32.ln()], &Device::flex());
        let scoring = Scoring { sinks: Some(sinks), ..Scoring::scaled(1.0, 1) };
        let spans = Arc::new(Spans::causal(&[0], 1, 1));
        let found: f32 = attend([of(0.0), of(1.0), of(8.0)], &spans, &scoring).into_scalar();
        assert!((found - 2.0).abs() < 1e-6, "{found}");
    }
}
