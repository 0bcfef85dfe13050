//! The gated delta rule (Yang et al. 2024, arXiv 2412.06464, section 3), with a decay for each channel of a
//! key as in Kimi Delta Attention (Kimi Team 2025, arXiv 2510.26692, section 3).
//!
//! Each head keeps a matrix `S` of keys by values: `S <- diag(exp g) S`, `S <- S + beta k (v - k^T S)^T`, `o
//! = q^T S`. `S` is 0 where a document begins.

use burn::tensor::{Device, Tensor, TensorData};

use super::linear::cast_f32;
use super::matmul::matmul;

/// Tokens that are computed at a time, a power of two.
pub const CHUNK: usize = 16;

/// Inputs of a delta rule for each token, by head.
#[derive(Debug, Clone)]
pub struct DeltaInput {
    /// `[batch, heads, seq, key_width]`
    pub query: Tensor<4>,
    /// As the queries.
    pub key: Tensor<4>,
    /// `[batch, heads, seq, value_width]`
    pub value: Tensor<4>,
    /// Logarithm of the factor of each channel of the state, at most 0; same shape as the keys.
    pub decay: Tensor<4>,
    /// Fraction of the error that is corrected, `[batch, heads, seq, 1]`.
    pub beta: Tensor<4>,
}

/// The gated delta rule, in f32. Inside a chunk, tokens interact in products (the WY form), and the state
/// goes from chunk to chunk, so that time and memory grow linearly with the length. All exponents are at most
/// 0.
///
/// # Shapes
/// - starts: `[batch * seq]`, the position in the sample at which the token's document piece begins
/// - result: as the values
pub fn gated_delta_rule(input: DeltaInput, starts: &[usize]) -> Tensor<4> {
    gated_delta_rule_from(input, starts, None).0
}

/// [`gated_delta_rule`] for documents of which those at the start of a sample continue from a state, if there
/// is one; also returns the state after the last token.
///
/// # Shapes
/// - before: `[batch, heads, key_width, value_width]`, and so is the state after the last token
pub fn gated_delta_rule_from(
    input: DeltaInput,
    starts: &[usize],
    before: Option<Tensor<4>>,
) -> (Tensor<4>, Tensor<4>) {
    let [batch, heads, seq, value_width] = input.value.dims();
    let key_width = input.key.dims()[3];
    let device = input.value.device();
    let n_chunks = seq.div_ceil(CHUNK);
    let chunks = |x: Tensor<4>| in_chunks(cast_f32(x), n_chunks);
    let (query, key) = (chunks(input.query), chunks(input.key));
    let (value, beta) = (chunks(input.value), chunks(input.beta));
    let masks = Masks::new(starts, seq, n_chunks, before.is_some(), &device);

    // Decay from the start of the chunk up to each token.
    let decay = matmul(constant(|i, j| i >= j, &device), chunks(input.decay));
    let between = decay.clone().unsqueeze_dim::<6>(4) - decay.clone().unsqueeze_dim::<6>(3);
    // Later keys are masked; their factors would not be finite.
    let between = between.clamp_max(0.0).exp() * key.clone().unsqueeze_dim::<6>(3);
    let met = |x: &Tensor<5>| {
        let products = x.clone().unsqueeze_dim::<6>(4) * between.clone();
        products.sum_dim(5).reshape([batch, heads, n_chunks, CHUNK, CHUNK]) * masks.same.clone()
    };
    let attention = met(&query);
    let errors = met(&key) * beta.clone() * constant(|i, j| i > j, &device);
    let inverse = inverse_of_unit(errors, &device);
    let from_start = decay.clone().exp() * masks.from_before.clone();
    let end = decay.clone().narrow(3, CHUNK - 1, 1);
    let to_end = key.clone() * (end.clone() - decay).exp() * masks.to_end;
    let end = (end.exp() * masks.keeps).swap_dims(3, 4);
    let corrected = matmul(inverse.clone(), value * beta.clone());
    let seen = matmul(inverse, key * from_start.clone() * beta);
    let query = query * from_start;

    let zeros = || Tensor::<4>::zeros([batch, heads, key_width, value_width], &device);
    let mut state = before.unwrap_or_else(zeros);
    let mut outputs = Vec::with_capacity(n_chunks);
    let mut parts = [corrected, seen, query, attention, to_end, end].map(|x| split(x).into_iter());
    for _ in 0..n_chunks {
        let [corrected, seen, query, attention, to_end, end] =
            parts.each_mut().map(|chunks| chunks.next().expect("as many chunks of each"));
        let value = corrected - matmul(seen, state.clone());
        outputs.push(matmul(query, state.clone()) + matmul(attention, value.clone()));
        state = state * end + matmul(to_end.swap_dims(2, 3), value);
    }
    (Tensor::cat(outputs, 2).narrow(2, 0, seq), state)
}

