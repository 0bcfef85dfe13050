//! Native sparse attention (Yuan et al. 2025, arXiv 2502.11089, section 3) as in fla-org's implementation:
//! blocks of one size, keys and values of a block compressed to their means, and the same keys and values for
//! all branches.
//!
//! `o_t = sum_c g_t^c attend^c(q_t)` over three branches: the means of the blocks of the document that end at
//! t or before; the tokens of some blocks: the one that contains t and those whose means have the largest
//! softmax, summed over the heads that share keys; and the last tokens. Blocks restart in each document.
//! Which blocks are selected has no gradient.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use super::attention::{Scoring, Spans, attend, attend_in_window};
use super::flex::softmax_row;
use super::linear::cast_f32;
use super::matmul::matmul;

/// Sizes of the branches, in tokens except for `selected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branches {
    /// Tokens of a block.
    pub block: usize,
    /// Blocks that a token selects, including its own.
    pub selected: usize,
    /// Tokens that the last branch sees, including the token itself.
    pub window: usize,
}

/// Queries whose block scores are on the host at a time.
const QUERIES: usize = 256;

/// Native sparse attention of the last tokens of some samples.
///
/// # Shapes
/// - query: `[batch, heads, queries, width]`
/// - key, value: `[batch, kv_heads, keys, width]`, with at least as many keys as queries
/// - gates: `[batch, heads, queries, 3]`: of means, selected blocks, and last tokens
/// - starts: `[batch * keys]`, the position in the sample at which the token's document piece begins
/// - result: as the queries
pub fn sparse_attention(
    [query, key, value]: [Tensor<4>; 3],
    gates: Tensor<4>,
    starts: &[usize],
    branches: Branches,
    scoring: &Scoring,
) -> Tensor<4> {
    let ([_, _, queries, _], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let blocks = Blocks::new(starts, queries, keys, branches);
    let means = (blocks.n > 0).then(|| [key.clone(), value.clone()].map(|x| blocks.means(x)));
    let selected = blocks.selected(&query, means.as_ref().map(|means| &means[0]), kv_heads, scoring.scale);
    let gate = |branch: usize| gates.clone().narrow(3, branch, 1);

    let selected = Spans::listed(kv_heads, queries, keys, selected);
    let parts = [query.clone(), key.clone(), value.clone()];
    let mut y = attend(parts.clone(), &Arc::new(selected), scoring) * gate(1);
    y = y + match queries == keys {
        true => attend_in_window(parts, starts, branches.window, scoring),
        false => {
            let first = |row: usize| {
                let (start, at) = blocks.place(row);
                start.max((at + 1).saturating_sub(branches.window))
            };
            let first: Vec<usize> = (0..blocks.rows()).map(first).collect();
            attend(parts, &Arc::new(Spans::causal(&first, queries, keys)), scoring)
        }
    } * gate(2);
    if let Some([key, value]) = means {
        let finished = (0..blocks.rows()).map(|row| vec![blocks.finished(row)]);
        let finished = Spans::listed(1, queries, blocks.n, finished);
        y = y + attend([query, key, value], &Arc::new(finished), scoring) * gate(0);
    }
    y
}

/// Where the blocks of some samples are.
struct Blocks<'a> {
    branches: Branches,
    starts: &'a [usize],
    queries: usize,
    keys: usize,
    /// Whole blocks of each sample, padded to the largest number.
    n: usize,
    /// The first token of each of these among all tokens; 0 where there is none.
    tokens: Vec<usize>,
    /// Whole blocks of the sample before the document of each token.
    before: Vec<usize>,
}

impl<'a> Blocks<'a> {
    fn new(starts: &'a [usize], queries: usize, keys: usize, branches: Branches) -> Self {
        let mut of_samples: Vec<Vec<usize>> = Vec::new();
        let mut before = Vec::with_capacity(starts.len());
        for (sample, starts) in starts.chunks_exact(keys).enumerate() {
            let mut blocks: Vec<usize> = Vec::new();
            let mut n_before = 0;
            for (token, &start) in starts.iter().enumerate() {
                if token == start {
                    n_before = blocks.len();
                }
                before.push(n_before);
                if (token + 1 - start).is_multiple_of(branches.block) {
                    blocks.push(sample * keys + token + 1 - branches.block);
                }
            }
            of_samples.push(blocks);
        }
        let n = of_samples.iter().map(Vec::len).max().unwrap_or(0);
        of_samples.iter_mut().for_each(|blocks| blocks.resize(n, 0));
        Self { branches, starts, queries, keys, n, tokens: of_samples.concat(), before }
    }

    /// Queries of all samples.
    fn rows(&self) -> usize {
        self.starts.len() / self.keys * self.queries
    }

    /// The token of a query among all tokens.
    fn token(&self, row: usize) -> usize {
        row / self.queries * self.keys + self.keys - self.queries + row % self.queries
    }

    /// Where in its sample the document of a query begins, and where the query is.
    fn place(&self, row: usize) -> (usize, usize) {
        let token = self.token(row);
        (self.starts[token], token % self.keys)
    }

    /// The whole blocks that a query sees, among those of its sample.
    fn finished(&self, row: usize) -> Range<usize> {
        let ((start, at), before) = (self.place(row), self.before[self.token(row)]);
        before..before + (at + 1 - start) / self.branches.block
    }

