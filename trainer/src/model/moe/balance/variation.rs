//! The squared coefficient of variation of a sum over the batch, in parts that add up.

use burn::tensor::Tensor;

use super::Routed;

/// `factor` times the part that these tokens have in `CV(s)^2 = Var(s) / Mean(s)^2`, where s is the sum over
/// the whole batch and `own`, `[experts]`, that over these tokens. The gradient at s is known from s alone,
/// and the loss does not change with the scale of s, so `sum_i (dL/ds_i) own_i` over all parts is zero: it
/// contributes only the gradient. The value is added in proportion to the tokens.
pub(super) fn variation(name: &str, own: Tensor<1>, routed: &Routed, factor: f64) -> Tensor<1> {
    let n = routed.n_experts() as f64;
    let (of_part, of_batch) = (routed.ctx.valid.n_valid(), routed.ctx.counts.n_tokens.max(1));
    let share = of_part as f64 / of_batch as f64;
    let sum = routed.batch_sum(name, || own.clone().detach() * (1.0 / share.max(1e-9)));
    // The constant only matters for a batch without tokens.
    let mean = sum.clone().mean().add_scalar(1e-20);
    let square = (sum.clone() * sum.clone()).mean() / (mean.clone() * mean.clone());
    let slope = (sum / mean.clone() - square.clone()) * (2.0 / n) / mean;
    (own * slope).sum() * factor + (square - 1.0) * (share * factor)
}
