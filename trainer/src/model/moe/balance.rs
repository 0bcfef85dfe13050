//! Keeping experts evenly loaded: auxiliary losses, the loss-free bias, and how uneven a load is.
//!
//! Notation: T real tokens, E experts, k choices per token, logits z, scores p (softmax) or
//! s (sigmoid), `n_i` the number of choices of expert i; padding is in none of them.
//!
//! * Switch loss (Fedus et al. 2021, arXiv 2101.03961, eq. 4-6): `E * sum_i f_i P_i`, with
//!   `f_i = n_i / (kT)` a constant and `P_i = mean_t p_ti`; it is 1 at perfect balance. For
//!   sigmoid scores p is `s / sum_j s_j`. The counts in it come from the choice without bias.
//! * Sequence-wise loss (DeepSeek-V3, arXiv 2412.19437, eq. 17-20): the same over each sample,
//!   averaged over samples.
//! * z-loss (Zoph et al. 2022, arXiv 2202.08906, eq. 5): `mean_t (log sum_i exp z_ti)^2`.
//! * Loss-free bias (Wang et al. 2024, arXiv 2408.15664, algorithm 1): see [`bias_step`].

use burn::tensor::{Tensor, TensorData};

use crate::model::config::{BalanceConfig, ScoreFunction};
use crate::model::input::ValidMask;

/// Counts and values of one router over one or more micro-batches.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterStats {
    /// Tokens dispatched to each expert.
    pub load: Vec<u64>,
    /// Tokens that were not dispatched to a chosen expert; always 0 here, and counted all the same.
    pub n_dropped: u64,
    /// Real tokens.
    pub n_tokens: u64,
    /// Switch loss without coefficient, summed over real tokens.
    pub switch_sum: f64,
    /// Sequence-wise loss without coefficient, summed over real tokens.
    pub sequence_sum: f64,
    /// z-loss without coefficient, summed over real tokens.
    pub z_sum: f64,
    /// Largest logit.
    pub logit_max: f32,
    /// Smallest logit.
    pub logit_min: f32,
    /// Selection bias of each expert.
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
    /// Largest share of the choices: `1/E` is perfect, `1/k` worst.
    pub max_load: f64,
}

impl RouterStats {
    /// Adds another micro-batch of the same step.
    pub fn merge(&mut self, other: &Self) {
        for (sum, n) in self.load.iter_mut().zip(&other.load) {
            *sum += n;
        }
        self.n_dropped += other.n_dropped;
        self.n_tokens += other.n_tokens;
        self.switch_sum += other.switch_sum;
        self.sequence_sum += other.sequence_sum;
        self.z_sum += other.z_sum;
        self.logit_max = self.logit_max.max(other.logit_max);
        self.logit_min = self.logit_min.min(other.logit_min);
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

    /// Largest minus smallest selection bias.
    pub fn bias_range(&self) -> f32 {
        let max = self.bias.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = self.bias.iter().copied().fold(f32::INFINITY, f32::min);
        max - min
    }
}

/// The selection bias after one optimizer step: `b_i + rate * (d_i - mean d)`, where `d_i` is the
/// sign of `mean n - n_i`. Taking the mean off keeps the biases from drifting together, which
/// would change nothing but their rounding.
pub fn bias_step(bias: &[f32], load: &[u64], rate: f64) -> Vec<f32> {
    let n_experts = load.len() as i128;
    let total: i128 = load.iter().map(|&n| i128::from(n)).sum();
    // Signs of integers: a mean in floating point could miss an exact balance.
    let sign: Vec<f64> = load.iter().map(|&n| (total - i128::from(n) * n_experts).signum() as f64).collect();
    let mean = sign.iter().sum::<f64>() / n_experts as f64;
    bias.iter().zip(&sign).map(|(b, d)| (f64::from(*b) + rate * (d - mean)) as f32).collect()
}

/// [`bias_step`] on the device, in f32. Counts above 2^24 are rounded, which moves a bias only
/// where a load is equal to the mean but for that rounding.
///
/// # Shapes
/// - bias, load: `[experts]`, and so is the result
pub fn bias_step_on_device(bias: Tensor<1>, load: Tensor<1>, rate: f64) -> Tensor<1> {
    let sign = (load.clone().mean() - load).sign();
    bias + (sign.clone() - sign.mean()) * rate
}

/// `log(sum(exp(row)))` without overflow.
pub(super) fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + row.iter().map(|z| (z - max).exp()).sum::<f32>().ln()
}

/// The balance of one batch: the constants of the losses, and their values.
pub(super) struct Balance {
    n_experts: usize,
    score: ScoreFunction,
    /// `f_i / T`, so that `E * sum_ti p_ti * switch_weight_i` is the loss.
    switch_weight: Vec<f32>,
    /// The same for each sample, `[samples, experts]`.
    sequence_weight: Vec<f32>,
    switch: f64,
    sequence: f64,
    z: f64,
    n_tokens: usize,
    logit_max: f32,
    logit_min: f32,
}

