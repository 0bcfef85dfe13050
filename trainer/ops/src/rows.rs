//! From tokens to the rows of their experts and back (MegaBlocks, Gale et al. 2022, arXiv 2211.15841, section
//! 4). Both directions are gathers by index, never scattered sums, so the result is always the same.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use moe_kernels::rows;

use super::Form;
use super::flex::{add, dot, fill_rows, first_order_only, integers, row, shape2, values};
use super::routing::Routes;

/// Copies each token to its rows; unused rows, after the last, are zero.
///
/// # Shapes
/// - x: `[tokens, width]`
/// - result: `[tokens * k, width]`
pub fn gather_rows(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
    match Form::of(&x) {
        Form::Plain => rows::gather_rows_plain(x, routes),
        Form::Gpu => rows::gather_rows(x, routes),
        Form::Cpu => {
            let Routes { row_of_choice, choice_of_row, top_k, .. } = routes.clone();
            let (rows, choices) = (row_of_choice.into_dispatch(), choice_of_row.into_dispatch());
            Tensor::from_dispatch(Dispatch::k_gather(x.into_dispatch(), rows, choices, top_k))
        }
    }
}

/// The weighted sum of each token's rows, in f32 and in the order of its choices; zero for padding.
///
/// # Shapes
/// - rows: `[tokens * k, width]`
/// - weights: `[tokens, k]`, f32
/// - result: `[tokens, width]`
pub fn combine_rows(rows: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
    match Form::of(&rows) {
        Form::Plain => rows::combine_rows_plain(rows, weights, routes),
        Form::Gpu => rows::combine_rows(rows, weights, routes),
        Form::Cpu => {
            let Routes { row_of_choice, choice_of_row, .. } = routes.clone();
            let (of_choice, of_row) = (row_of_choice.into_dispatch(), choice_of_row.into_dispatch());
            let (rows, weights) = (rows.into_dispatch(), weights.into_dispatch());
            Tensor::from_dispatch(Dispatch::k_combine(rows, weights, of_choice, of_row))
        }
    }
}

/// The CPU form. Indices are -1 where there is no row or no choice.
#[backend_extension(Flex, Autodiff)]
trait ExpertRows: Backend {
    /// The token of each row.
    fn k_gather(
        x: FloatTensor<Self>,
        row_of_choice: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
        top_k: usize,
    ) -> FloatTensor<Self>;
    /// For each token the sum of its rows.
    fn k_gather_backward(
        grad: FloatTensor<Self>,
        row_of_choice: IntTensor<Self>,
        top_k: usize,
    ) -> FloatTensor<Self>;
    /// For each token the weighted sum of its rows.
    fn k_combine(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        row_of_choice: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
    ) -> FloatTensor<Self>;
    /// Gradients of [`ExpertRows::k_combine`].
    fn k_combine_backward(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        row_of_choice: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct Gather;

impl<B: ExpertRows> Backward<B, 1> for Gather {
    type State = (IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (row_of_choice, top_k) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::k_gather_backward(grad, row_of_choice, top_k));
        }
    }
}

#[derive(Debug)]
struct Combine;

impl<B: ExpertRows> Backward<B, 2> for Combine {
    type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [of_rows, of_weights] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (rows, weights, row_of_choice, choice_of_row) = ops.state;
        let (d_rows, d_weights) = B::k_combine_backward(rows, weights, grad, row_of_choice, choice_of_row);
        if let Some(parent) = of_rows {
            grads.register::<B>(parent.id, d_rows);
        }
        if let Some(parent) = of_weights {
            grads.register::<B>(parent.id, d_weights);
        }
    }
}

