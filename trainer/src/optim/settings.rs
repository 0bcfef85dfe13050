//! Settings shared by all optimizers, and the learning rate schedule for a run of any length.

use super::{Moments, Schedule, ScheduleKind};
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{MANY, float, int};

settings! {
    /// Settings shared by all rules.
    pub struct OptimSettings in "optim" {
        /// highest learning rate
        lr: f64 = 2e-3, float(0.0, 10.0);
        /// largest norm of all gradients combined
        clip: f64 = 1.0, float(1e-6, 1e9);
        /// type of the sums and means of gradients that rules keep; absent: f32. bf16 halves their memory;
        /// means of squares stay in f32
        moments: Option<Moments> = None, Kind::Choice(Moments::WORDS);
        /// skip the update of a step whose loss or gradient norm is more than this many standard deviations
        /// above the mean of the steps before it; absent: never
        skip_sigma: Option<f64> = None, float(0.0, 1e9);
        /// number of earlier steps to compare with, once half of them exist; absent: 128, with
        /// optim.skip_sigma
        skip_window: Option<usize> = None, int(6, 1_000_000);
    }
}

settings! {
    /// A schedule, before the number of steps is known.
    pub struct ScheduleSettings in "schedule" {
        /// wsd: constant, then a linear decay; cosine, linear: decay from the warm-up to the end;
        /// inverse_sqrt: as the root of warm-up / steps, without an end; constant: no decay
        kind: ScheduleKind = ScheduleKind::Wsd,
            Kind::Choice(&["wsd", "cosine", "linear", "inverse_sqrt", "constant"]);
        /// fraction of the steps in which the rate rises
        warmup: f64 = 0.05, float(0.0, 1.0);
        /// steps in which the rate rises; absent: the fraction schedule.warmup of all steps
        warmup_steps: Option<u64> = None, int(0, MANY);
        /// tokens in which the rate rises, up to the end of the step that reads the last of them; absent: in
        /// steps or a fraction
        warmup_tokens: Option<u64> = None, int(0, MANY);
        /// fraction of the steps in which wsd decays, 0 for never; no effect on the others
        decay: f64 = 0.3, float(0.0, 1.0);
        /// final steps in which wsd decays, 0 for never; absent: the fraction schedule.decay of all steps
        decay_steps: Option<u64> = None, int(0, MANY);
        /// final tokens in which wsd decays, from the start of the step that reads the first of them; absent:
        /// in steps or a fraction
        decay_tokens: Option<u64> = None, int(0, MANY);
        /// length of a wsd cycle in steps, after which the rate starts again at its highest; schedule.decay
        /// is then a fraction of it; absent: one decay, at the end
        period_steps: Option<u64> = None, int(1, MANY);
        /// the same in tokens: every cycle has as many steps as the first one, which ends with the step that
        /// reads the last of them; absent: in steps
        period_tokens: Option<u64> = None, int(1, MANY);
        /// final rate as a fraction of the highest
        floor: f64 = 0.1, float(0.0, 1.0);
    }
}

/// The smallest number of steps from which on a condition is true; `most` if it is false for all below it.
fn least(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut from, mut to) = (0, most);
    while from < to {
        let middle = from + (to - from) / 2;
        if holds(middle) { to = middle } else { from = middle + 1 }
    }
    from
}

/// A fraction of all steps, rounded.
fn share_of(share: f64, n_steps: u64) -> u64 {
    (share * n_steps as f64).round() as u64
}

impl ScheduleSettings {
    /// The schedule of a run of `n_steps` steps whose highest rate is `peak`. Fractions are rounded; warm-up
    /// and decay never overlap, and a decay fraction above 0 is at least one step.
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

    /// Keys for lengths in tokens, each with the key for the same length in steps.
    pub const LENGTHS: [(&'static str, &'static str); 3] = [
        ("schedule.warmup_tokens", "schedule.warmup_steps"),
        ("schedule.decay_tokens", "schedule.decay_steps"),
        ("schedule.period_tokens", "schedule.period_steps"),
    ];

