//! The router: scores, the choice of k experts for each token, and their weights.
//!
//! Scores and weights are computed in f32 and differentiated. The choice itself has no gradient;
//! ties break by the lowest expert.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};

use super::dispatch::Dispatch;
use super::stats::Stats;
use super::{gpu_routing, host_routing};
use crate::kernel::Kernels;
use crate::model::config::{BalanceConfig, ModelConfig, RouterConfig};
use crate::model::init::Init;
use crate::model::input::ValidMask;
use crate::model::linear::cast_f32;

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
    /// Weight of each choice, `[tokens, k]`, f32, zero on padding.
    pub weights: Tensor<2>,
    /// Layout of the rows.
    pub dispatch: Dispatch,
    /// Balancing losses times their coefficients, `[1]`; none when all are off.
    pub auxiliary: Option<Tensor<1>>,
    /// Counts and values for the balancer and the metrics.
    pub stats: Stats,
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
    pub fn with_balance_bias(self, bias: &[f32]) -> Self {
        let device = self.balance_bias.val().device().without_autodiff();
        self.with_bias_tensor(Tensor::from_data(TensorData::new(bias.to_vec(), [bias.len()]), &device))
    }

    /// The same with a bias that is on the device already, outside of any graph.
    pub fn with_bias_tensor(mut self, bias: Tensor<1>) -> Self {
        let is_autodiff = self.balance_bias.val().is_autodiff();
        let bias = if is_autodiff { Tensor::from_inner(bias) } else { bias };
        self.balance_bias = Param::initialized(self.balance_bias.id, bias).set_require_grad(false);
        self
    }

    /// Chooses experts for each token.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    pub fn forward(
        &self,
        x: Tensor<2>,
        valid: &ValidMask,
        kernels: Kernels,
        coefficients: &BalanceConfig,
    ) -> Routed {
        // In f32 whatever the type of x: small differences of logits decide.
        let logits = cast_f32(x).matmul(self.weight.val());
        match kernels {
            Kernels::Host => host_routing::route(self, logits, valid, coefficients),
            Kernels::Gpu => gpu_routing::route(self, logits, valid, coefficients),
        }
    }

    pub(super) fn config(&self) -> &RouterConfig {
        &self.config
    }

    pub(super) fn top_k(&self) -> usize {
        self.top_k
    }

    /// Weights of the chosen experts: their scores, divided by the sum of the k if so configured,
    /// times the scale; zero on padding.
    ///
    /// # Shapes
    /// - scores: `[tokens, experts]`
    /// - choices: `[tokens, k]`, any expert on padding
    pub(super) fn weights(&self, scores: Tensor<2>, choices: Tensor<2, Int>, valid: &ValidMask) -> Tensor<2> {
        let mut weights = scores.gather(1, choices);
        if self.config.norm_weights {
            // Scores are positive; the constant only guards a row of underflowed sigmoids.
            weights = weights.clone() / weights.sum_dim(1).add_scalar(1e-20);
        }
        weights * valid.column() * self.config.route_scale
    }
}
