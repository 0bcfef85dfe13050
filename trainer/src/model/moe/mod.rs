//! The mixture-of-experts feed-forward.
//!
//! ```text
//! x -> router -> (expert, weight) x k per token -> capacity -> rows by expert -> experts -> combine -> + shared(x)
//!         |
//!         +-> counts -> balancers -> losses, values for the metrics
//! ```

pub mod balance;
pub mod capacity;
mod experts;
mod latent;
mod load;
pub mod router;
mod routing;
mod settings;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

pub use balance::BalanceConfig;
pub use capacity::CapacitySettings;
pub use experts::{ExpertWeights, Experts};
pub use load::{LoadSummary, RouterStats};
pub use router::{Route, Router, RouterConfig, RouterShape};
pub use routing::{Routed, Routing};
pub use settings::{Activation, MoeSettings};

use self::latent::Latent;
use super::config::ModelConfig;
use super::context::Context;
use super::cost::Cost;
use super::feed_forward::SwiGlu;
use super::init::Init;
use super::record::{Merge, Named};
use super::scaled;
use crate::ops::linear::linear;
use crate::ops::routing::{count, sort_by_expert};
use crate::ops::row_functions::logistic;

/// A router, its experts, and the experts that every token shares.
#[derive(Module, Debug)]
pub struct MoeLayer {
    router: Router,
    experts: Experts,
    latent: Option<Latent>,
    shared: Option<SwiGlu>,
    /// `[d_model, 1]`
    shared_gate: Option<Param<Tensor<2>>>,
    layer: usize,
    top_k: usize,
    /// Factor of the sum of routed experts.
    routed: f64,
    #[module(skip)]
    balance: BalanceConfig,
    #[module(skip)]
    capacity: CapacitySettings,
    #[module(skip)]
    name: String,
}

/// What a mixture of experts returns in addition to its output.
#[derive(Debug)]
pub struct MoeRecord {
    /// Sum of the balancing losses, each times its coefficient, `[1]`.
    pub auxiliary: Option<Tensor<1>>,
    /// Tokens sent to each expert, `[experts]`, f32.
    pub load: Tensor<1>,
    /// How often each expert would be chosen without bias, `[experts]`, f32.
    pub choices: Tensor<1>,
    /// Statistic for the balancer that sets the selection bias, `[experts]`.
    pub statistic: Option<Tensor<1>>,
    /// Sums over the whole batch for balancers, `[experts]` each, by name.
    pub sums: Vec<(&'static str, Tensor<1>)>,
    /// What the metrics report.
    pub values: Vec<Named>,
}

impl MoeLayer {
    /// The mixture of block `layer`; `out_scale` as in [`SwiGlu::new`].
    pub fn new(config: &ModelConfig, layer: usize, out_scale: f64, name: &str, init: &Init) -> Self {
        let moe = &config.moe;
        let shared_width = moe.n_shared * moe.expert_ffn;
        // The output into the residual stream is scaled once.
        let expert_scale = if moe.latent == 0 { out_scale } else { 1.0 };
        Self {
            router: moe.router.build(router_shape(config), &format!("{name}.router"), init),
            experts: Experts::new(config, expert_scale, &format!("{name}.experts"), init),
            latent: (moe.latent > 0)
                .then(|| Latent::new(config.d_model, moe.latent, out_scale, &format!("{name}.latent"), init)),
            shared: (shared_width > 0).then(|| {
                SwiGlu::new(config.d_model, shared_width, out_scale, &format!("{name}.shared"), init)
            }),
            shared_gate: (shared_width > 0 && moe.shared_gate)
                .then(|| init.normal(&format!("{name}.shared_gate"), [config.d_model, 1], 1.0)),
            layer,
            top_k: moe.top_k,
            routed: config.transfer().routed(),
            balance: moe.balance.clone(),
            capacity: moe.capacity.clone(),
            name: name.to_string(),
        }
    }

    /// What the mixture of one block costs.
    pub fn cost(config: &ModelConfig) -> Cost {
        let moe = &config.moe;
        let shared_width = moe.n_shared * moe.expert_ffn;
        // Router, experts and shared experts keep one common input.
        let shared = SwiGlu::cost(config.d_model, shared_width);
        let gate = match shared_width > 0 && moe.shared_gate {
            true => Cost { values: config.d_model as u64 + 1, ..Cost::of_weights(config.d_model as u64) },
            false => Cost::default(),
        };
        let shape = router_shape(config);
        let capacity = match moe.capacity.factor > 0.0 {
            // One-hot choices, before and after their cumulative sum.
            true => {
                Cost { f32_values: 3 * (moe.router.slots(shape) * moe.n_experts) as u64, ..Cost::default() }
            }
            false => Cost::default(),
        };
        let latent = match moe.latent {
            0 => Cost::default(),
            width => Latent::cost(config.d_model, width),
        };
        moe.router.cost(shape) + Experts::cost(config) + latent + shared + gate + capacity
    }

    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    pub fn forward(&self, x: Tensor<2>, ctx: &Context) -> (Tensor<2>, MoeRecord) {
        let routing = self.router.route(x.clone(), ctx);
        let asked = routing.choices.clone();
        let routing = self.capacity.drop(routing, self.top_k, &self.name, ctx);
        let routed = Routed::new(routing, self.layer, ctx).with_matrix(self.router.matrix());
        let routes = sort_by_expert(&routed.routing.choices, routed.n_experts());
        let on_experts = |x: Tensor<2>| self.experts.forward(x, routed.routing.weights.clone(), &routes, ctx);
        let y = match &self.latent {
            Some(latent) => latent.up(on_experts(latent.down(x.clone()))),
            None => on_experts(x.clone()),
        };
        let y = scaled(y, self.routed);
        let y = match (&self.shared, &self.shared_gate) {
            (Some(shared), Some(gate)) => y + shared.forward(x.clone()) * logistic(linear(x, gate.val())),
            (Some(shared), None) => y + shared.forward(x),
            (None, _) => y,
        };
        (y, self.record(&routed, asked))
    }

