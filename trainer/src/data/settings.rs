//! Settings of the data and how it is batched.

use std::path::PathBuf;

use super::Batches;
use crate::settings;
use crate::settings::value::Kind;
use crate::settings::{MANY, WIDE, int};

settings! {
    /// Shards, batches and reading ahead.
    pub struct DataSettings in "data" {
        /// folder of the shards and the plan
        shards: PathBuf = "out".into(), Kind::Path, free;
        /// samples per optimizer step
        batch: usize = 8, int(1, WIDE);
        /// fewer samples in the first steps, as in ["2 until step 100", "4 until sample 2000"]: a pure
        /// function of the step, each a multiple of the one before, and data.batch a multiple of the last.
        /// Schedules count steps of any size
        batch_ramp: Option<Vec<String>> = None, Kind::Texts("[\"2 until step 100\", \"4 until sample 2000\"]");
        /// samples per forward pass; absent: the whole batch. Affects memory and the rounding of sums; with
        /// moe.balance.switch, less than the batch costs another forward pass for counting. With
        /// moe.capacity, quantile balancing or expert choice it affects what is learned: a resumed run then
        /// keeps it
        micro_batch: Option<usize> = None, int(1, WIDE), free;
        /// samples read ahead by a thread; 0: read when needed
        prefetch: usize = 16, int(0, WIDE), free;
        /// validation samples used, from the first
        validation_samples: u64 = 64, int(1, MANY), free;
    }
}

impl DataSettings {
    /// Samples of each step.
    ///
    /// # Errors
    /// What is wrong with the ramp.
    pub fn batches(&self) -> Result<Batches, String> {
        Batches::new(self.batch_ramp.as_deref().unwrap_or_default(), self.batch)
    }

    /// Samples per forward pass.
    pub fn samples_per_pass(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch)
    }
}
