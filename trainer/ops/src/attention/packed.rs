//! Attention on the CPU for queries, keys and values that are side by side, each query to the keys from its
//! first one up to its own position. A tile of queries is compared only with the keys that it sees; its
//! scores stay in the cache and are computed again for the gradient, so that memory grows with the length.
//!
//! Keys begin at a multiple of a constant, sums run over them in order, and the gradient of a key is summed
//! query by query, head by head: no bit depends on the number of threads or on vector width.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::cpu::{ALIGNED, Packed, Panels, Scratch, View, rows, unwritten, vectorized};
use super::super::flex::{dot, exp, first_order_only, max, shape2, sum, tensor, values};
use super::AttentionShape;

/// Queries of a tile.
const TILE: usize = 48;

/// Sizes of an attention, and what each query sees.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The first key of each query, `[batch * seq]`, a position in its sample.
    first: Vec<usize>,
    shape: AttentionShape,
    scale: f32,
}

/// # Shapes
/// - qkv: `[batch * seq, (heads + 2 * kv_heads) * head_dim]`
/// - first: the first key of each query, `[batch * seq]`
/// - result: `[batch * seq, heads * head_dim]`
pub(super) fn attend(qkv: Tensor<2>, first: Vec<usize>, shape: AttentionShape, scale: f64) -> Tensor<2> {
    let layout = Layout { first, shape, scale: scale as f32 };
    let (y, _) = Dispatch::k_packed_attention(qkv.into_dispatch(), Arc::new(layout));
    Tensor::from_dispatch(y)
}

#[backend_extension(Flex, Autodiff)]
trait PackedAttention: Backend {
    /// The attention; and for each query and head the largest score and the inverse of the sum of
    /// exponentials.
    fn k_packed_attention(
        qkv: FloatTensor<Self>,
        layout: Arc<Layout>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The gradient of its input.
    fn k_packed_attention_backward(
        qkv: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: Arc<Layout>,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct Attention;

impl<B: PackedAttention> Backward<B, 1> for Attention {
    /// Input and sums.
    type State = ([FloatTensor<B>; 2], Arc<Layout>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let ([qkv, sums], layout) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::k_packed_attention_backward(qkv, sums, grad, layout));
        }
    }
}

impl<B: PackedAttention, C: CheckpointStrategy> PackedAttention for Autodiff<B, C> {
    fn k_packed_attention(
        qkv: FloatTensor<Self>,
        layout: Arc<Layout>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let prep = Attention.prepare::<C>([qkv.node()]).compute_bound().stateful();
        let qkv = qkv.into_primitive();
        let (y, sums) = B::k_packed_attention(qkv.clone(), layout.clone());
        let y = match prep {
            OpsKind::Tracked(prep) => prep.finish(([qkv, sums.clone()], layout), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, FloatTensor::<Self>::new(sums))
    }

    fn k_packed_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Arc<Layout>,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

impl Layout {
    /// Columns of the input.
    fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }

    /// Some rows of some columns that begin with the `part`-th head, counting those of keys and values.
    fn part<'a>(&self, qkv: &'a [f32], row: usize, part: usize) -> View<'a> {
        let columns = self.columns();
        View::rows(&qkv[row * columns + part * self.shape.head_dim..], columns)
    }

    /// Queries of the tile that begins here, and the keys that they see, from a multiple of [`ALIGNED`] on.
    fn tile(&self, sample: usize, start: usize) -> (Range<usize>, Range<usize>) {
        let end = (start + TILE).min(self.shape.seq);
        let first = &self.first[sample * self.shape.seq..][start..end];
        let least = first.iter().copied().min().unwrap_or(0);
        (start..end, least / ALIGNED * ALIGNED..end)
    }

    /// What a query sees of `keys`, counted from the first of them.
    fn seen(&self, sample: usize, query: usize, keys: &Range<usize>) -> Range<usize> {
        self.first[sample * self.shape.seq + query] - keys.start..query + 1 - keys.start
    }

