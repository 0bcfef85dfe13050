//! Counter-based randomness: every number is a pure function of (seed, name, index).
//!
//! Nothing here has a state, so nothing has to be saved to resume, and the initial value of a parameter does
//! not depend on the order in which the model is built.

use std::f64::consts::TAU;

/// An endless sequence of random numbers, addressed by index.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of a seed and a name, such as the name of a parameter.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut key = mix(seed ^ 0x6d6f_652d_7472_6169);
        for byte in name.bytes() {
            key = mix(key ^ u64::from(byte));
        }
        Self { key }
    }

    /// 64 random bits.
    pub fn bits(self, index: u64) -> u64 {
        mix(self.key ^ mix(index))
    }

    /// A number in the open interval (0, 1), with 53 random bits.
    pub fn uniform(self, index: u64) -> f64 {
        ((self.bits(index) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A standard normal number (Box-Muller; indices 2i and 2i+1 share one pair of uniforms).
    pub fn normal(self, index: u64) -> f64 {
        let pair = index & !1;
        let radius = (-2.0 * self.uniform(pair).ln()).sqrt();
        let angle = TAU * self.uniform(pair + 1);
        if index & 1 == 0 { radius * angle.cos() } else { radius * angle.sin() }
    }
}

/// The finalizer of SplitMix64 over an incremented state: a bijection of 64 bits in which every
/// input bit changes about half of the output bits.
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first two outputs of the published generator with seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let (stream, n) = (Stream::new(1, "w"), 100_000u64);
        let values: Vec<f64> = (0..n).map(|i| stream.normal(i)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.02, "variance {variance}");
    }

    #[test]
    fn names_and_seeds_give_other_numbers() {
        let bits = |seed, name| Stream::new(seed, name).bits(0);
        assert_ne!(bits(1, "a"), bits(1, "b"));
        assert_ne!(bits(1, "a"), bits(2, "a"));
        assert_eq!(bits(1, "a"), bits(1, "a"));
    }
}
