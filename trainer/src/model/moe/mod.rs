//! The mixture-of-experts feed-forward.
//!
//! ```text
//! x -> router -> (expert, weight) x k per token -> dispatch -> experts -> combine -> + shared(x)
//! ```
//! Every token reaches all of its k experts; no token is dropped.

mod balance;
mod dispatch;
mod experts;
mod gpu_routing;
mod host_routing;
mod router;
mod stats;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

pub use balance::{LoadSummary, RouterStats, bias_step, bias_step_on_device};
pub use dispatch::{Dispatch, ExpertWeights};
pub use experts::Experts;
pub use router::{Routed, Router};
pub use stats::{DeviceStats, Stats};

use super::config::{BalanceConfig, ModelConfig};
use super::feed_forward::SwiGlu;
use super::init::Init;
use super::input::ValidMask;
use crate::kernel::Kernels;

/// A router, its experts, and the experts that every token shares.
#[derive(Module, Debug)]
pub struct MoeLayer {
    router: Router,
    experts: Experts,
    shared: Option<SwiGlu>,
}

/// What a mixture of experts leaves behind besides its output.
#[derive(Debug)]
pub struct MoeRecord {
    /// Sum of the balancing losses, each times its coefficient, `[1]`.
    pub auxiliary: Option<Tensor<1>>,
    /// Counts and values for the balancer and the metrics.
    pub stats: Stats,
}

impl MoeLayer {
    /// The layer of one block; `out_scale` as in [`SwiGlu::new`].
    pub fn new(config: &ModelConfig, out_scale: f64, name: &str, init: &Init) -> Self {
        let moe = &config.moe;
        let shared_width = moe.n_shared * moe.expert_ffn;
        Self {
            router: Router::new(config, &format!("{name}.router"), init),
            experts: Experts::new(config, out_scale, &format!("{name}.experts"), init),
            shared: (shared_width > 0).then(|| {
                SwiGlu::new(config.d_model, shared_width, out_scale, &format!("{name}.shared"), init)
            }),
        }
    }

    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    pub fn forward(
        &self,
        x: Tensor<2>,
        valid: &ValidMask,
        kernels: Kernels,
        balance: &BalanceConfig,
    ) -> (Tensor<2>, MoeRecord) {
        let routed = self.route(x.clone(), valid, kernels, balance);
        let y = self.experts.forward(x.clone(), routed.weights, &routed.dispatch);
        let y = match &self.shared {
            Some(shared) => y + shared.forward(x),
            None => y,
        };
        (y, MoeRecord { auxiliary: routed.auxiliary, stats: routed.stats })
    }

    /// The experts of each token.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`
    pub fn route(
        &self,
        x: Tensor<2>,
        valid: &ValidMask,
        kernels: Kernels,
        balance: &BalanceConfig,
    ) -> Routed {
        self.router.forward(x, valid, kernels, balance)
    }

    /// The router's matrix, `[d_model, experts]`.
    pub fn router_weight(&self) -> Tensor<2> {
        self.router.weight()
    }

    /// The experts' matrices.
    pub fn expert_weights(&self) -> ExpertWeights {
        self.experts.weights()
    }

    /// The bias of each expert's selection.
    pub fn balance_bias(&self) -> &Param<Tensor<1>> {
        self.router.balance_bias()
    }

    /// The same layer with another selection bias, `[experts]`.
    pub fn with_balance_bias(self, bias: &[f32]) -> Self {
        Self { router: self.router.with_balance_bias(bias), ..self }
    }

    /// The same with a bias that is on the device already, outside of any graph.
    pub fn with_bias_tensor(self, bias: Tensor<1>) -> Self {
        Self { router: self.router.with_bias_tensor(bias), ..self }
    }
}
