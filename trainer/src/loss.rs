//! Cross-entropy over the vocabulary, computed with its gradient, chunk by chunk.
//!
//! The logits of a batch are the largest tensor of a small language model. They are therefore
//! never kept: for a chunk of tokens the logits, the losses and the gradients of hidden states and
//! head are computed at once, outside of the gradient graph, and
//! `sum(hidden * g_hidden) + sum(head * g_head)`, with both gradients as constants, hands them to
//! the graph: its derivative is exactly the two gradients. Memory is `chunk * vocab` for any batch.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::kernel::softmax_and_log_sum;

/// Tokens of one chunk: large enough for the products, small enough to stay in the cache.
const CHUNK_TOKENS: usize = 512;

/// Losses of a batch, and what to differentiate.
#[derive(Debug)]
pub struct CrossEntropy {
    /// `-ln p(target)` of each token in nats; 0 where the mask is false.
    pub losses: Vec<f32>,
    /// Its derivative is that of `scale * sum(losses)`; its value means nothing. `[1]`
    pub surrogate: Tensor<1>,
}

/// Cross-entropy of `softmax(hidden * head)` against the targets, with gradient.
///
/// # Shapes
/// - hidden: `[tokens, d_model]`, head: `[d_model, vocab]`
/// - targets, mask: one entry for each token; tokens whose mask is false count nowhere
pub fn cross_entropy(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u32],
    mask: &[bool],
    scale: f64,
) -> CrossEntropy {
    let rows = hidden.clone().without_autodiff();
    let [tokens, width] = rows.dims();
    let weights = head.clone().without_autodiff();
    let transposed = weights.clone().transpose();
    let mut losses = Vec::with_capacity(tokens);
    let mut hidden_gradients = Vec::new();
    let mut head_gradient: Option<Tensor<2>> = None;
    for start in (0..tokens).step_by(CHUNK_TOKENS) {
        let end = (start + CHUNK_TOKENS).min(tokens);
        let chunk = rows.clone().slice([start..end, 0..width]);
        let Scores { losses: chunk_losses, probabilities, targets: columns } =
            score(chunk.clone(), weights.clone(), &targets[start..end], &mask[start..end]);
        losses.extend(chunk_losses);

        // d loss / d logits = p - onehot(target). The factor of each row, mask * scale, is applied
        // to the narrow side of both products.
        let minus_one = Tensor::<2>::full([end - start, 1], -1.0, &chunk.device());
        let gradient = probabilities.scatter(1, columns, minus_one, IndexingUpdateOp::Add);
        let factor: Vec<f32> = mask[start..end].iter().map(|&m| if m { scale as f32 } else { 0.0 }).collect();
        let factor = Tensor::<2>::from_data(TensorData::new(factor, [end - start, 1]), &chunk.device());
        hidden_gradients.push(gradient.clone().matmul(transposed.clone()) * factor.clone());
        let product = (chunk * factor).transpose().matmul(gradient);
        head_gradient = Some(match head_gradient {
            Some(sum) => sum + product,
            None => product,
        });
    }
    let hidden_gradient = Tensor::from_inner(Tensor::cat(hidden_gradients, 0));
    let surrogate = (hidden * hidden_gradient).sum();
    let surrogate = match head_gradient {
        Some(gradient) => surrogate + (head * Tensor::from_inner(gradient)).sum(),
        None => surrogate,
    };
    CrossEntropy { losses, surrogate }
}

/// The losses alone, without gradient.
///
/// # Shapes
/// As in [`cross_entropy`].
pub fn token_losses(hidden: Tensor<2>, head: Tensor<2>, targets: &[u32], mask: &[bool]) -> Vec<f32> {
    let (hidden, head) = (hidden.without_autodiff(), head.without_autodiff());
    let [tokens, width] = hidden.dims();
    (0..tokens)
        .step_by(CHUNK_TOKENS)
        .flat_map(|start| {
            let end = (start + CHUNK_TOKENS).min(tokens);
            let chunk = hidden.clone().slice([start..end, 0..width]);
            score(chunk, head.clone(), &targets[start..end], &mask[start..end]).losses
        })
        .collect()
}

/// Bits per byte: the loss of `n_targets` tokens of `n_bytes` bytes, at `nats` per token.
pub fn bits_per_byte(nats: f64, n_targets: u64, n_bytes: u64) -> f64 {
    nats * n_targets as f64 / (n_bytes.max(1) as f64 * std::f64::consts::LN_2)
}

struct Scores {
    losses: Vec<f32>,
    probabilities: Tensor<2>,
    targets: Tensor<2, Int>,
}

/// Probabilities and losses of one chunk.
fn score(chunk: Tensor<2>, head: Tensor<2>, targets: &[u32], mask: &[bool]) -> Scores {
    let device = chunk.device();
    let n = targets.len();
    let columns: Vec<i64> = targets.iter().map(|&t| i64::from(t)).collect();
    let columns = Tensor::<2, Int>::from_data(TensorData::new(columns, [n, 1]), &device);
    let logits = chunk.matmul(head);
    let target_logit = logits.clone().gather(1, columns.clone());
    let (probabilities, log_sum) = softmax_and_log_sum(logits);
    // Cannot fail: hidden states are f32.
    let losses: Vec<f32> = (log_sum - target_logit).into_data().try_into_vec().expect("f32 losses");
    let losses = losses.iter().zip(mask).map(|(&loss, &m)| if m { loss } else { 0.0 }).collect();
    Scores { losses, probabilities, targets: columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor(values: &[f32], shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    #[test]
    fn loss_and_gradient_by_hand() {
        let device = Device::flex().autodiff();
        // Logits are (0, ln 3): p = (1/4, 3/4); the target is 0, so the loss is ln 4 and the
        // gradient of the logits (-3/4, 3/4). The second token is masked.
        let hidden = tensor(&[1.0, 5.0], [2, 1], &device).require_grad();
        let head = tensor(&[0.0, 3f32.ln()], [1, 2], &device).require_grad();
        let ce = cross_entropy(hidden.clone(), head.clone(), &[0, 1], &[true, false], 2.0);
        assert!((ce.losses[0] - 4f32.ln()).abs() < 1e-6 && ce.losses[1] == 0.0);
        let gradients = ce.surrogate.backward();
        let host = |t: Tensor<2>| -> Vec<f32> { t.into_data().try_into_vec().expect("f32") };
        let hidden_gradient = host(hidden.grad(&gradients).expect("tracked"));
        assert!((hidden_gradient[0] - 2.0 * 0.75 * 3f32.ln()).abs() < 1e-5);
        assert_eq!(hidden_gradient[1], 0.0);
        let head_gradient = host(head.grad(&gradients).expect("tracked"));
        assert!((head_gradient[0] + 1.5).abs() < 1e-5 && (head_gradient[1] - 1.5).abs() < 1e-5);
    }

    #[test]
    fn improbable_targets_have_a_finite_loss() {
        let device = Device::flex();
        let losses = token_losses(
            tensor(&[1.0], [1, 1], &device),
            tensor(&[500.0, 0.0], [1, 2], &device),
            &[1],
            &[true],
        );
        assert!((losses[0] - 500.0).abs() < 1e-3);
    }

    #[test]
    fn one_nat_per_two_bytes() {
        assert!((bits_per_byte(std::f64::consts::LN_2, 10, 20) - 0.5).abs() < 1e-12);
    }
}
