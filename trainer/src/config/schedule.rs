//! The shape of the learning rate, whatever the length of the run.

use super::Reader;
use crate::optim::{Schedule, ScheduleKind};

/// A schedule before the number of steps is known.
#[derive(Debug, Clone)]
pub(super) struct ScheduleShape {
    kind: ScheduleKind,
    peak: f64,
    warmup: Extent,
    decay: Extent,
    floor: f64,
}

/// A part of a run.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// Of all steps.
    Share(f64),
    /// Of any run.
    Steps(u64),
}

impl Extent {
    fn new(from: &Reader, share: &str, steps: &str) -> Self {
        let steps = from.optional_int(steps).map(|n| Self::Steps(n as u64));
        steps.unwrap_or_else(|| Self::Share(from.float(share)))
    }

    fn of(self, n_steps: u64) -> u64 {
        match self {
            Self::Share(share) => (share * n_steps as f64).round() as u64,
            Self::Steps(n) => n,
        }
    }
}

impl ScheduleShape {
    pub(super) fn new(from: &Reader) -> Result<Self, String> {
        let kind = from.text("schedule.kind");
        Ok(Self {
            kind: ScheduleKind::find(&kind)
                .ok_or_else(|| format!("`schedule.kind`: no schedule {kind:?}"))?,
            peak: from.float("optim.lr"),
            warmup: Extent::new(from, "schedule.warmup", "schedule.warmup_steps"),
            decay: Extent::new(from, "schedule.decay", "schedule.decay_steps"),
            floor: from.float("schedule.floor"),
        })
    }

    /// The schedule of a run of `n_steps` steps. Shares are rounded; warm-up and fall never overlap,
    /// and a share above 0 to fall in is at least one step.
    pub(super) fn of(&self, n_steps: u64) -> Schedule {
        let warmup = self.warmup.of(n_steps).min(n_steps);
        let decay = match self.decay {
            Extent::Share(share) if share > 0.0 => self.decay.of(n_steps).max(1),
            decay => decay.of(n_steps),
        };
        let decay = decay.min(n_steps - warmup);
        Schedule { kind: self.kind, peak: self.peak, warmup, decay, floor: self.floor, n_steps }
    }

    /// What is wrong with it for a run of any length.
    pub(super) fn problem(&self) -> Option<String> {
        match (self.kind, self.warmup, self.decay) {
            (ScheduleKind::Wsd, Extent::Share(warmup), Extent::Share(decay)) if warmup + decay > 1.0 => {
                Some(format!(
                    "schedule.warmup = {warmup} and schedule.decay = {decay} are more than the whole run"
                ))
            }
            _ => None,
        }
    }

    /// What is wrong with it for a run of `n_steps` steps.
    ///
    /// # Errors
    /// The problem.
    pub(super) fn check_steps(&self, n_steps: u64) -> Result<(), String> {
        let in_steps = |extent, of: u64| if matches!(extent, Extent::Steps(_)) { of } else { 0 };
        let warmup = in_steps(self.warmup, self.warmup.of(n_steps));
        let decay = match self.kind {
            ScheduleKind::Wsd => in_steps(self.decay, self.decay.of(n_steps)),
            ScheduleKind::Cosine | ScheduleKind::Constant => 0,
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
