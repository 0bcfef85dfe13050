//! Where each token's rows go: sorting tokens by expert, and bringing the results back.
//!
//! Rows are sorted by expert. On the CPU they lie without gaps and each expert multiplies its own;
//! other devices lay them out as `[experts, capacity]`, where the capacity is the largest load of
//! this batch, so that all experts run in one batched product. Neither drops a token. Both ways
//! are gathers by index, never sums by address, and so have the same result every time.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::kernel::{self, Routes, combine_rows, gather_rows, grouped_matmul, swiglu};

/// Capacities are rounded up to this many rows: the inner kernels work on whole vectors.
const CAPACITY_STEP: usize = 8;

/// The layout of the rows of one batch.
#[derive(Debug, Clone)]
pub struct Dispatch {
    routes: Arc<Routes>,
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Layout {
    /// Rows one after the other.
    Packed,
    /// The same number of rows for each expert.
    Padded(Box<Padded>),
}

/// Indices of the padded layout.
#[derive(Debug, Clone)]
struct Padded {
    capacity: usize,
    /// `[experts * capacity]`; unused slots read token 0, and nothing reads them.
    token_of_slot: Tensor<1, Int>,
    /// `[tokens * k]`; padding tokens read slot 0, with weight 0.
    slot_of_choice: Tensor<1, Int>,
}

/// The matrices of all experts, `[experts, rows, columns]` each.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// Into the gate.
    pub gate: Tensor<3>,
    /// Into the values.
    pub up: Tensor<3>,
    /// Back into the residual stream.
    pub down: Tensor<3>,
}

impl Dispatch {
    /// The layout for `choices[token * top_k + j]` = the j-th expert of a token, or `None` on
    /// padding. Tokens keep their order inside an expert.
    pub fn new(choices: &[Option<u32>], n_experts: usize, top_k: usize, device: &Device) -> Self {
        let routes = Arc::new(Routes::new(choices, n_experts, top_k));
        let layout = match kernel::is_host(device) {
            true => Layout::Packed,
            false => Layout::Padded(Box::new(Padded::new(&routes, device))),
        };
        Self { routes, layout }
    }

    /// Tokens of each expert.
    pub fn load(&self) -> Vec<u64> {
        self.routes.load()
    }

    /// `y_t = sum_j g_tj * expert_{e(t,j)}(x_t)`, each expert a SwiGLU.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    /// - weights: `[tokens, k]`, zero on padding
    pub fn apply(&self, x: Tensor<2>, weights: Tensor<2>, experts: ExpertWeights) -> Tensor<2> {
        match &self.layout {
            Layout::Packed => packed(x, weights, experts, &self.routes),
            Layout::Padded(padded) => padded.apply(x, weights, experts),
        }
    }
}

fn packed(x: Tensor<2>, weights: Tensor<2>, experts: ExpertWeights, routes: &Arc<Routes>) -> Tensor<2> {
    let rows = gather_rows(x, routes);
    let gate = grouped_matmul(rows.clone(), experts.gate, routes);
    let up = grouped_matmul(rows, experts.up, routes);
    combine_rows(grouped_matmul(swiglu(gate, up), experts.down, routes), weights, routes)
}

impl Padded {
    fn new(routes: &Routes, device: &Device) -> Self {
        let load = routes.load();
        let largest = load.iter().copied().max().unwrap_or(0) as usize;
        let capacity = largest.max(1).next_multiple_of(CAPACITY_STEP);
        let mut token_of_slot = vec![0i64; load.len() * capacity];
        let mut slot_of_choice = vec![0i64; routes.row_of_choice.len()];
        for (expert, rows) in routes.offsets.windows(2).enumerate() {
            for (i, row) in (rows[0]..rows[1]).enumerate() {
                let (slot, choice) = (expert * capacity + i, routes.choice_of_row[row] as usize);
                token_of_slot[slot] = (choice / routes.top_k) as i64;
                slot_of_choice[choice] = slot as i64;
            }
        }
        let ints = |values: Vec<i64>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        Self { capacity, token_of_slot: ints(token_of_slot), slot_of_choice: ints(slot_of_choice) }
    }

    fn apply(&self, x: Tensor<2>, weights: Tensor<2>, experts: ExpertWeights) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let [_, top_k] = weights.dims();
        let [n_experts, _, hidden] = experts.gate.dims();
        let n_slots = n_experts * self.capacity;
        let flat = |rows: Tensor<3>| rows.reshape([n_slots, hidden]);
        let rows = x.select(0, self.token_of_slot.clone()).reshape([n_experts, self.capacity, width]);
        let gate = flat(rows.clone().matmul(experts.gate));
        let up = flat(rows.matmul(experts.up));
        let inner = swiglu(gate, up).reshape([n_experts, self.capacity, hidden]);
        let rows = inner.matmul(experts.down).reshape([n_slots, width]);
        let chosen = rows.select(0, self.slot_of_choice.clone()).reshape([tokens, top_k, width]);
        (chosen * weights.reshape([tokens, top_k, 1])).sum_dim(1).reshape([tokens, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// Token 1 is padding, expert 1 has no token.
    const CHOICES: [Option<u32>; 6] = [Some(2), Some(0), None, None, Some(0), Some(2)];

    fn noise<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
        let stream = Stream::new(1, name);
        let n = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..n).map(|i| stream.normal(i) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
    }

    #[test]
    fn rows_are_sorted_by_expert() {
        let routes = Routes::new(&CHOICES, 3, 2);
        assert_eq!(routes.offsets, [0, 2, 2, 4]);
        assert_eq!(routes.choice_of_row, [1, 4, 0, 5]);
        assert_eq!(routes.row_of_choice, [2, 0, u32::MAX, u32::MAX, 1, 3]);
    }

    #[test]
    fn both_layouts_agree_forward_and_backward() {
        let device = Device::flex().autodiff();
        let routes = Arc::new(Routes::new(&CHOICES, 3, 2));
        let mask = Tensor::<2>::from_data(TensorData::from([[1.0f32], [0.0], [1.0]]), &device);
        let run = |is_packed: bool| {
            let (x, weights) = (noise("x", [3, 5]), noise("weights", [3, 2]));
            let [gate, up] = ["gate", "up"].map(|name| noise(name, [3, 5, 4]));
            let down = noise("down", [3, 4, 5]);
            let experts = ExpertWeights { gate: gate.clone(), up: up.clone(), down: down.clone() };
            let g = weights.clone() * mask.clone();
            let y = match is_packed {
                true => packed(x.clone(), g, experts, &routes),
                false => Padded::new(&routes, &device).apply(x.clone(), g, experts),
            };
            let grads = (y.clone() * noise("direction", [3, 5])).sum().backward();
            let flat = |t: Option<Tensor<3>>| -> Vec<f32> {
                t.expect("a gradient").into_data().try_into_vec().expect("f32")
            };
            let flat2 = |t: Option<Tensor<2>>| -> Vec<f32> { flat(t.map(|t| t.unsqueeze())) };
            let mut all = flat2(Some(y));
            all.extend([flat2(x.grad(&grads)), flat2(weights.grad(&grads))].concat());
            all.extend([flat(gate.grad(&grads)), flat(up.grad(&grads)), flat(down.grad(&grads))].concat());
            all
        };
        let (a, b) = (run(true), run(false));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}\n{b:?}");
    }
}
