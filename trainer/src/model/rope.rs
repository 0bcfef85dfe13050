//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2).
//!
//! Pairs (x_i, x_{i+h/2}) of a head of width h are turned by the angle `pos * theta^(-2i/h)`, so
//! that the product of a query and a key depends on the distance of their positions alone.
//! Positions restart at 0 in every piece of a packed sample.

use burn::tensor::{Device, Tensor, TensorData};

use super::ModelConfig;

/// Cosines and sines of all positions; constants, not parameters.
#[derive(Debug, Clone)]
struct Rope {
    head_dim: usize,
    theta: f64,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The tables that the layers of a model need.
#[derive(Debug, Clone, Default)]
pub struct Ropes(Vec<Rope>);

/// Cosines and sines of the tokens of one batch.
#[derive(Debug, Clone)]
pub struct Rotary {
    head_dim: usize,
    theta: f64,
    /// `[tokens, head_dim / 2]`
    pub cos: Tensor<2>,
    /// `[tokens, head_dim / 2]`
    pub sin: Tensor<2>,
}

impl Ropes {
    /// Tables for `n_positions` positions, one for each different pair of (even) head width and theta.
    pub fn new(n_positions: usize, of_layers: impl IntoIterator<Item = (usize, f64)>) -> Self {
        let mut ropes: Vec<Rope> = Vec::new();
        for (head_dim, theta) in of_layers {
            if !ropes.iter().any(|rope| (rope.head_dim, rope.theta) == (head_dim, theta)) {
                ropes.push(Rope::new(n_positions, head_dim, theta));
            }
        }
        Self(ropes)
    }

    /// The tables of a model.
    pub fn of(config: &ModelConfig) -> Self {
        let of_layer = |layer| config.attention(layer).rotary(config.d_model);
        Self::new(config.seq_len, (0..config.n_layers).filter_map(of_layer))
    }

    /// The rows of tokens at some positions, each below the number of positions of the tables.
    pub fn tables(&self, positions: &[u32], device: &Device) -> Vec<Rotary> {
        self.0.iter().map(|rope| rope.tables(positions, device)).collect()
    }
}

impl Rope {
    fn new(n_positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let angle =
            |index: usize| (index / half) as f64 * theta.powf(-2.0 * (index % half) as f64 / head_dim as f64);
        let table = |f: fn(f64) -> f64| (0..n_positions * half).map(|i| f(angle(i)) as f32).collect();
        Self { head_dim, theta, cos: table(f64::cos), sin: table(f64::sin) }
    }

    fn tables(&self, positions: &[u32], device: &Device) -> Rotary {
        let half = self.head_dim / 2;
        let rows = |table: &[f32]| {
            let row = |&p: &u32| &table[p as usize * half..(p as usize + 1) * half];
            let values: Vec<f32> = positions.iter().flat_map(row).copied().collect();
            Tensor::from_data(TensorData::new(values, [positions.len(), half]), device)
        };
        let Self { head_dim, theta, .. } = *self;
        Rotary { head_dim, theta, cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

impl Rotary {
    /// Whether these are the tables of such heads.
    pub fn is_of(&self, head_dim: usize, theta: f64) -> bool {
        (self.head_dim, self.theta) == (head_dim, theta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::rotary::rotate;

    #[test]
    fn position_one_turns_the_first_pair_by_one_radian() {
        let device = Device::flex();
        let ropes = Ropes::new(2, [(2, 10_000.0), (4, 10_000.0), (2, 10_000.0)]);
        let tables = ropes.tables(&[0, 1], &device);
        assert_eq!(tables.len(), 2);
        let Rotary { cos, sin, .. } = tables[0].clone();
        let x = Tensor::from_data(TensorData::from([[1.0f32, 0.0], [1.0, 0.0]]), &device);
        let turned: Vec<f32> = rotate(x, cos, sin, 1).into_data().try_into_vec().expect("f32");
        for (value, expected) in turned.iter().zip([1.0, 0.0, 1f32.cos(), 1f32.sin()]) {
            assert!((value - expected).abs() < 1e-6);
        }
    }
}
