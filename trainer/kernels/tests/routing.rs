use burn::tensor::{Device, Int, Tensor, TensorData};
use moe_kernels::routing::{choose, choose_plain, count, count_plain, sort_by_expert, sort_by_expert_plain};

use crate::support::{gpu, noise};

fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter().collect()
}

/// Some values between 0 and `below`, or -1 where padded.
fn experts(seed: u64, tokens: usize, top_k: usize, below: usize, is_padded: bool) -> Vec<i64> {
    let draws = noise(seed, tokens * top_k);
    let padding = noise(seed + 1, tokens);
    let expert = |(i, x): (usize, &f32)| {
        if is_padded && padding[i / top_k] > 0.6 {
            -1
        } else {
            ((x.abs() * below as f32) as i64).min(below as i64 - 1)
        }
    };
    draws.iter().enumerate().map(expert).collect()
}

#[test]
fn choices_equal_those_of_the_host() {
    for (tokens, n_experts, top_k) in [(1, 1, 1), (3, 5, 5), (37, 8, 2), (70, 33, 3), (19, 300, 8)] {
        // Few different scores, so that many are equal.
        let round = |x: f32| (x * 5.0).round() / 5.0;
        let scores: Vec<f32> = noise(1, tokens * n_experts).into_iter().map(round).collect();
        let bias: Vec<f32> = noise(2, n_experts).into_iter().map(round).collect();
        let is_valid: Vec<i64> = (0..tokens).map(|t| i64::from(t % 7 != 3)).collect();
        let on = |device: &Device, plain: bool| {
            let scores = Tensor::from_data(TensorData::new(scores.clone(), [tokens, n_experts]), device);
            let bias = Tensor::from_data(TensorData::new(bias.clone(), [n_experts]), device);
            let is_valid = Tensor::from_data(TensorData::new(is_valid.clone(), [tokens]), device);
            let choose = if plain { choose_plain } else { choose };
            let choices = choose(scores, bias, is_valid, top_k);
            assert_eq!(choices.dims(), [tokens, top_k]);
            integers(choices)
        };
        assert_eq!(on(&Device::flex(), true), on(&gpu(), false), "{tokens} {n_experts} {top_k}");
    }
}

#[test]
fn a_score_of_minus_infinity_is_chosen_last_and_once() {
    let scores = [f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY, 3.0];
    let scores = Tensor::from_data(TensorData::new(scores.to_vec(), [1, 4]), &gpu());
    let is_valid = Tensor::from_data(TensorData::new(vec![1i64], [1]), &gpu());
    assert_eq!(integers(choose(scores, Tensor::zeros([4], &gpu()), is_valid, 4)), [3, 1, 0, 2]);
}

#[test]
fn rows_equal_those_of_the_host() {
    // One chunk and many, more experts than units, experts without rows, a single expert.
    for (tokens, top_k, n_experts, is_padded) in
        [(1, 1, 1, false), (5, 2, 3, true), (256, 1, 4, false), (301, 3, 7, true), (90, 4, 300, true)]
    {
        let values = experts(3, tokens, top_k, n_experts, is_padded);
        let on = |device: &Device| {
            Tensor::<2, Int>::from_data(TensorData::new(values.clone(), [tokens, top_k]), device)
        };
        let name = format!("{tokens} {top_k} {n_experts}");
        let expected = sort_by_expert_plain(&on(&Device::flex()), n_experts);
        let found = sort_by_expert(&on(&gpu()), n_experts);
        assert_eq!(found.top_k, top_k);
        assert_eq!(integers(expected.offsets), integers(found.offsets), "{name} offsets");
        assert_eq!(integers(expected.row_of_choice), integers(found.row_of_choice), "{name} rows");
        assert_eq!(integers(expected.choice_of_row), integers(found.choice_of_row), "{name} choices");
    }
}

#[test]
fn more_chunks_than_units_of_a_scan() {
    let (tokens, top_k, n_experts) = (33_000, 2, 3);
    let values = experts(5, tokens, top_k, n_experts, true);
    let on = |device: &Device| {
        Tensor::<2, Int>::from_data(TensorData::new(values.clone(), [tokens, top_k]), device)
    };
    let expected = sort_by_expert_plain(&on(&Device::flex()), n_experts);
    let found = sort_by_expert(&on(&gpu()), n_experts);
    assert_eq!(integers(expected.offsets), integers(found.offsets));
    assert_eq!(integers(expected.row_of_choice), integers(found.row_of_choice));
    assert_eq!(integers(expected.choice_of_row), integers(found.choice_of_row));
}

#[test]
fn counts_equal_those_of_the_host() {
    for (tokens, top_k, n_samples, n_experts) in
        [(1, 1, 1, 1), (12, 2, 3, 5), (900, 2, 2, 300), (640, 1, 5, 4)]
    {
        let values = experts(7, tokens, top_k, n_experts, true);
        let on = |device: &Device| {
            Tensor::<2, Int>::from_data(TensorData::new(values.clone(), [tokens, top_k]), device)
        };
        let expected = count_plain(on(&Device::flex()), n_samples, n_experts).into_data();
        let found = count(on(&gpu()), n_samples, n_experts).into_data();
        let (expected, found): (Vec<f32>, Vec<f32>) = (expected.iter().collect(), found.iter().collect());
        assert_eq!(expected, found, "{tokens} {top_k} {n_samples} {n_experts}");
    }
}
