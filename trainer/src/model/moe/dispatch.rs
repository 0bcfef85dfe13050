//! Where each token's rows go: sorting tokens by expert, and bringing the results back.
//!
//! Rows are laid out as `[experts, capacity]`, where the capacity is the largest load of this
//! batch, so that no token is ever dropped and all experts run in one batched product. Both ways
//! are gathers by index: a slot reads its token, and a token reads its k slots.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Capacities are rounded up to this many rows: the inner kernels work on whole vectors.
const CAPACITY_STEP: usize = 8;

/// The rows of one batch: slots of each token and the token of each slot.
#[derive(Debug, Clone)]
pub struct Dispatch {
    n_experts: usize,
    capacity: usize,
    top_k: usize,
    /// `[experts * capacity]`; unused slots read token 0 and nothing reads them.
    token_of_slot: Tensor<1, Int>,
    /// `[tokens * k]`; padding reads slot 0, with weight 0.
    slot_of_choice: Tensor<1, Int>,
    load: Vec<u64>,
}

impl Dispatch {
    /// The layout for `choices[token * top_k + j]` = the j-th expert of a token, or `None` on
    /// padding. Tokens keep their order inside an expert.
    pub fn new(choices: &[Option<u32>], n_experts: usize, top_k: usize, device: &Device) -> Self {
        let mut load = vec![0u64; n_experts];
        for expert in choices.iter().flatten() {
            load[*expert as usize] += 1;
        }
        let largest = load.iter().copied().max().unwrap_or(0) as usize;
        let capacity = largest.max(1).next_multiple_of(CAPACITY_STEP);

        let mut next: Vec<usize> = (0..n_experts).map(|expert| expert * capacity).collect();
        let mut token_of_slot = vec![0i64; n_experts * capacity];
        let mut slot_of_choice = vec![0i64; choices.len()];
        for (index, expert) in choices.iter().enumerate() {
            if let Some(expert) = expert {
                let slot = next[*expert as usize];
                next[*expert as usize] += 1;
                token_of_slot[slot] = (index / top_k) as i64;
                slot_of_choice[index] = slot as i64;
            }
        }
        let ints = |values: Vec<i64>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        Self {
            n_experts,
            capacity,
            top_k,
            token_of_slot: ints(token_of_slot),
            slot_of_choice: ints(slot_of_choice),
            load,
        }
    }

    /// Tokens of each expert.
    pub fn load(&self) -> &[u64] {
        &self.load
    }

    /// Copies each token to its slots.
    ///
    /// # Shapes
    /// - x: `[tokens, width]`
    /// - result: `[experts, capacity, width]`
    pub fn scatter(&self, x: Tensor<2>) -> Tensor<3> {
        let [_, width] = x.dims();
        x.select(0, self.token_of_slot.clone()).reshape([self.n_experts, self.capacity, width])
    }

    /// The weighted sum of each token's slots.
    ///
    /// # Shapes
    /// - rows: `[experts, capacity, width]`
    /// - weights: `[tokens, k]`
    /// - result: `[tokens, width]`
    pub fn combine(&self, rows: Tensor<3>, weights: Tensor<2>) -> Tensor<2> {
        let [_, _, width] = rows.dims();
        let [tokens, _] = weights.dims();
        let rows = rows.reshape([self.n_experts * self.capacity, width]);
        let chosen = rows.select(0, self.slot_of_choice.clone()).reshape([tokens, self.top_k, width]);
        (chosen * weights.reshape([tokens, self.top_k, 1])).sum_dim(1).reshape([tokens, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combine_undoes_scatter_with_weights() {
        let device = Device::flex();
        // Token 0 goes to experts 2 and 0, token 1 is padding, token 2 goes to 0 and 2.
        let choices = [Some(2), Some(0), None, None, Some(0), Some(2)];
        let dispatch = Dispatch::new(&choices, 3, 2, &device);
        assert_eq!(dispatch.load(), [2, 0, 2]);
        let x = Tensor::<2>::from_data(TensorData::from([[1.0f32], [10.0], [100.0]]), &device);
        let weights =
            Tensor::<2>::from_data(TensorData::from([[0.5f32, 0.25], [0.0, 0.0], [1.0, 2.0]]), &device);
        let y: Vec<f32> =
            dispatch.combine(dispatch.scatter(x), weights).into_data().try_into_vec().expect("f32");
        assert_eq!(y, [0.75, 0.0, 300.0]);
    }
}
