//! The loss-free bias (Wang et al. 2024, arXiv 2408.15664, algorithm 1): after each step every expert's
//! selection bias moves against its load.

use burn::tensor::{FloatDType, Tensor};

use super::{Balance, Routed};
use crate::model::facts::Facts;
use crate::ops::widened;
use crate::settings;
use crate::settings::float;

settings! {
    /// `b_i + rate * (d_i - mean d)`, where `d_i` is the sign of `mean n - n_i`. Subtracting the mean keeps
    /// the biases from drifting together, which would change nothing but their rounding.
    pub struct Bias in "moe.balance" {
        /// step of the loss-free selection bias (arXiv 2408.15664), in units of the score; 0 is off. Made for
        /// sigmoid scores: softmax scores are about 1 / E, so a step is E times as large in comparison
        bias_rate: f64 = 0.0, float(0.0, 1.0);
    }
}

impl Balance for Bias {
    fn facts(&self) -> Facts {
        Facts {
            elsewhere: "Glm4Moe, DeepseekV3",
            ..Facts::plain(
                "moves the selection bias against the load after each step, once for all micro-batches",
                "arXiv 2408.15664",
            )
        }
    }

    fn name(&self) -> &'static str {
        "bias"
    }

    fn coefficient(&self) -> f64 {
        0.0
    }

    fn loss(&self, _: &Routed, _: f64) -> Option<Tensor<1>> {
        None
    }

    fn next_bias(&self, bias: Tensor<1>, load: Tensor<1>, _: Option<Tensor<1>>) -> Option<Tensor<1>> {
        if self.bias_rate == 0.0 {
            return None;
        }
        let [n_experts] = load.dims();
        let (bias, load) = (widened(bias), widened(load));
        // Counts rather than their mean, which could miss an exact balance; below 2^24 / experts nothing
        // is rounded anywhere.
        let sign = (load.clone().sum() - load * n_experts as f64).sign();
        let moved = bias + (sign.clone() - sign.mean()) * self.bias_rate;
        Some(moved.cast(FloatDType::F32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn bias_moves_against_the_load_and_does_not_drift() {
        let tensor = |values: &[f32]| {
            Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
        };
        let step = |bias: &[f32], load: &[f32]| -> Vec<f32> {
            let moved =
                Bias { bias_rate: 0.1 }.next_bias(tensor(bias), tensor(load), None).expect("it moves");
            moved.into_data().try_into_vec().expect("f32")
        };
        let bias = step(&[0.0; 4], &[10.0, 1.0, 1.0, 0.0]);
        // Signs are -1, 1, 1, 1; their mean 0.5 is subtracted.
        for (b, expected) in bias.iter().zip([-0.15, 0.05, 0.05, 0.05]) {
            assert!((b - expected).abs() < 1e-7, "{bias:?}");
        }
        assert!(bias.iter().sum::<f32>().abs() < 1e-7);
        assert_eq!(step(&[0.5, -0.5], &[3.0, 3.0]), [0.5, -0.5]);
        assert!(Bias { bias_rate: 0.0 }.next_bias(tensor(&[0.0]), tensor(&[1.0]), None).is_none());
    }
}
