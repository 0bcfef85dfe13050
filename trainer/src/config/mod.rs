//! The configuration of a run: strict TOML, checked as a whole before any work.
//!
//! Defaults < preset or file < `--set` < the flags of single keys. What the data knows (vocabulary,
//! sequence length, number of samples) is never typed in.

pub mod keys;
mod parse;
mod preset;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;

use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::model::config::{AttentionConfig, BalanceConfig, Compute, ModelConfig, MoeConfig, RouterConfig};
use crate::model::moe::router_shape;
use crate::optim::{Rule, Schedule, rule};
use crate::train::StepConfig;

pub use crate::settings::value;
use crate::settings::value::Value;
pub use parse::{Change, Values};
pub use preset::{PRESETS, Preset};
use schedule::ScheduleShape;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The values it was made from.
    pub values: Values,
    /// Seed of the initial parameters.
    pub seed: u64,
    /// Optimizer steps; absent until the plan is known.
    pub steps: Option<u64>,
    /// Device asked for.
    pub device: DeviceChoice,
    /// Steps between lines of the metrics.
    pub log_every: u64,
    /// Steps between validations.
    pub eval_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Peak of the device in TFLOP/s.
    pub peak_tflops: Option<f64>,
    /// Checkpoints kept.
    pub keep: usize,
    /// Folder of the shards and the plan.
    pub shards: PathBuf,
    /// Whether our kernels may use tensor cores.
    pub tensor_cores: bool,
    /// Whether a block's activations are computed again in the backward pass.
    pub recompute: bool,
    /// Samples of a step.
    pub batch: usize,
    /// Samples of a forward pass.
    pub micro_batch: usize,
    /// Samples read ahead.
    pub prefetch: usize,
    /// Validation samples used.
    pub validation_samples: u64,
    /// The model, with vocabulary and sequence length still 0.
    model: ModelConfig,
    /// The rule by which parameters move.
    pub rule: Arc<dyn Rule>,
    /// Largest gradient norm.
    pub clip: f64,
    schedule: ScheduleShape,
}

impl RunConfig {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// [`Error::Config`] with `problems` and all that are found here.
    pub fn new(values: Values, mut problems: Vec<String>) -> Result<Self> {
        problems.extend(values.strangers(&keys::KEYS));
        let config = match Self::build(values) {
            Ok(config) => config,
            Err(problem) => {
                problems.push(problem);
                return Err(Error::Config(problems));
            }
        };
        config.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(Error::Config(problems)) }
    }

    /// The run's length, once the plan's is known; it is then one of the values.
    ///
    /// # Errors
    /// [`Error::Config`] when the plan is too short for the steps asked for.
    pub fn with_plan_len(mut self, n_samples: u64) -> Result<Self> {
        let possible = n_samples / self.batch as u64;
        let steps = self.steps.unwrap_or(possible);
        if possible == 0 || steps > possible {
            let asked = match self.steps {
                Some(steps) => format!("run.steps = {steps} with data.batch = {}", self.batch),
                None => format!("one batch of data.batch = {}", self.batch),
            };
            return Err(Error::Config(vec![format!(
                "{asked} needs more than the {n_samples} samples of the plan; lower it, or make a longer \
                 plan with `moe-data mix --epochs N`"
            )]));
        }
        self.schedule.check_steps(steps).map_err(|problem| Error::Config(vec![problem]))?;
        self.steps = Some(steps);
        self.values.set("run.steps", Value::Int(steps as i64));
        Ok(self)
    }

    /// The model for a vocabulary and a sequence length, both of the data.
    pub fn model(&self, vocab_size: usize, seq_len: usize) -> ModelConfig {
        ModelConfig { vocab_size, seq_len, ..self.model.clone() }
    }

    /// What a training step needs, for a run of `n_steps` steps.
    pub fn step_config(&self, n_steps: u64) -> StepConfig {
        StepConfig {
            micro_batch: self.micro_batch,
            clip: self.clip,
            schedule: self.schedule(n_steps),
            seed: self.seed,
            recompute: self.recompute,
        }
    }

    /// The learning rates of a run of `n_steps` steps.
    pub fn schedule(&self, n_steps: u64) -> Schedule {
        self.schedule.of(n_steps)
    }

    /// What is allowed and yet unlikely to be meant.
    pub fn warnings(&self) -> Vec<String> {
        let has_router = self.model.n_dense_layers < self.model.n_layers;
        if has_router { self.model.moe.router.warnings(router_shape(&self.model)) } else { Vec::new() }
    }

    /// The parts that their settings describe.
    ///
    /// # Errors
    /// The first word that names none of them, which every key's own check should have found.
    fn build(values: Values) -> Result<Self, String> {
        let from = Reader(&values);
        let compute = from.text("precision.compute");
        let compute =
            Compute::find(&compute).ok_or_else(|| format!("`precision.compute`: no type {compute:?}"))?;
        let batch = from.int("data.batch") as usize;
        let model = ModelConfig {
            vocab_size: 0,
            seq_len: 0,
            d_model: from.int("model.d_model") as usize,
            n_layers: from.int("model.layers") as usize,
            n_dense_layers: from.int("model.dense_layers") as usize,
            dense_ffn: from.int("model.dense_ffn") as usize,
            norm_eps: from.float("model.norm_eps"),
            tie_embeddings: from.bool("model.tie_embeddings"),
            init_std: from.float("model.init_std"),
            compute,
            attention: AttentionConfig::read(&from.text("attention.kind"), &values)?,
            moe: MoeConfig {
                n_experts: from.int("moe.experts") as usize,
                top_k: from.int("moe.top_k") as usize,
                n_shared: from.int("moe.shared") as usize,
                expert_ffn: from.int("moe.expert_ffn") as usize,
                router: RouterConfig::read(&from.text("moe.router.kind"), &values)?,
                balance: BalanceConfig::read(&values)?,
            },
        };
        Ok(Self {
            seed: from.int("run.seed") as u64,
            steps: from.optional_int("run.steps").map(|n| n as u64),
            device: from.text("run.device").parse()?,
            log_every: from.int("run.log_every") as u64,
            eval_every: from.int("run.eval_every") as u64,
            save_every: from.int("run.save_every") as u64,
            peak_tflops: from.optional_float("run.peak_tflops"),
            keep: from.int("run.keep") as usize,
            shards: from.text("data.shards").into(),
            tensor_cores: from.bool("precision.tensor_cores"),
            recompute: from.bool("run.recompute"),
            batch,
            micro_batch: from.optional_int("data.micro_batch").map_or(batch, |n| n as usize),
            prefetch: from.int("data.prefetch") as usize,
            validation_samples: from.int("data.validation_samples") as u64,
            model,
            rule: rule::read(&from.text("optim.kind"), &values)?,
            clip: from.float("optim.clip"),
            schedule: ScheduleShape::new(&from)?,
            values,
        })
    }

    fn check(&self, problems: &mut Vec<String>) {
        problems.extend(self.model.attention.problems(self.model.d_model));
        if self.model.n_dense_layers < self.model.n_layers {
            problems.extend(self.model.moe.router.problems(router_shape(&self.model)));
        }
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let ModelConfig { n_layers, n_dense_layers, moe, .. } = &self.model;
        require(
            n_dense_layers <= n_layers,
            format!("model.dense_layers = {n_dense_layers} is more than model.layers = {n_layers}"),
        );
        let (k, n) = (moe.top_k, moe.n_experts);
        require(k <= n, format!("moe.top_k = {k} is more than moe.experts = {n}"));
        require(
            self.micro_batch <= self.batch,
            format!("data.micro_batch = {} is more than data.batch = {}", self.micro_batch, self.batch),
        );
        let problem = self.schedule.problem();
        require(problem.is_none(), problem.unwrap_or_default());
        // In floating point, which such numbers cannot overflow.
        let [d, ffn, experts, width] =
            [self.model.d_model, self.model.dense_ffn, moe.n_experts + moe.n_shared, moe.expert_ffn]
                .map(|n| n as f64);
        let about = *n_layers as f64 * d * (4.0 * d + 3.0 * ffn + 3.0 * experts * width);
        require(
            about < MOST_PARAMETERS,
            format!(
                "the model has up to {about:.1e} parameters: lower model.layers, model.d_model, moe.experts or \
                 moe.expert_ffn"
            ),
        );
    }
}

