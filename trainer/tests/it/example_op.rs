//! The operation that CONTRIBUTING.md shows, word for word, at work.

// In the crate: `use super::{Form, flex};` and `crate` for `moe_train`.
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Tensor, activation};
use moe_train::gradient_of_two;
use moe_train::ops::{Form, flex};

/// `max(gate, 0)^2 * up` (after So et al. 2021, arXiv 2109.08668).
pub fn squared_relu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match Form::of(&gate) {
        Form::Plain | Form::Gpu => squared_relu_plain(gate, up),
        Form::Cpu => Tensor::from_dispatch(Dispatch::squared_relu(gate.into_dispatch(), up.into_dispatch())),
    }
}

/// The plain form, which is enough by itself on every device.
fn squared_relu_plain(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let gate = activation::relu(gate);
    gate.clone() * gate * up
}

// The fast form for the CPU, when a profile asks for one.
#[backend_extension(Flex, Autodiff)]
trait SquaredRelu: Backend {
    fn squared_relu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    fn squared_relu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

gradient_of_two!(SquaredRelu: squared_relu, squared_relu_backward, ());

impl SquaredRelu for Flex {
    fn squared_relu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (rows, columns) = flex::shape2(&gate);
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let (gate, up) = (flex::values(&gate), flex::values(&up));
        flex::fill_rows([rows, columns], |i, out| {
            let (gate, up) = (flex::row(gate, i, columns), flex::row(up, i, columns));
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                let gate = gate.max(0.0);
                *out = gate * gate * up;
            }
        })
    }

    fn squared_relu_backward(gate: FlexTensor, up: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (rows, columns) = flex::shape2(&gate);
        let (gate, up, grad) = (gate.to_contiguous(), up.to_contiguous(), grad.to_contiguous());
        let (gate, up, grad) = (flex::values(&gate), flex::values(&up), flex::values(&grad));
        let each = || gate.iter().zip(up).zip(grad).map(|((gate, up), grad)| (gate.max(0.0), up, grad));
        let d_gate = each().map(|(gate, up, grad)| 2.0 * gate * up * grad).collect();
        let d_up = each().map(|(gate, _, grad)| gate * gate * grad).collect();
        (flex::tensor(d_gate, [rows, columns]), flex::tensor(d_up, [rows, columns]))
    }
}

// The line in the list of modules:
// pub mod squared_relu;

#[test]
fn contributing_shows_this_operation_and_it_works() {
    use super::support::{autodiff, distance, host, noise, tensor};

    super::support::assert_shown(include_str!("example_op.rs"));
    let run = || {
        let [gate, up] = [1, 2].map(|seed| tensor(&noise(seed, 70 * 3), [70, 3], &autodiff()).require_grad());
        let y = squared_relu(gate.clone(), up.clone());
        let grads = (y.clone() * tensor(&noise(3, 70 * 3), [70, 3], &autodiff())).sum().backward();
        [Some(y), gate.grad(&grads), up.grad(&grads)].map(|x| host(x.expect("tracked")))
    };
    for (fast, plain) in run().iter().zip(moe_train::ops::plainly(run)) {
        assert!(distance(fast, &plain) < 1e-6 && plain.iter().any(|&value| value.abs() > 0.1));
    }
}
