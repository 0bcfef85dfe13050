//! The configuration of a run: strict TOML, checked as a whole before any work.
//!
//! Defaults < preset or file < `--set` < the flags of single keys. What follows from the data (vocabulary,
//! sequence length, number of samples) is never typed in.

mod groups;
pub mod keys;
mod movement;
mod parse;
mod preset;
mod run;

use crate::data::{Batches, DataSettings, SampleSource};
use crate::error::{Error, Result};
use crate::model::PrecisionSettings;
use crate::model::config::{
    AttentionPattern, BalanceConfig, ModelConfig, MoeConfig, Parametrization, RouterConfig,
};
use crate::model::moe::router_shape;
use crate::model::transfer::{ParametrizationKind, StepKind};
use crate::optim::{Groups, OptimSettings, Schedule, ScheduleSettings};
use crate::settings;
use crate::train::{Position, SkipConfig, StepConfig};

pub use crate::settings::value;
use crate::settings::value::Value;
pub use groups::{GROUP, GROUP_DOC};
pub use movement::Movement;
pub use parse::{Change, Values};
pub use preset::{PRESETS, Preset};
pub use run::RunSettings;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The values it was made from.
    pub values: Values,
    /// Length, device and intervals. Its steps are absent until the plan is known.
    pub run: RunSettings,
    /// Shards and batches.
    pub data: DataSettings,
    /// Samples of each step.
    pub batches: Batches,
    /// Types of numbers.
    pub precision: PrecisionSettings,
    /// The model, with vocabulary and sequence length still 0.
    model: ModelConfig,
    /// Which rule updates which parameters.
    pub groups: Groups,
    /// Settings that all rules share.
    pub optim: OptimSettings,
    /// The shape of the learning rate.
    pub schedule: ScheduleSettings,
}

impl RunConfig {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// [`Error::Config`] with `problems` and all that are found here.
    pub fn new(values: Values, mut problems: Vec<String>) -> Result<Self> {
        problems.extend(values.strangers(&keys::KEYS));
        let config = match Self::build(values, &mut problems) {
            Ok(config) => config,
            Err(problem) => {
                problems.push(problem);
                return Err(Error::Config(problems));
            }
        };
        config.check(&mut problems);
        if !problems.is_empty() {
            return Err(Error::Config(problems));
        }
        config.check_groups()?;
        Ok(config)
    }

    /// Sets the length of a run from its start, once the samples are known; it then becomes one of the
    /// values, as do the steps of a schedule that was given in tokens.
    ///
    /// # Errors
    /// [`Error::Config`] when the plan is too short for the steps asked for.
    pub fn with_plan_len(self, samples: &dyn SampleSource) -> Result<Self> {
        self.with_plan(samples, Position::default())
    }

    /// The same for a run that continues from somewhere.
    ///
    /// # Errors
    /// As [`RunConfig::with_plan_len`].
    pub fn with_plan(mut self, samples: &dyn SampleSource, from: Position) -> Result<Self> {
        let n_samples = samples.len();
        let possible = from.step + self.batches.steps(from.step, n_samples.saturating_sub(from.t));
        let steps = self.run.steps.unwrap_or(possible);
        if possible == 0 || steps > possible {
            let asked = match self.run.steps {
                Some(steps) => format!("run.steps = {steps} with data.batch = {}", self.data.batch),
                None => format!("one batch of data.batch = {}", self.data.batch),
            };
            return Err(Error::Config(vec![format!(
                "{asked} needs more than the {n_samples} samples of the plan{}; lower it, or make a longer \
                 plan with `moe-data mix --epochs N`",
                match from.step {
                    0 => String::new(),
                    step => format!(", of which step {} begins at sample {}", step + 1, from.t),
                }
            )]));
        }
        // A run that changed to another plan knows only what it reads of that one.
        let is_one_plan = from.t == self.batches.before(from.step);
        let start = if is_one_plan { Position::default() } else { from };
        let tokens_before = |step| {
            let t = start.t + self.batches.between(start.step, step);
            samples.tokens_before(t) - samples.tokens_before(start.t)
        };
        let lengths = self.schedule.lengths_in_steps(start.step, steps, tokens_before);
        for (tokens, steps, n) in lengths.map_err(|problem| Error::Config(vec![problem]))? {
            self.values.unset(tokens);
            self.values.set(steps, Value::Int(i64::try_from(n).unwrap_or(i64::MAX)));
        }
        self.schedule = settings::read(&self.values).map_err(|problem| Error::Config(vec![problem]))?;
        self.schedule.check_steps(steps).map_err(|problem| Error::Config(vec![problem]))?;
        self.run.steps = Some(steps);
        self.values.set("run.steps", Value::Int(steps as i64));
        Ok(self)
    }