/// No machine has memory for so many, and counts of bytes and operations stay below 2^64.
const MOST_PARAMETERS: f64 = 1e15;

/// Reads values that are known to be there: every key that is read so has a default, and every
/// value was checked against the key's kind, so the fallbacks below are never used.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn optional_int(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(Value::Int(n)) => Some(n),
            _ => None,
        }
    }

    fn int(&self, name: &str) -> i64 {
        self.optional_int(name).unwrap_or_default()
    }

    fn optional_float(&self, name: &str) -> Option<f64> {
        match self.0.get(name) {
            Some(Value::Float(x)) => Some(x),
            _ => None,
        }
    }

    fn float(&self, name: &str) -> f64 {
        self.optional_float(name).unwrap_or_default()
    }

    fn bool(&self, name: &str) -> bool {
        self.0.get(name) == Some(Value::Bool(true))
    }

    fn text(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Value::Text(text)) => text.into_owned(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(assignments: &[&str]) -> Result<RunConfig> {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        for assignment in assignments {
            values.read_assignment(assignment, &mut problems);
        }
        RunConfig::new(values, problems)
    }

    #[test]
    fn contradictions_are_all_reported() {
        let error =
            with(&["moe.top_k=9", "attention.kv_heads=3", "data.micro_batch=99", "schedule.decay=0.99"]);
        let text = error.expect_err("four problems").to_string();
        assert!(text.starts_with("4 problems in the configuration:"), "{text}");
        assert!(text.contains("moe.top_k = 9 is more than moe.experts = 8"), "{text}");
    }

    #[test]
    fn a_router_that_cannot_learn_is_refused() {
        assert!(with(&["moe.top_k=1"]).is_err());
        assert!(with(&["moe.top_k=1", "moe.router.norm_weights=false"]).is_ok());
    }

    #[test]
    fn steps_come_from_the_plan() {
        let config = with(&["data.batch=8"]).expect("valid");
        let config = config.with_plan_len(50).expect("long enough");
        assert_eq!(config.steps, Some(6));
        assert!(with(&["run.steps=7"]).expect("valid").with_plan_len(50).is_err());
        assert!(with(&[]).expect("valid").with_plan_len(3).is_err());
    }
}
