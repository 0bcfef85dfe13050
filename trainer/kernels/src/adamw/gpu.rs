//! Launches of the kernels, and their place in autodiff and fusion.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
#[cfg(feature = "fusion")]
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

/// Vectors that one unit of the first sum adds, if there are enough cubes.
const VECTORS_PER_UNIT: usize = 8;
/// Maximum cubes of the first sum: some for each multiprocessor of any GPU, and few enough for one cube to
/// add.
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
        Some(gradient) => Dispatch::adamw(value, gradient.into_dispatch(), first, second, factor, constants),
        None => Dispatch::adamw_without_gradient(value, first, second, factor, constants),
    };
    (Tensor::from_dispatch(value), Tensor::from_dispatch(first), Tensor::from_dispatch(second))
}

/// The kernels, as an extension of burn's GPU backends.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
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
