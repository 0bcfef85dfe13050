//! Root-mean-square normalization (Zhang & Sennrich 2019, arXiv 1910.07467, section 3).

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::cost::Cost;
use crate::ops::rms_norm::rms_norm;

/// `y = x / sqrt(mean(x^2) + eps) * weight`, over the last dimension, in f32.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale of each channel, initially 1.
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    /// A normalization of `width` channels.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self { weight: Param::from_tensor(Tensor::ones([width], device)), epsilon }
    }

    /// What a normalization of `width` channels costs: its input is kept, and one statistic of each row.
    pub fn cost(width: usize) -> Cost {
        Cost { values: width as u64, f32_values: 1, ..Cost::of_weights(width as u64) }
    }

    /// # Shapes
    /// - x: `[rows, width]`, and so is the result
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn divides_by_the_root_mean_square() {
        let device = Device::flex();
        let x = Tensor::<2>::from_data(TensorData::from([[3.0f32, 4.0]]), &device);
        let y: Vec<f32> = RmsNorm::new(2, 0.0, &device).forward(x).into_data().try_into_vec().expect("f32");
        // sqrt((9 + 16) / 2) = 3.535534
        assert!((y[0] - 0.848_528).abs() < 1e-5 && (y[1] - 1.131_371).abs() < 1e-5, "{y:?}");
    }
}
