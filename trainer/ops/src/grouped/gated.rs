//! The first half of a gated feed-forward on the CPU, `silu(x W_gate) * (x W_up)` for rows of groups: both
//! products and the unit in one pass over the rows.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor};
use rayon::prelude::*;

use super::super::cpu::{Scratch, View, rows, unwritten, vectorized};
use super::super::flex::{first_order_only, shape2, tensor, values};
use super::super::swiglu::{swiglu_backward_rows, swiglu_rows};
use super::tasks::{Groups, of_matrices};

/// As [`super::grouped_swiglu`].
pub(super) fn gated(x: Tensor<2>, w_gate: Tensor<3>, w_up: Tensor<3>, offsets: Tensor<1, Int>) -> Tensor<2> {
    let [w_gate, w_up] = [w_gate, w_up].map(Tensor::into_dispatch);
    let (y, _, _) = Dispatch::k_gated(x.into_dispatch(), w_gate, w_up, offsets.into_dispatch());
    Tensor::from_dispatch(y)
}

#[backend_extension(Flex, Autodiff)]
trait GatedRows: Backend {
    /// The result; and both products, which the gradient needs.
    fn k_gated(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// Gradients of input and matrices.
    fn k_gated_backward(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct Gated;

impl<B: GatedRows> Backward<B, 3> for Gated {
    /// Input, matrices and both products.
    type State = ([FloatTensor<B>; 5], IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([x, w_gate, w_up, gate, up], offsets) = ops.state;
        let (d_x, d_gate, d_up) = B::k_gated_backward(x, w_gate, w_up, gate, up, grad, offsets);
        for (parent, grad) in ops.parents.into_iter().zip([d_x, d_gate, d_up]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

impl<B: GatedRows, C: CheckpointStrategy> GatedRows for Autodiff<B, C> {
    fn k_gated(
        x: FloatTensor<Self>,
        w_gate: FloatTensor<Self>,
        w_up: FloatTensor<Self>,
        offsets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let prep = Gated.prepare::<C>([x.node(), w_gate.node(), w_up.node()]).compute_bound().stateful();
        let [x, w_gate, w_up] = [x, w_gate, w_up].map(|x: FloatTensor<Self>| x.into_primitive());
        let (y, gate, up) = B::k_gated(x.clone(), w_gate.clone(), w_up.clone(), offsets.clone());
        let y = match prep {
            OpsKind::Tracked(prep) => prep.finish(([x, w_gate, w_up, gate.clone(), up.clone()], offsets), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, FloatTensor::<Self>::new(gate), FloatTensor::<Self>::new(up))
    }

    fn k_gated_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        first_order_only()
    }
}

impl GatedRows for Flex {
    fn k_gated(
        x: FlexTensor,
        w_gate: FlexTensor,
        w_up: FlexTensor,
        offsets: IntTensor<Self>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let ((n_rows, width), columns) = (shape2(&x), w_gate.shape()[2]);
        let [x, w_gate, w_up] = [x, w_gate, w_up].map(|x| x.to_contiguous());
        let groups = Groups::new(&offsets, n_rows);
        let [w_gate, w_up] = [w_gate, w_up].map(|w| groups.packed(values(&w), [width, columns], false));
        let [mut y, mut gate, mut up] = [(); 3].map(|()| unwritten(n_rows * columns));
        let x = View::rows(values(&x), width);
        let tasks = groups.tasks([(&mut y, columns), (&mut gate, columns), (&mut up, columns)]);
        tasks.into_par_iter().for_each(|task| {
            let [y, gate, up] = task.outs;
            rows(x.from_row(task.first), &w_gate[task.group], gate, false);
            rows(x.from_row(task.first), &w_up[task.group], up, false);
            vectorized(
                #[inline(always)]
                || swiglu_rows(y, gate, up),
            );
        });
        (tensor(y, [n_rows, columns]), tensor(gate, [n_rows, columns]), tensor(up, [n_rows, columns]))
    }

    fn k_gated_backward(
        x: FlexTensor,
        w_gate: FlexTensor,
        w_up: FlexTensor,
        gate: FlexTensor,
        up: FlexTensor,
        grad: FlexTensor,
        offsets: IntTensor<Self>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let ((n_rows, width), shape) = (shape2(&x), w_gate.shape());
        let (n_experts, columns) = (shape[0], shape[2]);
        let [x, w_gate, w_up, grad] = [x, w_gate, w_up, grad].map(|x| x.to_contiguous());
        let groups = Groups::new(&offsets, n_rows);
        let [w_gate, w_up] = [w_gate, w_up].map(|w| groups.packed(values(&w), [width, columns], true));
        let mut d_x = unwritten(n_rows * width);
        let [mut d_gate, mut d_up] = [(); 2].map(|()| Scratch::of(n_rows * columns));
        let (gate, up, grad) = (values(&gate), values(&up), values(&grad));
        let tasks = groups.tasks([(&mut d_x, width), (&mut d_gate, columns), (&mut d_up, columns)]);
        tasks.into_par_iter().for_each(|task| {
            let [d_x, d_gate, d_up] = task.outs;
            let at = task.first * columns..task.first * columns + d_gate.len();
            vectorized(
                #[inline(always)]
                || swiglu_backward_rows([d_gate, d_up], [&gate[at.clone()], &up[at.clone()], &grad[at]]),
            );
            rows(View::rows(d_gate, columns), &w_gate[task.group], d_x, false);
            rows(View::rows(d_up, columns), &w_up[task.group], d_x, true);
        });
        let of = |grad: &[f32]| of_matrices(values(&x), grad, [width, columns], &groups, n_experts);
        let [d_w_gate, d_w_up] = [of(&d_gate), of(&d_up)].map(|d_w| tensor(d_w, [n_experts, width, columns]));
        (tensor(d_x, [n_rows, width]), d_w_gate, d_w_up)
    }
}
