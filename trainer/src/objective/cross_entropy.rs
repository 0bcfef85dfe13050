//! Cross-entropy over the vocabulary, computed with its gradient, chunk by chunk.
//!
//! The logits of a batch are the largest tensor of a small language model. They are therefore never kept as a
//! whole. On the CPU one operation gives losses and gradients of all tokens. Elsewhere, the logits, the
//! losses and the gradients of hidden states and head are computed together for a chunk of tokens, outside of
//! the gradient graph, and `sum(hidden * g_hidden) + sum(head * g_head)`, with both gradients as constants,
//! hands them to the graph: its derivative is exactly the two gradients. Memory is `chunk * vocab` for any
//! batch.

use burn::tensor::Tensor;

use crate::error::Result;
use crate::ops::cross_entropy::{Gradients, Scored, chunk_tokens, head_cross_entropy, surrogate};
use crate::ops::linear::{cast_f32, cast_like};
use crate::ops::matmul::matmul;
use crate::ops::routing::from_integers;
use crate::ops::{Form, read};

pub use crate::ops::cross_entropy::Targets;

/// Losses of a batch, and what to differentiate.
#[derive(Debug)]
pub struct CrossEntropy {
    /// `-ln p(target)` of each token in nats; 0 where the mask is false. `[tokens]`, f32
    pub losses: Tensor<1>,
    /// Its derivative is that of `scale * sum(losses)`; its value has no meaning. `[1]`
    pub surrogate: Tensor<1>,
}

/// Cross-entropy of `softmax(hidden * head)` against the targets, with gradient.
///
/// # Shapes
/// - hidden: `[tokens, d_model]`, head: `[d_model, vocab]`, f32
/// - targets: one entry for each token; tokens whose mask is false count nowhere
pub fn cross_entropy(hidden: Tensor<2>, head: Tensor<2>, targets: Targets, scale: f64) -> CrossEntropy {
    let rows = hidden.clone().without_autodiff();
    let weights = cast_like(head.clone().without_autodiff(), &rows);
    if Form::of(&rows) == Form::Cpu {
        let Scored { losses, gradients } = head_cross_entropy(rows, weights, targets, Some(scale));
        // Cannot fail: a scale was given.
        let surrogate = surrogate(hidden, head, gradients.expect("gradients of a scale"));
        return CrossEntropy { losses, surrogate };
    }
    let mut losses = Vec::new();
    let mut hidden_gradients = Vec::new();
    let mut head_gradient: Option<Tensor<2>> = None;
    for (chunk, targets) in chunks(rows, &weights, targets) {
        let scored = head_cross_entropy(chunk, weights.clone(), targets, Some(scale));
        losses.push(scored.losses);
        if let Some(Gradients { hidden, head }) = scored.gradients {
            hidden_gradients.push(hidden);
            head_gradient = Some(match head_gradient {
                Some(sum) => sum + head,
                None => head,
            });
        }
    }
    let hidden_gradient = Tensor::from_inner(Tensor::cat(hidden_gradients, 0));
    let surrogate = cast_f32((hidden * hidden_gradient).sum());
    let surrogate = match head_gradient {
        Some(gradient) => surrogate + (head * Tensor::from_inner(gradient)).sum(),
        None => surrogate,
    };
    CrossEntropy { losses: Tensor::cat(losses, 0), surrogate }
}

/// Only the losses, without gradient.
///
/// # Shapes
/// As in [`cross_entropy`].
///
/// # Errors
/// When the device failed.
pub fn token_losses(hidden: Tensor<2>, head: Tensor<2>, targets: Targets) -> Result<Vec<f32>> {
    let hidden = hidden.without_autodiff();
    let head = cast_like(head.without_autodiff(), &hidden);
    if Form::of(&hidden) == Form::Cpu {
        return Ok(read(head_cross_entropy(hidden, head, targets, None).losses)?);
    }
    let losses = chunks(hidden, &head, targets)
        .map(|(chunk, targets)| head_cross_entropy(chunk, head.clone(), targets, None).losses);
    Ok(read(Tensor::cat(losses.collect(), 0))?)
}

