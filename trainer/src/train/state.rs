//! Everything a training step changes.

use super::{Average, Spikes};
use crate::data::{Batch, DataDigest};
use crate::model::Model;
use crate::optim::Optimizer;

/// A place in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// First sample of the next one.
    pub t: u64,
    /// Training targets so far.
    pub tokens_seen: u64,
}

/// The state of a run: exactly what a checkpoint stores.
#[derive(Debug, Clone)]
pub struct TrainState {
    /// The parameters.
    pub model: Model,
    /// The moments.
    pub optimizer: Optimizer,
    /// Steps done.
    pub step: u64,
    /// Samples read; the next step starts at this t.
    pub t: u64,
    /// Where the run began: step 0, or where it forked from another one.
    pub origin: Position,
    /// Training targets so far, without padding and masked tokens.
    pub tokens_seen: u64,
    /// Hash of all samples read.
    pub digest: DataDigest,
    /// Losses and norms that tell a spike from a normal step, and how many were skipped.
    pub spikes: Spikes,
    /// The moving average of the weights, once it has begun.
    pub average: Option<Average>,
}

impl TrainState {
    /// The state before the first step.
    pub fn new(model: Model, optimizer: Optimizer) -> Self {
        let origin = Position::default();
        let Position { step, t, tokens_seen } = origin;
        Self {
            model,
            optimizer,
            step,
            t,
            origin,
            tokens_seen,
            digest: DataDigest::new(),
            spikes: Spikes::default(),
            average: None,
        }
    }

    /// Updates made: steps that were not skipped.
    pub fn updates(&self) -> u64 {
        self.step.saturating_sub(self.spikes.skipped)
    }

    /// Counts a step on this batch; if it was skipped, nothing was learned from it.
    pub(super) fn advance(&mut self, batch: &Batch, is_skipped: bool) {
        self.step += 1;
        self.t = batch.first_t + batch.len() as u64;
        if is_skipped {
            self.spikes.skipped += 1;
        } else {
            self.tokens_seen += batch.n_targets() as u64;
        }
    }
}
