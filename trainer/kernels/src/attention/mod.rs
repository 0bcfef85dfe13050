//! Causal attention inside document pieces, without a matrix of tokens by tokens: FlashAttention-2
//! (Dao 2023, arXiv 2307.08691, algorithms 1 and 2) with grouped queries (Ainslie et al. 2023, arXiv
//! 2305.13245, section 2.2).
//!
//! `o_i = sum_j p_ij v_j`, `p_ij = exp(q_i k_j / sqrt(d) - L_i)`, `L_i = log sum_j exp(q_i k_j / sqrt(d))`,
//! over the keys j of the same piece up to i. A cube holds one tile of queries of one head and goes over
//! tiles of keys, keeping the largest score and the sum of exponentials so far; only `L` is saved for the
//! gradient, one number for each token and head. With `D_i = sum do_i o_i`, `ds_ij = p_ij (do_i v_j - D_i) /
//! sqrt(d)`, the gradients are
//!
//! - `dq_i = sum_j ds_ij k_j`: one cube for a tile of queries, over tiles of keys;
//! - `dk_j = sum_i ds_ij q_i`, `dv_j = sum_i p_ij do_i`: one cube for a tile of keys of one key head,
//!   over tiles of queries of all heads of its group, so that nothing is added atomically.
//!
//! There are two sets of these kernels: `tensor` for devices that multiply tiles of f16 or bf16 (tensor
//! cores) and heads of a multiple of 16 up to 128, `kernels` for all others.
//!
//! Tiles that no query of the tile can see are skipped: those above the diagonal, and those outside of the
//! pieces. Rows are read directly from the packed product of the projection; queries, keys and values are
//! read from device memory about once for each tile of the other side, by cubes that run at the same time and
//! find most of it in the cache.

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod kernels;
#[cfg(feature = "gpu")]
mod tensor;

use burn::tensor::{FloatDType, Int, Tensor, TensorData, activation};

/// Score added for keys that a token must not see. Every query sees at least itself, so after the softmax
/// these entries are exactly zero.
const FORBIDDEN: f32 = -1e30;

/// Widest head that the kernels support.
pub const MAX_HEAD_DIM: usize = 256;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Tokens of a sample.
    pub seq: usize,
    /// Heads of queries; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and of values. Query head h uses number `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of each head, at most [`MAX_HEAD_DIM`].
    pub head_dim: usize,
}

impl AttentionShape {
    /// Columns of queries, keys and values together.
    pub fn packed_width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Factor of scores.
    fn scale(self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }
}

/// Causal attention of each token to the tokens of its own document piece, including itself.
///
/// # Shapes
/// - qkv: `[batch * seq, (heads + 2 * kv_heads) * head_dim]`, f32 or bf16: queries, keys and values
///   side by side
/// - first: `[batch * seq]`, the position inside the sample at which the token's piece begins; the
///   tokens of a piece lie side by side, so it never falls inside a sample
/// - result: `[batch * seq, heads * head_dim]`, in the type of qkv
///
/// # Panics
/// If the shapes do not match.
pub fn attention(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    assert_eq!(width, shape.packed_width(), "columns of queries, keys and values");
    assert_eq!(first.dims(), [tokens], "one start of a piece for each token");
    assert_eq!(tokens % shape.seq, 0, "whole samples of {} tokens", shape.seq);
    assert_eq!(shape.heads % shape.kv_heads, 0, "whole groups of heads");
    assert!(shape.head_dim <= MAX_HEAD_DIM, "heads of {} are too wide", shape.head_dim);
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&qkv.device()) {
        return gpu::attention(qkv, first, shape, gpu::Choice::Device);
    }
    attention_plain(qkv, first, shape)
}

/// [`attention`] by the kernels for tensor cores, with products in plain arithmetic: what tests need on a
/// GPU without tensor cores. Heads are multiples of 16 wide, and narrow ones only fit in shared memory.
#[cfg(feature = "gpu")]
#[doc(hidden)]
pub fn attention_emulated(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    gpu::attention(qkv, first, shape, gpu::Choice::Emulated)
}

