//! The CPU form: logits of a few rows at a time, replaced by their gradient while they are in the cache.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as Found;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::cpu::{Packed, Scratch, View, rows, unwritten, vectorized};
use super::super::flex::{exp, first_order_only, max, shape2, sum, tensor, values};
use super::{Gradients, Scored, Targets};

/// Logits of a chunk, whose gradients are kept until those of the head are computed from them.
const CHUNK_LOGITS: usize = 1 << 21;
/// Rows of a chunk that one thread takes: their logits fit into its cache.
const TASK_ROWS: usize = 24;

/// Tokens whose logits are in memory at a time. The bits of the head's gradient depend on it.
pub(super) fn chunk_tokens(vocab: usize) -> usize {
    (CHUNK_LOGITS / vocab.max(1)).clamp(64, 2048).next_multiple_of(TASK_ROWS)
}

/// The targets of the operation: none where the token does not count.
type Ids = Arc<Vec<Option<usize>>>;

/// As [`super::head_cross_entropy`], for any number of tokens.
pub(super) fn score(hidden: Tensor<2>, head: Tensor<2>, targets: Targets, scale: Option<f64>) -> Scored {
    let ids = targets.ids.iter().zip(targets.mask).map(|(&id, &counts)| counts.then_some(id as usize));
    let scale_or_none = scale.map(|scale| scale as f32);
    let (hidden, head) = (hidden.into_dispatch(), head.into_dispatch());
    let (losses, d_hidden, d_head) =
        Dispatch::k_head_losses(hidden, head, Arc::new(ids.collect()), scale_or_none);
    let gradients =
        Gradients { hidden: Tensor::from_dispatch(d_hidden), head: Tensor::from_dispatch(d_head) };
    Scored { losses: Tensor::from_dispatch(losses), gradients: scale.map(|_| gradients) }
}

/// A number, `[1]`, with these derivatives with respect to hidden states and head. Its value is 0.
pub fn surrogate(hidden: Tensor<2>, head: Tensor<2>, gradients: Gradients) -> Tensor<1> {
    let Gradients { hidden: d_hidden, head: d_head } = gradients;
    let (hidden, head) = (hidden.into_dispatch(), head.into_dispatch());
    let [d_hidden, d_head] = [d_hidden, d_head].map(|x| Tensor::from_inner(x).into_dispatch());
    Tensor::from_dispatch(Dispatch::k_surrogate(hidden, head, d_hidden, d_head))
}

