//! Loss on held-out documents.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::data::{Batch, Corpus};
use crate::error::Result;
use crate::metrics::{GroupLoads, GroupLosses, Mean, ValidatedRouter};
use crate::model::Model;
use crate::model::moe::RouterStats;
use crate::model::record::Values;
use crate::objective::{Targets, token_losses, token_ranks};
use crate::ops::read;

/// A validation, with the loss of a model that only knows token frequencies.
#[derive(Debug, Clone)]
pub struct Validation {
    /// Losses, in total and by source.
    pub losses: GroupLosses,
    /// Cross-entropy in nats of the unigram model of the training tokens on the same targets.
    pub unigram: f64,
    /// The choices of each router on the whole validation set, by layer.
    pub routers: Vec<ValidatedRouter>,
    /// Loss of the moving average of the weights, if there is one.
    pub average: Option<Mean>,
}

/// The validation set of a run, for repeated use.
#[derive(Debug)]
pub struct Validator {
    batches: Vec<Batch>,
    unigram: f64,
}

impl Validator {
    /// The first `n_samples` validation samples of a corpus, in batches of `batch`; none if they have nothing
    /// to predict.
    ///
    /// # Errors
    /// When a sample cannot be read.
    pub fn new(corpus: &Corpus, n_samples: u64, batch: usize) -> Result<Option<Self>> {
        let n = corpus.samples.validation_len().min(n_samples);
        let mut batches = Vec::new();
        for first in (0..n).step_by(batch) {
            let samples = (first..(first + batch as u64).min(n))
                .map(|i| corpus.samples.validation_sample(i))
                .collect::<Result<Vec<_>>>()?;
            batches.push(Batch::new(first, &samples));
        }
        if batches.iter().all(|batch| batch.n_targets() == 0) {
            return Ok(None);
        }
        let unigram = unigram_loss(&batches, &corpus.unigram_losses()?);
        Ok(Some(Self { batches, unigram }))
    }

    /// Evaluates a model; neither it nor its router biases change.
    ///
    /// # Errors
    /// When the device failed.
    pub fn run(&self, model: &Model, corpus: &Corpus) -> Result<Validation> {
        self.run_watched(model, corpus, &mut || {})
    }

    /// The same, with a call after each batch.
    ///
    /// # Errors
    /// As [`Validator::run`].
    pub fn run_watched(&self, model: &Model, corpus: &Corpus, after: &mut dyn FnMut()) -> Result<Validation> {
        let model = model.valid();
        let mut losses = GroupLosses::default();
        let mut routers: Vec<ValidatedRouter> = Vec::new();
        for batch in &self.batches {
            let input = batch.input(0..batch.len(), &model.device());
            let output = model.forward(&input, &model.eval_context(&input));
            let targets = Targets { ids: &batch.targets, mask: &batch.loss_mask };
            let batch_losses = token_losses(output.hidden, model.head(), targets)?;
            losses.add(batch, &batch_losses, corpus);
            let n_tokens = batch.n_valid() as u64;
            for (index, (layer, record)) in output.records.into_iter().enumerate() {
                let mut values = Values::default();
                let numbers = record.values.iter().map(|named| named.value.clone()).collect();
                values.merge(&record.values, &read(Tensor::cat(numbers, 0))?);
                let stats = RouterStats::new(&values, n_tokens);
                match routers.get_mut(index) {
                    Some(router) => {
                        router.groups.add(batch, &stats);
                        router.stats.merge(&stats);
                    }
                    None => {
                        let mut groups = GroupLoads::default();
                        groups.add(batch, &stats);
                        routers.push(ValidatedRouter { layer, stats, groups });
                    }
                }
            }
            after();
        }
        Ok(Validation { losses, unigram: self.unigram, routers, average: None })
    }

    /// The samples.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// A model's score of each target, in the order of the samples.
    ///
    /// # Errors
    /// When the device failed.
    pub fn scores(&self, model: &Model) -> Result<Vec<TokenScore>> {
        let model = model.valid();
        let mut scores = Vec::new();
        for batch in &self.batches {
            let input = batch.input(0..batch.len(), &model.device());
            let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
            let targets = Targets { ids: &batch.targets, mask: &batch.loss_mask };
            let losses = token_losses(hidden.clone(), model.head(), targets)?;
            let ranks = token_ranks(hidden, model.head(), targets)?;
            for (index, (loss, rank)) in losses.into_iter().zip(ranks).enumerate() {
                if !batch.loss_mask[index] {
                    continue;
                }
                let (sample, position) = (index / batch.seq_len, index % batch.seq_len);
                scores.push(TokenScore {
                    sample: batch.first_t + sample as u64,
                    position: position as u32,
                    source: u32::from(batch.ids[sample].pool),
                    token: batch.targets[index],
                    rank,
                    loss,
                });
            }
        }
        Ok(scores)
    }
}

/// A model's score of one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// The validation sample.
    pub sample: u64,
    /// Position in it of the token that the target follows.
    pub position: u32,
    /// Number of the source.
    pub source: u32,
    /// The target.
    pub token: u32,
    /// Number of tokens that the model considers more likely.
    pub rank: u32,
    /// Negative logarithm of its probability, in nats.
    pub loss: f32,
}

/// Mean unigram loss over the targets that count.
fn unigram_loss(batches: &[Batch], token_loss: &[f64]) -> f64 {
    let (mut sum, mut n) = (0.0, 0u64);
    for batch in batches {
        for (&target, &counts) in batch.targets.iter().zip(&batch.loss_mask) {
            if counts {
                sum += token_loss.get(target as usize).copied().unwrap_or_default();
                n += 1;
            }
        }
    }
    sum / n.max(1) as f64
}
