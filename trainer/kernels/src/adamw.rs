//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) as one kernel, and the sum of
//! squares that clipping by the norm needs.
//!
//! Element by element: value, gradient and both moments are read once, value and moments written
//! once, 28 bytes for each parameter (26 with a bf16 gradient), into their own buffers where nobody
//! else holds them. The clipping factor stays on the device, so that no step waits for the norm;
//! where it is not finite nothing changes. The sum of squares is added by a number of cubes that
//! depends on the size alone, then by one cube: the same bits in every run on one device.

use burn::tensor::{FloatDType, Tensor};

/// Constants of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Memory of the mean of gradients.
    pub beta1: f64,
    /// Memory of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the corrected second moment.
    pub eps: f64,
    /// Factor of the value: `1 - rate * weight_decay`, or 1 without decay.
    pub decay: f64,
    /// Learning rate.
    pub rate: f64,
    /// `1 - beta1^t` for update number t, from 1.
    pub correction1: f64,
    /// `sqrt(1 - beta2^t)`.
    pub correction2: f64,
}

/// The same with fewer multiplications for each element, in f32.
#[derive(Debug, Clone, Copy)]
struct Scalars {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    decay: f32,
    step: f32,
}

impl AdamW {
    /// The corrections of both moments, folded into the step and into eps:
    /// `(m / c1) / (sqrt(v) / c2 + eps) = c2 / c1 * m / (sqrt(v) + c2 * eps)`.
    fn scalars(&self) -> Scalars {
        Scalars {
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            eps: (self.eps * self.correction2) as f32,
            decay: self.decay as f32,
            step: (self.rate * self.correction2 / self.correction1) as f32,
        }
    }
}

/// The sum of the squares of all elements, in f32.
///
/// # Shapes
/// - x: `[n]`, f32 or bf16
/// - result: `[1]`, f32
pub fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&x.device()) {
        return gpu::sum_of_squares(x);
    }
    sum_of_squares_plain(x)
}

/// [`sum_of_squares`] by plain operations.
pub fn sum_of_squares_plain(x: Tensor<1>) -> Tensor<1> {
    let x = x.cast(FloatDType::F32);
    (x.clone() * x).sum()
}

/// One update of parameters: the new value and moments. With `g = factor * gradient`:
///
/// - `first = beta1 first + (1 - beta1) g`, `second = beta2 second + (1 - beta2) g^2`
/// - `value = decay value - rate (first / correction1) / (sqrt(second) / correction2 + eps)`
///
/// An absent gradient is a gradient of zero: the moments decay and the parameters still move by
/// what they remember. A factor that is not finite leaves value and moments as they are. Called
/// outside of autodiff; no gradient.
///
/// # Shapes
/// - value, first, second: `[n]`, f32
/// - gradient: `[n]`, f32 or bf16
/// - factor: `[1]`, f32
///
/// # Panics
/// When the shapes do not agree, and on a GPU when anything but the gradient is not f32.
pub fn adamw(
    value: Tensor<1>,
    gradient: Option<Tensor<1>>,
    first: Tensor<1>,
    second: Tensor<1>,
    factor: Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let n = value.dims();
    assert_eq!((first.dims(), second.dims(), factor.dims()), (n, n, [1]), "shapes beside a value {n:?}");
    assert!(
        gradient.as_ref().is_none_or(|gradient| gradient.dims() == n),
        "a gradient is not of shape {n:?}"
    );
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&value.device()) {
        return gpu::adamw(value, gradient, first, second, factor, constants);
    }
    adamw_plain(value, gradient, first, second, factor, constants)
}