impl Balance {
    pub(super) fn new(
        logits: &[f32],
        unbiased: &[Option<u32>],
        n_experts: usize,
        top_k: usize,
        score: ScoreFunction,
        valid: &ValidMask,
    ) -> Self {
        let (samples, seq) = (valid.n_samples(), valid.n_tokens() / valid.n_samples());
        let mut counts = vec![0u64; samples * n_experts];
        let mut mass = vec![0f64; samples * n_experts];
        let mut tokens = vec![0u64; samples];
        let mut this = Self {
            n_experts,
            score,
            switch_weight: vec![0.0; n_experts],
            sequence_weight: vec![0.0; samples * n_experts],
            switch: 0.0,
            sequence: 0.0,
            z: 0.0,
            n_tokens: valid.n_valid(),
            logit_max: f32::NEG_INFINITY,
            logit_min: f32::INFINITY,
        };
        for (token, row) in logits.chunks_exact(n_experts).enumerate() {
            if !valid.is_valid(token) {
                continue;
            }
            let sample = token / seq;
            tokens[sample] += 1;
            for expert in unbiased[token * top_k..(token + 1) * top_k].iter().flatten() {
                counts[sample * n_experts + *expert as usize] += 1;
            }
            let log_sum = log_sum_exp(row);
            this.z += f64::from(log_sum).powi(2);
            let sum: f32 = row.iter().map(|z| sigmoid(*z)).sum();
            for (expert, &z) in row.iter().enumerate() {
                let share = match score {
                    ScoreFunction::Softmax => (z - log_sum).exp(),
                    ScoreFunction::Sigmoid => sigmoid(z) / sum,
                };
                mass[sample * n_experts + expert] += f64::from(share);
                this.logit_max = this.logit_max.max(z);
                this.logit_min = this.logit_min.min(z);
            }
        }
        this.weigh(&counts, &mass, &tokens, top_k);
        this
    }

    /// Turns counts and probability masses into the losses' constants and values.
    fn weigh(&mut self, counts: &[u64], mass: &[f64], tokens: &[u64], top_k: usize) {
        let n = self.n_experts;
        let total = self.n_tokens.max(1) as f64;
        let samples_used = tokens.iter().filter(|&&t| t > 0).count() as f64;
        for (sample, &seq_tokens) in tokens.iter().enumerate() {
            let seq_tokens = seq_tokens as f64;
            for expert in 0..n {
                let at = sample * n + expert;
                self.switch_weight[expert] += (counts[at] as f64 / (top_k as f64 * total * total)) as f32;
                if seq_tokens > 0.0 {
                    let weight = counts[at] as f64 / (top_k as f64 * seq_tokens * seq_tokens * samples_used);
                    self.sequence_weight[at] = weight as f32;
                    self.sequence += n as f64 * weight * mass[at];
                }
            }
        }
        for expert in 0..n {
            let mass: f64 = mass.iter().skip(expert).step_by(n).sum();
            self.switch += n as f64 * f64::from(self.switch_weight[expert]) * mass;
        }
    }

