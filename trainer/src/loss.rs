//! Cross-entropy over the vocabulary, computed with its gradient, chunk by chunk.
//!
//! The logits of a batch are the largest tensor of a small language model. They are therefore
//! never kept: for a chunk of tokens the logits, the losses and the gradients of hidden states and
//! head are computed at once, outside of the gradient graph, and
//! `sum(hidden * g_hidden) + sum(head * g_head)`, with both gradients as constants, hands them to
//! the graph: its derivative is exactly the two gradients. Memory is `chunk * vocab` for any batch.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use moe_kernels::cross_entropy::cross_entropy_rows;

use crate::error::Result;
use crate::kernel::{Kernels, read, softmax_and_log_sum};
use crate::model::linear::{cast_f32, cast_like};
use crate::model::memory::{LOSS_CHUNK_ON_CPU, loss_chunk_on_gpu};

/// Losses of a batch, and what to differentiate.
#[derive(Debug)]
pub struct CrossEntropy {
    /// `-ln p(target)` of each token in nats.
    pub losses: Losses,
    /// Its derivative is that of `scale * sum(losses)`; its value means nothing. `[1]`
    pub surrogate: Tensor<1>,
}

/// `-ln p(target)` of each token in nats; 0 where the mask is false.
#[derive(Debug, Clone)]
pub enum Losses {
    /// On the host.
    Host(Vec<f32>),
    /// On the device, f32, `[tokens]`.
    Gpu(Box<Tensor<1>>),
}

impl Losses {
    /// The losses on the host; waits for the device if they are not there.
    ///
    /// # Errors
    /// When the device failed.
    pub fn read(self) -> Result<Vec<f32>> {
        match self {
            Self::Host(losses) => Ok(losses),
            Self::Gpu(losses) => read(*losses),
        }
    }
}

/// The targets of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The token to predict at each position.
    pub ids: &'a [u32],
    /// Whether it counts.
    pub mask: &'a [bool],
}

/// Cross-entropy of `softmax(hidden * head)` against the targets, with gradient.
///
/// # Shapes
/// - hidden: `[tokens, d_model]`, head: `[d_model, vocab]`, f32
/// - targets: one entry for each token; tokens whose mask is false count nowhere
pub fn cross_entropy(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: Targets,
    scale: f64,
    kernels: Kernels,
) -> CrossEntropy {
    let rows = hidden.clone().without_autodiff();
    let [tokens, width] = rows.dims();
    let weights = cast_like(head.clone().without_autodiff(), &rows);
    let transposed = weights.clone().transpose();
    let mut losses = Vec::new();
    let mut hidden_gradients = Vec::new();
    let mut head_gradient: Option<Tensor<2>> = None;
    let chunk_tokens = chunk_tokens(kernels, weights.dims()[1]);
    for start in (0..tokens).step_by(chunk_tokens) {
        let end = (start + chunk_tokens).min(tokens);
        let chunk = rows.clone().slice([start..end, 0..width]);
        let some = Targets { ids: &targets.ids[start..end], mask: &targets.mask[start..end] };
        let scored = score(chunk.clone(), weights.clone(), some, Some(scale), kernels);
        losses.push(scored.losses);
        // On the CPU the factor of each row, mask * scale, is applied to the narrow side of both
        // products; on a GPU the kernel has applied it.
        let Some(Gradient { logits: gradient, factor }) = scored.gradient else { continue };
        let narrow = |x: Tensor<2>| match &factor {
            Some(factor) => x * factor.clone(),
            None => x,
        };
        hidden_gradients.push(narrow(gradient.clone().matmul(transposed.clone())));
        let product = narrow(chunk).transpose().matmul(gradient);
        let product = cast_f32(product);
        head_gradient = Some(match head_gradient {
            Some(sum) => sum + product,
            None => product,
        });
    }
    let hidden_gradient = Tensor::from_inner(Tensor::cat(hidden_gradients, 0));
    let surrogate = cast_f32((hidden * hidden_gradient).sum());
    let surrogate = match head_gradient {
        Some(gradient) => surrogate + (head * Tensor::from_inner(gradient)).sum(),
        None => surrogate,
    };
    CrossEntropy { losses: join(losses), surrogate }
}

