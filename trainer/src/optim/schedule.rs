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
    /// Last steps in which `wsd` falls; the others take no notice of it.
    pub decay: u64,
    /// Last rate as a share of the highest.
    pub floor: f64,
    /// Steps of the run.
    pub n_steps: u64,
}

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Constant, then a linear fall (Hu et al. 2024, arXiv 2404.06395, section 4).
    Wsd,
    /// Half a cosine from the end of the warm-up to the end (Loshchilov & Hutter 2017,
    /// arXiv 1608.03983, eq. 5, without restarts).
    Cosine,
    /// Nothing: the highest rate to the end.
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
        let after_warmup = self.n_steps.saturating_sub(self.warmup);
        let fall = match self.kind {
            ScheduleKind::Wsd => self.decay.min(after_warmup),
            ScheduleKind::Cosine => after_warmup,
            ScheduleKind::Constant => 0,
        };
        if fall == 0 {
            return self.peak;
        }
        let start = self.n_steps - fall;
        // 0 before the fall, 1 at the last step.
        let progress = ((step + 1).saturating_sub(start) as f64 / fall as f64).min(1.0);
        let remaining = match self.kind {
            ScheduleKind::Wsd | ScheduleKind::Constant => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ScheduleKind, expected: &[(u64, f64)]) {
        let schedule = Schedule { kind, peak: 1.0, warmup: 2, decay: 4, floor: 0.1, n_steps: 10 };
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
        // Half way down, after 4 of 8 steps, the rate is the mean of peak and floor.
        check(ScheduleKind::Cosine, &[(0, 0.5), (1, 1.0), (5, 0.55), (9, 0.1)]);
    }

    #[test]
    fn constant_and_wsd_without_decay_never_fall() {
        check(ScheduleKind::Constant, &[(0, 0.5), (1, 1.0), (5, 1.0), (9, 1.0)]);
        let wsd = |warmup, decay, n_steps| {
            let schedule =
                Schedule { kind: ScheduleKind::Wsd, peak: 1.0, warmup, decay, floor: 0.1, n_steps };
            (0..n_steps).map(|step| schedule.rate(step)).collect::<Vec<_>>()
        };
        assert_eq!(wsd(1, 0, 4), [1.0; 4]);
        // A warm-up and a fall that together are longer than the run do not overlap.
        assert_eq!(wsd(2, 3, 4), [0.5, 1.0, 0.55, 0.1]);
        assert_eq!(wsd(4, 3, 4), [0.25, 0.5, 0.75, 1.0]);
    }
}
