//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2).
//!
//! Pairs (x_i, x_{i+h/2}) of a head of width h are turned by the angle `pos * theta^(-2i/h)`, so
//! that the product of a query and a key depends on the distance of their positions alone.
//! Positions restart at 0 in every piece of a packed sample.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Cosines and sines of all positions; constants, not parameters.
#[derive(Module, Debug)]
pub struct Rope {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// The rows of the tables for the positions of one batch.
#[derive(Debug, Clone)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rope {
    /// Tables for `n_positions` positions and heads of (even) width `head_dim`.
    pub fn new(n_positions: usize, head_dim: usize, theta: f64, device: &Device) -> Self {
        let half = head_dim / 2;
        let angle =
            |position: usize, i: usize| position as f64 * theta.powf(-2.0 * i as f64 / head_dim as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> =
                (0..n_positions * half).map(|index| f(angle(index / half, index % half)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [n_positions, half]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// The rotation of each token of a batch.
    ///
    /// # Shapes
    /// - positions: `[batch, seq]`, each below the number of positions of the tables
    pub fn rotation(&self, positions: Tensor<2, Int>) -> Rotation {
        let [batch, seq] = positions.dims();
        let half = self.cos.dims()[1];
        let positions = positions.reshape([batch * seq]);
        let rows =
            |table: &Tensor<2>| table.clone().select(0, positions.clone()).reshape([batch, seq, 1, half]);
        Rotation { cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

impl Rotation {
    /// Turns every head of `x` by the position of its token.
    ///
    /// # Shapes
    /// - x: `[batch, seq, heads, head_dim]`, and so is the result
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        Tensor::cat(
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), first * sin + second * cos],
            3,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_one_turns_the_first_pair_by_one_radian() {
        let device = Device::flex();
        let rope = Rope::new(2, 2, 10_000.0, &device);
        let rotation = rope.rotation(Tensor::from_data(TensorData::from([[0i64, 1]]), &device));
        let x = Tensor::<4>::from_data(TensorData::from([[[[1.0f32, 0.0]], [[1.0, 0.0]]]]), &device);
        let y: Vec<f32> = rotation.apply(x).into_data().try_into_vec().expect("f32");
        let expected = [1.0, 0.0, 1f32.cos(), 1f32.sin()];
        for (value, expected) in y.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{y:?}");
        }
    }
}
