//! Every token goes to the k experts of highest score, with or without a bias of the selection.
//!
//! Scores and weights are computed in f32 and differentiated. The choice itself has no gradient; ties
//! break by the lowest expert.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Route;
use crate::model::config::{ModelConfig, RouterConfig, ScoreFunction};
use crate::model::context::Context;
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::model::moe::routing::Routing;
use crate::ops::linear::cast_f32;
use crate::ops::routing::{choose, scores, scores_for_choice};

/// Logits `z = x W`, scores `softmax(z)` or `sigmoid(z)`, and a selection bias.
#[derive(Module, Debug)]
pub struct TopK {
    /// `[d_model, experts]`
    weight: Param<Tensor<2>>,
    /// Added to the scores when experts are chosen and never to the weights
    /// (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Not trained by gradients.
    balance_bias: Param<Tensor<1>>,
    top_k: usize,
    /// Whether the bias may be other than zero.
    is_biased: bool,
    #[module(skip)]
    config: RouterConfig,
}

impl TopK {
    /// The router of one block.
    pub fn new(config: &ModelConfig, name: &str, init: &Init) -> Self {
        let n_experts = config.moe.n_experts;
        let bias = Tensor::<1>::zeros([n_experts], init.device());
        Self {
            weight: init.normal(&format!("{name}.weight"), [config.d_model, n_experts], 1.0),
            balance_bias: Param::from_tensor(bias).set_require_grad(false),
            top_k: config.moe.top_k,
            is_biased: config.moe.balance.bias_rate > 0.0,
            config: config.moe.router.clone(),
        }
    }

    /// What it costs: its input in f32; logits, scores and shares for weights and losses.
    pub fn cost(config: &ModelConfig) -> Cost {
        let (d, n, k) = (config.d_model as u64, config.moe.n_experts as u64, config.moe.top_k as u64);
        Cost { f32_values: d + 4 * n + 3 * k, ..Cost::of_weights(d * n) }
    }

    /// The matrix from hidden states to logits, `[d_model, experts]`.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }
}

impl Route for TopK {
    fn route(&self, x: Tensor<2>, ctx: &Context) -> Routing {
        // In f32 whatever the type of x: small differences of logits decide.
        let logits = cast_f32(x).matmul(self.weight.val());
        let keys = scores_for_choice(logits.clone(), self.config.score);
        let bias = self.balance_bias.val().without_autodiff();
        let choices = choose(keys.clone(), bias.clone(), ctx.valid.flags(), self.top_k);
        let unbiased = match self.is_biased {
            true => choose(keys, bias.zeros_like(), ctx.valid.flags(), self.top_k),
            false => choices.clone(),
        };
        let scores = scores(logits.clone(), self.config.score);
        // Any expert will do for padding: its weight is zero.
        let mut weights = scores.clone().gather(1, choices.clone().clamp_min(0));
        if self.config.norm_weights {
            // Scores are positive; the constant only guards a row of underflowed sigmoids.
            weights = weights.clone() / weights.sum_dim(1).add_scalar(1e-20);
        }
        let weights = weights * ctx.valid.column() * self.config.route_scale;
        let is_distribution = self.config.score == ScoreFunction::Softmax;
        Routing { choices, unbiased, weights, logits, scores, is_distribution }
    }

    fn bias(&self) -> Option<Tensor<1>> {
        Some(self.balance_bias.val().without_autodiff())
    }

    fn with_bias(mut self, bias: Tensor<1>) -> Self {
        let is_autodiff = self.balance_bias.val().is_autodiff();
        let bias = if is_autodiff { Tensor::from_inner(bias) } else { bias };
        self.balance_bias = Param::initialized(self.balance_bias.id, bias).set_require_grad(false);
        self.is_biased = true;
        self
    }
}
