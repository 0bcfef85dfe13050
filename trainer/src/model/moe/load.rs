//! The choices of a router in a step, on the host.

use crate::model::record::Values;

/// Counts and values of one router over the batch of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouterStats {
    /// Tokens dispatched to each expert.
    pub load: Vec<u64>,
    /// The same for each sample, one after the other.
    pub loads: Vec<u64>,
    /// Choices that found their expert full.
    pub n_dropped: u64,
    /// Real tokens.
    pub n_tokens: u64,
    /// Each token's largest fraction of its scores, summed over tokens.
    pub confidence: f64,
    /// Losses of all balancers by name, without coefficient.
    pub losses: Vec<(&'static str, f64)>,
    /// Largest logit.
    pub logit_max: f32,
    /// Smallest logit.
    pub logit_min: f32,
    /// Selection bias of each expert; empty for a router without one.
    pub bias: Vec<f32>,
}

/// How uneven a load is.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSummary {
    /// `(max n - mean n) / mean n` (Wang et al. 2024, section 4.1): 0 is perfect, `E/k - 1` worst.
    pub max_violation: f64,
    /// Entropy of the load divided by `ln E`: 1 is perfect.
    pub entropy: f64,
    /// `exp` of the entropy: how many evenly loaded experts would be as spread out.
    pub effective_experts: f64,
    /// Experts without a token.
    pub n_dead: usize,
    /// Largest fraction of the choices: `1/E` is perfect, `1/k` worst.
    pub max_load: f64,
}

/// Name of the loads among the values of a router.
pub(super) const LOAD: &str = "load";
/// Name of the loads of each sample among the values of a router.
pub(super) const LOADS: &str = "loads";
/// Name of the number of dropped choices among the values of a router.
pub(super) const DROPPED: &str = "dropped";
/// Name of the sum of the largest fractions among the values of a router.
pub(super) const CONFIDENCE: &str = "confidence";
/// Name of the selection biases among the values of a router.
pub(super) const BIAS: &str = "bias";
/// Name of the largest logit among the values of a router.
pub(super) const LOGIT_MAX: &str = "logit_max";
/// Name of the smallest logit among the values of a router.
pub(super) const LOGIT_MIN: &str = "logit_min";

impl RouterStats {
    /// The values of a layer for a batch of `n_tokens` real tokens.
    pub fn new(values: &Values, n_tokens: u64) -> Self {
        let mut stats = Self { n_tokens, ..Self::default() };
        for (name, numbers) in values.iter() {
            match name {
                LOAD => stats.load = numbers.iter().map(|&n| n as u64).collect(),
                LOADS => stats.loads = numbers.iter().map(|&n| n as u64).collect(),
                DROPPED => stats.n_dropped = numbers[0] as u64,
                CONFIDENCE => stats.confidence = numbers[0],
                BIAS => stats.bias = numbers.iter().map(|&b| b as f32).collect(),
                LOGIT_MAX => stats.logit_max = numbers[0] as f32,
                LOGIT_MIN => stats.logit_min = numbers[0] as f32,
                loss => stats.losses.push((loss, numbers[0])),
            }
        }
        stats
    }

    /// Tokens of each sample that were dispatched to each expert.
    pub fn by_sample(&self) -> std::slice::ChunksExact<'_, u64> {
        self.loads.chunks_exact(self.load.len().max(1))
    }

    /// Adds another step; the sum no longer has counts of single samples.
    pub fn merge(&mut self, other: &Self) {
        for (sum, n) in self.load.iter_mut().zip(&other.load) {
            *sum += n;
        }
        self.loads.clear();
        self.n_dropped += other.n_dropped;
        self.confidence += other.confidence;
        let (a, b) = (self.n_tokens as f64, other.n_tokens as f64);
        for ((_, mean), (_, new)) in self.losses.iter_mut().zip(&other.losses) {
            *mean = (*mean * a + new * b) / (a + b).max(1.0);
        }
        self.n_tokens += other.n_tokens;
        self.logit_max = self.logit_max.max(other.logit_max);
        self.logit_min = self.logit_min.min(other.logit_min);
    }

    /// The loss of the balancer of this name, without coefficient.
    pub fn loss(&self, name: &str) -> Option<f64> {
        self.losses.iter().find(|(found, _)| *found == name).map(|(_, loss)| *loss)
    }

    /// How uneven the load is.
    pub fn summary(&self) -> LoadSummary {
        let total = self.load.iter().sum::<u64>().max(1) as f64;
        let n_experts = self.load.len() as f64;
        let max_load = self.load.iter().copied().max().unwrap_or(0) as f64 / total;
        let entropy: f64 = self
            .load
            .iter()
            .filter(|&&n| n > 0)
            .map(|&n| n as f64 / total)
            .map(|share| -share * share.ln())
            .sum();
        LoadSummary {
            max_violation: max_load * n_experts - 1.0,
            entropy: if self.load.len() > 1 { entropy / n_experts.ln() } else { 1.0 },
            effective_experts: entropy.exp(),
            n_dead: self.load.iter().filter(|&&n| n == 0).count(),
            max_load,
        }
    }

    /// Largest minus smallest selection bias; 0 without one.
    pub fn bias_range(&self) -> f32 {
        let max = self.bias.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = self.bias.iter().copied().fold(f32::INFINITY, f32::min);
        if self.bias.is_empty() { 0.0 } else { max - min }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(load: &[u64]) -> RouterStats {
        RouterStats { load: load.to_vec(), ..RouterStats::default() }
    }

    #[test]
    fn summary_of_even_and_collapsed_loads() {
        let even = stats(&[5, 5, 5, 5]).summary();
        assert_eq!((even.max_violation, even.n_dead, even.max_load), (0.0, 0, 0.25));
        assert!((even.entropy - 1.0).abs() < 1e-12 && (even.effective_experts - 4.0).abs() < 1e-9);
        let collapsed = stats(&[20, 0, 0, 0]).summary();
        assert_eq!((collapsed.max_violation, collapsed.n_dead, collapsed.entropy), (3.0, 3, 0.0));
    }
}
