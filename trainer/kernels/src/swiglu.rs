//! The gated unit SwiGLU (Shazeer 2020, arXiv 2002.05202, section 2): `silu(gate) * up`, with
//! `silu(x) = x * sigmoid(x)`.
//!
//! Element by element, one vector of 16 bytes for each unit: forward reads two tensors and writes
//! one, backward reads three and writes two, and nothing else is kept.

use burn::tensor::{FloatDType, Tensor, activation};

/// `silu(gate) * up`.
///
/// # Shapes
/// - gate, up: `[rows, columns]`, f32 or bf16, both alike, and so is the result
///
/// # Panics
/// If the shapes differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "gate and up must have one shape");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&gate.device()) {
        return gpu::swiglu(gate, up);
    }
    swiglu_plain(gate, up)
}

/// [`swiglu`] by plain operations, in f32.
pub fn swiglu_plain(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let dtype = gate.dtype();
    let (gate, up) = (gate.cast(FloatDType::F32), up.cast(FloatDType::F32));
    (activation::silu(gate) * up).cast(dtype)
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    #[cube(launch)]
    pub(super) fn forward<F: Float, N: Size>(
        gate: &Tensor<Vector<F, N>>,
        up: &Tensor<Vector<F, N>>,
        y: &mut Tensor<Vector<F, N>>,
        #[define(F)] _element: ElemType,
    ) {
        let at = ABSOLUTE_POS;
        if at >= y.len() {
            terminate!();
        }
        let gate = Vector::<f32, N>::cast_from(gate[at]);
        let one = Vector::<f32, N>::new(1.0f32);
        let value = gate / (one + (-gate).exp()) * Vector::cast_from(up[at]);
        y[at] = Vector::cast_from(value);
    }

    /// `d_up = grad * gate * s` and `d_gate = grad * up * s * (1 + gate * (1 - s))` with
    /// `s = sigmoid(gate)`.
    #[cube(launch)]
    pub(super) fn backward<F: Float, N: Size>(
        gate: &Tensor<Vector<F, N>>,
        up: &Tensor<Vector<F, N>>,
        grad: &Tensor<Vector<F, N>>,
        d_gate: &mut Tensor<Vector<F, N>>,
        d_up: &mut Tensor<Vector<F, N>>,
        #[define(F)] _element: ElemType,
    ) {
        let at = ABSOLUTE_POS;
        if at >= d_up.len() {
            terminate!();
        }
        let gate = Vector::<f32, N>::cast_from(gate[at]);
        let up = Vector::<f32, N>::cast_from(up[at]);
        let grad = Vector::<f32, N>::cast_from(grad[at]);
        let one = Vector::<f32, N>::new(1.0f32);
        let sigmoid = one / (one + (-gate).exp());
        d_up[at] = Vector::cast_from(grad * gate * sigmoid);
        d_gate[at] = Vector::cast_from(grad * up * sigmoid * (one + gate * (one - sigmoid)));
    }
}

#[cfg(feature = "gpu")]
pub(crate) mod gpu {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::Tensor;
    use burn_cubecl::CubeBackend;
    use burn_cubecl::tensor::CubeTensor;
    use cubecl::CubeDim;

    use super::kernels;
    use crate::launch::{element, empty, grid_of_units, into_contiguous};
    use crate::reduce::UNITS;

