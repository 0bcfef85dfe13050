//! The Switch loss (Fedus et al. 2021, arXiv 2101.03961, eq. 4-6): `E * sum_i f_i P_i`, with
//! `f_i = n_i / (kT)` a constant and `P_i = mean_t p_ti`; it is 1 at perfect balance. For sigmoid scores p
//! is `s / sum_j s_j`. Its counts come from the choice without bias, over the whole batch: with
//! several micro-batches they are counted in a separate forward pass first.

use burn::tensor::Tensor;

use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::settings;
use crate::settings::float;

settings! {
    /// The loss.
    pub struct Switch in "moe.balance" {
        /// coefficient of the Switch auxiliary loss (arXiv 2101.03961); 0 is off
        switch: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for Switch {
    fn facts(&self) -> Facts {
        Facts::plain(
            "loss: choices times mean scores over the whole batch, exact for any micro-batch",
            "arXiv 2101.03961; over the global batch as in arXiv 2501.11873",
        )
    }

    fn name(&self) -> &'static str {
        "aux_switch"
    }

    fn coefficient(&self) -> f64 {
        self.switch
    }

    fn counts_batch(&self) -> bool {
        true
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        let (n, k) = (routed.n_experts() as f64, routed.n_counted() as f64);
        let tokens = routed.ctx.counts.n_tokens.max(1) as f64;
        // One factor of T for the fraction of choices, one for the mean over tokens.
        let weights = routed.batch_counts.clone() * (1.0 / (k * tokens * tokens)) * (n * factor);
        let shares = routed.routing.shares() * routed.ctx.valid.column();
        Some((shares * weights).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_padding, two_tokens, value};
    use super::*;
    use crate::ops::routing::Score;

    #[test]
    fn two_tokens_by_hand() {
        // Both choose expert 0, so f = (1, 0), P_0 = 0.625 and the loss is 2 * 0.625.
        let loss = value(&Switch { switch: 1.0 }, &two_tokens(), &[0, 0], 1, Score::Softmax);
        assert!((loss - 1.25).abs() < 1e-6, "{loss}");
        check_padding(&Switch { switch: 1.0 });
    }
}
