//! The importance loss (Shazeer et al. 2017, arXiv 1701.06538, eq. 6-7): the squared coefficient of variation
//! of the weights that experts collect over the batch.

use burn::tensor::Tensor;

use super::variation::variation;
use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::settings;
use crate::settings::float;

settings! {
    /// `CV(I)^2` with `I_i = sum_t g_ti`.
    pub struct Importance in "moe.balance" {
        /// coefficient of the importance loss (arXiv 1701.06538), 0.1 there; 0 is off. With several
        /// micro-batches it costs another forward pass
        importance: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for Importance {
    fn facts(&self) -> Facts {
        Facts::plain(
            "loss: squared variation of the total weight per expert, exact for any micro-batch",
            "arXiv 1701.06538",
        )
    }

    fn name(&self) -> &'static str {
        "importance"
    }

    fn coefficient(&self) -> f64 {
        self.importance
    }

    fn counts_batch(&self) -> bool {
        true
    }

    fn batch_sum(&self, routed: &Routed) -> Option<Tensor<1>> {
        Some(routed.importance())
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        if self.importance == 0.0 {
            return None;
        }
        Some(variation(self.name(), routed.importance(), routed, factor))
    }
}