    /// The balancers' losses for the router's choices, and the values for the metrics.
    fn record(&self, routed: &Routed, asked: Tensor<2, Int>) -> MoeRecord {
        let n_experts = routed.n_experts();
        let n_samples = routed.ctx.valid.n_samples();
        let loads = count(routed.routing.choices.clone(), n_samples, n_experts);
        let load = loads.clone().sum_dim(0).reshape([n_experts]);
        let mut values = vec![
            Named::new(load::LOAD, Merge::Sum, load.clone()),
            Named::new(load::LOADS, Merge::Append, loads.reshape([n_samples * n_experts])),
        ];
        let made = |choices: Tensor<2, Int>| choices.greater_equal_elem(0).float().sum();
        let dropped = made(asked) - made(routed.routing.choices.clone());
        values.push(Named::new(load::DROPPED, Merge::Sum, dropped));
        values.push(Named::new(load::CONFIDENCE, Merge::Sum, confidence(routed)));
        values.extend(self.router.bias().map(|bias| Named::new(load::BIAS, Merge::Same, bias)));
        let mut auxiliary = None;
        let detached = routed.detached();
        for balancer in self.balance.all().into_iter() {
            let coefficient = balancer.coefficient();
            let is_on = coefficient > 0.0;
            let (factor, routed) = if is_on { (coefficient, routed) } else { (1.0, &detached) };
            let Some(loss) = balancer.loss(routed, factor) else { continue };
            let value = loss.clone().without_autodiff() * (1.0 / factor);
            values.push(Named::new(balancer.name(), Merge::Sum, value));
            if is_on {
                auxiliary = Some(match auxiliary {
                    Some(sum) => sum + loss,
                    None => loss,
                });
            }
        }
        let [largest, smallest] = extremes(routed);
        values.push(Named::new(load::LOGIT_MAX, Merge::Max, largest));
        values.push(Named::new(load::LOGIT_MIN, Merge::Min, smallest));
        let choices = routed.counts.clone().sum_dim(0).reshape([n_experts]);
        let on = self.balance.all().into_iter().filter(|balancer| balancer.coefficient() > 0.0);
        let sums =
            on.filter_map(|balancer| Some((balancer.name(), balancer.batch_sum(&detached)?))).collect();
        let statistic = self.router.bias().and_then(|bias| {
            self.balance.all().into_iter().find_map(|balancer| balancer.statistic(&detached, bias.clone()))
        });
        MoeRecord { auxiliary, load, choices, statistic, sums, values }
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The routed experts.
    pub fn experts(&self) -> &Experts {
        &self.experts
    }

    /// The selection bias after a step in which `load` tokens went to each expert, `[experts]`; none if no
    /// balancer moves it.
    pub fn next_bias(&self, load: &Tensor<1>, statistic: Option<&Tensor<1>>) -> Option<Tensor<1>> {
        let bias = self.router.bias()?;
        let next = |balancer: &dyn balance::Balance| {
            balancer.next_bias(bias.clone(), load.clone(), statistic.cloned())
        };
        self.balance.all().into_iter().find_map(next)
    }

    /// Whether a balancer needs counts or sums of the whole batch.
    pub fn counts_batch(&self) -> bool {
        self.balance.all().into_iter().any(|balancer| balancer.coefficient() > 0.0 && balancer.counts_batch())
    }

    /// The same layer with another capacity.
    pub fn with_capacity(self, capacity: CapacitySettings) -> Self {
        Self { capacity, ..self }
    }

    /// The same layer with another selection bias, `[experts]`, which is outside of any graph.
    pub fn with_bias(self, bias: Tensor<1>) -> Self {
        Self { router: self.router.with_bias(bias), ..self }
    }
}

/// What the routers of a model must know.
pub fn router_shape(config: &ModelConfig) -> RouterShape {
    let moe = &config.moe;
    RouterShape {
        d_model: config.d_model,
        n_experts: moe.n_experts,
        top_k: moe.top_k,
        bias_rate: moe.balance.bias.bias_rate,
        by_logits: moe.balance.quantile.quantile,
        needs_likelihood: moe.balance.likely_load.load > 0.0,
        needs_matrix: moe.balance.orthogonality.orthogonality > 0.0,
    }
}

/// Each real token's largest fraction of its scores, summed, `[1]`.
fn confidence(routed: &Routed) -> Tensor<1> {
    let shares = routed.routing.shares().without_autodiff();
    (shares.max_dim(1) * routed.ctx.valid.column().without_autodiff()).sum()
}

/// The largest and the smallest logit of real tokens, `[1]` each.
fn extremes(routed: &Routed) -> [Tensor<1>; 2] {
    let logits = routed.routing.logits.clone().without_autodiff();
    // Padding is moved out of the way of both.
    let away = (routed.ctx.valid.column().without_autodiff() - 1.0) * 1e30;
    [(logits.clone() + away.clone()).max(), (logits - away).min()]
}
