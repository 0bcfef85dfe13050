//! What a model reads: tokens, positions and document segments of a few samples on one device.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Segment number of padding; it belongs to no document.
pub const PADDING: u32 = u32::MAX;

/// A batch on a device, ready for the model.
#[derive(Debug, Clone)]
pub struct Input {
    /// `[batch, seq]`
    pub tokens: Tensor<2, Int>,
    /// The same on the host.
    pub ids: Vec<u32>,
    /// `batch * seq` positions on the host, from 0 in each document piece.
    pub positions: Vec<u32>,
    /// The document piece of each of these tokens, [`PADDING`] on padding.
    pub segments: Vec<u32>,
    /// Which tokens are not padding.
    pub valid: ValidMask,
    /// Number of the first sample in the plan; randomness depends on it.
    pub first_sample: u64,
}

/// Which tokens are real. A separate type, because a bare Boolean tensor does not say whether true means
/// "keep" or "ignore".
#[derive(Debug, Clone)]
pub struct ValidMask {
    batch: usize,
    is_valid: Vec<bool>,
    n_valid: usize,
    column: Tensor<2>,
    flags: Tensor<1, Int>,
}

impl Input {
    /// An input from host arrays of `batch * seq` entries.
    ///
    /// # Shapes
    /// - tokens, positions, segments: `batch * seq` entries each, sample after sample; segments
    ///   are [`PADDING`] on padding
    pub fn new(
        tokens: &[u32],
        positions: &[u32],
        segments: &[u32],
        [batch, seq]: [usize; 2],
        device: &Device,
    ) -> Self {
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        Self {
            tokens: Tensor::from_data(TensorData::new(ids, [batch, seq]), device),
            ids: tokens.to_vec(),
            positions: positions.to_vec(),
            segments: segments.to_vec(),
            valid: ValidMask::new(segments.iter().map(|&s| s != PADDING).collect(), batch, device),
            first_sample: 0,
        }
    }

    /// The same input as the samples of a plan from `first_sample` on.
    pub fn at(self, first_sample: u64) -> Self {
        Self { first_sample, ..self }
    }

    /// Position in its sample of the first token of each token's document piece; the tokens of a piece are
    /// contiguous.
    pub fn starts(&self) -> Vec<usize> {
        let [_, seq] = self.tokens.dims();
        let mut starts = Vec::with_capacity(self.segments.len());
        for sample in self.segments.chunks_exact(seq) {
            let mut start = 0;
            for (i, segment) in sample.iter().enumerate() {
                if i > 0 && *segment != sample[i - 1] {
                    start = i;
                }
                starts.push(start);
            }
        }
        starts
    }
}

impl ValidMask {
    /// A mask of `batch` samples of equal length; true marks a real token.
    pub fn new(is_valid: Vec<bool>, batch: usize, device: &Device) -> Self {
        let column: Vec<f32> = is_valid.iter().map(|&v| f32::from(u8::from(v))).collect();
        let n_valid = is_valid.iter().filter(|&&v| v).count();
        let column = Tensor::from_data(TensorData::new(column, [is_valid.len(), 1]), device);
        let flags: Vec<i32> = is_valid.iter().map(|&v| i32::from(v)).collect();
        let flags = Tensor::from_data(TensorData::new(flags, [is_valid.len()]), device);
        Self { batch, is_valid, n_valid, column, flags }
    }

    /// Samples of the batch.
    pub fn n_samples(&self) -> usize {
        self.batch
    }

    /// Tokens, padding included.
    pub fn n_tokens(&self) -> usize {
        self.is_valid.len()
    }

    /// Tokens that are not padding.
    pub fn n_valid(&self) -> usize {
        self.n_valid
    }

    /// Tokens of each sample that are not padding.
    pub fn tokens_of_samples(&self) -> Vec<usize> {
        let seq = self.n_tokens() / self.batch;
        self.is_valid.chunks(seq).map(|sample| sample.iter().filter(|&&v| v).count()).collect()
    }

    /// 1 for real tokens and 0 for padding, `[tokens]`.
    pub fn flags(&self) -> Tensor<1, Int> {
        self.flags.clone()
    }

    /// 1 for real tokens and 0 for padding, `[tokens, 1]`, f32.
    pub fn column(&self) -> Tensor<2> {
        self.column.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_begins_where_its_number_changes() {
        let segments = [0, 0, 1, 0, 1, PADDING];
        let input = Input::new(&[0; 6], &[0; 6], &segments, [2, 3], &Device::flex());
        assert_eq!(input.starts(), [0, 0, 2, 0, 1, 2]);
        assert_eq!(input.valid.tokens_of_samples(), [3, 2]);
    }
}
