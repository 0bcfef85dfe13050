//! A phase of an open plan: from a step to a pool and a position in that pool's stream.

use std::path::Path;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::interleave::{Counts, Interleaver};
use crate::lock::PlanLock;

#[derive(Debug)]
pub(super) struct Phase {
    rule: Interleaver,
    counts: Counts,
    /// Bins of each pool that earlier phases used.
    used_before: Vec<u64>,
    blocks: Cache<u64, Vec<(u16, u64)>>,
}

/// Opens all phases and checks that they follow one another and that the pools, which have `n_bins` bins,
/// have enough of them.
pub(super) fn open_all(dir: &Path, lock: &PlanLock, n_bins: &[u64]) -> Result<Vec<Phase>> {
    let path = dir.join(PlanLock::FILE);
    let mut used = vec![0u64; n_bins.len()];
    let mut phases = Vec::new();
    let mut expected_start = 0;
    for phase in &lock.phases {
        let rule = Interleaver::new(&phase.quotas)?;
        let serves = |((&n, &used), &quota): ((&u64, &u64), &u64)| used + quota <= n;
        let fits = phase.quotas.len() <= n_bins.len()
            && rule.total() == phase.n_samples
            && phase.shown_samples.is_none_or(|shown| shown <= phase.n_samples)
            && n_bins.iter().zip(&used).zip(&phase.quotas).all(serves);
        if !fits {
            let found = format!("quotas {:?} for {} samples", phase.quotas, phase.n_samples);
            return Err(Error::format(&path, "phase", "quotas that the pools can serve", found));
        }
        if phase.t_start != expected_start {
            return Err(Error::format(&path, "t_start", expected_start, phase.t_start));
        }
        let counts = Counts::open(&dir.join(&phase.counts.file), &rule)?;
        let used_before = used.clone();
        used.iter_mut().zip(&phase.quotas).for_each(|(used, quota)| *used += quota);
        expected_start = phase.t_end();
        phases.push(Phase { rule, counts, used_before, blocks: Cache::default() });
    }
    Ok(phases)
}

impl Phase {
    /// How often each pool was chosen in the steps before `t`.
    pub(super) fn counts_before(&self, t: u64) -> Result<Vec<u64>> {
        if t == 0 {
            return Ok(vec![0; self.rule.n_streams()]);
        }
        let every = self.counts.every();
        // The row before the last step, and a replay up to it.
        let mut counts = self.counts.row((t - 1) / every)?;
        for step in (t - 1) / every * every..t {
            self.rule.next(step, &mut counts)?;
        }
        Ok(counts)
    }

    /// Pool of step `t` of the phase, and the position in that pool's stream.
    pub(super) fn stream_position(&self, t: u64) -> Result<(u16, u64)> {
        let every = self.counts.every();
        let block = self.blocks.get(t / every, || self.block(t / every))?;
        Ok(block[(t % every) as usize])
    }

    fn block(&self, block: u64) -> Result<Vec<(u16, u64)>> {
        let mut counts = self.counts.row(block)?;
        let start = block * self.counts.every();
        let end = (start + self.counts.every()).min(self.rule.total());
        if counts.iter().sum::<u64>() != start {
            return Err(Error::Quota(format!("stored counts {counts:?} do not sum to step {start}")));
        }
        let steps = (start..end).map(|t| {
            let pool = self.rule.next(t, &mut counts)?;
            Ok((pool as u16, self.used_before[pool] + counts[pool] - 1))
        });
        steps.collect()
    }
}
