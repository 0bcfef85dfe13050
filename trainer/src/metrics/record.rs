//! The keys of a line and where their values come from.

use serde_json::{Map, Value};

use super::groups::{GroupLosses, Mean};
use crate::data::{Batch, Corpus};
use crate::model::config::BalanceConfig;
use crate::model::moe::RouterStats;
use crate::train::{StepReport, TrainState};

/// Version of the keys and their meaning.
pub const SCHEMA: u32 = 1;

/// What happened since the last line.
#[derive(Debug, Clone, Default)]
pub struct Interval {
    n_steps: u64,
    n_clipped: u64,
    n_tokens: u64,
    seconds: f64,
    losses: GroupLosses,
    routers: Vec<(usize, RouterStats)>,
    grad_norm: f64,
    rate: f64,
}

impl Interval {
    /// Adds a step that took `seconds`.
    pub fn add(&mut self, report: &StepReport, batch: &Batch, corpus: &Corpus, seconds: f64) {
        self.n_steps += 1;
        self.n_clipped += u64::from(report.clip_factor < 1.0);
        self.n_tokens += batch.tokens.len() as u64;
        self.seconds += seconds;
        self.losses.add(batch, &report.losses, corpus);
        self.grad_norm = report.grad_norm;
        self.rate = report.rate;
        for (index, (layer, stats)) in report.routers.iter().enumerate() {
            match self.routers.get_mut(index) {
                Some((_, sum)) => {
                    sum.merge(stats);
                    sum.bias.clone_from(&stats.bias);
                }
                None => self.routers.push((*layer, stats.clone())),
            }
        }
    }

    /// Whether there was no step.
    pub fn is_empty(&self) -> bool {
        self.n_steps == 0
    }

    /// Mean loss in nats.
    pub fn cross_entropy(&self) -> f64 {
        self.losses.all.nats().unwrap_or(f64::NAN)
    }

    /// Tokens per second, padding included.
    pub fn tokens_per_second(&self) -> f64 {
        self.n_tokens as f64 / self.seconds.max(1e-9)
    }

    /// The largest MaxVio of any router; 0 for a dense model.
    pub fn worst_max_violation(&self) -> f64 {
        self.routers.iter().map(|(_, stats)| stats.summary().max_violation).fold(0.0, f64::max)
    }

    /// The line.
    pub fn record(&self, state: &TrainState, balance: &BalanceConfig, corpus: &Corpus) -> Map<String, Value> {
        let mut line = Map::new();
        put(&mut line, "schema", SCHEMA);
        put(&mut line, "step", state.step);
        let ce = self.cross_entropy();
        put(&mut line, "train/ce", ce);
        mean(&mut line, "train", &self.losses.all);
        let auxiliary = self.auxiliary(&mut line, balance);
        put(&mut line, "train/total", ce + auxiliary);
        for (pool, losses) in &self.losses.sources {
            mean(&mut line, &format!("train/source/{}", corpus.pool_name(*pool)), losses);
        }
        for (pass, losses) in &self.losses.passes {
            mean(&mut line, &format!("train/pass/{pass}"), losses);
        }
        for (variant, losses) in &self.losses.variants {
            mean(&mut line, &format!("train/variant/{variant}"), losses);
        }
        put(&mut line, "optim/lr", self.rate);
        put(&mut line, "optim/grad_norm", self.grad_norm);
        put(&mut line, "optim/clip_frac", self.n_clipped as f64 / self.n_steps.max(1) as f64);
        put(&mut line, "perf/tokens_per_s", self.tokens_per_second());
        put(&mut line, "data/t", state.t);
        put(&mut line, "data/tokens_seen", state.tokens_seen);
        put(&mut line, "data/hash", state.digest.hash().to_string());
        for (layer, stats) in &self.routers {
            router(&mut line, *layer, stats);
        }
        line
    }

    /// Writes the auxiliary losses, without coefficient and averaged over layers, and returns
    /// their contribution to the objective, with coefficient and summed over layers.
    fn auxiliary(&self, line: &mut Map<String, Value>, balance: &BalanceConfig) -> f64 {
        if self.routers.is_empty() {
            return 0.0;
        }
        let total = |value: fn(&RouterStats) -> f64| -> f64 {
            self.routers.iter().map(|(_, stats)| value(stats) / stats.n_tokens.max(1) as f64).sum()
        };
        let n = self.routers.len() as f64;
        let (switch, sequence, z) =
            (total(|stats| stats.switch_sum), total(|stats| stats.sequence_sum), total(|stats| stats.z_sum));
        put(line, "train/aux_switch", switch / n);
        put(line, "train/aux_sequence", sequence / n);
        put(line, "train/z", z / n);
        balance.switch * switch + balance.sequence * sequence + balance.z * z
    }
}

/// The line of a validation.
pub fn validation_record(
    step: u64,
    losses: &GroupLosses,
    unigram: f64,
    corpus: &Corpus,
) -> Map<String, Value> {
    let mut line = Map::new();
    put(&mut line, "schema", SCHEMA);
    put(&mut line, "step", step);
    mean(&mut line, "validation", &losses.all);
    put(&mut line, "validation/unigram_ce", unigram);
    for (pool, losses) in &losses.sources {
        mean(&mut line, &format!("validation/source/{}", corpus.pool_name(*pool)), losses);
    }
    line
}

fn router(line: &mut Map<String, Value>, layer: usize, stats: &RouterStats) {
    let summary = stats.summary();
    let n_tokens = stats.n_tokens.max(1) as f64;
    let total = stats.load.iter().sum::<u64>().max(1) as f64;
    let mut put = |key: &str, value: Value| {
        line.insert(format!("router/{layer}/{key}"), value);
    };
    put("load", stats.load.iter().map(|&n| n as f64 / total).collect::<Vec<_>>().into());
    put("maxvio", summary.max_violation.into());
    put("h_norm", summary.entropy.into());
    put("e_eff", summary.effective_experts.into());
    put("dead", summary.n_dead.into());
    put("max_load", summary.max_load.into());
    put("dropped", stats.n_dropped.into());
    put("bias_range", stats.bias_range().into());
    put("logit_max", stats.logit_max.into());
    put("logit_min", stats.logit_min.into());
    put("z", (stats.z_sum / n_tokens).into());
}

fn mean(line: &mut Map<String, Value>, prefix: &str, mean: &Mean) {
    if let Some(nats) = mean.nats() {
        put(line, &format!("{prefix}/ce"), nats);
    }
    if let Some(bits) = mean.bits_per_byte() {
        put(line, &format!("{prefix}/bpb"), bits);
    }
}

fn put(line: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    line.insert(key.to_string(), value.into());
}
