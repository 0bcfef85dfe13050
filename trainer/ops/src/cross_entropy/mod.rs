//! The head and its cross-entropy, for a chunk of tokens whose logits fit into memory: losses, and the
//! gradients of hidden states and head, outside of the graph.

mod cpu;

use burn::tensor::{Device, Tensor, TensorData};
use moe_kernels::cross_entropy::{cross_entropy_rows, cross_entropy_rows_plain};

use super::Form;
use super::linear::cast_f32;
pub use cpu::surrogate;

/// Logits of one chunk: enough to fill a GPU, few compared with its memory.
const CHUNK_LOGITS: usize = 1 << 27;

/// Tokens whose logits are computed at a time.
pub fn chunk_tokens(vocab: usize, form: Form) -> usize {
    match form {
        Form::Cpu => cpu::chunk_tokens(vocab),
        Form::Plain | Form::Gpu => (CHUNK_LOGITS / vocab.max(1)).max(512),
    }
}

/// The targets of some tokens.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The token to predict at each position.
    pub ids: &'a [u32],
    /// Whether it counts.
    pub mask: &'a [bool],
}

/// Losses of a chunk and their gradients.
#[derive(Debug)]
pub struct Scored {
    /// `-ln p(target)` of each token in nats; 0 where the mask is false. `[tokens]`, f32
    pub losses: Tensor<1>,
    /// Gradients of the sum of losses times the scale; none without a scale.
    pub gradients: Option<Gradients>,
}

/// The gradients of a chunk.
#[derive(Debug)]
pub struct Gradients {
    /// `[tokens, d_model]`
    pub hidden: Tensor<2>,
    /// `[d_model, vocab]`, f32
    pub head: Tensor<2>,
}

/// Cross-entropy of `softmax(hidden * head)` against the targets, and with a scale its gradients.
///
/// # Shapes
/// - hidden: `[tokens, d_model]`
/// - head: `[d_model, vocab]`, of the type of hidden
pub fn head_cross_entropy(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: Targets,
    scale: Option<f64>,
) -> Scored {
    let rows = match Form::of(&hidden) {
        Form::Cpu => return cpu::score(hidden, head, targets, scale),
        Form::Gpu => cross_entropy_rows,
        Form::Plain => cross_entropy_rows_plain,
    };
    let device = hidden.device();
    let n = targets.ids.len();
    let ids: Vec<i32> = targets.ids.iter().map(|&id| id as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [n]), &device);
    let factors = column(targets, scale.unwrap_or(0.0), &device);
    let (losses, logits) = rows(hidden.clone().matmul(head.clone()), ids, factors);
    let gradients = scale.map(|_| Gradients {
        hidden: logits.clone().matmul(head.transpose()),
        head: cast_f32(hidden.transpose().matmul(logits)),
    });
    Scored { losses: unmasked(losses, targets), gradients }
}

/// A masked loss may be anything, even NaN: it is replaced rather than multiplied.
fn unmasked(losses: Tensor<1>, targets: Targets) -> Tensor<1> {
    let is_masked = column(targets, 1.0, &losses.device()).equal_elem(0.0);
    losses.mask_fill(is_masked, 0.0)
}

/// `value` where the mask is true, 0 elsewhere, `[tokens]`.
fn column(targets: Targets, value: f64, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = targets.mask.iter().map(|&m| if m { value as f32 } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(values, [targets.mask.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::super::plainly;
    use super::super::testing::{close, noise};
    use super::*;

    #[test]
    fn the_fast_form_equals_the_plain_one() {
        let (hidden, head) = (noise(1, [131, 19]).without_autodiff(), noise(2, [19, 37]).without_autodiff());
        let ids: Vec<u32> = (0..131).map(|i| i * 5 % 37).collect();
        let mask: Vec<bool> = (0..131).map(|i| i % 7 != 3).collect();
        let targets = Targets { ids: &ids, mask: &mask };
        let run = || head_cross_entropy(hidden.clone(), head.clone(), targets, Some(0.5));
        let (fast, plain) = (run(), plainly(run));
        close("losses", fast.losses, plain.losses);
        let (fast, plain) = (fast.gradients.expect("a scale"), plain.gradients.expect("a scale"));
        close("hidden", fast.hidden, plain.hidden);
        close("head", fast.head, plain.head);
    }
}