    /// The matrices of all heads of keys, or of values, of a sample: transposed or not.
    fn packed(&self, qkv: &[f32], is_of_keys: bool, is_transposed: bool) -> Vec<Packed> {
        let AttentionShape { seq, heads, kv_heads, head_dim } = self.shape;
        let n = self.first.len() / seq;
        let first = if is_of_keys { heads } else { heads + kv_heads };
        let matrix = |i: usize| {
            let view = self.part(qkv, i / kv_heads * seq, first + i % kv_heads);
            if is_transposed { (view.transposed(), head_dim, seq) } else { (view, seq, head_dim) }
        };
        Packed::all(&(0..n * kv_heads).map(matrix).collect::<Vec<_>>())
    }
}

/// Softmax over what each row sees, 0 elsewhere; and its largest score and inverse sum.
#[inline(always)]
fn softmax(
    scores: &mut [f32],
    columns: usize,
    seen: impl Fn(usize) -> Range<usize>,
    scale: f32,
    sums: impl FnMut(usize, [f32; 2]),
) {
    let mut sums = sums;
    for (i, row) in scores.chunks_exact_mut(columns).enumerate() {
        let span = seen(i);
        row[..span.start].fill(0.0);
        row[span.end..].fill(0.0);
        let row = &mut row[span];
        let largest = max(row) * scale;
        for score in row.iter_mut() {
            *score = exp(*score * scale - largest);
        }
        let inverse = sum(row).recip();
        for score in row.iter_mut() {
            *score *= inverse;
        }
        sums(i, [largest, inverse]);
    }
}

impl PackedAttention for Flex {
    fn k_packed_attention(qkv: FlexTensor, layout: Arc<Layout>) -> (FlexTensor, FlexTensor) {
        let (tokens, _) = shape2(&qkv);
        let AttentionShape { seq, heads, kv_heads, head_dim } = layout.shape;
        let qkv = qkv.to_contiguous();
        let qkv = values(&qkv);
        let (keys_of, values_of) = (layout.packed(qkv, true, true), layout.packed(qkv, false, false));
        let width = heads * head_dim;
        let (mut out, mut sums) = (unwritten(tokens * width), unwritten(tokens * heads * 2));
        let samples = out.chunks_mut(seq * width).zip(sums.chunks_mut(seq * heads * 2)).enumerate();
        let tiles = samples.flat_map(|(sample, (out, sums))| {
            let tiles = out.chunks_mut(TILE * width).zip(sums.chunks_mut(TILE * heads * 2)).enumerate();
            tiles.map(move |(tile, (out, sums))| (sample, tile * TILE, out, sums))
        });
        let tiles: Vec<_> = tiles.collect();
        tiles.into_par_iter().for_each(|(sample, start, out, sums)| {
            let (queries, keys) = layout.tile(sample, start);
            let mut scores = Scratch::of(queries.len() * keys.len());
            let mut part = Scratch::of(queries.len() * head_dim);
            for head in 0..heads {
                let of = sample * kv_heads + head / (heads / kv_heads);
                let query = layout.part(qkv, sample * seq + start, head);
                rows(query, Panels::from(&keys_of[of]).columns(keys.clone()), &mut scores, false);
                vectorized(
                    #[inline(always)]
                    || {
                        softmax(
                            &mut scores,
                            keys.len(),
                            |i| layout.seen(sample, start + i, &keys),
                            layout.scale,
                            |i, found| sums[(i * heads + head) * 2..][..2].copy_from_slice(&found),
                        );
                    },
                );
                let weights = View::rows(&scores, keys.len());
                rows(weights, Panels::from(&values_of[of]).rows(keys.clone()), &mut part, false);
                let to = out.chunks_exact_mut(width).map(|row| &mut row[head * head_dim..][..head_dim]);
                to.zip(part.chunks_exact(head_dim)).for_each(|(to, part)| to.copy_from_slice(part));
            }
        });
        (tensor(out, [tokens, width]), tensor(sums, [tokens, heads * 2]))
    }