/// [`attention`] by plain operations: the softmax of all scores in f32, with a mask added.
pub fn attention_plain(qkv: Tensor<2>, first: Tensor<1, Int>, shape: AttentionShape) -> Tensor<2> {
    let AttentionShape { seq, heads, kv_heads, head_dim } = shape;
    let batch = qkv.dims()[0] / seq;
    let group = heads / kv_heads;
    let dtype = qkv.dtype();
    let mask = mask(first, seq, &qkv.device());
    let by_head = |from: usize, n: usize| {
        let x = qkv.clone().narrow(1, from * head_dim, n * head_dim).cast(FloatDType::F32);
        x.reshape([batch, seq, n, head_dim]).swap_dims(1, 2)
    };
    // The queries of one group are stacked.
    let query = by_head(0, heads).reshape([batch, kv_heads, group * seq, head_dim]);
    let (key, value) = (by_head(heads, kv_heads), by_head(heads + kv_heads, kv_heads));
    let scores = query.matmul(key.swap_dims(2, 3)).mul_scalar(shape.scale());
    let scores = scores.reshape([batch, kv_heads, group, seq, seq]) + mask;
    let weights = activation::softmax(scores, 4).reshape([batch, kv_heads, group * seq, seq]);
    let output = weights.matmul(value).reshape([batch, heads, seq, head_dim]);
    output.swap_dims(1, 2).reshape([batch * seq, heads * head_dim]).cast(dtype)
}

/// 0 for keys that a token may see, a very negative number elsewhere, `[batch, 1, 1, seq, seq]`.
fn mask(first: Tensor<1, Int>, seq: usize, device: &burn::tensor::Device) -> Tensor<5> {
    let first: Vec<i64> = first.into_data().convert::<i64>().try_into_vec().expect("converted");
    let mut values = vec![FORBIDDEN; first.len() * seq];
    for (token, row) in values.chunks_exact_mut(seq).enumerate() {
        row[first[token] as usize..=token % seq].fill(0.0);
    }
    Tensor::from_data(TensorData::new(values, [first.len() / seq, 1, 1, seq, seq]), device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn host(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect("f32")
    }

    #[test]
    fn a_query_of_zero_averages_the_values_of_its_piece() {
        let device = Device::flex();
        // Two samples of three tokens: pieces of 2 + 1 and of 3 tokens. Queries are 0.
        let rows = [[0.0f32, 9.0, 1.0], [0.0, -5.0, 3.0], [0.0, 2.0, 7.0]];
        let rows = [rows, [[0.0, 1.0, 3.0], [0.0, 1.0, 5.0], [0.0, 4.0, 1.0]]].concat();
        let qkv = Tensor::from_data(TensorData::new(rows.concat(), [6, 3]), &device);
        let first = Tensor::from_data(TensorData::from([0, 0, 2, 0, 0, 0]), &device);
        let shape = AttentionShape { seq: 3, heads: 1, kv_heads: 1, head_dim: 1 };
        assert_eq!(host(attention(qkv, first, shape)), [1.0, 2.0, 7.0, 3.0, 4.0, 3.0]);
    }

    #[test]
    fn query_heads_share_the_key_head_of_their_group() {
        let device = Device::flex();
        // One token: the output is the value of the head's group, regardless of the queries.
        let qkv = [[0.1f32, 0.2, 0.3, 0.4, /* keys */ 1.0, 2.0, /* values */ 5.0, 6.0]];
        let qkv = Tensor::from_data(TensorData::from(qkv), &device);
        let first = Tensor::from_data(TensorData::from([0]), &device);
        let shape = AttentionShape { seq: 1, heads: 4, kv_heads: 2, head_dim: 1 };
        assert_eq!(host(attention(qkv, first, shape)), [5.0, 5.0, 6.0, 6.0]);
    }

    #[test]
    fn scores_are_divided_by_the_root_of_the_width() {
        let device = Device::flex();
        // Width 4, scores of the second query: 0 and ln 3 after scaling, so weights 1/4 and 3/4.
        let score = 2.0 * 3f32.ln();
        let rows = [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]];
        let keys = [[0.0, 0.0, 0.0, 0.0], [score, 0.0, 0.0, 0.0]];
        let values = [[4.0, 0.0, 0.0, 8.0], [0.0, 4.0, 0.0, 0.0]];
        let packed: Vec<f32> = (0..2).flat_map(|i| [rows[i], keys[i], values[i]].concat()).collect();
        let qkv = Tensor::from_data(TensorData::new(packed, [2, 12]), &device);
        let first = Tensor::from_data(TensorData::from([0, 0]), &device);
        let shape = AttentionShape { seq: 2, heads: 1, kv_heads: 1, head_dim: 4 };
        let found = host(attention(qkv, first, shape));
        for (found, expected) in found.iter().zip([4.0, 0.0, 0.0, 8.0, 1.0, 3.0, 0.0, 2.0]) {
            assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
        }
    }
}
