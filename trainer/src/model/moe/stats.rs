//! What a router leaves behind, on the host or still on the device.

use burn::tensor::Tensor;

use super::balance::RouterStats;
use crate::error::Result;
use crate::kernel::read;

/// Counts and values of one router for one batch.
#[derive(Debug, Clone)]
pub enum Stats {
    /// On the host.
    Host(RouterStats),
    /// On the device.
    Gpu(Box<DeviceStats>),
}

/// [`RouterStats`] that have not been read yet; all f32, in which counts below 2^24 are exact.
#[derive(Debug, Clone)]
pub struct DeviceStats {
    /// `[experts]`
    pub load: Tensor<1>,
    /// Switch, sequence-wise and z-loss as means over tokens, largest and smallest logit, `[5]`.
    pub values: Tensor<1>,
    /// `[experts]`
    pub bias: Tensor<1>,
    /// Real tokens.
    pub n_tokens: u64,
}

impl Stats {
    /// The values on the host; waits for the device if they are not there.
    ///
    /// # Errors
    /// When the device failed.
    pub fn read(self) -> Result<RouterStats> {
        match self {
            Self::Host(stats) => Ok(stats),
            Self::Gpu(stats) => Ok(stats.decode(&read(stats.flat())?)),
        }
    }
}

impl DeviceStats {
    /// Number of values that [`DeviceStats::flat`] gives.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        2 * self.load.dims()[0] + 5
    }

    /// All values one after the other, `[2 experts + 5]`.
    pub fn flat(&self) -> Tensor<1> {
        Tensor::cat(vec![self.load.clone(), self.bias.clone(), self.values.clone()], 0)
    }

    /// The values that [`DeviceStats::flat`] gave, once they are on the host.
    pub fn decode(&self, flat: &[f32]) -> RouterStats {
        let [n_experts] = self.load.dims();
        let (load, rest) = flat.split_at(n_experts);
        let (bias, values) = rest.split_at(n_experts);
        let sum = |mean: f32| if self.n_tokens > 0 { f64::from(mean) * self.n_tokens as f64 } else { 0.0 };
        RouterStats {
            load: load.iter().map(|&n| n as u64).collect(),
            n_dropped: 0,
            n_tokens: self.n_tokens,
            switch_sum: sum(values[0]),
            sequence_sum: sum(values[1]),
            z_sum: sum(values[2]),
            logit_max: values[3],
            logit_min: values[4],
            bias: bias.to_vec(),
        }
    }
}