/// [`adamw`] by plain operations.
pub fn adamw_plain(
    value: Tensor<1>,
    gradient: Option<Tensor<1>>,
    first: Tensor<1>,
    second: Tensor<1>,
    factor: Tensor<1>,
    constants: AdamW,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let Scalars { beta1, rest1, beta2, rest2, eps, decay, step } = constants.scalars();
    let gradient = match gradient {
        Some(gradient) => gradient.cast(FloatDType::F32) * factor.clone(),
        None => value.zeros_like(),
    };
    let new_first = first.clone() * beta1 + gradient.clone() * rest1;
    let new_second = second.clone() * beta2 + gradient.clone() * gradient * rest2;
    let ratio = new_first.clone() / new_second.clone().sqrt().add_scalar(eps);
    let new_value = value.clone() * decay - ratio * step;
    let is_off = factor.is_finite().bool_not().expand(value.dims());
    (
        new_value.mask_where(is_off.clone(), value),
        new_first.mask_where(is_off.clone(), first),
        new_second.mask_where(is_off, second),
    )
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    use crate::reduce::cube_sum;

    /// `partial[cube]`: the squares of every `cubes`-th block of vectors.
    #[cube(launch)]
    pub(super) fn add_squares<F: Float, N: Size>(
        x: &Tensor<Vector<F, N>>,
        partial: &mut Tensor<f32>,
        #[comptime] units: u32,
        #[define(F)] _element: ElemType,
    ) {
        let cubes = partial.shape(0);
        let cube = CUBE_POS;
        if cube >= cubes {
            terminate!();
        }
        let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
        let n = x.shape(0) / x.vector_size();
        let step = cubes * comptime!(units as usize);
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut at = cube * comptime!(units as usize) + UNIT_POS as usize;
        while at < n {
            let value = Vector::<f32, N>::cast_from(x[at]);
            squares += value * value;
            at += step;
        }
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..N::value() {
            sum += squares.extract(i);
        }
        let sum = cube_sum(sum, &mut scratch, units);
        if UNIT_POS == 0 {
            partial[cube] = sum;
        }
    }

    /// The sum of all partial sums. One cube.
    #[cube(launch)]
    pub(super) fn add_partial(partial: &Tensor<f32>, sum: &mut Tensor<f32>, #[comptime] units: u32) {
        let mut scratch = Shared::<[f32]>::new_slice(comptime!(units as usize));
        let n = partial.shape(0);
        let mut of_unit = 0.0f32;
        let mut at = UNIT_POS as usize;
        while at < n {
            of_unit += partial[at];
            at += comptime!(units as usize);
        }
        let total = cube_sum(of_unit, &mut scratch, units);
        if UNIT_POS == 0 {
            sum[0] = total;
        }
    }

    /// The new arrays may be the old ones.
    #[cube(launch)]
    pub(super) fn adamw<G: Float, N: Size>(
        value: &Tensor<Vector<f32, N>>,
        first: &Tensor<Vector<f32, N>>,
        second: &Tensor<Vector<f32, N>>,
        factor: &Tensor<f32>,
        new_value: &mut Tensor<Vector<f32, N>>,
        new_first: &mut Tensor<Vector<f32, N>>,
        new_second: &mut Tensor<Vector<f32, N>>,
        gradient: ComptimeOption<&Tensor<Vector<G, N>>>,
        beta1: f32,
        rest1: f32,
        beta2: f32,
        rest2: f32,
        eps: f32,
        decay: f32,
        step: f32,
        #[define(G)] _element: ElemType,
    ) {
        let at = ABSOLUTE_POS;
        if at >= value.shape(0) / value.vector_size() {
            terminate!();
        }
        let mut v = value[at];
        let mut m1 = first[at];
        let mut m2 = second[at];
        let factor = factor[0];
        // The exponent's bits: compilers may assume that numbers are finite, and drop a comparison.
        if factor.to_bits() & 0x7f80_0000u32 != 0x7f80_0000u32 {
            m1 *= Vector::<f32, N>::new(beta1);
            m2 *= Vector::<f32, N>::new(beta2);
            #[comptime]
            if let ComptimeOption::Some(gradient) = gradient {
                let g = Vector::<f32, N>::cast_from(gradient[at]) * Vector::<f32, N>::new(factor);
                m1 += g * Vector::<f32, N>::new(rest1);
                m2 += g * g * Vector::<f32, N>::new(rest2);
            }
            let ratio = m1 / (m2.sqrt() + Vector::<f32, N>::new(eps));
            v = v * Vector::<f32, N>::new(decay) - ratio * Vector::<f32, N>::new(step);
        }
        new_value[at] = v;
        new_first[at] = m1;
        new_second[at] = m2;
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::fusion::custom::TensorSpec;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
    use burn::tensor::{DType, Shape, Tensor};
    use burn_cubecl::CubeBackend;
    use burn_cubecl::tensor::CubeTensor;
    use cubecl::{CubeCount, CubeDim};

    use super::{AdamW, Scalars, kernels};
    use crate::launch::{
        assert_f32, element, empty, grid, grid_of_units, in_place_or_new, into_contiguous, vector_size,
    };
    use crate::reduce::UNITS;

    /// Vectors that one unit of the first sum adds, where there are enough cubes.
    const VECTORS_PER_UNIT: usize = 8;
    /// Most cubes of the first sum: some for each multiprocessor of any GPU, and few enough for one
    /// cube to add.
    const MAX_CUBES: usize = 2048;

    pub(super) fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::sum_of_squares(x.into_dispatch()))
    }

    pub(super) fn adamw(
        value: Tensor<1>,
        gradient: Option<Tensor<1>>,
        first: Tensor<1>,
        second: Tensor<1>,
        factor: Tensor<1>,
        constants: AdamW,
    ) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
        let inputs =
            [("the value", &value), ("the mean", &first), ("the squares", &second), ("the factor", &factor)];
        for (what, x) in inputs {
            assert_f32(what, x.dtype());
        }
        let (value, factor) = (value.into_dispatch(), factor.into_dispatch());
        let (first, second) = (first.into_dispatch(), second.into_dispatch());
        let (value, first, second) = match gradient {
            Some(gradient) => {
                Dispatch::adamw(value, gradient.into_dispatch(), first, second, factor, constants)
            }
            None => Dispatch::adamw_without_gradient(value, first, second, factor, constants),
        };
        (Tensor::from_dispatch(value), Tensor::from_dispatch(first), Tensor::from_dispatch(second))
    }

    /// The kernels, as an extension of burn's GPU backends.
    #[backend_extension(Cube, Autodiff, Fusion)]
    pub trait AdamWOps: Backend {
        /// The sum of squares, `[1]`.
        #[fusion(meta = |_x| TensorSpec::new(Shape::from([1]), DType::F32))]
        fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
        /// New value, first and second moment.
        #[fusion(meta = |value, _gradient, first, second, _factor, _constants| (value.clone(), first.clone(), second.clone()))]
        fn adamw(
            value: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            factor: FloatTensor<Self>,
            constants: AdamW,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
        /// The same with a gradient of zero.
        #[fusion(meta = |value, first, second, _factor, _constants| (value.clone(), first.clone(), second.clone()))]
        fn adamw_without_gradient(
            value: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            factor: FloatTensor<Self>,
            constants: AdamW,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    }

    fn update(
        value: CubeTensor,
        gradient: Option<CubeTensor>,
        first: CubeTensor,
        second: CubeTensor,
        factor: CubeTensor,
        constants: AdamW,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let (value, factor) = (into_contiguous(value), into_contiguous(factor));
        let (first, second) = (into_contiguous(first), into_contiguous(second));
        let gradient = gradient.map(into_contiguous);
        let n = value.shape()[0];
        let vector = vector_size(&value, n);
        let Scalars { beta1, rest1, beta2, rest2, eps, decay, step } = constants.scalars();
        let client = value.client.clone();
        let (new_value, new_value_arg) = in_place_or_new(&value, 0);
        let (new_first, new_first_arg) = in_place_or_new(&first, 1);
        let (new_second, new_second_arg) = in_place_or_new(&second, 2);
        let gradient_type = gradient.as_ref().map_or(DType::F32, |gradient| gradient.dtype);
        kernels::adamw::launch(
            &client,
            grid_of_units(n / vector, UNITS),
            CubeDim::new_1d(UNITS),
            vector,
            value.into_tensor_arg(),
            first.into_tensor_arg(),
            second.into_tensor_arg(),
            factor.into_tensor_arg(),
            new_value_arg,
            new_first_arg,
            new_second_arg,
            gradient.map(CubeTensor::into_tensor_arg).into(),
            beta1,
            rest1,
            beta2,
            rest2,
            eps,
            decay,
            step,
            element(gradient_type),
        );
        (new_value, new_first, new_second)
    }

    impl AdamWOps for CubeBackend {
        fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
            let x = into_contiguous(x);
            let n = x.shape()[0];
            let vector = vector_size(&x, n);
            let cubes = (n / vector).div_ceil(UNITS as usize * VECTORS_PER_UNIT).clamp(1, MAX_CUBES);
            let partial = empty(&x, [cubes], DType::F32);
            let sum = empty(&x, [1], DType::F32);
            let element = element(x.dtype);
            kernels::add_squares::launch(
                &sum.client,
                grid(cubes),
                CubeDim::new_1d(UNITS),
                vector,
                x.into_tensor_arg(),
                partial.clone().into_tensor_arg(),
                UNITS,
                element,
            );
            kernels::add_partial::launch(
                &sum.client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(UNITS),
                partial.into_tensor_arg(),
                sum.clone().into_tensor_arg(),
                UNITS,
            );
            sum
        }

        fn adamw(
            value: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            factor: FloatTensor<Self>,
            constants: AdamW,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            update(value, Some(gradient), first, second, factor, constants)
        }

        fn adamw_without_gradient(
            value: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            factor: FloatTensor<Self>,
            constants: AdamW,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            update(value, None, first, second, factor, constants)
        }
    }

    impl<B: AdamWOps, C: CheckpointStrategy> AdamWOps for Autodiff<B, C> {
        fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::from_inner(B::sum_of_squares(x.into_primitive()))
        }

        fn adamw(
            value: FloatTensor<Self>,
            gradient: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            factor: FloatTensor<Self>,
            constants: AdamW,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            let (value, gradient) = (value.into_primitive(), gradient.into_primitive());
            let (first, second) = (first.into_primitive(), second.into_primitive());
            let (value, first, second) =
                B::adamw(value, gradient, first, second, factor.into_primitive(), constants);
            (Self::from_inner(value), Self::from_inner(first), Self::from_inner(second))
        }

        fn adamw_without_gradient(
            value: FloatTensor<Self>,
            first: FloatTensor<Self>,
            second: FloatTensor<Self>,
            factor: FloatTensor<Self>,
            constants: AdamW,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            let (first, second) = (first.into_primitive(), second.into_primitive());
            let (value, factor) = (value.into_primitive(), factor.into_primitive());
            let (value, first, second) = B::adamw_without_gradient(value, first, second, factor, constants);
            (Self::from_inner(value), Self::from_inner(first), Self::from_inner(second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn one(value: f32) -> Tensor<1> {
        Tensor::from_data([value], &Device::flex())
    }

    fn host(x: Tensor<1>) -> f32 {
        x.into_scalar()
    }

    /// Update number t with betas 0.9 and 0.99, a rate of 0.5 and a decay of 0.1.
    fn constants(t: i32) -> AdamW {
        let correction1 = 1.0 - 0.9f64.powi(t);
        let correction2 = (1.0 - 0.99f64.powi(t)).sqrt();
        AdamW { beta1: 0.9, beta2: 0.99, eps: 0.0, decay: 0.95, rate: 0.5, correction1, correction2 }
    }

    #[test]
    fn two_steps_by_hand() {
        // The first step moves by exactly the rate, against the gradient: 2 * 0.95 - 0.5.
        let (value, first, second) =
            adamw(one(2.0), Some(one(6.0)), one(0.0), one(0.0), one(0.5), constants(1));
        assert!((host(value.clone()) - 1.4).abs() < 1e-5);
        // m = 0.27, v = 0.0891; corrected m = 0.27 / 0.19, v = 0.0891 / 0.0199.
        let (value, first, second) = adamw(value, None, first, second, one(1.0), constants(2));
        assert!((host(first) - 0.27).abs() < 1e-6);
        assert!((host(second) - 0.0891).abs() < 1e-6);
        let expected = 1.4 * 0.95 - 0.5 * (0.27 / 0.19) / (0.0891f32 / 0.0199).sqrt();
        assert!((host(value) - expected).abs() < 1e-5);
    }

    #[test]
    fn a_factor_that_is_not_finite_changes_nothing() {
        for factor in [f32::NAN, f32::INFINITY] {
            let (value, first, second) =
                adamw(one(2.0), Some(one(f32::NAN)), one(3.0), one(4.0), one(factor), constants(1));
            assert_eq!([host(value), host(first), host(second)], [2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn squares_add_up() {
        let x = Tensor::from_data([3.0f32, -4.0], &Device::flex());
        assert_eq!(host(sum_of_squares(x)), 25.0);
    }
}
