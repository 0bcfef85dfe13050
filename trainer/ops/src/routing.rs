//! Which experts each token goes to, and which row each choice gets. Only [`scores`] has a gradient.

use burn::tensor::{Device, Int, Tensor, TensorData};
pub use moe_kernels::routing::Routes;
use moe_kernels::routing::{self, choose_plain, count_plain, sort_by_expert_plain};

use super::row_functions::{logistic, softmax};
use super::{Form, is_cpu};

/// Function from router logits to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// `p = softmax(z)` over the experts.
    Softmax,
    /// `s = sigmoid(z)`, each expert separately.
    Sigmoid,
}

/// The scores of logits `[tokens, experts]`, f32, with gradient.
pub fn scores(logits: Tensor<2>, score: Score) -> Tensor<2> {
    match score {
        Score::Softmax => softmax(logits),
        Score::Sigmoid => logistic(logits),
    }
}

/// The scores by which experts are compared, without gradient.
pub fn scores_for_choice(logits: Tensor<2>, score: Score) -> Tensor<2> {
    scores(logits.without_autodiff(), score)
}

/// The k experts with the highest `score + bias` for each token, best first, ties to the lowest expert; -1 on
/// padding. The bias takes part in the choice only (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
///
/// # Shapes
/// - scores: `[tokens, experts]`, f32, none of them NaN
/// - bias: `[experts]`, f32
/// - is_valid: `[tokens]`, 0 on padding
/// - result: `[tokens, top_k]`
pub fn choose(scores: Tensor<2>, bias: Tensor<1>, is_valid: Tensor<1, Int>, top_k: usize) -> Tensor<2, Int> {
    let (scores, bias) = (scores.without_autodiff(), bias.without_autodiff());
    match Form::of(&scores) {
        Form::Plain => choose_plain(scores, bias, is_valid, top_k),
        Form::Gpu => routing::choose(scores, bias, is_valid, top_k),
        Form::Cpu => choose_on_cpu(scores, bias, is_valid, top_k),
    }
}

fn choose_on_cpu(
    scores: Tensor<2>,
    bias: Tensor<1>,
    is_valid: Tensor<1, Int>,
    top_k: usize,
) -> Tensor<2, Int> {
    let (device, [tokens, n_experts]) = (scores.device(), scores.dims());
    let scores = scores.into_data();
    let scores = scores.as_slice::<f32>().unwrap_or_default();
    let bias: Vec<f32> = bias.into_data().iter().collect();
    let mut choices = Vec::with_capacity(tokens * top_k);
    let mut biased = vec![0.0f32; n_experts];
    for (row, is_valid) in scores.chunks_exact(n_experts).zip(integers(is_valid)) {
        if is_valid == 0 {
            choices.extend(std::iter::repeat_n(-1, top_k));
            continue;
        }
        for (value, (score, bias)) in biased.iter_mut().zip(row.iter().zip(&bias)) {
            *value = score + bias;
        }
        for _ in 0..top_k {
            let mut best = 0;
            for expert in 1..n_experts {
                if biased[expert] > biased[best] {
                    best = expert;
                }
            }
            choices.push(best as i64);
            biased[best] = f32::NEG_INFINITY;
        }
    }
    Tensor::from_data(TensorData::new(choices, [tokens, top_k]), &device)
}

/// Sorts choices by expert; choices of one expert keep their order.
///
/// # Shapes
/// - choices: `[tokens, top_k]`, each below `n_experts`, or -1 on padding
pub fn sort_by_expert(choices: &Tensor<2, Int>, n_experts: usize) -> Routes {
    match Form::on(&choices.device()) {
        Form::Gpu => routing::sort_by_expert(choices, n_experts),
        Form::Plain | Form::Cpu => sort_by_expert_plain(choices, n_experts),
    }
}

/// How often each expert occurs in each sample; exact below 2^24.
///
/// # Shapes
/// - choices: `[tokens, top_k]`, -1 counts nowhere; the samples follow one another and have equally many
///   tokens
/// - result: `[n_samples, n_experts]`, f32
pub fn count(choices: Tensor<2, Int>, n_samples: usize, n_experts: usize) -> Tensor<2> {
    match Form::on(&choices.device()) {
        Form::Gpu => routing::count(choices, n_samples, n_experts),
        Form::Plain | Form::Cpu => count_plain(choices, n_samples, n_experts),
    }
}

/// The values of a tensor of integers that is already on the host.
fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    debug_assert!(is_cpu(&tensor.device()), "a device would have to be waited for");
    tensor.into_data().iter().collect()
}

/// A tensor of integers of the device's own type.
pub fn from_integers<const D: usize>(values: Vec<i64>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::super::{plainly, testing::noise};
    use super::*;

    fn tensor(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn ints(values: &[i64]) -> Tensor<1, Int> {
        from_integers(values.to_vec(), [values.len()], &Device::flex())
    }

    #[test]
    fn ties_go_to_the_lowest_expert_and_padding_chooses_nothing() {
        let scores = tensor(&[0.5, 0.5, 0.1, 0.9, 0.1, 0.2], [2, 3]);
        let choices = choose(scores, Tensor::zeros([3], &Device::flex()), ints(&[1, 0]), 2);
        assert_eq!(integers(choices), [0, 1, -1, -1]);
    }

    #[test]
    fn the_bias_changes_the_choice() {
        let bias = Tensor::from_data([-0.2f32, 0.0, 0.0], &Device::flex());
        assert_eq!(integers(choose(tensor(&[0.5, 0.4, 0.1], [1, 3]), bias, ints(&[1]), 1)), [1]);
    }

    #[test]
    fn scores_are_softmax_and_sigmoid() {
        let host = |x: Tensor<2>| -> Vec<f32> { x.into_data().iter().collect() };
        for choice in [scores, scores_for_choice] {
            let softmax = host(choice(tensor(&[0.0, 3f32.ln()], [1, 2]), Score::Softmax));
            assert!((softmax[0] - 0.25).abs() < 1e-6 && (softmax[1] - 0.75).abs() < 1e-6);
            assert_eq!(host(choice(tensor(&[0.0], [1, 1]), Score::Sigmoid)), [0.5]);
        }
    }

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        let scores = noise(1, [131, 19]).without_autodiff();
        let bias = noise(2, [19]).without_autodiff();
        let valid: Vec<i64> = (0..131).map(|token| i64::from(token % 5 != 3)).collect();
        let run = || choose(scores.clone(), bias.clone(), ints(&valid), 4);
        assert_eq!(integers(run()), integers(plainly(run)));
    }
}
