//! Totals since the last line of the metrics. They are part of every checkpoint, so that the next line after
//! a resume is the same as in an uninterrupted run.

use serde::{Deserialize, Serialize};

use super::groups::GroupLosses;
use super::loads::GroupLoads;
use crate::data::{Batch, Corpus};
use crate::exact;
use crate::model::moe::RouterStats;
use crate::train::StepReport;

/// Totals since the last line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interval {
    pub(super) n_steps: u64,
    pub(super) n_clipped: u64,
    pub(super) n_skipped: u64,
    pub(super) n_tokens: u64,
    #[serde(with = "exact")]
    pub(super) seconds: f64,
    #[serde(with = "exact")]
    pub(super) waited: f64,
    pub(super) losses: GroupLosses,
    pub(super) routers: Vec<RouterInterval>,
    #[serde(with = "exact")]
    pub(super) grad_norm: f64,
    #[serde(with = "exact")]
    pub(super) rate: f64,
}

/// Totals of one router. Loads and losses are summed; imbalance is computed for each step and then averaged,
/// since loads that collapse onto different experts in turn would look even in the sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RouterInterval {
    pub(super) layer: usize,
    pub(super) n_steps: u64,
    pub(super) n_tokens: u64,
    pub(super) n_dropped: u64,
    pub(super) load: Vec<u64>,
    pub(super) groups: GroupLoads,
    pub(super) fewest_rows: u64,
    pub(super) most_rows: u64,
    pub(super) losses: Vec<LossSum>,
    /// Each token's largest fraction of its scores, summed over tokens.
    #[serde(with = "exact")]
    pub(super) confidence: f64,
    #[serde(with = "exact")]
    pub(super) logit_max: f64,
    #[serde(with = "exact")]
    pub(super) logit_min: f64,
    /// Of the last step.
    #[serde(with = "exact")]
    pub(super) bias_range: f64,
    #[serde(with = "exact")]
    pub(super) max_violation_sum: f64,
    #[serde(with = "exact")]
    pub(super) entropy_sum: f64,
    #[serde(with = "exact")]
    pub(super) effective_sum: f64,
    #[serde(with = "exact")]
    pub(super) max_load_sum: f64,
    pub(super) dead_sum: u64,
}

/// The loss of a balancer without its coefficient, summed over real tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LossSum {
    name: String,
    #[serde(with = "exact")]
    sum: f64,
}

/// Seconds of a step.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// The whole step.
    pub seconds: f64,
    /// Waiting for samples.
    pub waited: f64,
}

impl Interval {
    /// The interval of a checkpoint.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(value: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    /// The interval for a checkpoint.
    pub fn to_json(&self) -> serde_json::Value {
        // Cannot fail: numbers, strings, and maps whose keys are numbers.
        serde_json::to_value(self).expect("numbers and strings")
    }

    /// Adds a step.
    pub fn add(&mut self, report: &StepReport, batch: &Batch, corpus: &Corpus, took: Took) {
        self.n_steps += 1;
        self.n_clipped += u64::from(report.clip_factor < 1.0);
        self.n_skipped += u64::from(report.is_skipped);
        self.n_tokens += batch.tokens.len() as u64;
        self.seconds += took.seconds;
        self.waited += took.waited;
        self.losses.add(batch, &report.losses, corpus);
        self.grad_norm = report.grad_norm;
        self.rate = report.rate;
        for (index, (layer, stats)) in report.routers.iter().enumerate() {
            if self.routers.len() == index {
                self.routers.push(RouterInterval::new(*layer, stats.load.len()));
            }
            self.routers[index].add(stats);
            self.routers[index].groups.add(batch, stats);
        }
    }
}

impl RouterInterval {
    fn new(layer: usize, n_experts: usize) -> Self {
        Self {
            layer,
            load: vec![0; n_experts],
            fewest_rows: u64::MAX,
            logit_max: f64::NEG_INFINITY,
            logit_min: f64::INFINITY,
            ..Self::default()
        }
    }

    /// The losses of all balancers by name, mean over tokens.
    pub(super) fn mean_losses(&self) -> impl Iterator<Item = (&str, f64)> {
        let n_tokens = self.n_tokens.max(1) as f64;
        self.losses.iter().map(move |loss| (loss.name.as_str(), loss.sum / n_tokens))
    }

    /// The loss of the balancer of this name, mean over tokens.
    pub(super) fn mean_loss(&self, name: &str) -> Option<f64> {
        self.mean_losses().find(|(found, _)| *found == name).map(|(_, loss)| loss)
    }

    fn add(&mut self, stats: &RouterStats) {
        self.n_steps += 1;
        self.n_tokens += stats.n_tokens;
        self.n_dropped += stats.n_dropped;
        self.confidence += stats.confidence;
        for (sum, &rows) in self.load.iter_mut().zip(&stats.load) {
            *sum += rows;
            self.fewest_rows = self.fewest_rows.min(rows);
            self.most_rows = self.most_rows.max(rows);
        }
        for (name, loss) in &stats.losses {
            let sum = loss * stats.n_tokens as f64;
            match self.losses.iter_mut().find(|found| found.name == *name) {
                Some(found) => found.sum += sum,
                None => self.losses.push(LossSum { name: (*name).to_string(), sum }),
            }
        }
        self.logit_max = self.logit_max.max(stats.logit_max.into());
        self.logit_min = self.logit_min.min(stats.logit_min.into());
        self.bias_range = stats.bias_range().into();
        let summary = stats.summary();
        self.max_violation_sum += summary.max_violation;
        self.entropy_sum += summary.entropy;
        self.effective_sum += summary.effective_experts;
        self.max_load_sum += summary.max_load;
        self.dead_sum += summary.n_dead as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Mean;

    #[test]
    fn loads_that_collapse_in_turn_are_not_even() {
        let mut router = RouterInterval::new(0, 2);
        let stats = |load: [u64; 2]| RouterStats {
            load: load.to_vec(),
            n_tokens: 100,
            losses: vec![("z", load[0] as f64)],
            ..RouterStats::default()
        };
        router.add(&stats([100, 0]));
        router.add(&stats([0, 100]));
        assert_eq!(router.load, [100, 100]);
        assert_eq!((router.max_violation_sum / 2.0, router.max_load_sum / 2.0), (1.0, 1.0));
        assert_eq!((router.dead_sum, router.effective_sum / 2.0, router.entropy_sum), (2, 1.0, 0.0));
        assert_eq!((router.fewest_rows, router.most_rows), (0, 100));
        assert_eq!((router.mean_loss("z"), router.mean_loss("y")), (Some(50.0), None));
    }

    #[test]
    fn an_interval_comes_back_from_json_bit_for_bit() {
        let mut interval =
            Interval { n_steps: 3, seconds: 0.1 + 0.2, grad_norm: 1e-310, ..Interval::default() };
        interval.losses.sources.insert(7, Mean { sum: 4.35, n_targets: 2, n_bytes: 5 });
        interval.losses.passes.insert(1 << 20, Mean { sum: 1.0 / 3.0, n_targets: 1, n_bytes: 0 });
        interval.routers.push(RouterInterval::new(2, 4));
        let text = interval.to_json().to_string();
        let value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(Interval::from_json(value), Ok(interval));
        assert!(Interval::from_json(serde_json::json!({ "seconds": "much" })).is_err());
    }
}
