//! Routing on the CPU: logits are on the host already, so the choice and the layout of the rows are
//! made there, in plain loops.

use burn::tensor::{
    Int, Tensor, TensorData,
    activation::{sigmoid, softmax},
};

use super::balance::{self, Balance};
use super::dispatch::Dispatch;
use super::router::{Routed, Router};
use super::stats::Stats;
use crate::model::config::{BalanceConfig, ScoreFunction};
use crate::model::input::ValidMask;

/// The answer of a router for logits `[tokens, experts]`.
pub(super) fn route(
    router: &Router,
    logits: Tensor<2>,
    valid: &ValidMask,
    coefficients: &BalanceConfig,
) -> Routed {
    let (config, top_k) = (router.config(), router.top_k());
    let [_, n_experts] = logits.dims();
    let host_logits = host_f32(logits.clone().detach().into_data());
    let bias = host_f32(router.balance_bias().val().into_data());
    let scores = host_scores(&host_logits, n_experts, config.score);
    let choices = choose(&scores, &bias, top_k, valid);
    let unbiased = if bias.iter().all(|&b| b == 0.0) {
        choices.clone()
    } else {
        choose(&scores, &vec![0.0; n_experts], top_k, valid)
    };
    let dispatch = Dispatch::on_host(&choices, n_experts, top_k);
    let load = dispatch.host_load();

    let scores = match config.score {
        ScoreFunction::Softmax => softmax(logits.clone(), 1),
        ScoreFunction::Sigmoid => sigmoid(logits.clone()),
    };
    let indices: Vec<i64> = choices.iter().map(|c| i64::from(c.unwrap_or(0))).collect();
    let indices = TensorData::new(indices, [valid.n_tokens(), top_k]);
    let indices = Tensor::<2, Int>::from_data(indices, &scores.device());
    let weights = router.weights(scores.clone(), indices, valid);
    let balance = Balance::new(&host_logits, &unbiased, n_experts, top_k, config.score, valid);
    let auxiliary = balance.losses(logits, scores, coefficients, valid);
    let stats = Stats::Host(balance.into_stats(load, bias));
    Routed { weights, dispatch, auxiliary, stats }
}

/// The k experts of highest `score + bias` for each token, best first, ties to the lowest expert;
/// `None` on padding.
fn choose(scores: &[f32], bias: &[f32], top_k: usize, valid: &ValidMask) -> Vec<Option<u32>> {
    let n_experts = bias.len();
    let mut choices = Vec::with_capacity(valid.n_tokens() * top_k);
    let mut biased = vec![0.0f32; n_experts];
    for (token, row) in scores.chunks_exact(n_experts).enumerate() {
        if !valid.is_valid(token) {
            choices.extend(std::iter::repeat_n(None, top_k));
            continue;
        }
        for (value, (score, bias)) in biased.iter_mut().zip(row.iter().zip(bias)) {
            *value = score + bias;
        }
        for _ in 0..top_k {
            let mut best = 0;
            for expert in 1..n_experts {
                if biased[expert] > biased[best] {
                    best = expert;
                }
            }
            choices.push(Some(best as u32));
            biased[best] = f32::NEG_INFINITY;
        }
    }
    choices
}

fn host_scores(logits: &[f32], n_experts: usize, score: ScoreFunction) -> Vec<f32> {
    match score {
        ScoreFunction::Sigmoid => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        ScoreFunction::Softmax => logits
            .chunks_exact(n_experts)
            .flat_map(|row| {
                let log_sum = balance::log_sum_exp(row);
                row.iter().map(move |z| (z - log_sum).exp())
            })
            .collect(),
    }
}

fn host_f32(data: TensorData) -> Vec<f32> {
    // Cannot fail: router logits and biases are f32 by construction.
    data.try_into_vec().expect("router tensors are f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn valid(mask: &[bool]) -> ValidMask {
        ValidMask::new(mask.to_vec(), 1, &Device::flex())
    }

    #[test]
    fn ties_go_to_the_lowest_expert_and_padding_chooses_nothing() {
        let scores = [0.5, 0.5, 0.1, 0.9, 0.1, 0.2];
        let choices = choose(&scores, &[0.0; 3], 2, &valid(&[true, false]));
        assert_eq!(choices, [Some(0), Some(1), None, None]);
    }

    #[test]
    fn the_bias_changes_the_choice() {
        let choices = choose(&[0.5, 0.4, 0.1], &[-0.2, 0.0, 0.0], 1, &valid(&[true]));
        assert_eq!(choices, [Some(1)]);
    }

    #[test]
    fn host_scores_are_softmax_and_sigmoid() {
        let softmax = host_scores(&[0.0, 3f32.ln()], 2, ScoreFunction::Softmax);
        assert!((softmax[0] - 0.25).abs() < 1e-6 && (softmax[1] - 0.75).abs() < 1e-6);
        assert_eq!(host_scores(&[0.0], 1, ScoreFunction::Sigmoid), [0.5]);
    }
}
