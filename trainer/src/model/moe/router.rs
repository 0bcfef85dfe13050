//! The router: scores, the choice of k experts for each token, and their weights.
//!
//! Scores and weights are computed in f32 on the device and differentiated. The choice itself has
//! no gradient; it is made on the host, where ties break by the lowest expert and the layout of
//! the rows can be built at once. That costs one transfer of the logits per layer.

use burn::module::{Module, Param};
use burn::tensor::{
    Int, Tensor, TensorData,
    activation::{sigmoid, softmax},
};

use super::balance::{self, Balance, RouterStats};
use super::dispatch::Dispatch;
use crate::model::config::{BalanceConfig, ModelConfig, RouterConfig, ScoreFunction};
use crate::model::init::Init;
use crate::model::input::ValidMask;

/// Logits `z = x W`, scores `softmax(z)` or `sigmoid(z)`, and a selection bias.
#[derive(Module, Debug)]
pub struct Router {
    weight: Param<Tensor<2>>,
    /// Added to the scores when experts are chosen and never to the weights
    /// (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Not trained by gradients.
    balance_bias: Param<Tensor<1>>,
    top_k: usize,
    #[module(skip)]
    config: RouterConfig,
}

/// The answer of a router for one batch.
#[derive(Debug)]
pub struct Routed {
    /// Weight of each choice, `[tokens, k]`, zero on padding.
    pub weights: Tensor<2>,
    /// Layout of the rows.
    pub dispatch: Dispatch,
    /// Balancing losses times their coefficients, `[1]`; none when all are off.
    pub auxiliary: Option<Tensor<1>>,
    /// Counts and values for the balancer and the metrics.
    pub stats: RouterStats,
}

impl Router {
    /// The router of one block.
    pub fn new(config: &ModelConfig, name: &str, init: &Init) -> Self {
        let n_experts = config.moe.n_experts;
        let bias = Tensor::<1>::zeros([n_experts], init.device());
        Self {
            weight: init.normal(&format!("{name}.weight"), [config.d_model, n_experts], 1.0),
            balance_bias: Param::from_tensor(bias).set_require_grad(false),
            top_k: config.moe.top_k,
            config: config.moe.router.clone(),
        }
    }

    /// The matrix from hidden states to logits, `[d_model, experts]`.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// The bias of each expert's selection, `[experts]`.
    pub fn balance_bias(&self) -> &Param<Tensor<1>> {
        &self.balance_bias
    }

    /// The same router with another selection bias.
    pub fn with_balance_bias(mut self, bias: &[f32]) -> Self {
        let device = self.balance_bias.val().device();
        let bias = Tensor::from_data(TensorData::new(bias.to_vec(), [bias.len()]), &device);
        self.balance_bias = Param::initialized(self.balance_bias.id, bias).set_require_grad(false);
        self
    }

    /// Chooses experts for each token.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    pub fn forward(&self, x: Tensor<2>, valid: &ValidMask, coefficients: &BalanceConfig) -> Routed {
        let device = x.device();
        let logits = x.matmul(self.weight.val());
        let [_, n_experts] = logits.dims();

        let host_logits = host_f32(logits.clone().detach().into_data());
        let bias = host_f32(self.balance_bias.val().into_data());
        let scores = host_scores(&host_logits, n_experts, self.config.score);
        let choices = choose(&scores, &bias, self.top_k, valid);
        let unbiased = if bias.iter().all(|&b| b == 0.0) {
            choices.clone()
        } else {
            choose(&scores, &vec![0.0; n_experts], self.top_k, valid)
        };
        let dispatch = Dispatch::new(&choices, n_experts, self.top_k, &device);

        let scores = match self.config.score {
            ScoreFunction::Softmax => softmax(logits.clone(), 1),
            ScoreFunction::Sigmoid => sigmoid(logits.clone()),
        };
        let weights = self.weights(scores.clone(), &choices, valid);
        let balance = Balance::new(&host_logits, &unbiased, n_experts, self.top_k, self.config.score, valid);
        let auxiliary = balance.losses(logits, scores, coefficients, valid);
        let stats = balance.into_stats(dispatch.load(), bias);
        Routed { weights, dispatch, auxiliary, stats }
    }

    /// Weights of the chosen experts: their scores, divided by the sum of the k if so configured,
    /// times the scale.
    fn weights(&self, scores: Tensor<2>, choices: &[Option<u32>], valid: &ValidMask) -> Tensor<2> {
        let tokens = valid.n_tokens();
        let indices: Vec<i64> = choices.iter().map(|c| i64::from(c.unwrap_or(0))).collect();
        let indices =
            Tensor::<2, Int>::from_data(TensorData::new(indices, [tokens, self.top_k]), &scores.device());
        let mut weights = scores.gather(1, indices);
        if self.config.norm_weights {
            // Scores are positive; the constant only guards a row of underflowed sigmoids.
            weights = weights.clone() / weights.sum_dim(1).add_scalar(1e-20);
        }
        weights * valid.column() * self.config.route_scale
    }
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