/// Chunks of a sample, the last one filled up with zeros: `[batch, heads, chunks, CHUNK, width]`.
fn in_chunks(x: Tensor<4>, n_chunks: usize) -> Tensor<5> {
    let [batch, heads, seq, width] = x.dims();
    let rest = n_chunks * CHUNK - seq;
    let x = match rest {
        0 => x,
        _ => Tensor::cat(vec![x.clone(), Tensor::zeros([batch, heads, rest, width], &x.device())], 2),
    };
    x.reshape([batch, heads, n_chunks, CHUNK, width])
}

/// Each chunk, `[batch, heads, rows, columns]`. They are cut out by halving, because the gradient of a slice is
/// as long as what it was cut from: one slice of the sequence per chunk would make time grow with the square of
/// the length.
fn split(x: Tensor<5>) -> Vec<Tensor<4>> {
    let [batch, heads, n_chunks, rows, columns] = x.dims();
    if n_chunks == 1 {
        return vec![x.reshape([batch, heads, rows, columns])];
    }
    let half = n_chunks / 2;
    let mut chunks = split(x.clone().narrow(2, 0, half));
    chunks.extend(split(x.narrow(2, half, n_chunks - half)));
    chunks
}

/// 1 where it is true, else 0, for each row and column of a chunk.
fn constant(holds: impl Fn(usize, usize) -> bool, device: &Device) -> Tensor<5> {
    let value = |i: usize| f32::from(u8::from(holds(i / CHUNK, i % CHUNK)));
    let values: Vec<f32> = (0..CHUNK * CHUNK).map(value).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, 1, CHUNK, CHUNK]), device)
}

/// `(I + x)^-1` for `x` below the diagonal: blocks of 1, 2, 4 ... rows, each from the two on its diagonal.
fn inverse_of_unit(x: Tensor<5>, device: &Device) -> Tensor<5> {
    let mut inverse = constant(|i, j| i == j, device);
    let mut size = 1;
    while size < CHUNK {
        let lower = constant(|i, j| i / (2 * size) == j / (2 * size) && i / size > j / size, device);
        let below = matmul(matmul(inverse.clone(), x.clone() * lower), inverse.clone());
        inverse = inverse - below;
        size *= 2;
    }
    inverse
}

/// Masks between documents: 1 where something is visible, 0 elsewhere.
struct Masks {
    /// Whether a token sees another one of its chunk, `[batch, 1, chunks, CHUNK, CHUNK]`.
    same: Tensor<5>,
    /// Whether a token sees the state before its chunk, `[batch, 1, chunks, CHUNK, 1]`.
    from_before: Tensor<5>,
    /// Whether a token is in the state after its chunk, as `from_before`.
    to_end: Tensor<5>,
    /// Whether the state before a chunk contributes to the one after it, `[batch, 1, chunks, 1, 1]`.
    keeps: Tensor<5>,
}

impl Masks {
    /// Documents at the start of a sample continue from a state if `is_continued`.
    fn new(starts: &[usize], seq: usize, n_chunks: usize, is_continued: bool, device: &Device) -> Self {
        let batch = starts.len() / seq;
        // Positions after the end continue the last document, and nothing reads them.
        let start = |sample: usize, token: usize| starts[sample * seq + token.min(seq - 1)];
        let (mut same, mut before, mut to_end, mut keeps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sample, chunk) in (0..batch * n_chunks).map(|i| (i / n_chunks, i % n_chunks)) {
            let first = chunk * CHUNK;
            let last_start = start(sample, first + CHUNK - 1);
            for i in first..first + CHUNK {
                let start = start(sample, i);
                same.extend((first..first + CHUNK).map(|j| start <= j && j <= i));
                before.push(start < first || is_continued && start == 0);
                to_end.push(last_start <= i);
            }
            keeps.push(last_start < first || is_continued && last_start == 0);
        }
        let tensor = |flags: Vec<bool>, [rows, columns]: [usize; 2]| {
            let values: Vec<f32> = flags.into_iter().map(|flag| f32::from(u8::from(flag))).collect();
            Tensor::from_data(TensorData::new(values, [batch, 1, n_chunks, rows, columns]), device)
        };
        Self {
            same: tensor(same, [CHUNK, CHUNK]),
            from_before: tensor(before, [CHUNK, 1]),
            to_end: tensor(to_end, [CHUNK, 1]),
            keeps: tensor(keeps, [1, 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_again_is_corrected() {
        // Keys 1, values 4 and 8, half of the error each time, nothing forgotten: 2, then 2 + (8 - 2) / 2 =
        // 5.
        let of = |values: [f32; 3]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 3, 1]), &Device::flex())
        };
        let input = DeltaInput {
            query: of([1.0; 3]),
            key: of([1.0; 3]),
            value: of([4.0, 8.0, 6.0]),
            decay: of([0.0; 3]),
            beta: of([0.5; 3]),
        };
        let found: Vec<f32> = gated_delta_rule(input, &[0, 0, 2]).into_data().try_into_vec().expect("f32");
        // The third token is a separate document.
        assert_eq!(found, [2.0, 5.0, 3.0]);
    }
}
