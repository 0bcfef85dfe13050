//! Which experts each token goes to, and which row each choice gets.
//!
//! A token's choice is one of its k experts; choice `token * k + j` is the j-th best. Choices sorted by
//! expert are the rows of the grouped matrix products (MegaBlocks, Gale et al. 2022, arXiv 2211.15841,
//! section 4). Nothing here reads a number back to the host: shapes depend only on the number of tokens, and
//! rows of padding are unused, after the others.
//!
//! - [`choose`]: 32 units for each token. They read its scores k times, from the cache except for the
//!   first time, and each time agree on the best one that comes after the last choice.
//! - [`sort_by_expert`]: a stable counting sort, in four launches. (1) One cube for each chunk of
//!   256 choices counts its experts; (2) one cube for each expert adds its counts up over the
//!   chunks; (3) one cube adds the experts up; (4) each choice finds its place: the start of its
//!   expert, the choices of earlier chunks, and the earlier ones of its own, which it compares in
//!   shared memory. Choices are read twice and both permutations written once, 16 bytes for each
//!   choice, and `experts / 64` bytes of counts are written twice and read twice.
//! - [`count`]: launch (1) of the sort with chunks that end where samples end, and a sum.

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod kernels;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The rows of one batch: all choices in the order of their experts. Both directions are stored, so
/// that forward and backward only read.
#[derive(Debug, Clone)]
pub struct Routes {
    /// First row of each expert, and the number of rows, `[experts + 1]`.
    pub offsets: Tensor<1, Int>,
    /// The row of each choice `token * top_k + j`, -1 on padding, `[tokens * top_k]`.
    pub row_of_choice: Tensor<1, Int>,
    /// The choice that made each row, -1 after the last row, `[tokens * top_k]`.
    pub choice_of_row: Tensor<1, Int>,
    /// Choices of each token.
    pub top_k: usize,
}

/// The k experts with the highest `score + bias` for each token, best first, ties to the lowest expert; -1 on
/// padding. The bias takes part in the choice only (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). No
/// gradient.
///
/// # Shapes
/// - scores: `[tokens, experts]`, f32, none of them NaN
/// - bias: `[experts]`, f32
/// - is_valid: `[tokens]`, 0 on padding
/// - result: `[tokens, top_k]`
///
/// # Panics
/// When there are fewer experts than choices, when the shapes do not agree, and on a GPU when scores
/// or bias are not f32.
pub fn choose(scores: Tensor<2>, bias: Tensor<1>, is_valid: Tensor<1, Int>, top_k: usize) -> Tensor<2, Int> {
    let [tokens, n_experts] = scores.dims();
    assert_eq!((bias.dims(), is_valid.dims()), ([n_experts], [tokens]), "shapes of bias and is_valid");
    assert!(top_k <= n_experts, "cannot choose {top_k} of {n_experts} experts");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&scores.device()) {
        return gpu::choose(scores, bias, is_valid, top_k);
    }
    choose_plain(scores, bias, is_valid, top_k)
}

/// [`choose`] on the host.
pub fn choose_plain(
    scores: Tensor<2>,
    bias: Tensor<1>,
    is_valid: Tensor<1, Int>,
    top_k: usize,
) -> Tensor<2, Int> {
    let device = scores.device();
    let [tokens, n_experts] = scores.dims();
    let scores: Vec<f32> = scores.into_data().iter().collect();
    let bias: Vec<f32> = bias.into_data().iter().collect();
    let mut choices = Vec::with_capacity(tokens * top_k);
    for (row, is_valid) in scores.chunks_exact(n_experts).zip(integers(is_valid)) {
        if is_valid == 0 {
            choices.extend(std::iter::repeat_n(-1, top_k));
            continue;
        }
        let biased: Vec<f32> = row.iter().zip(&bias).map(|(score, bias)| score + bias).collect();
        let mut left: Vec<usize> = (0..n_experts).collect();
        for _ in 0..top_k {
            let mut best = 0;
            for at in 1..left.len() {
                if biased[left[at]] > biased[left[best]] {
                    best = at;
                }
            }
            choices.push(left.remove(best) as i64);
        }
    }
    Tensor::from_data(TensorData::new(choices, [tokens, top_k]), &device)
}

/// Sorts choices by expert; choices of one expert keep their order.
///
/// # Shapes
/// - experts: `[tokens, top_k]`, each below `n_experts`, or -1 on padding
pub fn sort_by_expert(experts: &Tensor<2, Int>, n_experts: usize) -> Routes {
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&experts.device()) {
        return gpu::sort_by_expert(experts, n_experts);
    }
    sort_by_expert_plain(experts, n_experts)
}

