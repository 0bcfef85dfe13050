//! The load loss (Shazeer et al. 2017, arXiv 1701.06538, eq. 8-11): the squared coefficient of variation of
//! the expected numbers of tokens per expert, which noise makes smooth.

use burn::tensor::Tensor;

use super::variation::variation;
use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::settings;
use crate::settings::float;

settings! {
    /// `CV(Load)^2` with `Load_i = sum_t P(x_t, i)`.
    pub struct LikelyLoad in "moe.balance" {
        /// coefficient of the load loss of noisy top-k routing (arXiv 1701.06538), 0.1 there; 0 is off. With
        /// several micro-batches it costs another forward pass
        load: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for LikelyLoad {
    fn facts(&self) -> Facts {
        Facts::plain(
            "loss: squared variation of the expected tokens per expert with `noisy_top_k`, exact for any micro-batch",
            "arXiv 1701.06538",
        )
    }

    fn name(&self) -> &'static str {
        "likely_load"
    }

    fn coefficient(&self) -> f64 {
        self.load
    }

    fn counts_batch(&self) -> bool {
        true
    }

    fn batch_sum(&self, routed: &Routed) -> Option<Tensor<1>> {
        let n_experts = routed.n_experts();
        Some(routed.routing.likelihood.clone()?.sum_dim(0).reshape([n_experts]))
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        if self.load == 0.0 {
            return None;
        }
        Some(variation(self.name(), self.batch_sum(routed)?, routed, factor))
    }
}
