//! What can be set about every optimizer, and the shape of the learning rate whatever the length of the run.

use super::{Moments, Schedule, ScheduleKind};
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{MANY, float, int};

settings! {
    /// What all rules share.
    pub struct OptimSettings in "optim" {
        /// highest learning rate
        lr: f64 = 2e-3, float(0.0, 10.0);
        /// largest norm of all gradients together
        clip: f64 = 1.0, float(1e-6, 1e9);
        /// type of sums and means of gradients that rules remember; absent: f32. bf16 halves their memory; means of squares
        /// stay in f32
        moments: Option<Moments> = None, Kind::Choice(Moments::WORDS);
        /// skip the update of a step whose loss or gradient norm is more than so many standard deviations above the mean of
        /// the steps before it; absent: none is skipped
        skip_sigma: Option<f64> = None, float(0.0, 1e9);
        /// steps that a new one is compared with, once half of them are there; absent: 128, with optim.skip_sigma
        skip_window: Option<usize> = None, int(6, 1_000_000);
    }
}

settings! {
    /// A schedule before the number of steps is known.
    pub struct ScheduleSettings in "schedule" {
        /// wsd: constant, then a linear fall; cosine, linear: falls from the warm-up to the end; inverse_sqrt: as the root
        /// of warm-up / steps, without an end; constant: never falls
        kind: ScheduleKind = ScheduleKind::Wsd,
            Kind::Choice(&["wsd", "cosine", "linear", "inverse_sqrt", "constant"]);
        /// share of the steps in which the rate rises
        warmup: f64 = 0.05, float(0.0, 1.0);
        /// steps in which the rate rises; absent: the share schedule.warmup of all steps
        warmup_steps: Option<u64> = None, int(0, MANY);
        /// share of the steps in which wsd falls, 0 for never; without effect on the others
        decay: f64 = 0.3, float(0.0, 1.0);
        /// last steps in which wsd falls, 0 for never; absent: the share schedule.decay of all steps
        decay_steps: Option<u64> = None, int(0, MANY);
        /// steps after which wsd has fallen and begins again at the highest rate; schedule.decay is then a share of them;
        /// absent: it falls once, at the end
        period_steps: Option<u64> = None, int(1, MANY);
        /// last rate as a share of the highest
        floor: f64 = 0.1, float(0.0, 1.0);
    }
}

/// A share of all steps, rounded.
fn share_of(share: f64, n_steps: u64) -> u64 {
    (share * n_steps as f64).round() as u64
}

impl ScheduleSettings {
    /// The schedule of a run of `n_steps` steps whose highest rate is `peak`. Shares are rounded; warm-up and
    /// fall never overlap, and a share above 0 to fall in is at least one step.
    pub fn of(&self, peak: f64, n_steps: u64) -> Schedule {
        let warmup = self.warmup_steps.unwrap_or_else(|| share_of(self.warmup, n_steps)).min(n_steps);
        let least = u64::from(self.decay > 0.0);
        let period = self.period_steps.map_or(n_steps, |period| period.min(n_steps));
        let decay = self.decay_steps.unwrap_or_else(|| share_of(self.decay, period).max(least));
        let decay = decay.min(n_steps - warmup);
        Schedule {
            kind: self.kind,
            peak,
            warmup,
            decay,
            period: self.period_steps,
            floor: self.floor,
            n_steps,
        }
    }

    /// What is wrong with it for a run of any length.
    pub fn problem(&self) -> Option<String> {
        let Self { warmup, decay, .. } = self;
        let is_of_shares = self.warmup_steps.is_none() && self.decay_steps.is_none();
        let problem =
            format!("schedule.warmup = {warmup} and schedule.decay = {decay} are more than the whole run");
        (self.kind == ScheduleKind::Wsd && is_of_shares && warmup + decay > 1.0).then_some(problem)
    }

    /// Refuses it for a run of `n_steps` steps if it does not fit in.
    ///
    /// # Errors
    /// The problem.
    pub fn check_steps(&self, n_steps: u64) -> Result<(), String> {
        let warmup = self.warmup_steps.unwrap_or(0);
        let decay = match self.kind {
            ScheduleKind::Wsd => self.decay_steps.unwrap_or(0),
            ScheduleKind::Cosine
            | ScheduleKind::Linear
            | ScheduleKind::InverseSqrt
            | ScheduleKind::Constant => 0,
        };
        if warmup.saturating_add(decay) <= n_steps {
            return Ok(());
        }
        Err(format!(
            "schedule.warmup_steps = {warmup} and schedule.decay_steps = {decay} are more than the {n_steps} steps of \
             the run"
        ))
    }
}