    /// The model for a vocabulary and a sequence length, both of the data.
    pub fn model(&self, vocab_size: usize, seq_len: usize) -> ModelConfig {
        ModelConfig { vocab_size, seq_len, ..self.model.clone() }
    }

    /// Tokens of a forward pass when evaluating tasks: as many as in training, or 1, so that every text is
    /// its own pass, where the tokens of a pass compete.
    pub fn tokens_per_pass(&self, geometry: &ModelConfig) -> usize {
        match geometry.sees_later_tokens() {
            Some(_) => 1,
            None => self.data.samples_per_pass() * geometry.seq_len,
        }
    }

    /// What a training step needs, for a run of `n_steps` steps.
    pub fn step_config(&self, n_steps: u64) -> StepConfig {
        StepConfig {
            micro_batch: self.data.samples_per_pass(),
            clip: self.optim.clip,
            skip: self.skip(),
            average: self.run.average(),
            schedule: self.schedule(n_steps),
            seed: self.run.seed,
            recompute: self.run.recompute,
        }
    }

    /// When updates are skipped; absent: never.
    pub fn skip(&self) -> Option<SkipConfig> {
        let window = self.optim.skip_window.unwrap_or(SKIP_WINDOW);
        self.optim.skip_sigma.map(|sigma| SkipConfig { sigma, window })
    }

    /// The learning rates of a run of `n_steps` steps.
    pub fn schedule(&self, n_steps: u64) -> Schedule {
        self.schedule.of(self.optim.lr, n_steps)
    }

    /// Whether the samples of a forward pass compete with each other, so that `data.micro_batch` decides what
    /// is learned.
    pub fn depends_on_micro_batch(&self) -> bool {
        let moe = &self.model.moe;
        let has_mixture = self.model.n_dense_layers < self.model.n_layers;
        has_mixture
            && (moe.capacity.factor > 0.0 || moe.balance.quantile.quantile || moe.router.sees_the_pass())
    }

    /// Warnings: allowed, but unlikely to be intended.
    pub fn warnings(&self) -> Vec<String> {
        let has_router = self.model.n_dense_layers < self.model.n_layers;
        if has_router { self.model.moe.router.warnings(router_shape(&self.model)) } else { Vec::new() }
    }

    /// The parts described by their settings.
    ///
    /// # Errors
    /// The first word that names none of them, which the key's own check should have found.
    fn build(values: Values, problems: &mut Vec<String>) -> Result<Self, String> {
        let word = |key: &str| values.word(key);
        let precision: PrecisionSettings = settings::read(&values)?;
        let model = ModelConfig::new(
            settings::read(&values)?,
            Parametrization::read(&word("model.parametrization")?, &values)?,
            precision.compute,
            AttentionPattern::read(&values)?,
            MoeConfig::new(
                settings::read(&values)?,
                RouterConfig::read(&word("moe.router.kind")?, &values)?,
                BalanceConfig::read(&values)?,
                settings::read(&values)?,
            ),
        );
        let data: DataSettings = settings::read(&values)?;
        let batches = data.batches().or_else(|problem| {
            problems.push(problem);
            Batches::new(&[], data.batch)
        })?;
        Ok(Self {
            run: settings::read(&values)?,
            data,
            batches,
            precision,
            model,
            groups: movement::groups(&values, problems)?,
            optim: settings::read(&values)?,
            schedule: settings::read(&values)?,
            values,
        })
    }

