//! How large a model is, and what a token costs.

use super::{Model, ModelConfig};

/// Parameter counts and floating-point operations of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// All trained parameters.
    pub total: u64,
    /// Parameters that one token uses: all but the experts it does not visit.
    pub active: u64,
    /// Floating-point operations of the matrix products for one token, forward and backward:
    /// `6 * (active - embedding) + 12 * layers * seq * d_model / 2` (causal attention).
    pub flops_per_token: u64,
}

/// Size of a model.
pub fn size(config: &ModelConfig) -> Size {
    let cost = Model::cost(config);
    Size { total: cost.parameters, active: cost.active, flops_per_token: cost.flops }
}
