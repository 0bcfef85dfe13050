//! Clipping by the global norm: one factor for all gradients, from the norm of all of them
//! (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1).

use burn::tensor::Tensor;
use moe_kernels::adamw::sum_of_squares;

use crate::model::parameters::host;

/// Values whose squares are summed at once. burn sums 2^22 values and more on all threads, in an
/// order that follows which thread is free; below that it sums in one fixed order.
const BLOCK: usize = 1 << 20;

/// Euclidean norm of all gradients together; absent ones count as zero.
pub fn global_norm(gradients: &[Option<Tensor<1>>]) -> f64 {
    norm(gradients.iter().flatten().cloned())
}

/// Euclidean norm of some tensors together; 0 without any.
///
/// Each block is summed in f32 on its device, the blocks in f64 on the host, both in a fixed order:
/// the norm does not depend on the number of threads.
pub fn norm(tensors: impl Iterator<Item = Tensor<1>>) -> f64 {
    let squares: Vec<Tensor<1>> = tensors.flat_map(block_squares).collect();
    if squares.is_empty() {
        return 0.0;
    }
    host(Tensor::cat(squares, 0)).into_iter().map(f64::from).sum::<f64>().sqrt()
}

/// The sum of the squares of each block, `[1]` each.
fn block_squares(tensor: Tensor<1>) -> impl Iterator<Item = Tensor<1>> {
    let [n] = tensor.dims();
    (0..n).step_by(BLOCK).map(move |start| {
        let block = tensor.clone().slice([start..(start + BLOCK).min(n)]);
        (block.clone() * block).sum()
    })
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

    #[test]
    fn the_norm_of_four_million_values_depends_on_no_thread() {
        let device = Device::flex();
        let stream = crate::random::Stream::new(1, "gradient");
        let few: Vec<f32> = (0..1 << 16).map(|i| stream.normal(i) as f32).collect();
        // Every value is there many times, but no two blocks are scaled alike.
        let scaled = |n: usize| -> Vec<f32> {
            (0..n).map(|i| few[i % few.len()] * (1.0 + (i / few.len()) as f32 / 7.0)).collect()
        };
        for n in [1 << 22, (1 << 22) + 12_345, (1 << 24) + 1] {
            let gradient = [Some(Tensor::from_data(TensorData::new(scaled(n), [n]), &device))];
            let exact = scaled(n).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let expected = global_norm(&gradient);
            assert!((expected / exact - 1.0).abs() < 1e-5, "{expected} {exact}");
            for threads in [1, 2, 3, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                for _ in 0..8 {
                    let norm = pool.install(|| {
                        // Other work in the same pool, so that pieces are stolen at random.
                        rayon::join(|| global_norm(&gradient), || scaled(1 << 16).len()).0
                    });
                    assert_eq!(norm.to_bits(), expected.to_bits(), "{n} values, {threads} threads");
                }
            }
        }
    }
}
