//! A batch on the host: a contiguous range of samples, laid out one after the other.

use std::ops::Range;

use burn::tensor::Device;
use moe_shards::{Sample, SampleId};

use crate::model::{Input, PADDING};

/// Samples `first_t..first_t + len` of a plan, or a run of validation samples. Where a plan changes to
/// another sequence length within a batch, the shorter samples are padded to the longest.
///
/// # Shapes
/// All vectors over tokens have `len * seq_len` entries, sample after sample.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Index of the first sample.
    pub first_t: u64,
    /// Tokens of a sample, padding included.
    pub seq_len: usize,
    /// Where each sample comes from.
    pub ids: Vec<SampleId>,
    /// Inputs; padding of a plan is the end-of-document token, that of a batch token 0.
    pub tokens: Vec<u32>,
    /// The token to predict at each position.
    pub targets: Vec<u32>,
    /// Whether the target counts.
    pub loss_mask: Vec<bool>,
    /// Document piece of each token, [`PADDING`] on padding.
    pub segments: Vec<u32>,
    /// Position of each token in its piece, from 0.
    pub positions: Vec<u32>,
    /// Variant of the document of each token: 0 is the original; 0 on padding.
    pub variants: Vec<u8>,
}

impl Batch {
    /// A batch of consecutive samples.
    pub fn new(first_t: u64, samples: &[Sample]) -> Self {
        let seq_len = samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
        let n = samples.len() * seq_len;
        let mut batch = Self {
            first_t,
            seq_len,
            ids: Vec::with_capacity(samples.len()),
            tokens: Vec::with_capacity(n),
            targets: Vec::with_capacity(n),
            loss_mask: Vec::with_capacity(n),
            segments: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            variants: Vec::with_capacity(n),
        };
        for sample in samples {
            batch.push(sample);
        }
        batch
    }

    fn push(&mut self, sample: &Sample) {
        let start = self.tokens.len();
        self.ids.push(sample.id);
        self.tokens.extend(&sample.tokens);
        self.targets.extend(&sample.targets);
        self.loss_mask.extend(&sample.loss_mask);
        self.segments.extend(&sample.segments);
        self.positions.extend(&sample.positions);
        let end = start + self.seq_len;
        self.tokens.resize(end, 0);
        self.targets.resize(end, 0);
        self.loss_mask.resize(end, false);
        self.segments.resize(end, PADDING);
        self.positions.resize(end, 0);
        self.variants.resize(end, 0);
        for piece in &sample.pieces {
            let from = start + piece.start as usize;
            self.variants[from..from + piece.len as usize].fill(piece.variant);
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Targets that count in the loss.
    pub fn n_targets(&self) -> usize {
        self.loss_mask.iter().filter(|&&counts| counts).count()
    }

    /// Tokens that are not padding.
    pub fn n_valid(&self) -> usize {
        self.segments.iter().filter(|&&segment| segment != PADDING).count()
    }

    /// Samples with a token that is not padding.
    pub fn n_samples_with_tokens(&self) -> usize {
        let samples = self.segments.chunks(self.seq_len.max(1));
        samples.filter(|sample| sample.iter().any(|&segment| segment != PADDING)).count()
    }

    /// Positions of the tokens of some samples.
    pub fn token_range(&self, samples: Range<usize>) -> Range<usize> {
        samples.start * self.seq_len..samples.end * self.seq_len
    }

    /// Some samples as the model reads them.
    pub fn input(&self, samples: Range<usize>, device: &Device) -> Input {
        let shape = [samples.len(), self.seq_len];
        let first = self.first_t + samples.start as u64;
        let tokens = self.token_range(samples);
        let input = Input::new(
            &self.tokens[tokens.clone()],
            &self.positions[tokens.clone()],
            &self.segments[tokens],
            shape,
            device,
        );
        input.at(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moe_shards::{FamilyId, Piece};

    #[test]
    fn variants_follow_the_pieces() {
        let piece = |start, len, variant| {
            let (shard, doc, offset, family) = (0, 0, 0, FamilyId(0));
            Piece { start, len, shard, doc, offset, family, variant }
        };
        let sample = Sample {
            id: SampleId { pool: 0, pass: 0, bin: 0 },
            tokens: vec![1, 2, 3, 0],
            targets: vec![2, 0, 0, 0],
            loss_mask: vec![true, false, false, false],
            segments: vec![0, 0, 1, PADDING],
            positions: vec![0, 1, 0, 0],
            pieces: vec![piece(0, 2, 0), piece(2, 1, 3)],
        };
        let batch = Batch::new(7, &[sample.clone(), sample]);
        assert_eq!(batch.variants, [0, 0, 3, 0, 0, 0, 3, 0]);
        assert_eq!((batch.len(), batch.n_targets(), batch.n_valid()), (2, 2, 6));
        assert_eq!(batch.token_range(1..2), 4..8);
    }

    #[test]
    fn shorter_samples_are_padded_to_the_longest() {
        let sample = |len: usize| Sample {
            id: SampleId { pool: 0, pass: 0, bin: 0 },
            tokens: vec![5; len],
            targets: vec![6; len],
            loss_mask: vec![true; len],
            segments: vec![0; len],
            positions: (0..len as u32).collect(),
            pieces: Vec::new(),
        };
        let batch = Batch::new(0, &[sample(2), sample(3)]);
        assert_eq!((batch.seq_len, batch.n_targets(), batch.n_valid()), (3, 5, 5));
        assert_eq!(batch.tokens, [5, 5, 0, 5, 5, 5]);
        assert_eq!(batch.loss_mask, [true, true, false, true, true, true]);
        assert_eq!(batch.segments, [0, 0, PADDING, 0, 0, 0]);
        assert_eq!(batch.positions, [0, 1, 0, 0, 1, 2]);
        assert_eq!((batch.targets.len(), batch.variants.len()), (6, 6));
    }
}
