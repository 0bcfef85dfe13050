//! One product for each expert, over exactly its rows.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{HostKernels, Routes};

/// `y_r = x_r W_e(r)`, where rows are sorted by expert.
///
/// # Shapes
/// - x: `[rows, k]`
/// - w: `[experts, k, n]`
/// - result: `[rows, n]`
pub fn grouped_matmul(x: Tensor<2>, w: Tensor<3>, routes: &Arc<Routes>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::k_grouped(x.into_dispatch(), w.into_dispatch(), routes.clone()))
}
