//! Where each token's rows go: sorting tokens by expert, and bringing the results back.
//!
//! Rows are sorted by expert and lie without gaps; each expert multiplies its own, so that no token
//! is dropped and no padding multiplied. Both ways are gathers by index, never sums by address, and
//! so have the same result every time.

use std::sync::Arc;

use burn::tensor::Tensor;
use moe_kernels::grouped::{grouped_matmul as gpu_matmul, grouped_swiglu};
use moe_kernels::routing::Routes as GpuRoutes;
use moe_kernels::rows;

use crate::kernel::{Routes, combine_rows, gather_rows, grouped_matmul, swiglu};

/// The layout of the rows of one batch.
#[derive(Debug, Clone)]
pub enum Dispatch {
    /// Known to the host.
    Host(Arc<Routes>),
    /// On the device.
    Gpu(Box<GpuRoutes>),
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
    pub fn on_host(choices: &[Option<u32>], n_experts: usize, top_k: usize) -> Self {
        Self::Host(Arc::new(Routes::new(choices, n_experts, top_k)))
    }

    /// A layout that was made on the device.
    pub fn on_gpu(routes: GpuRoutes) -> Self {
        Self::Gpu(Box::new(routes))
    }

    /// Tokens of each expert; empty where only the device knows them.
    pub(super) fn host_load(&self) -> Vec<u64> {
        match self {
            Self::Host(routes) => routes.load(),
            Self::Gpu(_) => Vec::new(),
        }
    }

    /// `y_t = sum_j g_tj * expert_{e(t,j)}(x_t)`, each expert a SwiGLU.
    ///
    /// # Shapes
    /// - x: `[tokens, d_model]`, and so is the result
    /// - weights: `[tokens, k]`, f32, zero on padding
    pub fn apply(&self, x: Tensor<2>, weights: Tensor<2>, experts: ExpertWeights) -> Tensor<2> {
        self.combine(self.experts(self.gather(x), experts), weights)
    }

    /// Each token's rows, `[rows, d_model]`.
    pub fn gather(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Host(routes) => gather_rows(x, routes),
            Self::Gpu(routes) => rows::gather_rows(x, routes),
        }
    }

    /// Each expert on its rows.
    ///
    /// # Shapes
    /// - rows: `[rows, d_model]`, and so is the result
    pub fn experts(&self, rows: Tensor<2>, experts: ExpertWeights) -> Tensor<2> {
        match self {
            Self::Host(routes) => {
                let gate = grouped_matmul(rows.clone(), experts.gate, routes);
                let up = grouped_matmul(rows, experts.up, routes);
                grouped_matmul(swiglu(gate, up), experts.down, routes)
            }
            Self::Gpu(routes) => {
                let offsets = &routes.offsets;
                let inner = grouped_swiglu(rows, experts.gate, experts.up, offsets.clone());
                gpu_matmul(inner, experts.down, offsets.clone())
            }
        }
    }

    /// The weighted sum of each token's rows.
    ///
    /// # Shapes
    /// - rows: `[rows, d_model]`
    /// - weights: `[tokens, k]`, f32
    /// - result: `[tokens, d_model]`
    pub fn combine(&self, rows: Tensor<2>, weights: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Host(routes) => combine_rows(rows, weights, routes),
            Self::Gpu(routes) => rows::combine_rows(rows, weights, routes),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, TensorData};
    use moe_kernels::routing::sort_by_expert;

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
    fn the_kernels_of_cpu_and_gpu_agree_forward_and_backward() {
        let device = Device::flex().autodiff();
        let experts: Vec<i32> = CHOICES.iter().map(|c| c.map_or(-1, |e| e as i32)).collect();
        let experts = Tensor::<2, Int>::from_data(TensorData::new(experts, [3, 2]), &device);
        let host_routes = Dispatch::on_host(&CHOICES, 3, 2);
        let gpu_routes = Dispatch::on_gpu(sort_by_expert(&experts, 3));
        let mask = Tensor::<2>::from_data(TensorData::from([[1.0f32], [0.0], [1.0]]), &device);
        let run = |dispatch: Dispatch| {
            let (x, weights) = (noise("x", [3, 5]), noise("weights", [3, 2]));
            let [gate, up] = ["gate", "up"].map(|name| noise(name, [3, 5, 4]));
            let down = noise("down", [3, 4, 5]);
            let experts = ExpertWeights { gate: gate.clone(), up: up.clone(), down: down.clone() };
            let y = dispatch.apply(x.clone(), weights.clone() * mask.clone(), experts);
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
        let (a, b) = (run(host_routes), run(gpu_routes));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}\n{b:?}");
    }
}
