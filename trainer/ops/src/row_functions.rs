//! Functions of rows: what routers compute from the logits of a token.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Tensor, activation};

use super::Form;
use super::flex::{
    dot, exp, fill_rows, first_order_only, max, row, shape2, sigmoid, softmax_row, sum, values,
};

/// A function of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Softmax,
    Sigmoid,
    Shares,
    LogSum,
}

/// `e^x_i / sum_j e^x_j` of each row, `[rows, columns]`.
pub fn softmax(x: Tensor<2>) -> Tensor<2> {
    match Form::of(&x) {
        Form::Cpu => on_cpu(x, Function::Softmax),
        Form::Plain | Form::Gpu => activation::softmax(x, 1),
    }
}

/// `1 / (1 + e^-x)` of each value, `[rows, columns]`.
pub fn logistic(x: Tensor<2>) -> Tensor<2> {
    match Form::of(&x) {
        Form::Cpu => on_cpu(x, Function::Sigmoid),
        Form::Plain | Form::Gpu => activation::sigmoid(x),
    }
}

/// Added to sums of positive values, so that a row of underflowed values can be divided.
const LEAST: f32 = 1e-20;

/// Each value of positive rows divided by the sum of its row, `[rows, columns]`.
pub fn shares(x: Tensor<2>) -> Tensor<2> {
    match Form::of(&x) {
        Form::Cpu => on_cpu(x, Function::Shares),
        Form::Plain | Form::Gpu => x.clone() / x.sum_dim(1).add_scalar(LEAST),
    }
}

/// `log(sum_j e^x_j)` of each row, `[rows, 1]`.
pub fn log_sum(x: Tensor<2>) -> Tensor<2> {
    match Form::of(&x) {
        Form::Cpu => on_cpu(x, Function::LogSum),
        Form::Plain | Form::Gpu => {
            // The largest value is subtracted as a constant: its gradient cancels.
            let max = x.clone().detach().max_dim(1);
            (x - max.clone()).exp().sum_dim(1).log() + max
        }
    }
}

fn on_cpu(x: Tensor<2>, function: Function) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::k_of_rows(x.into_dispatch(), function))
}

/// The CPU form, whose sums have the same order on every processor.
#[backend_extension(Flex, Autodiff)]
trait RowFunctions: Backend {
    /// The function of each row.
    fn k_of_rows(x: FloatTensor<Self>, function: Function) -> FloatTensor<Self>;
    /// Its gradient, from input and result.
    fn k_of_rows_backward(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        function: Function,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct OfRows;

impl<B: RowFunctions> Backward<B, 1> for OfRows {
    /// Input and result.
    type State = ([FloatTensor<B>; 2], Function);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let ([x, y], function) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::k_of_rows_backward(x, y, grad, function));
        }
    }
}

impl<B: RowFunctions, C: CheckpointStrategy> RowFunctions for Autodiff<B, C> {
    fn k_of_rows(x: FloatTensor<Self>, function: Function) -> FloatTensor<Self> {
        let prep = OfRows.prepare::<C>([x.node()]).compute_bound().stateful();
        let x = x.into_primitive();
        let y = B::k_of_rows(x.clone(), function);
        match prep {
            OpsKind::Tracked(prep) => prep.finish(([x, y.clone()], function), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn k_of_rows_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Function,
    ) -> FloatTensor<Self> {
        first_order_only()
    }
}

impl Function {
    /// The function of a row.
    #[inline(always)]
    fn of(self, out: &mut [f32], x: &[f32]) {
        match self {
            Self::Softmax => {
                softmax_row(out, x, 1.0);
            }
            Self::Sigmoid => out.iter_mut().zip(x).for_each(|(out, &x)| *out = sigmoid(x)),
            Self::Shares => {
                let sum = sum(x) + LEAST;
                out.iter_mut().zip(x).for_each(|(out, x)| *out = x / sum);
            }
            Self::LogSum => {
                let largest = max(x);
                // Few values: no memory is needed for their exponentials.
                let sum = x.iter().fold(0.0, |sum, x| sum + exp(x - largest));
                out[0] = largest + sum.ln();
            }
        }
    }

    /// Its gradient, from the row, its function and the gradient of that.
    #[inline(always)]
    fn slope(self, out: &mut [f32], x: &[f32], y: &[f32], grad: &[f32]) {
        match self {
            Self::Softmax => {
                let mean = dot(y, grad);
                out.iter_mut().zip(y).zip(grad).for_each(|((out, y), grad)| *out = y * (grad - mean));
            }
            Self::Sigmoid => {
                out.iter_mut().zip(y).zip(grad).for_each(|((out, y), grad)| *out = grad * y * (1.0 - y));
            }
            Self::Shares => {
                let (sum, mean) = (sum(x) + LEAST, dot(y, grad));
                out.iter_mut().zip(grad).for_each(|(out, grad)| *out = (grad - mean) / sum);
            }
            Self::LogSum => {
                softmax_row(out, x, 1.0);
                out.iter_mut().for_each(|out| *out *= grad[0]);
            }
        }
    }
}

impl RowFunctions for Flex {
    fn k_of_rows(x: FlexTensor, function: Function) -> FlexTensor {
        let (rows, width) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let columns = if function == Function::LogSum { 1 } else { width };
        fill_rows(
            [rows, columns],
            #[inline(always)]
            |i, out| function.of(out, row(x, i, width)),
        )
    }

    fn k_of_rows_backward(x: FlexTensor, y: FlexTensor, grad: FlexTensor, function: Function) -> FlexTensor {
        let ((rows, width), (_, columns)) = (shape2(&x), shape2(&y));
        let (x, y, grad) = (x.to_contiguous(), y.to_contiguous(), grad.to_contiguous());
        let (x, y, grad) = (values(&x), values(&y), values(&grad));
        fill_rows(
            [rows, width],
            #[inline(always)]
            |i, out| function.slope(out, row(x, i, width), row(y, i, columns), row(grad, i, columns)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn the_fast_forms_equal_the_plain_ones() {
        check([1, 1], |x, _| softmax(x));
        check([1, 1], |x, _| logistic(x));
        check([1, 1], |x, _| shares(x.clone() * x + 0.5));
        check([1, 1], |x, _| log_sum(x));
    }
}
