//! The sequence-wise loss (DeepSeek-V3, arXiv 2412.19437, eq. 17-20): the Switch loss over each sample,
//! averaged over the samples of the batch.

use burn::tensor::{Tensor, TensorData};

use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::settings;
use crate::settings::float;

settings! {
    /// The loss.
    pub struct Sequence in "moe.balance" {
        /// coefficient of the sequence-wise auxiliary loss (arXiv 2412.19437); 0 is off
        sequence: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for Sequence {
    fn facts(&self) -> Facts {
        Facts::plain(
            "loss: the same over each sequence, exact for any micro-batch",
            "DeepSeek-V3, arXiv 2412.19437",
        )
    }

    fn name(&self) -> &'static str {
        "aux_sequence"
    }

    fn coefficient(&self) -> f64 {
        self.sequence
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        let (n, k) = (routed.n_experts(), routed.n_counted() as f64);
        let [samples, seq] = routed.ctx.dims();
        let n_samples = routed.ctx.counts.n_samples.max(1) as f64;
        // One factor of T for the fraction of choices, one for the mean over tokens. A sample without
        // tokens has no choices either.
        let tokens = routed.ctx.valid.tokens_of_samples();
        let divisors: Vec<f32> =
            tokens.iter().map(|&t| (k * (t * t).max(1) as f64 * n_samples) as f32).collect();
        let divisors = TensorData::new(divisors, [samples, 1]);
        let divisors = Tensor::<2>::from_data(divisors, &routed.counts.device());
        let weights = (routed.counts.clone() / divisors).reshape([samples, 1, n]) * (n as f64 * factor);
        let shares = (routed.routing.shares() * routed.ctx.valid.column()).reshape([samples, seq, n]);
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
        let sequence = Sequence { sequence: 1.0 };
        // As one sample: f = (1, 0), P_0 = 0.625.
        let loss = value(&sequence, &two_tokens(), &[0, 0], 1, Score::Softmax);
        assert!((loss - 1.25).abs() < 1e-6, "{loss}");
        // As two: 2 * 0.75 for the first, 2 * 0.5 for the second.
        let loss = value(&sequence, &two_tokens(), &[0, 0], 2, Score::Softmax);
        assert!((loss - 1.25).abs() < 1e-6, "{loss}");
        check_padding(&sequence);
    }
}
