//! A plan whose shards are compared with their digests: a small data set before the first step, a large one
//! during training. In either case, a document is checked when a sample shows it
//! (`moe_shards::Shard::checked_tokens`); this finds damage in what would only be read hours later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use moe_shards::{Plan, Sample};
use rayon::prelude::*;

use super::SampleSource;
use crate::error::{Error, Result};

/// Shards of up to this many bytes are read before the first step: a few seconds.
pub const AT_ONCE_BYTES: u64 = 4 << 30;

/// The samples of a plan, until its shards are found damaged.
pub struct CheckedPlan {
    plan: Arc<Plan>,
    background: Arc<Background>,
}

/// Shared state of the background check and the reader of samples.
#[derive(Default)]
struct Background {
    /// What is wrong with the shards.
    damage: OnceLock<String>,
    /// Set when there is no reader anymore.
    stop: AtomicBool,
}

impl CheckedPlan {
    /// Checks the shards of a plan; if they are larger than `at_once_bytes` in total, on a separate thread,
    /// whose finding is returned by the next sample.
    ///
    /// # Errors
    /// The first shard that is not as it was written, with the document where that can be told.
    pub fn start(plan: Plan, at_once_bytes: u64) -> Result<CheckedPlan> {
        let checked = CheckedPlan { plan: Arc::new(plan), background: Arc::default() };
        let n_bytes: u64 = checked.plan.shards().iter().map(|shard| shard.bin_bytes()).sum();
        if n_bytes <= at_once_bytes {
            let shards = checked.plan.shards();
            shards.into_par_iter().try_for_each(|shard| shard.verify_tokens(&mut |_| true).map(drop))?;
            return Ok(checked);
        }
        let (plan, background) = (checked.plan.clone(), checked.background.clone());
        std::thread::spawn(move || {
            let mut go_on = |_| !background.stop.load(Ordering::Relaxed);
            for shard in plan.shards() {
                match shard.verify_tokens(&mut go_on) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        background.damage.get_or_init(|| error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(checked)
    }

    fn check(&self) -> Result<()> {
        match self.background.damage.get() {
            None => Ok(()),
            Some(damage) => Err(Error::Data(format!(
                "{damage}\n  hint: restore the shard from a copy or build again, then continue with `moe-train resume`"
            ))),
        }
    }
}

impl Drop for CheckedPlan {
    fn drop(&mut self) {
        self.background.stop.store(true, Ordering::Relaxed);
    }
}

impl SampleSource for CheckedPlan {
    fn len(&self) -> u64 {
        self.plan.len()
    }

    fn seq_len(&self) -> usize {
        self.plan.seq_len()
    }

    fn tokens_before(&self, t: u64) -> u64 {
        let phases = self.plan.lock().phases.iter();
        let of_phase = phases.map(|phase| {
            t.min(phase.t_end()).saturating_sub(phase.t_start).saturating_mul(u64::from(phase.seq_len))
        });
        of_phase.fold(0, u64::saturating_add)
    }

    fn sample(&self, t: u64) -> Result<Sample> {
        self.check()?;
        Ok(self.plan.sample(t)?)
    }

    fn validation_len(&self) -> u64 {
        self.plan.validation_len()
    }

    fn validation_sample(&self, i: u64) -> Result<Sample> {
        self.check()?;
        Ok(self.plan.validation_sample(i)?)
    }
}
