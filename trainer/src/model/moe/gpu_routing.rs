//! Routing on a GPU: choices, layout and balance stay on the device, and nothing is read back.

use burn::tensor::{
    Tensor, TensorData,
    activation::{sigmoid, softmax},
};
use moe_kernels::routing::{choose, count, sort_by_expert};

use super::dispatch::Dispatch;
use super::router::{Routed, Router};
use super::stats::{DeviceStats, Stats};
use crate::model::config::{BalanceConfig, ScoreFunction};
use crate::model::input::ValidMask;

/// The answer of a router for logits `[tokens, experts]`; the definitions are those of
/// [`balance`](super::balance).
pub(super) fn route(
    router: &Router,
    logits: Tensor<2>,
    valid: &ValidMask,
    coefficients: &BalanceConfig,
) -> Routed {
    let [_, n_experts] = logits.dims();
    let top_k = router.top_k();
    let scores = match router.config().score {
        ScoreFunction::Softmax => softmax(logits.clone(), 1),
        ScoreFunction::Sigmoid => sigmoid(logits.clone()),
    };
    let plain_scores = scores.clone().without_autodiff();
    let bias = router.balance_bias().val().without_autodiff();
    let choices = choose(plain_scores.clone(), bias.clone(), valid.flags(), top_k);
    // Without a rate the bias never moves from zero.
    let unbiased = match coefficients.bias_rate > 0.0 {
        true => choose(plain_scores, bias.zeros_like(), valid.flags(), top_k),
        false => choices.clone(),
    };
    let routes = sort_by_expert(&choices, n_experts);
    let load = count(choices.clone(), 1, n_experts).reshape([n_experts]);
    let weights = router.weights(scores.clone(), choices.clamp_min(0), valid);
    let balance = Balance::new(router, logits, scores, count(unbiased, valid.n_samples(), n_experts), valid);
    let n_tokens = valid.n_valid() as u64;
    let stats = Stats::Gpu(Box::new(DeviceStats { load, values: balance.values(), bias, n_tokens }));
    Routed { weights, dispatch: Dispatch::on_gpu(routes), auxiliary: balance.losses(coefficients), stats }
}

/// The balance of one batch; all but the extremes are differentiable.
struct Balance {
    /// `[1]` each: the losses without coefficient, and the largest and smallest logit.
    switch: Tensor<1>,
    sequence: Tensor<1>,
    z: Tensor<1>,
    extremes: [Tensor<1>; 2],
    n_tokens: usize,
}

impl Balance {
    /// `counts` are the choices without bias, `[samples, experts]`.
    fn new(
        router: &Router,
        logits: Tensor<2>,
        scores: Tensor<2>,
        counts: Tensor<2>,
        valid: &ValidMask,
    ) -> Self {
        let [tokens, n_experts] = logits.dims();
        let (samples, n_tokens) = (valid.n_samples(), valid.n_valid());
        let shares = match router.config().score {
            ScoreFunction::Softmax => scores,
            ScoreFunction::Sigmoid => scores.clone() / scores.sum_dim(1).add_scalar(1e-20),
        };
        let mass = (shares * valid.column())
            .reshape([samples, tokens / samples, n_experts])
            .sum_dim(1)
            .reshape([samples, n_experts]);
        let counts = track_like(counts, &mass);
        let (k, e) = (router.top_k() as f64, n_experts as f64);
        let total = n_tokens.max(1) as f64;
        let switch = (counts.clone().sum_dim(0) * mass.clone().sum_dim(0)).sum() * (e / (k * total * total));
        let per_sample = sample_weights(valid, e / k, &mass);
        let sequence = ((counts * mass).sum_dim(1) * per_sample).sum();

        // The largest logit is subtracted as a constant: its gradient cancels.
        let max = logits.clone().detach().max_dim(1);
        let log_sum = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
        let z = (log_sum.clone() * log_sum * valid.column()).sum() * (1.0 / total);
        // Padding is moved out of the way of both extremes.
        let plain = logits.detach();
        let away = (valid.column() - 1.0) * 1e30;
        let extremes = [(plain.clone() + away.clone()).max(), (plain - away).min()];
        Self { switch, sequence, z, extremes, n_tokens }
    }

    /// The losses that are switched on, times their coefficients.
    fn losses(&self, coefficients: &BalanceConfig) -> Option<Tensor<1>> {
        if self.n_tokens == 0 {
            return None;
        }
        let parts = [
            (&self.switch, coefficients.switch),
            (&self.sequence, coefficients.sequence),
            (&self.z, coefficients.z),
        ];
        let parts = parts.into_iter().filter(|(_, coefficient)| *coefficient > 0.0);
        parts.map(|(loss, coefficient)| loss.clone() * coefficient).reduce(|a, b| a + b)
    }

    /// The three losses, and the largest and smallest logit, `[5]`.
    fn values(&self) -> Tensor<1> {
        let [largest, smallest] = self.extremes.clone();
        let parts = [self.switch.clone(), self.sequence.clone(), self.z.clone(), largest, smallest];
        Tensor::cat(parts.map(|part| part.without_autodiff()).to_vec(), 0)
    }
}

/// `e_over_k / (T_s^2 S)` for each sample of T_s real tokens, where S samples have any; `[samples, 1]`.
fn sample_weights(valid: &ValidMask, e_over_k: f64, like: &Tensor<2>) -> Tensor<2> {
    let samples = valid.n_samples();
    let seq = valid.n_tokens() / samples;
    let tokens: Vec<usize> = (0..samples)
        .map(|sample| (sample * seq..(sample + 1) * seq).filter(|&token| valid.is_valid(token)).count())
        .collect();
    let used = tokens.iter().filter(|&&n| n > 0).count() as f64;
    let weight = |&n: &usize| if n > 0 { (e_over_k / ((n * n) as f64 * used)) as f32 } else { 0.0 };
    let weights: Vec<f32> = tokens.iter().map(weight).collect();
    Tensor::from_data(TensorData::new(weights, [samples, 1]), &like.device())
}

/// A constant beside a tensor that may be differentiated.
fn track_like(constant: Tensor<2>, like: &Tensor<2>) -> Tensor<2> {
    if like.is_autodiff() && !constant.is_autodiff() { Tensor::from_inner(constant) } else { constant }
}
