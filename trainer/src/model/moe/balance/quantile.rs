//! Quantile balancing (Su 2026): the selection bias of each expert is set so that, had the choices of the
//! last step been made with it, every expert would have had equally many. It has no coefficient and no loss.
//! The rule is that of Levanter's grug: the quantile of a step is the mean of its micro-batches' quantiles,
//! weighted by tokens, so unlike losses it depends on the micro-batch.

use burn::tensor::Tensor;

use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::ops::routing::{choose, from_integers};
use crate::settings;
use crate::settings::value::Kind;

settings! {
    /// `b_i = -(q_i - mean q)`: with `a_t` the (k+1)-th largest of `z_t + b`, `q_i` is the `k T / E`-th
    /// largest of `z_ti - a_t` over the T tokens.
    pub struct Quantile in "moe.balance" {
        /// choose experts by logits and a selection bias that would have balanced the choices of the previous
        /// step; replaces bias_rate
        quantile: bool = false, Kind::Bool;
    }
}

/// Less than any difference of logits.
const OUT: f64 = -1e30;

impl Balance for Quantile {
    fn facts(&self) -> Facts {
        Facts::plain(
            "sets the selection bias so that the last choices would have been balanced: the mean over micro-batches",
            "Su 2026; the rule of Levanter's grug",
        )
    }

    fn name(&self) -> &'static str {
        "quantile"
    }

    fn coefficient(&self) -> f64 {
        0.0
    }

    fn loss(&self, _: &Routed, _: f64) -> Option<Tensor<1>> {
        None
    }

    fn statistic(&self, routed: &Routed, bias: Tensor<1>) -> Option<Tensor<1>> {
        let n_valid = routed.ctx.valid.n_valid();
        let (k, n_experts) = (routed.routing.choices.dims()[1], routed.n_experts());
        if !self.quantile || n_valid == 0 || k >= n_experts {
            return None;
        }
        let logits = routed.routing.logits.clone().without_autodiff();
        let [tokens, _] = logits.dims();
        let biased = logits.clone() + bias.clone().reshape([1, n_experts]);
        let ranked = choose(biased.clone(), bias.zeros_like(), routed.ctx.valid.flags(), k + 1);
        let next = biased.gather(1, ranked.clamp_min(0)).slice([0..tokens, k..k + 1]);
        let is_real = routed.ctx.valid.column().without_autodiff();
        let above = (logits - next) * is_real.clone() + (is_real - 1.0) * -OUT;
        let slots = (n_valid * k / n_experts).max(1);
        let sorted = above.swap_dims(0, 1).sort_descending(1);
        let at = from_integers(vec![slots as i64 - 1], [1], &sorted.device());
        let quantile = sorted.select(1, at).reshape([n_experts]);
        Some(quantile * (n_valid as f64 / routed.ctx.counts.n_tokens.max(1) as f64))
    }

    fn next_bias(&self, _: Tensor<1>, _: Tensor<1>, statistic: Option<Tensor<1>>) -> Option<Tensor<1>> {
        let quantile = statistic.filter(|_| self.quantile)?;
        Some((quantile.clone() - quantile.mean()) * -1.0)
    }
}