impl<B: ExpertRows, C: CheckpointStrategy> ExpertRows for Autodiff<B, C> {
    fn k_gather(
        x: FloatTensor<Self>,
        row_of_choice: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
        top_k: usize,
    ) -> FloatTensor<Self> {
        let prep = Gather.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::k_gather(x.into_primitive(), row_of_choice.clone(), choice_of_row, top_k);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((row_of_choice, top_k), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_gather_backward(_: FloatTensor<Self>, _: IntTensor<Self>, _: usize) -> FloatTensor<Self> {
        first_order_only()
    }

    fn k_combine(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        row_of_choice: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = Combine.prepare::<C>([rows.node(), weights.node()]).compute_bound().stateful();
        let (rows, weights) = (rows.into_primitive(), weights.into_primitive());
        let y = B::k_combine(rows.clone(), weights.clone(), row_of_choice.clone(), choice_of_row.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((rows, weights, row_of_choice, choice_of_row), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_combine_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }
}

impl ExpertRows for Flex {
    fn k_gather(
        x: FlexTensor,
        _: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
        top_k: usize,
    ) -> FlexTensor {
        let (_, columns) = shape2(&x);
        let (x, choice_of_row) = (x.to_contiguous(), choice_of_row.to_contiguous());
        let (x, choice_of_row) = (values(&x), integers(&choice_of_row));
        fill_rows(
            [choice_of_row.len(), columns],
            #[inline(always)]
            |i, out| {
                if let Ok(choice) = usize::try_from(choice_of_row[i]) {
                    out.copy_from_slice(row(x, choice / top_k, columns));
                }
            },
        )
    }

    fn k_gather_backward(grad: FlexTensor, row_of_choice: IntTensor<Self>, top_k: usize) -> FlexTensor {
        let (_, columns) = shape2(&grad);
        let (grad, row_of_choice) = (grad.to_contiguous(), row_of_choice.to_contiguous());
        let (grad, row_of_choice) = (values(&grad), integers(&row_of_choice));
        fill_rows(
            [row_of_choice.len() / top_k, columns],
            #[inline(always)]
            |token, out| {
                let choices = token * top_k..(token + 1) * top_k;
                for i in row_of_choice[choices].iter().flat_map(|&i| usize::try_from(i)) {
                    add(out, row(grad, i, columns), 1.0);
                }
            },
        )
    }

    fn k_combine(
        rows: FlexTensor,
        weights: FlexTensor,
        row_of_choice: IntTensor<Self>,
        _: IntTensor<Self>,
    ) -> FlexTensor {
        let ((_, columns), (tokens, top_k)) = (shape2(&rows), shape2(&weights));
        let (rows, weights) = (rows.to_contiguous(), weights.to_contiguous());
        let row_of_choice = row_of_choice.to_contiguous();
        let (rows, weights, row_of_choice) = (values(&rows), values(&weights), integers(&row_of_choice));
        fill_rows(
            [tokens, columns],
            #[inline(always)]
            |token, out| {
                for choice in token * top_k..(token + 1) * top_k {
                    if let Ok(i) = usize::try_from(row_of_choice[choice]) {
                        add(out, row(rows, i, columns), weights[choice]);
                    }
                }
            },
        )
    }

    fn k_combine_backward(
        rows: FlexTensor,
        weights: FlexTensor,
        grad: FlexTensor,
        row_of_choice: IntTensor<Self>,
        choice_of_row: IntTensor<Self>,
    ) -> (FlexTensor, FlexTensor) {
        let ((n_rows, columns), (tokens, top_k)) = (shape2(&rows), shape2(&weights));
        let (rows, weights, grad) = (rows.to_contiguous(), weights.to_contiguous(), grad.to_contiguous());
        let (rows, weights, grad) = (values(&rows), values(&weights), values(&grad));
        let (row_of_choice, choice_of_row) = (row_of_choice.to_contiguous(), choice_of_row.to_contiguous());
        let (row_of_choice, choice_of_row) = (integers(&row_of_choice), integers(&choice_of_row));
        let d_rows = fill_rows(
            [n_rows, columns],
            #[inline(always)]
            |i, out| {
                if let Ok(choice) = usize::try_from(choice_of_row[i]) {
                    add(out, row(grad, choice / top_k, columns), weights[choice]);
                }
            },
        );
        let d_weights = fill_rows(
            [tokens, top_k],
            #[inline(always)]
            |token, out| {
                for (out, &i) in out.iter_mut().zip(&row_of_choice[token * top_k..]) {
                    if let Ok(i) = usize::try_from(i) {
                        *out = dot(row(rows, i, columns), row(grad, token, columns));
                    }
                }
            },
        );
        (d_rows, d_weights)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, routes};
    use super::*;

    #[test]
    fn the_fast_forms_equal_the_plain_ones() {
        let routes = routes();
        check([1, 1], |x, _| gather_rows(x, &routes));
        // Rows are twice as many as tokens, weights two for each token.
        check([131, 2], |x, weights| combine_rows(gather_rows(x, &routes), weights, &routes));
    }
}
