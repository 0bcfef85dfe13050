//! Clipping by the global norm: one factor for all gradients, from the norm of all of them
//! (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1).

use burn::tensor::Tensor;
use moe_kernels::adamw::sum_of_squares;

use crate::model::parameters::host;

/// Euclidean norm of all gradients together; absent ones count as zero.
///
/// Each tensor is summed in f32 on its device, the tensors in f64 on the host.
pub fn global_norm(gradients: &[Option<Tensor<1>>]) -> f64 {
    let squares: Vec<Tensor<1>> = gradients.iter().flatten().map(|g| (g.clone() * g.clone()).sum()).collect();
    if squares.is_empty() {
        return 0.0;
    }
    host(Tensor::cat(squares, 0)).into_iter().map(f64::from).sum::<f64>().sqrt()
}

/// [`global_norm`] on the device, all in f32, `[1]`.
///
/// # Panics
/// Without any gradient.
pub fn global_norm_on_device(gradients: &[Option<Tensor<1>>]) -> Tensor<1> {
    let squares: Vec<Tensor<1>> = gradients.iter().flatten().map(|g| sum_of_squares(g.clone())).collect();
    Tensor::cat(squares, 0).sum().sqrt()
}

/// [`clip_factor`] on the device, `[1]`; not a number when norm or loss are not finite.
pub fn clip_factor_on_device(norm: Tensor<1>, loss: Tensor<1>, max_norm: f64) -> Tensor<1> {
    let poison = (norm.clone() + loss) * 0.0;
    (norm.recip() * max_norm).clamp_max(1.0) + poison
}

/// The factor that brings a gradient of this norm to at most `max_norm`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if norm > max_norm { max_norm / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn norm_is_taken_over_all_tensors() {
        let device = Device::flex();
        let tensor = |v: [f32; 2]| Some(Tensor::from_data(TensorData::from(v), &device));
        // sqrt(3^2 + 4^2 + 12^2) = 13
        let norm = global_norm(&[tensor([3.0, 4.0]), None, tensor([12.0, 0.0])]);
        assert!((norm - 13.0).abs() < 1e-6);
        assert_eq!(clip_factor(norm, 26.0), 1.0);
        assert!((clip_factor(13.0, 1.3) - 0.1).abs() < 1e-12);
        assert_eq!(global_norm(&[None]), 0.0);
    }
}
