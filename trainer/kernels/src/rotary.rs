//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.2), in one pass over the
//! packed rows of queries, keys and values.
//!
//! One unit for each pair of channels: neighboring units read neighboring channels, so that reads
//! and writes are coalesced in both halves of a head. Every element is read once and written once;
//! the cosines and sines of a token come from cache for all heads but the first.

use burn::tensor::{FloatDType, Tensor};

/// Rotates the first `n_turned` heads of each row by the angles of its token, and copies the others: of a
/// head, the pair `(a, b) = (x_i, x_(i + half))` becomes `(a cos - b sin, a sin + b cos)`.
///
/// Cosines and sines are constants: they get no gradient.
///
/// # Shapes
/// - x: `[tokens, heads * 2 * half]`, f32 or bf16, and so is the result
/// - cos, sin: `[tokens, half]`, f32
///
/// # Panics
/// If the shapes do not match or `n_turned` is greater than the number of heads.
pub fn rotate(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, n_turned: usize) -> Tensor<2> {
    let ([tokens, width], [rows, half]) = (x.dims(), cos.dims());
    assert_eq!(cos.dims(), sin.dims(), "cosines and sines");
    assert_eq!(tokens, rows, "tokens and rows of cosines");
    assert_eq!(width % (2 * half), 0, "a row of {width} is no whole number of heads of {}", 2 * half);
    assert!(n_turned <= width / (2 * half), "{n_turned} heads turn of {}", width / (2 * half));
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::rotate(x, cos, sin, n_turned);
    }
    rotate_plain(x, cos, sin, n_turned)
}