    /// The lengths in tokens as keys and values in steps, for a run of `n_steps` steps that reads the plan
    /// from step `from` on; `tokens_before` says how many of its tokens all steps before a given one read.
    ///
    /// # Errors
    /// If a length is more tokens than there are, or counts from a first step whose tokens are unknown.
    pub fn lengths_in_steps(
        &self,
        from: u64,
        n_steps: u64,
        tokens_before: impl Fn(u64) -> u64,
    ) -> Result<Vec<(&'static str, &'static str, u64)>, String> {
        let given = [self.warmup_tokens, self.decay_tokens, self.period_tokens];
        let (all, mut lengths) = (tokens_before(n_steps), Vec::new());
        for ((key, in_steps), tokens) in Self::LENGTHS.into_iter().zip(given) {
            let Some(tokens) = tokens else { continue };
            let is_last = key == "schedule.decay_tokens";
            if from > 0 && !is_last {
                return Err(format!(
                    "{key} counts from the first step, but the run read another plan before step {}: set {in_steps}",
                    from + 1
                ));
            }
            if tokens > all {
                let of = if from > 0 { "that the run will read of this plan" } else { "of the run" };
                return Err(format!(
                    "{key} = {tokens} is more than the {all} tokens {of}, including padding"
                ));
            }
            // The fewest steps that read this many.
            let n = least(n_steps.saturating_sub(from), |n| match is_last {
                true => all - tokens_before(n_steps - n) >= tokens,
                false => tokens_before(n) >= tokens,
            });
            lengths.push((key, in_steps, n));
        }
        Ok(lengths)
    }

    /// Problems that it has for a run of any length.
    pub fn problem(&self) -> Option<String> {
        let twice = [
            ("warmup", self.warmup_steps, self.warmup_tokens),
            ("decay", self.decay_steps, self.decay_tokens),
            ("period", self.period_steps, self.period_tokens),
        ];
        if let Some((name, ..)) = twice.iter().find(|(_, steps, tokens)| steps.is_some() && tokens.is_some())
        {
            return Some(format!(
                "schedule.{name}_steps and schedule.{name}_tokens say the same thing in two ways; keep one"
            ));
        }
        let Self { warmup, decay, .. } = self;
        let lengths = [self.warmup_steps, self.warmup_tokens, self.decay_steps, self.decay_tokens];
        let is_of_shares = lengths.iter().all(Option::is_none);
        let problem = format!("schedule.warmup = {warmup} and schedule.decay = {decay} exceed the whole run");
        (self.kind == ScheduleKind::Wsd && is_of_shares && warmup + decay > 1.0).then_some(problem)
    }

    /// Refuses it for a run of `n_steps` steps if it does not fit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_tokens_are_those_of_the_steps_that_read_them() {
        // Three steps of 20 tokens, then six of 40: 20, 40, 60, 100, 140, 180, 220, 260, 300 tokens.
        let tokens_before = |step: u64| 20 * step + 20 * step.saturating_sub(3);
        let of = |warmup, decay, period| {
            let settings = ScheduleSettings {
                warmup_tokens: Some(warmup),
                decay_tokens: Some(decay),
                period_tokens: Some(period),
                ..ScheduleSettings::default()
            };
            let lengths = settings.lengths_in_steps(0, 9, tokens_before).expect("as many tokens");
            lengths.into_iter().map(|(_, _, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(of(20, 40, 100), [1, 1, 4]);
        assert_eq!(of(21, 41, 101), [2, 2, 5]);
        assert_eq!(of(0, 0, 1), [0, 0, 1]);
        // The last 240 tokens begin after the third step; with one more the third is among them.
        assert_eq!(of(60, 240, 300), [3, 6, 9]);
        assert_eq!(of(60, 241, 300), [3, 7, 9]);
        assert_eq!(of(60, 300, 300), [3, 9, 9]);
        assert_eq!(ScheduleSettings::default().lengths_in_steps(0, 9, tokens_before), Ok(Vec::new()));
        let decay = |tokens, from| {
            let settings = ScheduleSettings { decay_tokens: Some(tokens), ..Default::default() };
            settings.lengths_in_steps(from, from + 9, |step| tokens_before(step - from))
        };
        // From step 1,000 on another plan is read.
        assert_eq!(decay(240, 1_000).expect("as many tokens")[0].2, 6);
        assert!(decay(301, 1_000).is_err_and(|problem| problem.contains("more than the 300 tokens")));
        let warmup = ScheduleSettings { warmup_tokens: Some(1), ..Default::default() };
        assert!(warmup.lengths_in_steps(1_000, 1_009, tokens_before).is_err());
        let both = ScheduleSettings { decay_steps: Some(1), decay_tokens: Some(1), ..Default::default() };
        assert!(both.problem().is_some_and(|problem| problem.contains("schedule.decay_tokens")));
    }
}