    /// The mean of each whole block.
    ///
    /// # Shapes
    /// - x: `[batch, kv_heads, keys, width]`
    /// - result: `[batch, kv_heads, n, width]`
    fn means(&self, x: Tensor<4>) -> Tensor<4> {
        let ([batch, heads, keys, width], size) = (x.dims(), self.branches.block);
        let rows = self.tokens.iter().flat_map(|&first| first..first + size).map(|row| row as i32);
        let rows: Vec<i32> = rows.collect();
        let n_rows = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n_rows]), &x.device());
        let tokens = x.swap_dims(1, 2).reshape([batch * keys, heads * width]).select(0, rows);
        let means = tokens.reshape([batch * self.n, size, heads * width]).mean_dim(1);
        means.reshape([batch, self.n, heads, width]).swap_dims(1, 2)
    }

    /// The tokens of the blocks that each query selects for each head of keys, `[batch, kv_heads, queries]`.
    fn selected(
        &self,
        query: &Tensor<4>,
        means: Option<&Tensor<4>>,
        kv_heads: usize,
        scale: f64,
    ) -> Vec<Vec<Range<usize>>> {
        let [batch, heads, queries, width] = query.dims();
        let mut selected = vec![Vec::new(); batch * kv_heads * queries];
        for first in (0..queries).step_by(QUERIES) {
            let n = QUERIES.min(queries - first);
            let group = heads / kv_heads;
            // Scores of the means, `[batch, kv_heads, group, n, blocks]`.
            let scores: Vec<f32> = means.map_or_else(Vec::new, |means| {
                let query = cast_f32(query.clone().without_autodiff().narrow(2, first, n));
                let query = query.reshape([batch, kv_heads, group * n, width]);
                let scores = matmul(query, cast_f32(means.clone().without_autodiff()).swap_dims(2, 3));
                // Cannot fail: scores are f32.
                scores.into_data().try_into_vec().expect("f32 scores")
            });
            let rows = (0..batch * kv_heads * n).into_par_iter();
            let of_rows: Vec<Vec<Range<usize>>> = rows
                .map(|row| {
                    let (head, query) = (row / n, row % n);
                    let at = head / kv_heads * queries + first + query;
                    let finished = self.finished(at);
                    let mut shares = vec![0.0f32; finished.len()];
                    let mut of_head = shares.clone();
                    for number in 0..group {
                        let from = ((head * group + number) * n + query) * self.n;
                        let scores = scores.get(from + finished.start..from + finished.end).unwrap_or(&[]);
                        softmax_row(&mut of_head, scores, scale as f32);
                        shares.iter_mut().zip(&of_head).for_each(|(sum, share)| *sum += share);
                    }
                    self.spans(at, &self.select(at, &shares))
                })
                .collect();
            for (row, spans) in of_rows.into_iter().enumerate() {
                selected[row / n * queries + first + row % n] = spans;
            }
        }
        selected
    }

    /// The block of the query itself and those with the largest shares, in ascending order and counted from
    /// the start of its document; ties go to the first.
    fn select(&self, row: usize, shares: &[f32]) -> Vec<usize> {
        let (start, at) = self.place(row);
        let own = (at - start) / self.branches.block;
        let mut others: Vec<usize> = (0..shares.len()).filter(|&block| block != own).collect();
        others.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]).then(a.cmp(&b)));
        others.truncate(self.branches.selected - 1);
        others.push(own);
        others.sort_unstable();
        others
    }

    /// The tokens of blocks up to a query; adjacent blocks are one span.
    fn spans(&self, row: usize, blocks: &[usize]) -> Vec<Range<usize>> {
        let ((start, at), size) = (self.place(row), self.branches.block);
        let mut spans: Vec<Range<usize>> = Vec::new();
        for block in blocks {
            let span = start + block * size..(start + (block + 1) * size).min(at + 1);
            match spans.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => spans.push(span),
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_with_the_document_and_the_own_one_is_always_selected() {
        // A document of 3 tokens and one of 5, in blocks of 2: whole ones begin at 0, 3 and 5.
        let branches = Branches { block: 2, selected: 2, window: 1 };
        let blocks = Blocks::new(&[0, 0, 0, 3, 3, 3, 3, 3], 8, 8, branches);
        assert_eq!((blocks.n, &blocks.tokens[..]), (3, &[0, 3, 5][..]));
        let finished: Vec<Range<usize>> = (0..8).map(|row| blocks.finished(row)).collect();
        assert_eq!(finished, [0..0, 0..1, 0..1, 1..1, 1..2, 1..2, 1..3, 1..3]);
        // The last token is in the third block of its document, which is not whole.
        assert_eq!(blocks.select(7, &[0.25, 0.75]), [1, 2]);
        assert_eq!(blocks.select(7, &[0.5, 0.5]), [0, 2]);
        assert_eq!(blocks.spans(7, &[0, 2]), [3..5, 7..8]);
        assert_eq!(blocks.spans(7, &[1, 2]).as_slice(), std::slice::from_ref(&(5..8)));
        // The last token of a whole block does not select it twice.
        assert_eq!(blocks.select(6, &[0.1, 0.9]), [0, 1]);
        // One query at the end of the same keys.
        let blocks = Blocks::new(&[0, 0, 0, 3, 3, 3, 3, 3], 1, 8, branches);
        assert_eq!((blocks.rows(), blocks.place(0), blocks.finished(0)), (1, (3, 7), 1..3));
    }
}