#[backend_extension(Flex)]
trait HeadLosses: Backend {
    /// The loss of each token and, with a scale, the gradients of the sum of losses times the scale.
    fn k_head_losses(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        ids: Ids,
        scale: Option<f32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Some rows of a chunk: the first one, and their parts of logits, gradient and losses.
type Task<'a> = (usize, &'a mut [f32], &'a mut [f32], &'a mut [f32]);

impl HeadLosses for Flex {
    fn k_head_losses(
        hidden: FlexTensor,
        head: FlexTensor,
        ids: Ids,
        scale: Option<f32>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let ((tokens, width), (_, vocab)) = (shape2(&hidden), shape2(&head));
        let hidden = hidden.to_contiguous();
        let hidden = values(&hidden);
        // A head that is a transposed embedding is laid out that way.
        let is_table = head.layout().strides() == [1, width as isize];
        let head = if is_table { head.transpose(0, 1) } else { head }.to_contiguous();
        let head = match is_table {
            true => View::rows(values(&head), width).transposed(),
            false => View::rows(values(&head), vocab),
        };
        let mut packed = vec![(head, width, vocab)];
        packed.extend(scale.map(|_| (head.transposed(), vocab, width)));
        let packed = Packed::all(&packed);
        let mut losses = vec![0.0f32; tokens];
        let mut d_hidden = unwritten(if scale.is_some() { tokens * width } else { 0 });
        let mut d_table = vec![0.0f32; if scale.is_some() { vocab * width } else { 0 }];
        let chunk = chunk_tokens(vocab).min(tokens.max(1));
        let mut logits = Scratch::of(chunk * vocab);
        for start in (0..tokens).step_by(chunk) {
            let n = chunk.min(tokens - start);
            let logits = &mut logits[..n * vocab];
            let (mut rest, mut tasks) = (&mut d_hidden[..], Vec::<Task>::new());
            if scale.is_some() {
                rest = &mut rest[start * width..];
            }
            let of_losses = losses[start..start + n].chunks_mut(TASK_ROWS).enumerate();
            for ((i, losses), logits) in of_losses.zip(logits.chunks_mut(TASK_ROWS * vocab)) {
                let size = if scale.is_some() { losses.len() * width } else { 0 };
                let (gradient, behind) = rest.split_at_mut(size);
                rest = behind;
                tasks.push((start + i * TASK_ROWS, logits, gradient, losses));
            }
            tasks.into_par_iter().for_each(|(first, logits, gradient, losses)| {
                rows(View::rows(&hidden[first * width..], width), &packed[0], logits, false);
                vectorized(
                    #[inline(always)]
                    || score_rows(logits, losses, &ids[first..], scale),
                );
                if scale.is_some() {
                    rows(View::rows(logits, vocab), &packed[1], gradient, false);
                }
            });
            if scale.is_some() {
                add_head(&mut d_table, logits, &hidden[start * width..(start + n) * width], width);
            }
        }
        let [rows, columns, n_hidden] = match scale {
            Some(_) => [vocab, width, tokens],
            None => [0, 0, 0],
        };
        let d_head = tensor(d_table, [rows, columns]).transpose(0, 1);
        (tensor(losses, [tokens]), tensor(d_hidden, [n_hidden, columns]), d_head)
    }
}

/// Adds the contribution of some logits' gradients to the gradient of the head, `[vocab, width]`.
fn add_head(d_table: &mut [f32], logits: &[f32], hidden: &[f32], width: usize) {
    let (tokens, vocab) = (hidden.len() / width, d_table.len() / width);
    let hidden = Packed::new(View::rows(hidden, width), tokens, width);
    let logits = View::rows(logits, vocab).transposed();
    // Adjacent entries of the vocabulary in a row of logits: whole cache lines.
    let n = 96;
    d_table.par_chunks_mut(n * width).enumerate().for_each(|(i, d_table)| {
        rows(logits.from_row(i * n), &hidden, d_table, true);
    });
}

/// Losses of some rows of logits, which become their gradients if there is a scale.
#[inline(always)]
fn score_rows(logits: &mut [f32], losses: &mut [f32], ids: &[Option<usize>], scale: Option<f32>) {
    let vocab = logits.len() / losses.len().max(1);
    for ((row, loss), id) in logits.chunks_exact_mut(vocab.max(1)).zip(losses).zip(ids) {
        let Some(id) = *id else {
            *loss = 0.0;
            row.fill(0.0);
            continue;
        };
        let (largest, target) = (max(row), row[id]);
        for logit in row.iter_mut() {
            *logit = exp(*logit - largest);
        }
        let sum = sum(row);
        *loss = largest - target + sum.ln();
        if let Some(scale) = scale {
            let factor = scale / sum;
            for logit in row.iter_mut() {
                *logit *= factor;
            }
            row[id] -= scale;
        }
    }
}

#[backend_extension(Flex, Autodiff)]
trait Surrogate: Backend {
    /// 0, with derivatives that are already known.
    fn k_surrogate(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        d_hidden: FloatTensor<Self>,
        d_head: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// A tensor times a number, `[1]`.
    fn k_times(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct Known;

impl<B: Surrogate> Backward<B, 2> for Known {
    /// The derivatives.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Found, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        for (parent, derivative) in ops.parents.into_iter().zip(ops.state) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::k_times(derivative, grad.clone()));
            }
        }
    }
}

impl<B: Surrogate, C: CheckpointStrategy> Surrogate for Autodiff<B, C> {
    fn k_surrogate(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        d_hidden: FloatTensor<Self>,
        d_head: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = Known.prepare::<C>([hidden.node(), head.node()]).compute_bound().stateful();
        let [hidden, head, d_hidden, d_head] =
            [hidden, head, d_hidden, d_head].map(|x: FloatTensor<Self>| x.into_primitive());
        let y = B::k_surrogate(hidden, head, d_hidden.clone(), d_head.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish([d_hidden, d_head], y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_times(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        first_order_only()
    }
}

impl Surrogate for Flex {
    fn k_surrogate(_: FlexTensor, _: FlexTensor, _: FlexTensor, _: FlexTensor) -> FlexTensor {
        tensor(vec![0.0], [1])
    }

    fn k_times(x: FlexTensor, factor: FlexTensor) -> FlexTensor {
        match values(&factor) {
            // This is the case if the loss is what is differentiated.
            [1.0] => x,
            factor => Self::float_mul_scalar(x, factor[0].into()),
        }
    }
}
