//! Everything a training step changes.

use crate::data::DataDigest;
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
