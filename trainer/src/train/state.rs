//! Everything a training step changes.

use crate::data::{Batch, DataDigest};
use crate::model::Model;
use crate::optim::Optimizer;

/// The state of a run: what a checkpoint holds, and nothing else.
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
    /// Targets learnt from, padding and masked tokens excluded.
    pub tokens_seen: u64,
    /// Hash of all samples read.
    pub digest: DataDigest,
}

impl TrainState {
    /// Counts a step that was made on this batch.
    pub(super) fn advance(&mut self, batch: &Batch) {
        self.step += 1;
        self.t = batch.first_t + batch.len() as u64;
        self.tokens_seen += batch.n_targets() as u64;
    }
}
