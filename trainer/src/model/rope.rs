//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2).
//!
//! Pairs (x_i, x_{i+h/2}) of a head of width h are turned by the angle `pos * theta^(-2i/h)`, so
//! that the product of a query and a key depends on the distance of their positions alone.
//! Positions restart at 0 in every piece of a packed sample.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::kernel::{Angles, is_host, rotate};

/// Cosines and sines of all positions; constants, not parameters.
#[derive(Debug, Clone)]
pub struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The rotation of each token of a batch.
#[derive(Debug, Clone)]
pub enum Rotation {
    /// For the kernel of the CPU.
    Host(Arc<Angles>),
    /// Cosines and sines, `[tokens, 1, half]` each, for plain operations on another device.
    Plain(Box<[Tensor<3>; 2]>),
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

    /// The rotation of tokens at some positions, each below the number of positions of the tables.
    pub fn rotation(&self, positions: &[u32], device: &Device) -> Rotation {
        let angles = self.angles(positions);
        if is_host(device) { Rotation::Host(Arc::new(angles)) } else { Rotation::plain(angles, device) }
    }

    fn angles(&self, positions: &[u32]) -> Angles {
        let rows = |table: &[f32]| -> Vec<f32> {
            let row = |&p: &u32| &table[p as usize * self.half..(p as usize + 1) * self.half];
            positions.iter().flat_map(row).copied().collect()
        };
        Angles { half: self.half, cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

impl Rotation {
    fn plain(angles: Angles, device: &Device) -> Self {
        let shape = [angles.cos.len() / angles.half, 1, angles.half];
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), device);
        Self::Plain(Box::new([tensor(angles.cos), tensor(angles.sin)]))
    }

    /// Turns every head of `x` by the position of its token.
    ///
    /// # Shapes
    /// - x: `[tokens, heads * head_dim]`, and so is the result
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let [cos, sin] = match self {
            Self::Host(angles) => return rotate(x, angles),
            Self::Plain(tables) => tables.as_ref().clone(),
        };
        let [tokens, width] = x.dims();
        let half = cos.dims()[2];
        let x = x.reshape([tokens, width / (2 * half), 2 * half]);
        let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
        let turned_second = first * sin + second * cos;
        Tensor::cat(vec![turned_first, turned_second], 2).reshape([tokens, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect("f32")
    }

    #[test]
    fn position_one_turns_the_first_pair_by_one_radian() {
        let device = Device::flex();
        let rotation = Rope::new(2, 2, 10_000.0).rotation(&[0, 1], &device);
        let x = Tensor::from_data(TensorData::from([[1.0f32, 0.0], [1.0, 0.0]]), &device);
        for (value, expected) in host(rotation.apply(x)).iter().zip([1.0, 0.0, 1f32.cos(), 1f32.sin()]) {
            assert!((value - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn kernel_and_plain_operations_agree_forward_and_backward() {
        let device = Device::flex().autodiff();
        let rope = Rope::new(7, 4, 100.0);
        let positions = [0, 6, 3];
        let tensor = |seed: f32| -> Tensor<2> {
            let values: Vec<f32> = (0..36).map(|i| (seed + i as f32).sin()).collect();
            Tensor::from_data(TensorData::new(values, [3, 12]), &device)
        };
        let run = |rotation: Rotation| {
            let x = tensor(0.5).require_grad();
            let y = rotation.apply(x.clone());
            let grads = (y.clone() * tensor(9.0)).sum().backward();
            [host(y), host(x.grad(&grads).expect("tracked"))].concat()
        };
        let kernel = run(rope.rotation(&positions, &device));
        let plain = run(Rotation::plain(rope.angles(&positions), &device));
        assert!(kernel.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
