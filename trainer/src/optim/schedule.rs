//! Learning rates as pure functions of the step: there is no scheduler state to save.

/// Shape of the learning rate over a run of `n_steps` steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// Highest learning rate.
    pub peak: f64,
    /// Steps in which the rate rises linearly from 0.
    pub warmup: u64,
    /// Final steps in which `wsd` falls; ignored by the others.
    pub decay: u64,
    /// Steps after which `wsd` has fallen and starts again at the peak, repeated until the end of the run,
    /// which also ends the last cycle; absent: it falls once.
    pub period: Option<u64>,
    /// Final rate as a fraction of the highest.
    pub floor: f64,
    /// Steps of the run.
    pub n_steps: u64,
}

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Constant, then a linear fall (Hu et al. 2024, arXiv 2404.06395, section 4), once or repeatedly (Wen et
    /// al. 2024, arXiv 2410.05192).
    Wsd,
    /// Half a cosine from the end of the warm-up to the end (Loshchilov & Hutter 2017,
    /// arXiv 1608.03983, eq. 5, without restarts).
    Cosine,
    /// A straight line from the end of the warm-up to the end.
    Linear,
    /// The peak times the root of warm-up over steps so far (Vaswani et al. 2017, arXiv 1706.03762, eq. 3).
    /// It has no end.
    InverseSqrt,
    /// The highest rate to the end.
    Constant,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0.
    ///
    /// The rate of the last warm-up step is the peak, and that of the last step is the floor.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let (begin, end) = self.period(step);
        let after_warmup = end.saturating_sub(begin.max(self.warmup));
        let fall = match self.kind {
            ScheduleKind::Wsd => self.decay.min(after_warmup),
            ScheduleKind::Cosine | ScheduleKind::Linear => after_warmup,
            ScheduleKind::InverseSqrt => {
                let share = self.warmup.max(1) as f64 / (step + 1) as f64;
                return self.peak * (self.floor + (1.0 - self.floor) * share.sqrt());
            }
            ScheduleKind::Constant => 0,
        };
        if fall == 0 {
            return self.peak;
        }
        let start = end - fall;
        // 0 before the fall, 1 at the last step.
        let progress = ((step + 1).saturating_sub(start) as f64 / fall as f64).min(1.0);
        let remaining = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Wsd | ScheduleKind::Linear | ScheduleKind::InverseSqrt | ScheduleKind::Constant => {
                1.0 - progress
            }
        };
        self.peak * (self.floor + (1.0 - self.floor) * remaining)
    }

    /// The steps before the period of a step, and those up to its end.
    fn period(&self, step: u64) -> (u64, u64) {
        match self.period.filter(|period| self.kind == ScheduleKind::Wsd && *period > 0) {
            Some(period) => {
                let begin = step.min(self.n_steps.saturating_sub(1)) / period * period;
                (begin, begin.saturating_add(period).min(self.n_steps))
            }
            None => (0, self.n_steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ScheduleKind, expected: &[(u64, f64)]) {
        let schedule =
            Schedule { kind, peak: 1.0, warmup: 2, decay: 4, period: None, floor: 0.1, n_steps: 10 };
        for &(step, rate) in expected {
            assert!((schedule.rate(step) - rate).abs() < 1e-12, "{kind:?} {step}: {}", schedule.rate(step));
        }
    }

    #[test]
    fn wsd_rises_stays_and_falls() {
        let expected = [(0, 0.5), (1, 1.0), (2, 1.0), (5, 1.0), (6, 0.775), (7, 0.55), (9, 0.1), (50, 0.1)];
        check(ScheduleKind::Wsd, &expected);
    }

    #[test]
    fn cosine_falls_all_the_way() {
        // Halfway down, after 4 of 8 steps, the rate is the mean of peak and floor.
        check(ScheduleKind::Cosine, &[(0, 0.5), (1, 1.0), (5, 0.55), (9, 0.1)]);
    }

    #[test]
    fn linear_and_inverse_root_fall_to_the_end() {
        // 8 steps from 1 to 0.1: after 4 of them 0.55.
        check(ScheduleKind::Linear, &[(0, 0.5), (1, 1.0), (5, 0.55), (9, 0.1), (50, 0.1)]);
        // The root of 2 / 8 is a half: 0.1 + 0.9 / 2. The root of 2 / 50 is a fifth.
        check(ScheduleKind::InverseSqrt, &[(0, 0.5), (1, 1.0), (7, 0.55), (49, 0.28)]);
        let schedule = |kind, warmup| Schedule {
            kind,
            peak: 1.0,
            warmup,
            decay: 0,
            period: None,
            floor: 0.0,
            n_steps: 4,
        };
        let rates = |kind, warmup| (0..4).map(|step| schedule(kind, warmup).rate(step)).collect::<Vec<_>>();
        assert_eq!(rates(ScheduleKind::Linear, 0), [0.75, 0.5, 0.25, 0.0]);
        assert_eq!(rates(ScheduleKind::Linear, 4), [0.25, 0.5, 0.75, 1.0]);
        assert_eq!(rates(ScheduleKind::InverseSqrt, 0)[3], 0.5);
    }

    #[test]
    fn wsd_falls_again_and_again() {
        let schedule = |period, n_steps| Schedule {
            kind: ScheduleKind::Wsd,
            peak: 1.0,
            warmup: 1,
            decay: 2,
            period: Some(period),
            floor: 0.0,
            n_steps,
        };
        let rates = |period, n_steps| {
            (0..n_steps).map(|step| schedule(period, n_steps).rate(step)).collect::<Vec<_>>()
        };
        assert_eq!(rates(4, 8), [1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 0.5, 0.0]);
        // The end of the run ends the last period; a longer run changes nothing before it.
        assert_eq!(rates(4, 7), [1.0, 1.0, 0.5, 0.0, 1.0, 0.5, 0.0]);
        assert_eq!(rates(4, 5), [1.0, 1.0, 0.5, 0.0, 0.0]);
        assert_eq!(rates(9, 4), [1.0, 1.0, 0.5, 0.0]);
        assert_eq!(schedule(4, 8).rate(50), 0.0);
        // A warm-up that takes the whole first period leaves no steps for the fall.
        let long = Schedule { warmup: 3, ..schedule(2, 6) };
        assert_eq!(
            (0..6).map(|step| long.rate(step) * 3.0).collect::<Vec<_>>(),
            [1.0, 2.0, 3.0, 0.0, 1.5, 0.0]
        );
    }

    #[test]
    fn constant_and_wsd_without_decay_never_fall() {
        check(ScheduleKind::Constant, &[(0, 0.5), (1, 1.0), (5, 1.0), (9, 1.0)]);
        let wsd = |warmup, decay, n_steps| {
            let schedule = Schedule {
                kind: ScheduleKind::Wsd,
                peak: 1.0,
                warmup,
                decay,
                period: None,
                floor: 0.1,
                n_steps,
            };
            (0..n_steps).map(|step| schedule.rate(step)).collect::<Vec<_>>()
        };
        assert_eq!(wsd(1, 0, 4), [1.0; 4]);
        // A warm-up and a fall whose sum is longer than the run do not overlap.
        assert_eq!(wsd(2, 3, 4), [0.5, 1.0, 0.55, 0.1]);
        assert_eq!(wsd(4, 3, 4), [0.25, 0.5, 0.75, 1.0]);
    }
}