/// For each token, how many vocabulary entries have a higher logit than the target; meaningless where the
/// mask is false.
///
/// # Shapes
/// As in [`cross_entropy`].
///
/// # Errors
/// When the device failed.
pub fn token_ranks(hidden: Tensor<2>, head: Tensor<2>, targets: Targets) -> Result<Vec<u32>> {
    let hidden = hidden.without_autodiff();
    let head = cast_like(head.without_autodiff(), &hidden);
    let ranks = chunks(hidden, &head, targets).map(|(chunk, targets)| {
        let n = targets.ids.len();
        let logits = matmul(chunk, head.clone());
        let ids: Vec<i64> = targets.ids.iter().map(|&id| i64::from(id)).collect();
        let of_target = logits.clone().gather(1, from_integers(ids, [n, 1], &logits.device()));
        // A vocabulary has fewer entries than f32 can count exactly.
        let is_above = logits.clone().greater(of_target.expand(logits.dims()));
        is_above.float().sum_dim(1).reshape([n])
    });
    Ok(read(Tensor::cat(ranks.collect(), 0))?.into_iter().map(|rank| rank as u32).collect())
}

/// The hidden states of each chunk of tokens, with their targets.
fn chunks<'a>(
    hidden: Tensor<2>,
    head: &Tensor<2>,
    targets: Targets<'a>,
) -> impl Iterator<Item = (Tensor<2>, Targets<'a>)> + use<'a> {
    let [tokens, width] = hidden.dims();
    let size = chunk_tokens(head.dims()[1], Form::on(&hidden.device()));
    (0..tokens).step_by(size).map(move |start| {
        let end = (start + size).min(tokens);
        let chunk = hidden.clone().slice([start..end, 0..width]);
        (chunk, Targets { ids: &targets.ids[start..end], mask: &targets.mask[start..end] })
    })
}

/// Bits per byte of `n_targets` tokens with `n_bytes` bytes and a loss of `nats` per token.
pub fn bits_per_byte(nats: f64, n_targets: u64, n_bytes: u64) -> f64 {
    nats * n_targets as f64 / (n_bytes.max(1) as f64 * std::f64::consts::LN_2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::plainly;
    use burn::tensor::{Device, TensorData};

    fn tensor(values: &[f32], shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    fn check_by_hand() {
        let device = Device::flex().autodiff();
        // Logits are (0, ln 3): p = (1/4, 3/4); the target is 0, so the loss is ln 4 and the
        // gradient of the logits (-3/4, 3/4). The second token is masked.
        let hidden = tensor(&[1.0, 5.0], [2, 1], &device).require_grad();
        let head = tensor(&[0.0, 3f32.ln()], [1, 2], &device).require_grad();
        let targets = Targets { ids: &[0, 1], mask: &[true, false] };
        let ce = cross_entropy(hidden.clone(), head.clone(), targets, 2.0);
        let losses = read(ce.losses).expect("on the host");
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
        check_by_hand();
        plainly(check_by_hand);
    }

    #[test]
    fn ranks_count_what_is_more_likely() {
        let device = Device::flex();
        let ranks = || {
            token_ranks(
                tensor(&[1.0, -1.0], [2, 1], &device),
                tensor(&[3.0, 1.0, 2.0, 2.0], [1, 4], &device),
                Targets { ids: &[2, 0], mask: &[true, true] },
            )
            .expect("on the host")
        };
        assert_eq!(ranks(), [1, 3]);
        assert_eq!(plainly(ranks), [1, 3]);
    }

    #[test]
    fn improbable_targets_have_a_finite_loss() {
        let device = Device::flex();
        let loss = || {
            token_losses(
                tensor(&[1.0], [1, 1], &device),
                tensor(&[500.0, 0.0], [1, 2], &device),
                Targets { ids: &[1], mask: &[true] },
            )
            .expect("on the host")[0]
        };
        assert!((loss() - 500.0).abs() < 1e-3);
        assert!((plainly(loss) - 500.0).abs() < 1e-3);
    }

    #[test]
    fn one_nat_per_two_bytes() {
        assert!((bits_per_byte(std::f64::consts::LN_2, 10, 20) - 0.5).abs() < 1e-12);
    }
}