/// The losses alone, without gradient.
///
/// # Shapes
/// As in [`cross_entropy`].
///
/// # Errors
/// When the device failed.
pub fn token_losses(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: Targets,
    kernels: Kernels,
) -> Result<Vec<f32>> {
    let hidden = hidden.without_autodiff();
    let head = cast_like(head.without_autodiff(), &hidden);
    let [tokens, width] = hidden.dims();
    let chunk_tokens = chunk_tokens(kernels, head.dims()[1]);
    let chunks = (0..tokens).step_by(chunk_tokens).map(|start| {
        let end = (start + chunk_tokens).min(tokens);
        let chunk = hidden.clone().slice([start..end, 0..width]);
        let some = Targets { ids: &targets.ids[start..end], mask: &targets.mask[start..end] };
        score(chunk, head.clone(), some, None, kernels).losses
    });
    join(chunks.collect()).read()
}

/// Bits per byte: the loss of `n_targets` tokens of `n_bytes` bytes, at `nats` per token.
pub fn bits_per_byte(nats: f64, n_targets: u64, n_bytes: u64) -> f64 {
    nats * n_targets as f64 / (n_bytes.max(1) as f64 * std::f64::consts::LN_2)
}

fn chunk_tokens(kernels: Kernels, vocab: usize) -> usize {
    match kernels {
        Kernels::Host => LOSS_CHUNK_ON_CPU,
        Kernels::Gpu => loss_chunk_on_gpu(vocab),
    }
}

/// The losses of all chunks.
fn join(chunks: Vec<Losses>) -> Losses {
    let mut on_device = Vec::new();
    let mut on_host = Vec::new();
    for chunk in chunks {
        match chunk {
            Losses::Host(losses) => on_host.extend(losses),
            Losses::Gpu(losses) => on_device.push(*losses),
        }
    }
    if on_device.is_empty() {
        Losses::Host(on_host)
    } else {
        Losses::Gpu(Box::new(Tensor::cat(on_device, 0)))
    }
}

/// One chunk.
struct Scored {
    losses: Losses,
    gradient: Option<Gradient>,
}

/// The gradient of the losses of one chunk.
struct Gradient {
    /// `p - onehot(target)`, `[tokens, vocab]`, times the factor of each row if that is absent.
    logits: Tensor<2>,
    /// Mask times scale, `[tokens, 1]`.
    factor: Option<Tensor<2>>,
}

/// The losses of a chunk, and with a scale their gradient.
fn score(
    chunk: Tensor<2>,
    head: Tensor<2>,
    targets: Targets,
    scale: Option<f64>,
    kernels: Kernels,
) -> Scored {
    match kernels {
        Kernels::Host => score_on_host(chunk, head, targets, scale),
        Kernels::Gpu => score_on_gpu(chunk, head, targets, scale),
    }
}

fn score_on_gpu(chunk: Tensor<2>, head: Tensor<2>, targets: Targets, scale: Option<f64>) -> Scored {
    let device = chunk.device();
    let n = targets.ids.len();
    let ids: Vec<i32> = targets.ids.iter().map(|&id| id as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [n]), &device);
    let column = |value: f64| -> Tensor<1> {
        Tensor::from_data(TensorData::new(masked(targets.mask, value), [n]), &device)
    };
    let (losses, logits) = cross_entropy_rows(chunk.matmul(head), ids, column(scale.unwrap_or(0.0)));
    // A masked loss may be anything, also not a number: it is replaced rather than multiplied.
    let losses = losses.mask_fill(column(1.0).equal_elem(0.0), 0.0);
    Scored {
        losses: Losses::Gpu(Box::new(losses)),
        gradient: scale.map(|_| Gradient { logits, factor: None }),
    }
}

