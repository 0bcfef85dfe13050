//! The router z-loss (Zoph et al. 2022, arXiv 2202.08906, eq. 5): `mean_t (log sum_i exp z_ti)^2`.

use burn::tensor::Tensor;

use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::ops::row_functions::log_sum;
use crate::settings;
use crate::settings::float;

settings! {
    /// The loss.
    pub struct Z in "moe.balance" {
        /// coefficient of the router z-loss (arXiv 2202.08906); 0 is off. It is smallest where the logits of
        /// a token are all -ln E; with sigmoid scores, which do not depend on each other, that is a weak pull
        /// of every score toward 1 / (E + 1) in addition to keeping logits small
        z: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for Z {
    fn facts(&self) -> Facts {
        Facts::plain("loss: keeps logits small, exact for any micro-batch", "ST-MoE, arXiv 2202.08906")
    }

    fn name(&self) -> &'static str {
        "z"
    }

    fn coefficient(&self) -> f64 {
        self.z
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        let logits = routed.routing.logits.clone();
        let log_sum = log_sum(logits);
        let square = log_sum.clone() * log_sum * routed.ctx.valid.column();
        Some(square.sum() * (factor / routed.ctx.counts.n_tokens.max(1) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_padding, two_tokens, value};
    use super::*;
    use crate::ops::routing::Score;

    #[test]
    fn two_tokens_by_hand() {
        let loss = value(&Z { z: 1.0 }, &two_tokens(), &[0, 0], 1, Score::Softmax);
        // The log-sums are ln 4 and ln 2.
        let expected = (4f64.ln().powi(2) + 2f64.ln().powi(2)) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        check_padding(&Z { z: 1.0 });
    }
}
