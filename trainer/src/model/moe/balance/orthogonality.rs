//! The orthogonality loss: experts with similar directions in the router get the same tokens, so their
//! cosines are kept small. It depends only on the router's matrix: each micro-batch adds it in proportion to
//! its tokens, so that a step has the loss once.

use burn::tensor::{Int, Tensor};

use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::ops::matmul::matmul;
use crate::settings;
use crate::settings::float;

settings! {
    /// `sum_{i != j} (v_i . v_j)^2 / (E (E - 1))` with `v_i = w_i / (|w_i| + 1e-6)`, where `w_i` is the
    /// column of expert i.
    pub struct Orthogonality in "moe.balance" {
        /// coefficient of the mean squared cosine between the directions of two experts in the router; 0 is
        /// off. It does not depend on data. With fewer channels than experts it cannot become 0
        orthogonality: f64 = 0.0, float(0.0, 10.0);
    }
}

impl Balance for Orthogonality {
    fn facts(&self) -> Facts {
        Facts::plain(
            "loss: mean squared cosine between the directions of two experts in the router, exact for any micro-batch",
            "ours",
        )
    }

    fn name(&self) -> &'static str {
        "orthogonality"
    }

    fn coefficient(&self) -> f64 {
        self.orthogonality
    }

    fn loss(&self, routed: &Routed, factor: f64) -> Option<Tensor<1>> {
        if self.orthogonality == 0.0 {
            return None;
        }
        let (part, batch) = (routed.ctx.valid.n_valid(), routed.ctx.counts.n_tokens.max(1));
        Some(mean_squared_cosine(routed.matrix()?) * (factor * part as f64 / batch as f64))
    }
}

/// The mean squared cosine of two columns, `[1]`; 0 for a single one.
///
/// # Shapes
/// - matrix: `[d_model, experts]`
fn mean_squared_cosine(matrix: Tensor<2>) -> Tensor<1> {
    let [_, n] = matrix.dims();
    // The constant under the root keeps the gradient of a zero column finite.
    let norm = (matrix.clone() * matrix.clone()).sum_dim(0).add_scalar(1e-20).sqrt();
    let directions = matrix / norm.add_scalar(1e-6);
    let cosines = matmul(directions.clone().transpose(), directions);
    let at = Tensor::<1, Int>::arange(0..n as i64, &cosines.device());
    let is_other = at.clone().reshape([n, 1]).not_equal(at.reshape([1, n])).float();
    let others = cosines * is_other;
    (others.clone() * others).sum() * (1.0 / (n * (n - 1)).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn cosines_by_hand() {
        let device = Device::flex().autodiff();
        let value = |matrix: Tensor<2>| f64::from(mean_squared_cosine(matrix).into_scalar::<f32>());
        // Columns (3, 4) and (1, 0): cosine 3/5, in both directions, divided by 2.
        let two = Tensor::<2>::from_data([[3.0f32, 1.0], [4.0, 0.0]], &device);
        assert!((value(two) - 0.36).abs() < 1e-5);
        // Columns (1, 0), (0, 1), (1, 1): squared cosines 0, 1/2, 1/2, in both directions, divided by 6.
        let matrix = Tensor::<2>::from_data([[1.0f32, 0.0, 1.0], [0.0, 1.0, 1.0]], &device).require_grad();
        assert!((value(matrix.clone()) - 1.0 / 3.0).abs() < 1e-5);
        // With (1, e) as first column the cosine to (0, 1) is e, whose square has no slope at 0, and that to
        // (1, 1) is (1 + e) / sqrt(2), whose square has slope 1: in both directions, divided by 6.
        let mut found = mean_squared_cosine(matrix.clone()).backward();
        let slope: Vec<f32> = matrix.grad_remove(&mut found).expect("tracked").into_data().iter().collect();
        assert!((slope[3] - 1.0 / 3.0).abs() < 1e-5, "{slope:?}");
        // Scaling a column changes no cosine.
        assert!(
            slope[0].abs() < 1e-5 && slope[4].abs() < 1e-5 && (slope[2] + slope[5]).abs() < 1e-5,
            "{slope:?}"
        );
        // Zero columns, with which noisy routers begin, still have a slope.
        let zeros = Tensor::<2>::zeros([2, 3], &device).require_grad();
        let mut found = mean_squared_cosine(zeros.clone()).backward();
        let slope: Vec<f32> = zeros.grad_remove(&mut found).expect("tracked").into_data().iter().collect();
        assert!(slope.iter().all(|value| *value == 0.0), "{slope:?}");
        assert_eq!(value(Tensor::<2>::from_data([[2.0f32], [1.0]], &device)), 0.0);
    }
}