fn score_on_host(chunk: Tensor<2>, head: Tensor<2>, targets: Targets, scale: Option<f64>) -> Scored {
    let device = chunk.device();
    let n = targets.ids.len();
    let columns: Vec<i64> = targets.ids.iter().map(|&t| i64::from(t)).collect();
    let columns = Tensor::<2, Int>::from_data(TensorData::new(columns, [n, 1]), &device);
    let logits = chunk.matmul(head);
    let target_logit = logits.clone().gather(1, columns.clone());
    let (probabilities, log_sum) = softmax_and_log_sum(logits);
    // Cannot fail: hidden states are f32.
    let losses: Vec<f32> = (log_sum - target_logit).into_data().try_into_vec().expect("f32 losses");
    let losses = losses.iter().zip(targets.mask).map(|(&loss, &m)| if m { loss } else { 0.0 }).collect();
    let gradient = scale.map(|scale| {
        let minus_one = Tensor::<2>::full([n, 1], -1.0, &device);
        let factor = TensorData::new(masked(targets.mask, scale), [n, 1]);
        Gradient {
            logits: probabilities.scatter(1, columns, minus_one, IndexingUpdateOp::Add),
            factor: Some(Tensor::from_data(factor, &device)),
        }
    });
    Scored { losses: Losses::Host(losses), gradient }
}

/// `value` where the mask is true, 0 elsewhere.
fn masked(mask: &[bool], value: f64) -> Vec<f32> {
    mask.iter().map(|&m| if m { value as f32 } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor(values: &[f32], shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    fn check_by_hand(kernels: Kernels) {
        let device = Device::flex().autodiff();
        // Logits are (0, ln 3): p = (1/4, 3/4); the target is 0, so the loss is ln 4 and the
        // gradient of the logits (-3/4, 3/4). The second token is masked.
        let hidden = tensor(&[1.0, 5.0], [2, 1], &device).require_grad();
        let head = tensor(&[0.0, 3f32.ln()], [1, 2], &device).require_grad();
        let targets = Targets { ids: &[0, 1], mask: &[true, false] };
        let ce = cross_entropy(hidden.clone(), head.clone(), targets, 2.0, kernels);
        let losses = ce.losses.read().expect("on the host");
        assert!((losses[0] - 4f32.ln()).abs() < 1e-6 && losses[1] == 0.0);
        let gradients = ce.surrogate.backward();
        let host = |t: Tensor<2>| -> Vec<f32> { t.into_data().try_into_vec().expect("f32") };
        let hidden_gradient = host(hidden.grad(&gradients).expect("tracked"));
        assert!((hidden_gradient[0] - 2.0 * 0.75 * 3f32.ln()).abs() < 1e-5);
        assert_eq!(hidden_gradient[1], 0.0);
        let head_gradient = host(head.grad(&gradients).expect("tracked"));
        assert!((head_gradient[0] + 1.5).abs() < 1e-5 && (head_gradient[1] - 1.5).abs() < 1e-5);
    }

    #[test]
    fn loss_and_gradient_by_hand() {
        check_by_hand(Kernels::Host);
        check_by_hand(Kernels::Gpu);
    }

    #[test]
    fn improbable_targets_have_a_finite_loss() {
        let device = Device::flex();
        for kernels in [Kernels::Host, Kernels::Gpu] {
            let losses = token_losses(
                tensor(&[1.0], [1, 1], &device),
                tensor(&[500.0, 0.0], [1, 2], &device),
                Targets { ids: &[1], mask: &[true] },
                kernels,
            )
            .expect("on the host");
            assert!((losses[0] - 500.0).abs() < 1e-3);
        }
    }

    #[test]
    fn one_nat_per_two_bytes() {
        assert!((bits_per_byte(std::f64::consts::LN_2, 10, 20) - 0.5).abs() < 1e-12);
    }
}
