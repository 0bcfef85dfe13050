//! Per-token losses gathered by source, pass and variant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::{Batch, Corpus};
use crate::exact;

/// A sum of losses over targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Sum of losses in nats.
    #[serde(with = "exact")]
    pub sum: f64,
    /// Targets.
    pub n_targets: u64,
    /// UTF-8 bytes of the targets.
    pub n_bytes: u64,
}

impl Mean {
    /// Mean loss in nats; `None` without targets.
    pub fn nats(&self) -> Option<f64> {
        (self.n_targets > 0).then(|| self.sum / self.n_targets as f64)
    }

    /// Bits per byte; `None` without bytes.
    pub fn bits_per_byte(&self) -> Option<f64> {
        let nats = self.nats()?;
        (self.n_bytes > 0).then(|| crate::objective::bits_per_byte(nats, self.n_targets, self.n_bytes))
    }

    fn add(&mut self, loss: f64, n_bytes: u64) {
        self.sum += loss;
        self.n_targets += 1;
        self.n_bytes += n_bytes;
    }
}

/// Losses of all targets, and by source, pass and variant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupLosses {
    /// All targets.
    pub all: Mean,
    /// By pool number.
    pub sources: BTreeMap<u16, Mean>,
    /// By pass over the pool, from 0.
    pub passes: BTreeMap<u32, Mean>,
    /// By variant; 0 is the original.
    pub variants: BTreeMap<u8, Mean>,
}

impl GroupLosses {
    /// Adds the losses of a batch.
    ///
    /// # Shapes
    /// - losses: one for each token of the batch
    pub fn add(&mut self, batch: &Batch, losses: &[f32], corpus: &Corpus) {
        for (index, &loss) in losses.iter().enumerate().filter(|(index, _)| batch.loss_mask[*index]) {
            let (loss, id) = (f64::from(loss), batch.ids[index / batch.seq_len]);
            let token = batch.targets[index] as usize;
            let n_bytes = corpus.token_bytes.get(token).copied().map_or(0, u64::from);
            self.all.add(loss, n_bytes);
            self.sources.entry(id.pool).or_default().add(loss, n_bytes);
            self.passes.entry(id.pass).or_default().add(loss, n_bytes);
            self.variants.entry(batch.variants[index]).or_default().add(loss, n_bytes);
        }
    }
}