/// [`rotate`] by plain operations, in f32.
pub fn rotate_plain(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, n_turned: usize) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let half = cos.dims()[1];
    let turned_width = n_turned * 2 * half;
    if n_turned == 0 {
        return x;
    }
    let (cos, sin) = (cos.detach().unsqueeze_dim::<3>(1), sin.detach().unsqueeze_dim::<3>(1));
    let dtype = x.dtype();
    let turned = x.clone().narrow(1, 0, turned_width).cast(FloatDType::F32);
    let turned = turned.reshape([tokens, n_turned, 2 * half]);
    let (a, b) = (turned.clone().narrow(2, 0, half), turned.narrow(2, half, half));
    let new_a = a.clone() * cos.clone() - b.clone() * sin.clone();
    let new_b = a * sin + b * cos;
    let turned = Tensor::cat(vec![new_a, new_b], 2).reshape([tokens, turned_width]).cast(dtype);
    match width - turned_width {
        0 => turned,
        rest => Tensor::cat(vec![turned, x.narrow(1, turned_width, rest)], 1),
    }
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    /// `sign` is 1 to rotate and -1 to rotate back.
    #[cube(launch)]
    pub(super) fn turn<F: Float>(
        x: &Tensor<F>,
        cos: &Tensor<f32>,
        sin: &Tensor<f32>,
        y: &mut Tensor<F>,
        n_turned: usize,
        sign: f32,
        #[define(F)] _element: ElemType,
    ) {
        let half = cos.shape(1);
        let heads = x.shape(1) / (2 * half);
        if ABSOLUTE_POS >= x.shape(0) * heads * half {
            terminate!();
        }
        let pair = ABSOLUTE_POS % half;
        let row = ABSOLUTE_POS / half;
        let head = row % heads;
        let token = row / heads;
        let at = row * 2 * half + pair;
        if head < n_turned {
            let cos = cos[token * half + pair];
            let sin = sign * sin[token * half + pair];
            let a = f32::cast_from(x[at]);
            let b = f32::cast_from(x[at + half]);
            y[at] = F::cast_from(a * cos - b * sin);
            y[at + half] = F::cast_from(a * sin + b * cos);
        } else {
            y[at] = x[at];
            y[at + half] = x[at + half];
        }
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::Tensor;
    use burn_cubecl::CubeBackend;
    use cubecl::CubeDim;

    use super::kernels;
    use crate::launch::{element, empty, grid_of_units, into_contiguous};
    use crate::reduce::UNITS;

    pub(super) fn rotate(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, n_turned: usize) -> Tensor<2> {
        let (x, cos, sin) = (x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
        Tensor::from_dispatch(Dispatch::rotate(x, cos, sin, n_turned, 1.0))
    }

    /// The kernel, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
    pub trait RotaryOps: Backend {
        /// The rotated rows; `sign` is 1 to rotate and -1 to rotate back.
        #[fusion(meta = |x, _cos, _sin, _n_turned, _sign| x.clone())]
        fn rotate(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            n_turned: usize,
            sign: f32,
        ) -> FloatTensor<Self>;
    }

    impl RotaryOps for CubeBackend {
        fn rotate(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            n_turned: usize,
            sign: f32,
        ) -> FloatTensor<Self> {
            let (x, cos, sin) = (into_contiguous(x), into_contiguous(cos), into_contiguous(sin));
            let shape = x.shape();
            let y = empty(&x, shape.clone(), x.dtype);
            kernels::turn::launch(
                &y.client,
                grid_of_units(shape.num_elements() / 2, UNITS),
                CubeDim::new_1d(UNITS),
                x.clone().into_tensor_arg(),
                cos.into_tensor_arg(),
                sin.into_tensor_arg(),
                y.clone().into_tensor_arg(),
                n_turned,
                sign,
                element(x.dtype),
            );
            y
        }
    }

    #[derive(Debug)]
    struct RotateBackward {
        n_turned: usize,
        sign: f32,
    }

    impl<B: RotaryOps> Backward<B, 1> for RotateBackward {
        type State = (FloatTensor<B>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let [parent] = ops.parents;
            let grad = grads.consume::<B>(&ops.node);
            let (cos, sin) = ops.state;
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::rotate(grad, cos, sin, self.n_turned, -self.sign));
            }
        }
    }

    impl<B: RotaryOps, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
        fn rotate(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            n_turned: usize,
            sign: f32,
        ) -> FloatTensor<Self> {
            let prep = RotateBackward { n_turned, sign }.prepare::<C>([x.node()]).compute_bound().stateful();
            let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
            let y = B::rotate(x.into_primitive(), cos.clone(), sin.clone(), n_turned, sign);
            match prep {
                OpsKind::Tracked(prep) => prep.finish((cos, sin), y),
                OpsKind::UnTracked(prep) => prep.finish(y),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tensor<const R: usize, const C: usize>(values: [[f32; C]; R], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::from(values), device)
    }

    fn host(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().expect("f32")
    }

    #[test]
    fn a_quarter_turn_swaps_a_pair_and_leaves_the_other_head() {
        let device = Device::flex();
        // Two heads of four channels; the first pair is rotated by 90 degrees, the second not at all.
        let x = tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]], &device);
        let (cos, sin) = (tensor([[0.0, 1.0]], &device), tensor([[1.0, 0.0]], &device));
        let y = rotate(x.clone(), cos.clone(), sin.clone(), 1);
        assert_eq!(host(y), [-3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let y = rotate(x.clone(), cos.clone(), sin.clone(), 2);
        assert_eq!(host(y), [-3.0, 2.0, 1.0, 4.0, -7.0, 6.0, 5.0, 8.0]);
        assert_eq!(host(rotate(x.clone(), cos, sin, 0)), host(x));
    }

    #[test]
    fn the_gradient_turns_back() {
        let device = Device::flex().autodiff();
        let x = tensor([[0.0, 0.0, 0.0, 0.0]], &device).require_grad();
        let (cos, sin) = (tensor([[0.6]], &device), tensor([[0.8]], &device));
        let grads =
            (rotate(x.clone(), cos, sin, 1) * tensor([[1.0, 2.0, 3.0, 4.0]], &device)).sum().backward();
        let grad = host(x.grad(&grads).expect("tracked"));
        for (found, expected) in grad.iter().zip([0.6 + 1.6, -0.8 + 1.2, 3.0, 4.0]) {
            assert!((found - expected).abs() < 1e-6, "{grad:?}");
        }
    }
}
