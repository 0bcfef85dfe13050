//! The router z-loss (Zoph et al. 2022, arXiv 2202.08906, eq. 5): `mean_t (log sum_i exp z_ti)^2`.

use burn::tensor::Tensor;

use super::{Balance, Routed};

/// The loss.
#[derive(Debug, Clone)]
pub struct Z {
    /// Coefficient; 0 is off.
    pub coefficient: f64,
}

impl Balance for Z {
    fn name(&self) -> &'static str {
        "z"
    }

    fn coefficient(&self) -> f64 {
        self.coefficient
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        let logits = routed.routing.logits.clone();
        // The largest logit is subtracted as a constant: its gradient cancels.
        let max = logits.clone().detach().max_dim(1);
        let log_sum = (logits - max.clone()).exp().sum_dim(1).log() + max;
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
        let loss = value(&Z { coefficient: 1.0 }, &two_tokens(), &[0, 0], 1, Score::Softmax);
        // The log-sums are ln 4 and ln 2.
        let expected = (4f64.ln().powi(2) + 2f64.ln().powi(2)) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        check_padding(&Z { coefficient: 1.0 });
    }
}
