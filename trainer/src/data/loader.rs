//! Reads the samples of a plan in order, ahead of the training loop.
//!
//! Step s reads the contiguous range of the next `batch` values of t. Threads only ask for values
//! of t, so the depth of the prefetch cannot change what is read, and there is nothing to save.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use moe_shards::Sample;

use super::{Batch, DataDigest};
use crate::error::{Error, Result};

/// Something that has a sample for every t: a plan, or a synthetic corpus in a test.
pub trait SampleSource: Send + Sync {
    /// Number of training samples.
    fn len(&self) -> u64;

    /// Whether there are no training samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of the longest sample, padding included.
    fn seq_len(&self) -> usize;

    /// Tokens of the training samples before `t`, padding included.
    fn tokens_before(&self, t: u64) -> u64 {
        t.saturating_mul(self.seq_len() as u64)
    }

    /// Training sample `t`.
    ///
    /// # Errors
    /// When the sample cannot be read.
    fn sample(&self, t: u64) -> Result<Sample>;

    /// Number of validation samples.
    fn validation_len(&self) -> u64;

    /// Validation sample `i`.
    ///
    /// # Errors
    /// When the sample cannot be read.
    fn validation_sample(&self, i: u64) -> Result<Sample>;
}

/// Delivers batches in order.
pub struct Loader {
    source: Arc<dyn SampleSource>,
    rest: Range<u64>,
    digest: DataDigest,
    ahead: Option<Ahead>,
}

/// The thread that reads ahead, and where it puts what it read.
struct Ahead {
    samples: Receiver<Result<Sample>>,
    thread: JoinHandle<()>,
}

impl Loader {
    /// Reads samples `range` with up to `prefetch` of them ready ahead; 0 reads when asked.
    pub fn new(
        source: Arc<dyn SampleSource>,
        range: Range<u64>,
        prefetch: usize,
        digest: DataDigest,
    ) -> Self {
        let ahead = (prefetch > 0).then(|| Ahead::spawn(source.clone(), range.clone(), prefetch));
        Self { source, rest: range, digest, ahead }
    }

    /// The next `n` samples.
    ///
    /// # Errors
    /// When a sample cannot be read, naming its t; [`Error::Data`] past the end of the range.
    pub fn next_batch(&mut self, n: usize) -> Result<Batch> {
        let first_t = self.rest.start;
        let mut samples = Vec::with_capacity(n);
        for _ in 0..n {
            let t = self.rest.next().ok_or_else(|| past_the_end(first_t + samples.len() as u64))?;
            let sample = match &self.ahead {
                None => self.source.sample(t)?,
                Some(ahead) => ahead.samples.recv().map_err(|_| reader_stopped(t))??,
            };
            self.digest = self.digest.then(t, &sample);
            samples.push(sample);
        }
        Ok(Batch::new(first_t, &samples))
    }

    /// The hash of everything delivered so far.
    pub fn digest(&self) -> DataDigest {
        self.digest
    }
}

impl Ahead {
    fn spawn(source: Arc<dyn SampleSource>, range: Range<u64>, prefetch: usize) -> Self {
        let (sender, samples) = sync_channel(prefetch);
        let thread = std::thread::spawn(move || {
            for t in range {
                // An error is delivered at its place in the order; a closed channel means that there is no
                // reader anymore.
                if sender.send(source.sample(t)).is_err() {
                    return;
                }
            }
        });
        Self { samples, thread }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if let Some(Ahead { samples, thread }) = self.ahead.take() {
            drop(samples);
            if thread.join().is_err() {
                // The thread's panic has already been reported by the runtime.
            }
        }
    }
}

/// The channel closes before the end of the range only if the thread panicked.
fn reader_stopped(t: u64) -> Error {
    Error::Data(format!(
        "the thread that reads ahead stopped before sample {t}; try data.prefetch = 0, which reads without it"
    ))
}

fn past_the_end(t: u64) -> Error {
    Error::Data(format!("sample {t} is past the end of what this run reads"))
}
