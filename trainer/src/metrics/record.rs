//! The keys of a line, and where their values come from.

use serde_json::{Map, Value};

use super::groups::{GroupLosses, Mean};
use super::interval::{Interval, RouterInterval};
use super::loads::{GroupLoads, information, shares};
use crate::data::Corpus;
use crate::model::config::BalanceConfig;
use crate::model::moe::RouterStats;
use crate::tasks::TaskResult;
use crate::train::TrainState;

/// Version of the keys and their meaning.
pub const SCHEMA: u32 = 2;

/// What a line needs in addition to its interval.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The state after the last step.
    pub state: &'a TrainState,
    /// The data.
    pub corpus: &'a Corpus,
    /// Coefficients of the balancing losses.
    pub balance: &'a BalanceConfig,
    /// Root mean square of the last update, over all parameters.
    pub update_rms: f64,
    /// Root mean square of the trained parameters.
    pub weight_rms: f64,
    /// The same for each group, the rest first; none if there is only one group.
    pub groups: Vec<GroupFacts>,
    /// Samples of the last step, if steps differ in size.
    pub batch: Option<usize>,
    /// Whether updates may be skipped.
    pub can_skip: bool,
    /// Floating-point operations of a token.
    pub flops_per_token: u64,
    /// Peak of the device in TFLOP/s, if known.
    pub peak_tflops: Option<f64>,
}

/// What a line needs about a group.
#[derive(Debug)]
pub struct GroupFacts {
    /// Root mean square of the last update, over its parameters.
    pub update_rms: f64,
    /// Root mean square of its parameters.
    pub weight_rms: f64,
    /// Norm of its gradients in the last step, before clipping.
    pub grad_norm: f64,
}

impl Interval {
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

    /// The line.
    pub fn record(&self, facts: &Facts) -> Map<String, Value> {
        let Facts { state, corpus, balance, .. } = *facts;
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
        put(&mut line, "optim/update_rms", facts.update_rms);
        put(&mut line, "optim/weight_rms", facts.weight_rms);
        for (index, group) in facts.groups.iter().enumerate() {
            put(&mut line, &format!("optim/group/{index}/grad_norm"), group.grad_norm);
            put(&mut line, &format!("optim/group/{index}/update_rms"), group.update_rms);
            put(&mut line, &format!("optim/group/{index}/weight_rms"), group.weight_rms);
        }
        if facts.can_skip {
            put(&mut line, "optim/skipped", self.n_skipped);
            put(&mut line, "optim/updates", state.updates());
        }
        self.speed(&mut line, facts);
        put(&mut line, "data/t", state.t);
        if let Some(batch) = facts.batch {
            put(&mut line, "data/batch", batch);
        }
        put(&mut line, "data/tokens_seen", state.tokens_seen);
        let read = |t| corpus.samples.tokens_before(t);
        put(&mut line, "data/tokens_read", read(state.t).saturating_sub(read(state.origin.t)));
        put(&mut line, "data/hash", state.digest.hash().to_string());
        for of_layer in &self.routers {
            router(&mut line, of_layer);
            loads(&mut line, &format!("router/{}", of_layer.layer), &of_layer.groups, corpus);
        }
        line
    }

    fn speed(&self, line: &mut Map<String, Value>, facts: &Facts) {
        let tokens_per_second = self.tokens_per_second();
        put(line, "perf/tokens_per_s", tokens_per_second);
        put(line, "perf/data_wait", self.waited / self.seconds.max(1e-9));
        let tflops = tokens_per_second * facts.flops_per_token as f64 / 1e12;
        put(line, "perf/tflops", tflops);
        if let Some(peak) = facts.peak_tflops {
            put(line, "perf/mfu", tflops / peak);
        }
    }

    /// Writes the auxiliary losses, without coefficient and averaged over layers, and returns
    /// their contribution to the objective, with coefficient and summed over layers.
    fn auxiliary(&self, line: &mut Map<String, Value>, balance: &BalanceConfig) -> f64 {
        if self.routers.is_empty() {
            return 0.0;
        }
        let mut contribution = 0.0;
        for balancer in balance.all() {
            let losses = self.routers.iter().filter_map(|router| router.mean_loss(balancer.name()));
            let (n, total) = losses.fold((0, 0.0), |(n, total), loss| (n + 1, total + loss));
            if n > 0 {
                put(line, &format!("train/{}", balancer.name()), total / f64::from(n));
                contribution += balancer.coefficient() * total;
            }
        }
        contribution
    }
}

