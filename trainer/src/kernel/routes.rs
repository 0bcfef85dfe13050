//! Which row belongs to which token: rows sorted by expert, without gaps.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::HostKernels;

/// No row: the choice of a padding token.
pub const NO_ROW: u32 = u32::MAX;

/// The rows of one batch. Both directions are stored, so that forward and backward only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// Choices of each token.
    pub top_k: usize,
    /// The choice `token * top_k + j` that made each row.
    pub choice_of_row: Vec<u32>,
    /// The row of each choice, `u32::MAX` for the choice of a padding token.
    pub row_of_choice: Vec<u32>,
    /// First row of each expert, and the number of rows.
    pub offsets: Vec<usize>,
}

impl Routes {
    /// Sorts choices by expert; choices of one expert keep their order.
    pub fn new(choices: &[Option<u32>], n_experts: usize, top_k: usize) -> Self {
        let mut offsets = vec![0usize; n_experts + 1];
        for expert in choices.iter().flatten() {
            offsets[*expert as usize + 1] += 1;
        }
        for expert in 0..n_experts {
            offsets[expert + 1] += offsets[expert];
        }
        let mut next = offsets.clone();
        let mut choice_of_row = vec![0u32; offsets[n_experts]];
        let mut row_of_choice = vec![NO_ROW; choices.len()];
        for (choice, expert) in choices.iter().enumerate() {
            if let Some(expert) = expert {
                let row = next[*expert as usize];
                next[*expert as usize] += 1;
                choice_of_row[row] = choice as u32;
                row_of_choice[choice] = row as u32;
            }
        }
        Self { top_k, choice_of_row, row_of_choice, offsets }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.choice_of_row.len()
    }

    /// Rows of each expert.
    pub fn load(&self) -> Vec<u64> {
        self.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect()
    }
}

/// Copies each token to its rows.
///
/// # Shapes
/// - x: `[tokens, width]`
/// - result: `[rows, width]`
pub fn gather_rows(x: Tensor<2>, routes: &Arc<Routes>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::k_gather(x.into_dispatch(), routes.clone()))
}

/// The weighted sum of each token's rows; zero for padding.
///
/// # Shapes
/// - rows: `[rows, width]`
/// - weights: `[tokens, k]`
/// - result: `[tokens, width]`
pub fn combine_rows(rows: Tensor<2>, weights: Tensor<2>, routes: &Arc<Routes>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::k_combine(rows.into_dispatch(), weights.into_dispatch(), routes.clone()))
}
