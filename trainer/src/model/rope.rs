//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2).
//!
//! Pairs (x_i, x_{i+h/2}) of a head of width h are turned by the angle `pos * theta^(-2i/h)`, so
//! that the product of a query and a key depends on the distance of their positions alone.
//! Positions restart at 0 in every piece of a packed sample.

use crate::kernel::Angles;

/// Cosines and sines of all positions; constants, not parameters.
#[derive(Debug, Clone)]
pub struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Tables for `n_positions` positions and heads of (even) width `head_dim`.
    pub fn new(n_positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let angle =
            |index: usize| (index / half) as f64 * theta.powf(-2.0 * (index % half) as f64 / head_dim as f64);
        let table = |f: fn(f64) -> f64| (0..n_positions * half).map(|i| f(angle(i)) as f32).collect();
        Self { half, cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// The angles of tokens at some positions, each below the number of positions of the tables.
    pub fn angles(&self, positions: &[u32]) -> Angles {
        let rows = |table: &[f32]| -> Vec<f32> {
            let row = |&p: &u32| &table[p as usize * self.half..(p as usize + 1) * self.half];
            positions.iter().flat_map(row).copied().collect()
        };
        Angles { half: self.half, cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::kernel::rotate;

    fn host(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect("f32")
    }

    #[test]
    fn position_one_turns_the_first_pair_by_one_radian() {
        let angles = Arc::new(Rope::new(2, 2, 10_000.0).angles(&[0, 1]));
        let x = Tensor::from_data(TensorData::from([[1.0f32, 0.0], [1.0, 0.0]]), &Device::flex());
        for (value, expected) in host(rotate(x, &angles)).iter().zip([1.0, 0.0, 1f32.cos(), 1f32.sin()]) {
            assert!((value - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn the_kernels_of_cpu_and_gpu_agree_forward_and_backward() {
        let device = Device::flex().autodiff();
        let angles = Rope::new(7, 4, 100.0).angles(&[0, 6, 3]);
        let tensor = |seed: f32| -> Tensor<2> {
            let values: Vec<f32> = (0..36).map(|i| (seed + i as f32).sin()).collect();
            Tensor::from_data(TensorData::new(values, [3, 12]), &device)
        };
        let table = |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [3, 2]), &device);
        let (cos, sin) = (table(&angles.cos), table(&angles.sin));
        let angles = Arc::new(angles);
        let run = |turn: &dyn Fn(Tensor<2>) -> Tensor<2>| {
            let x = tensor(0.5).require_grad();
            let y = turn(x.clone());
            let grads = (y.clone() * tensor(9.0)).sum().backward();
            [host(y), host(x.grad(&grads).expect("tracked"))].concat()
        };
        let cpu = run(&|x| rotate(x, &angles));
        let gpu = run(&|x| moe_kernels::rotary::rotate(x, cos.clone(), sin.clone(), 3));
        assert!(cpu.iter().zip(&gpu).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
