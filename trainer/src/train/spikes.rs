//! Skips updates whose loss or gradient is an outlier (SkipStep of OLMo-core): when the loss or the norm of
//! the gradient is more than a given number of standard deviations above the mean of the steps before it. The
//! limits come from completed steps, so a step need not wait for the device to be checked against them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::exact;

/// When a step is skipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SkipConfig {
    /// Standard deviations above the mean at which a step is skipped.
    pub sigma: f64,
    /// Steps that a new one is compared with, at least 6; half of them must exist, including the new one.
    pub window: usize,
}

/// Losses and norms of the last steps, and how many steps were skipped; stored in every checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spikes {
    /// Steps whose update was skipped, from the first on.
    pub skipped: u64,
    /// Mean losses in nats, the newest last, including those of skipped steps.
    #[serde(with = "exact::queue")]
    losses: VecDeque<f64>,
    /// Norms of gradients before clipping.
    #[serde(with = "exact::queue")]
    norms: VecDeque<f64>,
}

/// The largest loss and norm with which an update is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Mean loss in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
}

impl Spikes {
    /// The limits of the next step; none while there are too few steps.
    pub fn limits(&self, config: &SkipConfig) -> Option<Limits> {
        let is_enough = self.losses.len() >= 2 && self.losses.len() + 1 >= config.window / 2;
        let limit = |values: &VecDeque<f64>| {
            let first = values.len().saturating_sub(config.window);
            mean_and_deviation(values.iter().skip(first).copied())
        };
        let above = |(mean, deviation): (f64, f64)| mean + config.sigma * deviation;
        is_enough.then(|| Limits { loss: above(limit(&self.losses)), norm: above(limit(&self.norms)) })
    }

    /// Records a step, made or skipped; without a configuration nothing is recorded.
    pub fn push(&mut self, config: Option<&SkipConfig>, loss: f64, norm: f64) {
        let window = config.map_or(0, |config| config.window);
        for (values, value) in [(&mut self.losses, loss), (&mut self.norms, norm)] {
            values.push_back(value);
            values.drain(..values.len().saturating_sub(window));
        }
    }

    /// Why this cannot belong to a run of this many steps.
    pub fn problem(&self, steps: u64) -> Option<String> {
        let (losses, norms) = (self.losses.len(), self.norms.len());
        let is_finite = self.losses.iter().chain(&self.norms).all(|value| value.is_finite());
        let is_whole = losses == norms && losses as u64 <= steps && self.skipped <= steps && is_finite;
        (!is_whole).then(|| {
            format!("{} skipped steps, {losses} losses and {norms} norms of {steps} steps", self.skipped)
        })
    }
}

/// The mean and the sample standard deviation.
fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SkipConfig = SkipConfig { sigma: 2.0, window: 6 };

    #[test]
    fn limits_by_hand() {
        let mut spikes = Spikes::default();
        let mut limits = Vec::new();
        for loss in [1.0, 3.0, 2.0] {
            limits.push(spikes.limits(&CONFIG));
            spikes.push(Some(&CONFIG), loss, 10.0 * loss);
        }
        // Of 1 and 3 the mean is 2, the deviation the root of 2.
        let root = 2.0f64.sqrt();
        let expected = Limits { loss: 2.0 + 2.0 * root, norm: 20.0 + 20.0 * root };
        let found = limits[2].expect("two steps are enough");
        assert!((found.loss - expected.loss).abs() < 1e-12 && (found.norm - expected.norm).abs() < 1e-12);
        assert_eq!(limits[..2], [None, None]);
        for _ in 0..6 {
            spikes.push(Some(&CONFIG), 5.0, 7.0);
        }
        assert_eq!(spikes.limits(&CONFIG), Some(Limits { loss: 5.0, norm: 7.0 }));
        spikes.push(None, 5.0, 7.0);
        assert_eq!((spikes.limits(&CONFIG), &spikes), (None, &Spikes::default()));
    }

    #[test]
    fn every_bit_comes_back_and_impossible_states_are_refused() {
        let mut spikes = Spikes { skipped: 1, ..Spikes::default() };
        spikes.push(Some(&CONFIG), 0.1 + 0.2, 1e-310);
        let text = serde_json::to_string(&spikes).expect("numbers");
        assert_eq!(serde_json::from_str::<Spikes>(&text).expect("the same"), spikes);
        assert_eq!((spikes.problem(1), spikes.problem(0).is_some()), (None, true));
        spikes.push(Some(&CONFIG), f64::NAN, 1.0);
        assert!(spikes.problem(9).is_some());
    }
}
