//! Attention on the CPU without a matrix of queries by keys: FlashAttention-2 (Dao 2023, arXiv 2307.08691,
//! algorithms 1 and 2). A tile of queries goes over the tiles of keys that it sees, and keeps the largest
//! score and the sum of exponentials so far; only the logarithm of that sum is saved for the gradient, one
//! number for each query and head. Tiles follow each other in a fixed order, and rows inside a tile are
//! computed separately, so that results do not depend on the number of threads.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::flex::{BLOCK_ROWS, add, dot, exp, first_order_only, greater, tensor, values};
use super::super::matmul::multiply;
use super::{Scoring, Spans};

/// Queries and keys of a tile: enough for fast products, few compared with a sequence.
const TILE: usize = 256;

/// Sizes and rules of an attention.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    spans: Arc<Spans>,
    n: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    key_width: usize,
    value_width: usize,
    scale: f32,
    softcap: Option<f32>,
    has_sinks: bool,
}

/// As [`super::attend`].
pub(super) fn attend(
    [query, key, value]: [Tensor<4>; 3],
    spans: &Arc<Spans>,
    scoring: &Scoring,
) -> Tensor<4> {
    let ([n, heads, queries, key_width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let layout = Layout {
        spans: spans.clone(),
        n,
        heads,
        kv_heads,
        queries,
        keys,
        key_width,
        value_width: value.dims()[3],
        scale: scoring.scale as f32,
        softcap: scoring.softcap.map(|cap| cap as f32),
        has_sinks: scoring.sinks.is_some(),
    };
    let sinks = scoring.sinks.clone().unwrap_or_else(|| Tensor::zeros([heads], &query.device()));
    let [query, key, value] = [query, key, value].map(Tensor::into_dispatch);
    let (y, _) = Dispatch::k_tiled(query, key, value, sinks.into_dispatch(), Arc::new(layout));
    Tensor::from_dispatch(y)
}

/// The CPU form. Tensors are as in [`super::attend`].
#[backend_extension(Flex, Autodiff)]
trait TiledAttention: Backend {
    /// The attention; and the logarithm of the sum of exponentials of each query and head, with the sinks
    /// after them.
    fn k_tiled(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        layout: Arc<Layout>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Gradients of its inputs, from the results of [`TiledAttention::k_tiled`].
    fn k_tiled_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        output: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: Arc<Layout>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct Tiled;

impl<B: TiledAttention> Backward<B, 4> for Tiled {
    /// Queries, keys, values, output and sums.
    type State = ([FloatTensor<B>; 5], Arc<Layout>);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([query, key, value, output, sums], layout) = ops.state;
        let has_sinks = layout.has_sinks;
        let (d_query, d_key, d_value, d_sinks) =
            B::k_tiled_backward(query, key, value, output, sums, grad, layout);
        let [query, key, value, sinks] = ops.parents;
        let sinks = sinks.filter(|_| has_sinks);
        for (parent, grad) in [(query, d_query), (key, d_key), (value, d_value), (sinks, d_sinks)] {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

impl<B: TiledAttention, C: CheckpointStrategy> TiledAttention for Autodiff<B, C> {
    fn k_tiled(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        layout: Arc<Layout>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [query.node(), key.node(), value.node(), sinks.node()];
        let prep = Tiled.prepare::<C>(nodes).compute_bound().stateful();
        let [query, key, value, sinks] =
            [query, key, value, sinks].map(|x: FloatTensor<Self>| x.into_primitive());
        let (y, sums) = B::k_tiled(query.clone(), key.clone(), value.clone(), sinks, layout.clone());
        let y = match prep {
            OpsKind::Tracked(prep) => prep.finish(([query, key, value, y.clone(), sums.clone()], layout), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, FloatTensor::<Self>::new(sums))
    }

    fn k_tiled_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Arc<Layout>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }
}

/// Rows of several tensors that are computed together: `[n * kv_heads, group * rows, width]`.
struct Rows<'a> {
    values: &'a [f32],
    /// Heads of all samples.
    heads: usize,
    /// Rows of a head.
    length: usize,
    width: usize,
}

impl Rows<'_> {
    /// Some rows of every head, heads of one group stacked.
    fn tile(&self, rows: &Range<usize>, groups: usize) -> FlexTensor {
        let of_head = |head: usize| {
            let first = (head * self.length + rows.start) * self.width;
            &self.values[first..first + rows.len() * self.width]
        };
        let values: Vec<f32> = (0..self.heads).flat_map(of_head).copied().collect();
        tensor(values, [groups, self.heads / groups * rows.len(), self.width])
    }
}

/// Adds or copies a tile to the rows of every head of a tensor.
fn put(into: &mut [f32], tile: &[f32], rows: &Range<usize>, length: usize, width: usize) {
    for (head, tile) in tile.chunks_exact(rows.len() * width).enumerate() {
        let first = (head * length + rows.start) * width;
        add(&mut into[first..first + rows.len() * width], tile, 1.0);
    }
}

fn product(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    multiply(a, b)
}

impl Layout {
    fn rows<'a>(&self, x: &'a FlexTensor, is_of_keys: bool, width: usize) -> Rows<'a> {
        let (heads, length) =
            if is_of_keys { (self.kv_heads, self.keys) } else { (self.heads, self.queries) };
        Rows { values: values(x), heads: self.n * heads, length, width }
    }

    /// Sample, head of queries and query of a row of a tile.
    fn place(&self, row: usize, queries: &Range<usize>) -> [usize; 3] {
        let (head, query) = (row / queries.len(), row % queries.len());
        [head / self.heads, head % self.heads, queries.start + query]
    }

    /// Number of a row of a tile among all queries of all heads.
    fn number(&self, row: usize, queries: &Range<usize>) -> usize {
        row / queries.len() * self.queries + queries.start + row % queries.len()
    }

    fn range(&self, tile: usize, end: usize) -> Range<usize> {
        tile * TILE..((tile + 1) * TILE).min(end)
    }

    /// What a row of a tile of queries sees of a tile of keys, counted from the first of them.
    fn seen(
        &self,
        row: usize,
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> + Clone {
        let [sample, head, query] = self.place(row, queries);
        let (head, start) = (head / (self.heads / self.kv_heads), keys.start);
        let shifted = move |span: Range<usize>| span.start - start..span.end - start;
        self.spans.within([sample, head, query], keys.clone()).map(shifted)
    }

    /// The score that enters the softmax.
    fn score(&self, product: f32) -> f32 {
        let score = product * self.scale;
        match self.softcap {
            Some(cap) => cap * (score / cap).tanh(),
            None => score,
        }
    }

    /// The derivative of a score with respect to its product.
    fn slope(&self, score: f32) -> f32 {
        match self.softcap {
            Some(cap) => self.scale * (1.0 - (score / cap) * (score / cap)),
            None => self.scale,
        }
    }
}

/// The largest score of a row so far, and the sum of exponentials relative to it.
#[derive(Clone, Copy)]
struct Sum {
    largest: f32,
    sum: f32,
    /// What earlier sums are multiplied by.
    factor: f32,
}

impl TiledAttention for Flex {
    fn k_tiled(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        sinks: FlexTensor,
        layout: Arc<Layout>,
    ) -> (FlexTensor, FlexTensor) {
        let Layout { n, heads, queries: length, key_width, value_width, has_sinks, .. } = *layout;
        let (groups, n_rows) = (n * layout.kv_heads, n * heads * length);
        let [query, key, value, sinks] = [query, key, value, sinks].map(|x| x.to_contiguous());
        let sinks = values(&sinks);
        let (query, key, value) = (
            layout.rows(&query, false, key_width),
            layout.rows(&key, true, key_width),
            layout.rows(&value, true, value_width),
        );
        let (mut output, mut sums) = (vec![0.0f32; n_rows * value_width], vec![0.0f32; n_rows]);
        for (tile, of_keys) in layout.spans.tiles(TILE).into_iter().enumerate() {
            let queries = layout.range(tile, length);
            let rows = n * heads * queries.len();
            let start = |row: usize| match has_sinks {
                true => Sum { largest: sinks[layout.place(row, &queries)[1]], sum: 1.0, factor: 1.0 },
                false => Sum { largest: f32::NEG_INFINITY, sum: 0.0, factor: 1.0 },
            };
            let mut states: Vec<Sum> = (0..rows).map(start).collect();
            let mut total = vec![0.0f32; rows * value_width];
            let of_queries = query.tile(&queries, groups);
            for tile in of_keys {
                let keys = layout.range(tile, layout.keys);
                let transposed = Flex::float_transpose(key.tile(&keys, groups));
                let products = product(of_queries.clone(), transposed);
                let (products, columns) = (values(&products), keys.len());
                let mut weights = vec![0.0f32; rows * columns];
                let blocks = weights.par_chunks_mut(BLOCK_ROWS * columns);
                blocks.zip(states.par_chunks_mut(BLOCK_ROWS)).enumerate().for_each(
                    |(block, (weights, states))| {
                        for (i, (weights, state)) in weights.chunks_exact_mut(columns).zip(states).enumerate()
                        {
                            let row = block * BLOCK_ROWS + i;
                            let products = &products[row * columns..(row + 1) * columns];
                            layout.weigh(weights, products, state, layout.seen(row, &queries, &keys));
                        }
                    },
                );
                let weights = tensor(weights, [groups, rows / groups, columns]);
                let part = product(weights, value.tile(&keys, groups));
                let parts = values(&part).chunks_exact(value_width);
                for ((total, part), state) in total.chunks_exact_mut(value_width).zip(parts).zip(&states) {
                    for (total, part) in total.iter_mut().zip(part) {
                        *total = *total * state.factor + part;
                    }
                }
            }
            for (row, (total, state)) in total.chunks_exact(value_width).zip(&states).enumerate() {
                let row = layout.number(row, &queries);
                // A query that sees nothing has no sum and no output.
                if state.sum > 0.0 || state.sum.is_nan() {
                    add(&mut output[row * value_width..(row + 1) * value_width], total, state.sum.recip());
                    sums[row] = state.largest + state.sum.ln();
                }
            }
        }
        sums.extend(sinks);
        (tensor(output, [n, heads, length, value_width]), tensor(sums, [n_rows + heads]))
    }

    /// With `p_ij = exp(s_ij - L_i)` and `D_i = sum do_i o_i`: `ds_ij = p_ij (do_i v_j - D_i)`, and the
    /// gradients are `dq_i = sum_j ds_ij k_j`, `dk_j = sum_i ds_ij q_i`, `dv_j = sum_i p_ij do_i`, and that
    /// of a sink `-sum_i exp(sink - L_i) D_i`.
    fn k_tiled_backward(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        output: FlexTensor,
        sums: FlexTensor,
        grad: FlexTensor,
        layout: Arc<Layout>,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let Layout { n, heads, kv_heads, queries: length, keys: n_keys, key_width, value_width, .. } =
            *layout;
        let (groups, n_rows) = (n * kv_heads, n * heads * length);
        let [query, key, value] = [query, key, value].map(|x| x.to_contiguous());
        let [output, sums, grad] = [output, sums, grad].map(|x| x.to_contiguous());
        let (output, (sums, sinks)) = (values(&output), values(&sums).split_at(n_rows));
        let pairs = values(&grad).chunks_exact(value_width).zip(output.chunks_exact(value_width));
        let means: Vec<f32> = pairs.map(|(grad, output)| dot(grad, output)).collect();
        let (query, key, value, grad) = (
            layout.rows(&query, false, key_width),
            layout.rows(&key, true, key_width),
            layout.rows(&value, true, value_width),
            layout.rows(&grad, false, value_width),
        );
        let mut d_query = vec![0.0f32; n_rows * key_width];
        let mut d_key = vec![0.0f32; groups * n_keys * key_width];
        let mut d_value = vec![0.0f32; groups * n_keys * value_width];
        for (tile, of_keys) in layout.spans.tiles(TILE).into_iter().enumerate() {
            let queries = layout.range(tile, length);
            let rows = n * heads * queries.len();
            let (q, g) = (query.tile(&queries, groups), grad.tile(&queries, groups));
            for tile in of_keys {
                let keys = layout.range(tile, n_keys);
                let (k, v) = (key.tile(&keys, groups), value.tile(&keys, groups));
                let products = product(q.clone(), Flex::float_transpose(k.clone()));
                let of_weights = product(g.clone(), Flex::float_transpose(v));
                let (products, of_weights, columns) = (values(&products), values(&of_weights), keys.len());
                let (mut weights, mut d_products) =
                    (vec![0.0f32; rows * columns], vec![0.0f32; rows * columns]);
                let size = BLOCK_ROWS * columns;
                let blocks = weights.par_chunks_mut(size).zip(d_products.par_chunks_mut(size));
                blocks.enumerate().for_each(|(block, (weights, d_products))| {
                    let both = weights.chunks_exact_mut(columns).zip(d_products.chunks_exact_mut(columns));
                    for (i, (weights, d_products)) in both.enumerate() {
                        let row = block * BLOCK_ROWS + i;
                        let number = layout.number(row, &queries);
                        let at = row * columns..(row + 1) * columns;
                        let (products, of_weights) = (&products[at.clone()], &of_weights[at]);
                        for span in layout.seen(row, &queries, &keys) {
                            for j in span {
                                let score = layout.score(products[j]);
                                weights[j] = exp(score - sums[number]);
                                d_products[j] =
                                    weights[j] * (of_weights[j] - means[number]) * layout.slope(score);
                            }
                        }
                    }
                });
                let shape = [groups, rows / groups, columns];
                let (weights, d_products) = (tensor(weights, shape), tensor(d_products, shape));
                let part = product(d_products.clone(), k);
                put(&mut d_query, values(&part), &queries, length, key_width);
                let part = product(Flex::float_transpose(d_products), q.clone());
                put(&mut d_key, values(&part), &keys, n_keys, key_width);
                let part = product(Flex::float_transpose(weights), g.clone());
                put(&mut d_value, values(&part), &keys, n_keys, value_width);
            }
        }
        let mut d_sinks = vec![0.0f32; heads];
        if layout.has_sinks {
            for (row, (&sum, &mean)) in sums.iter().zip(&means).enumerate() {
                let head = row / length % heads;
                d_sinks[head] -= exp(sinks[head] - sum) * mean;
            }
        }
        (
            tensor(d_query, [n, heads, length, key_width]),
            tensor(d_key, [n, kv_heads, n_keys, key_width]),
            tensor(d_value, [n, kv_heads, n_keys, value_width]),
            tensor(d_sinks, [heads]),
        )
    }
}

impl Layout {
    /// Exponentials of the scores of a row relative to the largest so far, 0 for keys that it does not see,
    /// and the factor for the sums before them.
    fn weigh(
        &self,
        weights: &mut [f32],
        products: &[f32],
        state: &mut Sum,
        seen: impl Iterator<Item = Range<usize>> + Clone,
    ) {
        let (mut largest, mut sees) = (state.largest, false);
        for span in seen.clone() {
            sees = true;
            for (weight, &product) in weights[span.clone()].iter_mut().zip(&products[span.clone()]) {
                *weight = self.score(product);
                largest = greater(largest, *weight);
            }
        }
        state.factor = 1.0;
        if !sees {
            return;
        }
        state.factor = exp(state.largest - largest);
        state.largest = largest;
        state.sum *= state.factor;
        for span in seen {
            let weights = &mut weights[span];
            weights.iter_mut().for_each(|weight| *weight = exp(*weight - largest));
            state.sum += super::super::flex::sum(weights);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::random::Stream;

    fn noise<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
        let stream = Stream::new(seed, "tiled");
        let values = (0..shape.iter().product::<usize>() as u64).map(|i| stream.normal(i) as f32).collect();
        Tensor::from_data(TensorData::new::<f32, _>(values, shape), &Device::flex().autodiff()).require_grad()
    }

    /// Output and gradients of more than two tiles, with documents, a cap and sinks.
    fn bits() -> Vec<u32> {
        let inputs = [noise(1, [1, 4, 600, 8]), noise(2, [1, 2, 600, 8]), noise(3, [1, 2, 600, 6])];
        let sinks = noise(4, [4]);
        let first: Vec<usize> = (0..600).map(|token| if token < 300 { 0 } else { 300 }).collect();
        let spans = Arc::new(Spans::causal(&first, 600, 600));
        let scoring = Scoring { scale: 0.3, softcap: Some(2.0), sinks: Some(sinks.clone()), tile_from: 1 };
        let y = attend(inputs.clone(), &spans, &scoring);
        let grads = (y.clone() * noise(5, [1, 4, 600, 6]).detach()).sum().backward();
        let mut found: Vec<Tensor<1>> = vec![y.clone().without_autodiff().flatten(0, 3)];
        found.extend(inputs.iter().map(|x| x.grad(&grads).expect("tracked").flatten(0, 3)));
        found.push(sinks.grad(&grads).expect("tracked"));
        let host = |x: Tensor<1>| -> Vec<f32> { x.into_data().try_into_vec().expect("f32") };
        found.into_iter().flat_map(host).map(f32::to_bits).collect()
    }

    #[test]
    fn bits_do_not_depend_on_the_threads() {
        let of = |n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
            pool.install(bits)
        };
        let one = of(1);
        assert!(one.iter().any(|bits| *bits != 0));
        assert_eq!(one, of(3));
    }
}