    /// The losses that are switched on, times their coefficients.
    pub(super) fn losses(
        &self,
        logits: Tensor<2>,
        scores: Tensor<2>,
        coefficients: &BalanceConfig,
        valid: &ValidMask,
    ) -> Option<Tensor<1>> {
        if self.n_tokens == 0 {
            return None;
        }
        let device = logits.device();
        let (n, samples) = (self.n_experts, valid.n_samples());
        let tokens = valid.n_tokens();
        let constant = |values: &[f32], rows: usize| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), [rows, 1, n]), &device)
        };
        let mut losses: Vec<Tensor<1>> = Vec::new();
        if coefficients.switch > 0.0 || coefficients.sequence > 0.0 {
            let shares = match self.score {
                ScoreFunction::Softmax => scores,
                ScoreFunction::Sigmoid => scores.clone() / scores.sum_dim(1).add_scalar(1e-20),
            };
            let shares = (shares * valid.column()).reshape([samples, tokens / samples, n]);
            let weighted = constant(&self.switch_weight, 1) * (n as f64 * coefficients.switch)
                + constant(&self.sequence_weight, samples) * (n as f64 * coefficients.sequence);
            losses.push((shares * weighted).sum());
        }
        if coefficients.z > 0.0 {
            // The largest logit is subtracted as a constant: its gradient cancels.
            let max = logits.clone().detach().max_dim(1);
            let log_sum = (logits - max.clone()).exp().sum_dim(1).log() + max;
            let square = log_sum.clone() * log_sum * valid.column();
            losses.push(square.sum() * (coefficients.z / self.n_tokens as f64));
        }
        losses.into_iter().reduce(|a, b| a + b)
    }

    pub(super) fn into_stats(self, load: Vec<u64>, bias: Vec<f32>) -> RouterStats {
        let n_tokens = self.n_tokens as f64;
        RouterStats {
            load,
            n_dropped: 0,
            n_tokens: self.n_tokens as u64,
            switch_sum: self.switch * n_tokens,
            sequence_sum: self.sequence * n_tokens,
            z_sum: self.z,
            logit_max: self.logit_max,
            logit_min: self.logit_min,
            bias,
        }
    }
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn stats(load: &[u64]) -> RouterStats {
        RouterStats {
            load: load.to_vec(),
            n_dropped: 0,
            n_tokens: 0,
            switch_sum: 0.0,
            sequence_sum: 0.0,
            z_sum: 0.0,
            logit_max: 0.0,
            logit_min: 0.0,
            bias: vec![0.0; load.len()],
        }
    }

    #[test]
    fn summary_of_even_and_collapsed_loads() {
        let even = stats(&[5, 5, 5, 5]).summary();
        assert_eq!((even.max_violation, even.n_dead, even.max_load), (0.0, 0, 0.25));
        assert!((even.entropy - 1.0).abs() < 1e-12 && (even.effective_experts - 4.0).abs() < 1e-9);
        let collapsed = stats(&[20, 0, 0, 0]).summary();
        assert_eq!((collapsed.max_violation, collapsed.n_dead, collapsed.entropy), (3.0, 3, 0.0));
    }

    #[test]
    fn bias_moves_against_the_load_and_does_not_drift() {
        let bias = bias_step(&[0.0; 4], &[10, 1, 1, 0], 0.1);
        // Signs are -1, 1, 1, 1; their mean 0.5 is taken off.
        for (b, expected) in bias.iter().zip([-0.15, 0.05, 0.05, 0.05]) {
            assert!((b - expected).abs() < 1e-7, "{bias:?}");
        }
        assert!(bias.iter().sum::<f32>().abs() < 1e-7);
        assert_eq!(bias_step(&[0.5, -0.5], &[3, 3], 0.1), [0.5, -0.5]);
    }

    #[test]
    fn losses_by_hand() {
        // Two tokens, two experts, top-1. Token 0 has p = (0.75, 0.25), token 1 p = (0.5, 0.5);
        // both choose expert 0, so f = (1, 0), P_0 = 0.625 and the loss is 2 * 0.625. The
        // log-sums are ln 4 and ln 2.
        let device = Device::flex();
        let logits = [3f32.ln(), 0.0, 0.0, 0.0];
        let valid = ValidMask::new(vec![true, true], 1, &device);
        let choices = [Some(0), Some(0)];
        let balance = Balance::new(&logits, &choices, 2, 1, ScoreFunction::Softmax, &valid);
        assert!((balance.switch - 1.25).abs() < 1e-6);
        assert!((balance.sequence - 1.25).abs() < 1e-6);
        assert!((balance.z - (4f64.ln().powi(2) + 2f64.ln().powi(2))).abs() < 1e-6);

        let logits = Tensor::<2>::from_data(TensorData::new(logits.to_vec(), [2, 2]), &device);
        let scores = burn::tensor::activation::softmax(logits.clone(), 1);
        let coefficients = BalanceConfig { bias_rate: 0.0, switch: 0.1, sequence: 0.0, z: 0.01 };
        let loss: f32 = balance.losses(logits, scores, &coefficients, &valid).expect("on").into_scalar();
        let expected = 0.1 * 1.25 + 0.01 * (4f64.ln().powi(2) + 2f64.ln().powi(2)) / 2.0;
        assert!((f64::from(loss) - expected).abs() < 1e-6, "{loss} {expected}");
    }

    #[test]
    fn padding_enters_no_count_and_no_loss() {
        let device = Device::flex();
        let logits = [3f32.ln(), 0.0, 0.0, 0.0, 50.0, -50.0];
        let padded = ValidMask::new(vec![true, true, false], 1, &device);
        let bare = ValidMask::new(vec![true, true], 1, &device);
        let choices = [Some(0), Some(0), None];
        let a = Balance::new(&logits, &choices, 2, 1, ScoreFunction::Sigmoid, &padded);
        let b = Balance::new(&logits[..4], &choices[..2], 2, 1, ScoreFunction::Sigmoid, &bare);
        assert_eq!((a.switch, a.sequence, a.z), (b.switch, b.sequence, b.z));
        assert_eq!((a.logit_max, a.n_tokens), (b.logit_max, b.n_tokens));
    }
}