/// The choices of one router on a validation set.
#[derive(Debug, Clone)]
pub struct ValidatedRouter {
    /// Its block.
    pub layer: usize,
    /// Over the whole set.
    pub stats: RouterStats,
    /// By source.
    pub groups: GroupLoads,
}

/// The line of a validation; `average` is the loss of the moving average of the weights, `routers` are by
/// layer.
pub fn validation_record(
    step: u64,
    losses: &GroupLosses,
    average: Option<&Mean>,
    unigram: f64,
    routers: &[ValidatedRouter],
    corpus: &Corpus,
) -> Map<String, Value> {
    let mut line = Map::new();
    put(&mut line, "schema", SCHEMA);
    put(&mut line, "step", step);
    mean(&mut line, "validation", &losses.all);
    if let Some(average) = average {
        self::mean(&mut line, "validation/ema", average);
    }
    put(&mut line, "validation/unigram_ce", unigram);
    for (pool, losses) in &losses.sources {
        mean(&mut line, &format!("validation/source/{}", corpus.pool_name(*pool)), losses);
    }
    for router in routers {
        let (summary, prefix) = (router.stats.summary(), format!("validation/router/{}", router.layer));
        put(&mut line, &format!("{prefix}/maxvio"), summary.max_violation);
        put(&mut line, &format!("{prefix}/e_eff"), summary.effective_experts);
        put(&mut line, &format!("{prefix}/dead"), summary.n_dead);
        put(&mut line, &format!("{prefix}/max_load"), summary.max_load);
        loads(&mut line, &prefix, &router.groups, corpus);
    }
    line
}

/// The line of task results.
pub fn tasks_record(step: u64, results: &[TaskResult]) -> Map<String, Value> {
    let mut line = Map::new();
    put(&mut line, "schema", SCHEMA);
    put(&mut line, "step", step);
    for result in results {
        for (name, value) in result.all.to_json() {
            put(&mut line, &format!("task/{}/{name}", result.name), value);
        }
        for (group, summary) in &result.groups {
            for metric in &summary.metrics {
                put(&mut line, &format!("task/{}/{group}/{}", result.name, metric.name), metric.value);
            }
        }
    }
    line
}

/// The loads of each source and pass; with only one, the total load says the same.
fn loads(line: &mut Map<String, Value>, prefix: &str, groups: &GroupLoads, corpus: &Corpus) {
    let GroupLoads { sources, passes } = groups;
    if sources.len() > 1 {
        for (pool, load) in sources {
            put(line, &format!("{prefix}/source/{}/load", corpus.pool_name(*pool)), shares(load));
        }
        put(line, &format!("{prefix}/source_information"), information(sources.values()));
    }
    if passes.len() > 1 {
        for (pass, load) in passes {
            put(line, &format!("{prefix}/pass/{pass}/load"), shares(load));
        }
        put(line, &format!("{prefix}/pass_information"), information(passes.values()));
    }
}

fn router(line: &mut Map<String, Value>, router: &RouterInterval) {
    let n_steps = router.n_steps.max(1) as f64;
    let total = router.load.iter().sum::<u64>();
    let mut put = |key: &str, value: Value| {
        line.insert(format!("router/{}/{key}", router.layer), value);
    };
    let shares = router.load.iter().map(|&n| n as f64 / total.max(1) as f64);
    put("load", shares.collect::<Vec<_>>().into());
    put("maxvio", (router.max_violation_sum / n_steps).into());
    put("h_norm", (router.entropy_sum / n_steps).into());
    put("e_eff", (router.effective_sum / n_steps).into());
    put("dead", (router.dead_sum as f64 / n_steps).into());
    put("max_load", (router.max_load_sum / n_steps).into());
    put("rows_min", router.fewest_rows.into());
    put("rows_mean", (total as f64 / n_steps / router.load.len().max(1) as f64).into());
    put("rows_max", router.most_rows.into());
    put("dropped", router.n_dropped.into());
    put("confidence", (router.confidence / router.n_tokens.max(1) as f64).into());
    put("bias_range", router.bias_range.into());
    put("logit_max", router.logit_max.into());
    put("logit_min", router.logit_min.into());
    for (name, loss) in router.mean_losses() {
        put(name, loss.into());
    }
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