    fn check(&self, problems: &mut Vec<String>) {
        problems.extend(self.model.attention.problems(self.model.d_model, self.model.n_layers));
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
        let (micro_batch, batch) = (self.data.samples_per_pass(), self.data.batch);
        require(k <= n, format!("moe.top_k = {k} is more than moe.experts = {n}"));
        require(
            micro_batch <= batch,
            format!("data.micro_batch = {micro_batch} is more than data.batch = {batch}"),
        );
        let unused = |key: &str, of: &str| format!("{key} has no effect without {of}");
        let is_unused = self.optim.skip_window.is_some() && self.optim.skip_sigma.is_none();
        require(!is_unused, unused("optim.skip_window", "optim.skip_sigma"));
        let is_unused = self.run.eval_tasks_every.is_some() && self.run.eval_tasks.is_none();
        require(!is_unused, unused("run.eval_tasks_every", "run.eval_tasks"));
        let is_unused = self.run.ema_from.is_some() && self.run.ema_decay.is_none();
        require(!is_unused, unused("run.ema_from", "run.ema_decay"));
        let follows_gradients = self.groups.all().iter().any(|group| group.rule.kind() == StepKind::Gradient);
        require(
            !follows_gradients || self.model.parametrization.kind != ParametrizationKind::Complete,
            "model.parametrization = \"complete\" is for rules whose steps do not grow with the gradient: adamw, lion, muon, \
             normuon; use \"mup\" or \"standard\" with sgd"
                .into(),
        );
        let problem = self.schedule.problem();
        require(problem.is_none(), problem.unwrap_or_default());
        // In floating point, which such numbers cannot overflow.
        let [d, ffn, experts, width] =
            [self.model.d_model, self.model.dense_ffn, moe.n_experts + moe.n_shared, moe.expert_ffn]
                .map(|n| n as f64);
        let attention: f64 = (0..*n_layers)
            .map(|layer| self.model.attention(layer).cost(self.model.d_model, 0).parameters as f64)
            .sum();
        let about = attention + *n_layers as f64 * d * (3.0 * ffn + 3.0 * experts * width);
        require(
            about < MOST_PARAMETERS,
            format!(
                "the model has up to {about:.1e} parameters: lower model.layers, model.d_model, moe.experts or \
                 moe.expert_ffn"
            ),
        );
    }
}

/// Steps that a new one is compared with, as in OLMo-core.
const SKIP_WINDOW: usize = 128;

/// No machine has memory for so many, and counts of bytes and operations stay below 2^64.
const MOST_PARAMETERS: f64 = 1e15;

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

    /// So many samples of 16 tokens, none of which can be read.
    struct Samples(u64);

    impl SampleSource for Samples {
        fn len(&self) -> u64 {
            self.0
        }

        fn seq_len(&self) -> usize {
            16
        }

        fn sample(&self, t: u64) -> Result<moe_shards::Sample> {
            Err(Error::Data(format!("sample {t}")))
        }

        fn validation_len(&self) -> u64 {
            0
        }

        fn validation_sample(&self, i: u64) -> Result<moe_shards::Sample> {
            self.sample(i)
        }
    }

    #[test]
    fn steps_come_from_the_plan() {
        let config = with(&["data.batch=8"]).expect("valid");
        let config = config.with_plan_len(&Samples(50)).expect("long enough");
        assert_eq!(config.run.steps, Some(6));
        // Batches of 8 samples of 16 tokens: 200 tokens are two of them.
        let config = with(&["data.batch=8", "schedule.warmup_tokens=200", "schedule.decay_tokens=128"]);
        let config = config.expect("valid").with_plan_len(&Samples(50)).expect("long enough");
        assert_eq!((config.schedule(6).warmup, config.schedule(6).decay), (2, 1));
        assert!(!config.values.is_given("schedule.warmup_tokens"));
        assert!(with(&["run.steps=7"]).expect("valid").with_plan_len(&Samples(50)).is_err());
        assert!(with(&[]).expect("valid").with_plan_len(&Samples(3)).is_err());
    }
}