    fn k_packed_attention_backward(
        qkv: FlexTensor,
        sums: FlexTensor,
        grad: FlexTensor,
        layout: Arc<Layout>,
    ) -> FlexTensor {
        let (tokens, columns) = shape2(&qkv);
        let AttentionShape { seq, heads, kv_heads, head_dim } = layout.shape;
        let [qkv, grad] = [qkv, grad].map(|x| x.to_contiguous());
        let (qkv, sums, grad) = (values(&qkv), values(&sums), values(&grad));
        let [keys_across, values_across] =
            [true, false].map(|is_of_keys| layout.packed(qkv, is_of_keys, true));
        let keys_of = layout.packed(qkv, true, false);
        // For each head of keys: gradients of its queries, then of keys and values.
        let group = heads / kv_heads;
        let size = (group + 2) * seq * head_dim;
        let mut parts = unwritten(tokens / seq * kv_heads * size);
        parts.par_chunks_mut(size).enumerate().for_each(|(of, parts)| {
            let (sample, kv_head) = (of / kv_heads, of % kv_heads);
            let (d_query, d_rest) = parts.split_at_mut(group * seq * head_dim);
            d_rest.fill(0.0);
            let (d_key, d_value) = d_rest.split_at_mut(seq * head_dim);
            for start in (0..seq).step_by(TILE) {
                let (queries, keys) = layout.tile(sample, start);
                let n = queries.len();
                let [mut weights, mut slopes] = [(); 2].map(|()| Scratch::of(n * keys.len()));
                let token = sample * seq + start;
                for member in 0..group {
                    let head = kv_head * group + member;
                    let query = layout.part(qkv, token, head);
                    let width = heads * head_dim;
                    let grad = View::rows(&grad[token * width + head * head_dim..], width);
                    rows(query, Panels::from(&keys_across[of]).columns(keys.clone()), &mut weights, false);
                    rows(grad, Panels::from(&values_across[of]).columns(keys.clone()), &mut slopes, false);
                    vectorized(
                        #[inline(always)]
                        || {
                            for i in 0..n {
                                let at = i * keys.len()..(i + 1) * keys.len();
                                let sums = &sums[((token + i) * heads + head) * 2..][..2];
                                let span = layout.seen(sample, start + i, &keys);
                                slopes_of(
                                    &mut weights[at.clone()],
                                    &mut slopes[at],
                                    span,
                                    layout.scale,
                                    sums,
                                );
                            }
                        },
                    );
                    let (weights, slopes) =
                        (View::rows(&weights, keys.len()), View::rows(&slopes, keys.len()));
                    let d_query = &mut d_query[(member * seq + start) * head_dim..][..n * head_dim];
                    rows(slopes, Panels::from(&keys_of[of]).rows(keys.clone()), d_query, false);
                    let seen = keys.start * head_dim..keys.end * head_dim;
                    let query = Packed::new(query, n, head_dim);
                    rows(slopes.transposed(), &query, &mut d_key[seen.clone()], true);
                    let grad = Packed::new(grad, n, head_dim);
                    rows(weights.transposed(), &grad, &mut d_value[seen], true);
                }
            }
        });
        let mut out = unwritten(tokens * columns);
        out.par_chunks_mut(columns).enumerate().for_each(|(token, out)| {
            let (sample, row) = (token / seq, token % seq);
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let (kv_head, place) = match head {
                    query if query < heads => (query / group, query % group),
                    key if key < heads + kv_heads => (key - heads, group),
                    value => (value - heads - kv_heads, group + 1),
                };
                let at = (sample * kv_heads + kv_head) * size + (place * seq + row) * head_dim;
                out.copy_from_slice(&parts[at..at + head_dim]);
            }
        });
        tensor(out, [tokens, columns])
    }
}

/// Turns the scores of a row into weights, and the gradients of the weights into those of the products.
#[inline(always)]
fn slopes_of(weights: &mut [f32], slopes: &mut [f32], span: Range<usize>, scale: f32, sums: &[f32]) {
    let (largest, inverse) = (sums[0], sums[1]);
    for row in [&mut *weights, &mut *slopes] {
        row[..span.start].fill(0.0);
        row[span.end..].fill(0.0);
    }
    let (weights, slopes) = (&mut weights[span.clone()], &mut slopes[span]);
    for weight in weights.iter_mut() {
        *weight = exp(*weight * scale - largest) * inverse;
    }
    let mean = dot(weights, slopes);
    for (slope, weight) in slopes.iter_mut().zip(weights) {
        *slope = *weight * (*slope - mean) * scale;
    }
}
