//! Where each token of a batch stands: its rotary angles, and which tokens it may see, which are
//! the earlier ones of its own document and itself. Made once for all blocks.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::kernel::{Angles, Kernels, Spans};
use crate::model::input::Input;
use crate::model::rope::Rope;

/// The placement of `batch` samples of `seq` tokens.
#[derive(Debug, Clone)]
pub struct Placement {
    batch: usize,
    seq: usize,
    form: Form,
}

/// The placement as the kernels want it.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// On the host.
    Host { angles: Arc<Angles>, spans: Arc<Spans> },
    /// On the device.
    Gpu(Box<OnDevice>),
}

/// The placement as tensors.
#[derive(Debug, Clone)]
pub(super) struct OnDevice {
    /// `[tokens, half]`
    pub(super) cos: Tensor<2>,
    /// `[tokens, half]`
    pub(super) sin: Tensor<2>,
    /// Position in its sample of the first token that each token sees, `[tokens]`.
    pub(super) first: Tensor<1, Int>,
}

impl Placement {
    /// The placement of an input.
    pub fn new(input: &Input, rope: &Rope, n_heads: usize) -> Self {
        let [batch, seq] = input.tokens.dims();
        let angles = rope.angles(&input.positions);
        let spans = Spans::new(&input.segments, seq, n_heads);
        let form = match input.kernels {
            Kernels::Host => Form::Host { angles: Arc::new(angles), spans: Arc::new(spans) },
            Kernels::Gpu => Form::Gpu(Box::new(OnDevice::new(angles, spans.first(), &input.tokens.device()))),
        };
        Self { batch, seq, form }
    }

    /// Samples and tokens of a sample.
    pub fn dims(&self) -> [usize; 2] {
        [self.batch, self.seq]
    }

    pub(super) fn form(&self) -> &Form {
        &self.form
    }
}

impl OnDevice {
    fn new(angles: Angles, first: &[u32], device: &Device) -> Self {
        let shape = [first.len(), angles.half];
        let table = |values| Tensor::from_data(TensorData::new(values, shape), device);
        let first: Vec<i32> = first.iter().map(|&position| position as i32).collect();
        let first = Tensor::from_data(TensorData::new(first, [shape[0]]), device);
        Self { cos: table(angles.cos), sin: table(angles.sin), first }
    }
}
