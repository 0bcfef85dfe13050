//! What attention does to its scores, and rotary positions to queries and keys.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::HostKernels;

/// Which keys each query may see: those of its own document piece up to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    seq: usize,
    /// Rows of scores for each sample: heads times queries.
    rows_per_sample: usize,
    /// For each token of the batch the position at which its piece begins.
    first: Vec<u32>,
}

/// Cosine and sine of the angles of each token.
#[derive(Debug, Clone, PartialEq)]
pub struct Angles {
    /// Pairs of channels of a head.
    pub half: usize,
    /// `[tokens, half]`
    pub cos: Vec<f32>,
    /// `[tokens, half]`
    pub sin: Vec<f32>,
}

impl Spans {
    /// The spans of samples of `seq` tokens, from the piece number of each token. The tokens of a
    /// piece lie side by side.
    pub fn new(segments: &[u32], seq: usize, n_heads: usize) -> Self {
        let mut first = Vec::with_capacity(segments.len());
        for sample in segments.chunks_exact(seq) {
            let mut start = 0;
            for (i, segment) in sample.iter().enumerate() {
                if i > 0 && *segment != sample[i - 1] {
                    start = i;
                }
                first.push(start as u32);
            }
        }
        Self { seq, rows_per_sample: n_heads * seq, first }
    }

    /// For each token of the batch the position at which its piece begins.
    pub fn first(&self) -> &[u32] {
        &self.first
    }

    /// The keys that row `row` of the scores may see.
    pub(super) fn keys(&self, row: usize) -> Range<usize> {
        let (sample, query) = (row / self.rows_per_sample, row % self.seq);
        self.first[sample * self.seq + query] as usize..query + 1
    }
}

impl Angles {
    /// Cosines and sines of a token.
    pub(super) fn of_token(&self, token: usize) -> (&[f32], &[f32]) {
        let at = token * self.half..(token + 1) * self.half;
        (&self.cos[at.clone()], &self.sin[at])
    }
}

/// `softmax(scale * scores)` over the keys that each query may see, 0 elsewhere.
///
/// # Shapes
/// - scores: `[batch * heads * seq, seq]`, and so is the result
pub fn attention_softmax(scores: Tensor<2>, spans: &Arc<Spans>, scale: f64) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::k_attention(scores.into_dispatch(), spans.clone(), scale))
}

/// Turns the pairs (x_i, x_(i + half)) of every head by the angles of their token.
///
/// # Shapes
/// - x: `[tokens, heads * 2 * half]`, and so is the result
pub fn rotate(x: Tensor<2>, angles: &Arc<Angles>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::k_rotate(x.into_dispatch(), angles.clone(), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_begin_with_the_piece_and_end_with_the_query() {
        // Two samples of three tokens, two heads: rows are sample, head, query.
        let spans = Spans::new(&[0, 0, 1, 0, 1, 1], 3, 2);
        let keys: Vec<Range<usize>> = (0..12).map(|row| spans.keys(row)).collect();
        assert_eq!(keys[..3], [0..1, 0..2, 2..3]);
        assert_eq!(keys[3..6], keys[..3]);
        assert_eq!(keys[6..9], [0..1, 1..2, 1..3]);
    }
}