/// [`sort_by_expert`] on the host.
pub fn sort_by_expert_plain(experts: &Tensor<2, Int>, n_experts: usize) -> Routes {
    let device = experts.device();
    let [_, top_k] = experts.dims();
    let experts = integers(experts.clone());
    let experts: Vec<Option<usize>> =
        experts.into_iter().map(|expert| usize::try_from(expert).ok().filter(|e| *e < n_experts)).collect();
    let mut offsets = vec![0i64; n_experts + 1];
    for expert in experts.iter().flatten() {
        offsets[expert + 1] += 1;
    }
    for expert in 0..n_experts {
        offsets[expert + 1] += offsets[expert];
    }
    let mut next = offsets.clone();
    let mut row_of_choice = vec![-1; experts.len()];
    let mut choice_of_row = vec![-1; experts.len()];
    for (choice, expert) in experts.into_iter().enumerate() {
        if let Some(expert) = expert {
            row_of_choice[choice] = next[expert];
            choice_of_row[next[expert] as usize] = choice as i64;
            next[expert] += 1;
        }
    }
    Routes {
        offsets: from_integers(offsets, &device),
        row_of_choice: from_integers(row_of_choice, &device),
        choice_of_row: from_integers(choice_of_row, &device),
        top_k,
    }
}

/// How often each expert occurs in each sample; exact below 2^24.
///
/// # Shapes
/// - experts: `[tokens, top_k]`, each below `n_experts`, or -1, which counts nowhere; the samples
///   follow one another and have equally many tokens
/// - result: `[n_samples, n_experts]`, f32
///
/// # Panics
/// When the tokens cannot be divided evenly into samples.
pub fn count(experts: Tensor<2, Int>, n_samples: usize, n_experts: usize) -> Tensor<2> {
    let [tokens, _] = experts.dims();
    assert!(tokens.is_multiple_of(n_samples), "{tokens} tokens do not divide into {n_samples} samples");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&experts.device()) {
        return gpu::count(experts, n_samples, n_experts);
    }
    count_plain(experts, n_samples, n_experts)
}

/// [`count`] on the host.
pub fn count_plain(experts: Tensor<2, Int>, n_samples: usize, n_experts: usize) -> Tensor<2> {
    let device = experts.device();
    let per_sample = experts.dims().iter().product::<usize>() / n_samples;
    let mut counts = vec![0.0f32; n_samples * n_experts];
    for (choice, expert) in integers(experts).into_iter().enumerate() {
        if let Some(expert) = usize::try_from(expert).ok().filter(|e| *e < n_experts) {
            counts[choice / per_sample * n_experts + expert] += 1.0;
        }
    }
    Tensor::from_data(TensorData::new(counts, [n_samples, n_experts]), &device)
}

/// The values of a tensor of integers, whatever their type on the device.
fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter().collect()
}

/// A tensor of integers of the device's own type.
pub(crate) fn from_integers(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn ints(values: &[i64]) -> Tensor<1, Int> {
        from_integers(values.to_vec(), &Device::flex())
    }

    #[test]
    fn ties_go_to_the_lowest_expert_and_padding_chooses_nothing() {
        let bias = Tensor::zeros([3], &Device::flex());
        let scores = scores(&[0.5, 0.5, 0.1, 0.9, 0.1, 0.2], [2, 3]);
        let choices = choose(scores, bias, ints(&[1, 0]), 2);
        assert_eq!(integers(choices), [0, 1, -1, -1]);
    }

    #[test]
    fn the_bias_changes_the_choice() {
        let bias = Tensor::from_data([-0.2f32, 0.0, 0.0], &Device::flex());
        let choices = choose(scores(&[0.5, 0.4, 0.1], [1, 3]), bias, ints(&[1]), 1);
        assert_eq!(integers(choices), [1]);
    }

    #[test]
    fn rows_follow_experts_and_keep_their_order() {
        // Tokens 0 and 2 choose experts 2 and 0, token 1 is padding; expert 1 has no row.
        let experts = ints(&[2, 0, -1, -1, 2, 0]).reshape([3, 2]);
        let routes = sort_by_expert(&experts, 3);
        assert_eq!(integers(routes.offsets), [0, 2, 2, 4]);
        assert_eq!(integers(routes.row_of_choice), [2, 0, -1, -1, 3, 1]);
        assert_eq!(integers(routes.choice_of_row), [1, 5, 0, 4, -1, -1]);
        assert_eq!(routes.top_k, 2);
    }

    #[test]
    fn each_sample_has_its_own_counts() {
        let experts = ints(&[2, 0, -1, -1, 2, 0, 2, 1]).reshape([4, 2]);
        let counts: Vec<f32> = count(experts, 2, 3).into_data().iter().collect();
        assert_eq!(counts, [1.0, 0.0, 1.0, 1.0, 1.0, 2.0]);
    }
}