    pub(super) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
    }

    /// The kernels, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
    pub trait SwigluOps: Backend {
        /// `silu(gate) * up`.
        #[fusion(dtype = gate, shape = gate)]
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
        /// Gradients of gate and up.
        #[fusion(meta = |gate, up, _grad| (gate.clone(), up.clone()))]
        fn swiglu_backward(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);
    }

    /// Elements that one unit loads at a time: as many as the device can, among those that divide `x`.
    fn vector_size(x: &CubeTensor) -> usize {
        let elements = x.shape().num_elements();
        let mut sizes = x.client.io_optimized_vector_sizes(x.dtype.size());
        sizes.find(|&size| elements.is_multiple_of(size)).unwrap_or(1)
    }

    impl SwigluOps for CubeBackend {
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
            let (gate, up) = (into_contiguous(gate), into_contiguous(up));
            let y = empty(&gate, gate.shape(), gate.dtype);
            let size = vector_size(&y);
            kernels::forward::launch(
                &y.client,
                grid_of_units(y.shape().num_elements() / size, UNITS),
                CubeDim::new_1d(UNITS),
                size,
                gate.into_tensor_arg(),
                up.into_tensor_arg(),
                y.clone().into_tensor_arg(),
                element(y.dtype),
            );
            y
        }

        fn swiglu_backward(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (gate, up, grad) = (into_contiguous(gate), into_contiguous(up), into_contiguous(grad));
            let d_gate = empty(&gate, gate.shape(), gate.dtype);
            let d_up = empty(&gate, gate.shape(), gate.dtype);
            let size = vector_size(&d_gate);
            kernels::backward::launch(
                &d_up.client,
                grid_of_units(d_up.shape().num_elements() / size, UNITS),
                CubeDim::new_1d(UNITS),
                size,
                gate.into_tensor_arg(),
                up.into_tensor_arg(),
                grad.into_tensor_arg(),
                d_gate.clone().into_tensor_arg(),
                d_up.clone().into_tensor_arg(),
                element(d_up.dtype),
            );
            (d_gate, d_up)
        }
    }

    #[derive(Debug)]
    struct SwigluBackward;

    impl<B: SwigluOps> Backward<B, 2> for SwigluBackward {
        type State = (FloatTensor<B>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [gate_parent, up_parent] = ops.parents;
            let grad = grads.consume::<B>(&ops.node);
            let (gate, up) = ops.state;
            let (d_gate, d_up) = B::swiglu_backward(gate, up, grad);
            if let Some(parent) = gate_parent {
                grads.register::<B>(parent.id, d_gate);
            }
            if let Some(parent) = up_parent {
                grads.register::<B>(parent.id, d_up);
            }
        }
    }

    impl<B: SwigluOps, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
        fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
            let prep = SwigluBackward.prepare::<C>([gate.node(), up.node()]).compute_bound().stateful();
            let (gate, up) = (gate.into_primitive(), up.into_primitive());
            let y = B::swiglu(gate.clone(), up.clone());
            match prep {
                OpsKind::Tracked(prep) => prep.finish((gate, up), y),
                OpsKind::UnTracked(prep) => prep.finish(y),
            }
        }

        /// # Panics
        /// Always: gradients of gradients are never needed.
        fn swiglu_backward(
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
            _: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            panic!("kernels have gradients of the first order only")
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn swiglu_by_hand() {
        let device = Device::flex().autodiff();
        let gate = Tensor::<2>::from_data([[0.0, 1.0, -1.0]], &device).require_grad();
        let up = Tensor::<2>::from_data([[5.0, 2.0, 2.0]], &device).require_grad();
        let y = swiglu(gate.clone(), up.clone());
        // sigmoid(1) = 0.7310586, sigmoid(-1) = 0.2689414
        let found: Vec<f32> = y.clone().into_data().try_into_vec().expect("f32");
        check(&found, &[0.0, 1.4621172, -0.5378828]);
        let grads = y.sum().backward();
        // up * s * (1 + gate * (1 - s)), and gate * s
        let found: Vec<f32> = gate.grad(&grads).expect("gate").into_data().try_into_vec().expect("f32");
        check(&found, &[2.5, 1.855341, 0.144659]);
        let found: Vec<f32> = up.grad(&grads).expect("up").into_data().try_into_vec().expect("f32");
        check(&found, &[0.0, 0.7310586, -0.2689414]);
    }

    fn check(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "expected {expected}, found {found}");
        }
    }
}
