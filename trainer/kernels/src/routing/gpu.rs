//! Launches of the kernels, and their place in autodiff and fusion.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{CubeCount, CubeDim};

use super::{Routes, kernels};
use crate::launch::{assert_f32, element, empty, grid, grid_of_units, into_contiguous};
use crate::reduce::UNITS;

/// Units that choose for one token.
const LANES: usize = 32;

pub(super) fn choose(
    scores: Tensor<2>,
    bias: Tensor<1>,
    is_valid: Tensor<1, Int>,
    top_k: usize,
) -> Tensor<2, Int> {
    assert_f32("scores", scores.dtype());
    assert_f32("bias", bias.dtype());
    let (scores, bias) = (scores.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::choose_experts(scores, bias, is_valid.into_dispatch(), top_k))
}

pub(super) fn sort_by_expert(experts: &Tensor<2, Int>, n_experts: usize) -> Routes {
    let [_, top_k] = experts.dims();
    let experts = experts.clone().into_dispatch();
    let (offsets, row_of_choice, choice_of_row) = Dispatch::sort_by_expert(experts, n_experts);
    Routes {
        offsets: Tensor::from_dispatch(offsets),
        row_of_choice: Tensor::from_dispatch(row_of_choice),
        choice_of_row: Tensor::from_dispatch(choice_of_row),
        top_k,
    }
}

pub(super) fn count(experts: Tensor<2, Int>, n_samples: usize, n_experts: usize) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::count_experts(experts.into_dispatch(), n_samples, n_experts))
}

/// The kernels, as an extension of burn's GPU backends.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait RoutingOps: Backend {
    /// The chosen experts, `[tokens, top_k]`.
    #[fusion(meta = |scores, _bias, is_valid, top_k| choices_spec(scores, is_valid, *top_k))]
    fn choose_experts(
        scores: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        is_valid: IntTensor<Self>,
        top_k: usize,
    ) -> IntTensor<Self>;
    /// Offsets of the experts, rows of the choices, choices of the rows.
    #[fusion(meta = |experts, n_experts| sorted_spec(experts, *n_experts))]
    fn sort_by_expert(
        experts: IntTensor<Self>,
        n_experts: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>);
    /// Choices of each expert in each sample.
    #[fusion(meta = |_experts, n_samples, n_experts| counts_spec(*n_samples, *n_experts))]
    fn count_experts(experts: IntTensor<Self>, n_samples: usize, n_experts: usize) -> FloatTensor<Self>;
}

#[cfg(feature = "fusion")]
fn choices_spec(scores: &TensorSpec, is_valid: &TensorSpec, top_k: usize) -> TensorSpec {
    TensorSpec::new(Shape::from([scores.shape[0], top_k]), is_valid.dtype)
}

#[cfg(feature = "fusion")]
fn sorted_spec(experts: &TensorSpec, n_experts: usize) -> (TensorSpec, TensorSpec, TensorSpec) {
    let spec = |n: usize| TensorSpec::new(Shape::from([n]), experts.dtype);
    let n = experts.shape.num_elements();
    (spec(n_experts + 1), spec(n), spec(n))
}

#[cfg(feature = "fusion")]
fn counts_spec(n_samples: usize, n_experts: usize) -> TensorSpec {
    TensorSpec::new(Shape::from([n_samples, n_experts]), DType::F32)
}

/// Counts of experts in each chunk of choices, `[experts, chunks]`.
fn histogram(experts: &CubeTensor, n_groups: usize, n_experts: usize) -> CubeTensor {
    let per_group = experts.shape().num_elements() / n_groups;
    let chunks = n_groups * per_group.div_ceil(UNITS as usize);
    let counts = empty(experts, [n_experts, chunks], DType::I32);
    kernels::histogram::launch(
        &experts.client,
        grid(chunks),
        CubeDim::new_1d(UNITS),
        experts.clone().into_tensor_arg(),
        counts.clone().into_tensor_arg(),
        per_group,
        UNITS as usize,
        element(experts.dtype),
    );
    counts
}

impl RoutingOps for CubeBackend {
    fn choose_experts(
        scores: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        is_valid: IntTensor<Self>,
        top_k: usize,
    ) -> IntTensor<Self> {
        let (scores, bias) = (into_contiguous(scores), into_contiguous(bias));
        let is_valid = into_contiguous(is_valid);
        let tokens = scores.shape()[0];
        let choices = empty(&scores, [tokens, top_k], is_valid.dtype);
        kernels::choose::launch(
            &choices.client,
            grid_of_units(tokens * LANES, UNITS),
            CubeDim::new_1d(UNITS),
            scores.into_tensor_arg(),
            bias.into_tensor_arg(),
            is_valid.into_tensor_arg(),
            choices.clone().into_tensor_arg(),
            top_k,
            LANES,
            UNITS as usize,
            element(choices.dtype),
        );
        choices
    }

    fn sort_by_expert(
        experts: IntTensor<Self>,
        n_experts: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>) {
        let experts = into_contiguous(experts);
        let counts = histogram(&experts, 1, n_experts);
        let totals = empty(&experts, [n_experts], DType::I32);
        kernels::scan_rows::launch(
            &experts.client,
            grid(n_experts),
            CubeDim::new_1d(UNITS),
            counts.clone().into_tensor_arg(),
            totals.clone().into_tensor_arg(),
            UNITS as usize,
        );
        let offsets = empty(&experts, [n_experts + 1], experts.dtype);
        kernels::scan_totals::launch(
            &experts.client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(UNITS),
            totals.into_tensor_arg(),
            offsets.clone().into_tensor_arg(),
            UNITS as usize,
            element(experts.dtype),
        );
        let n = experts.shape().num_elements();
        let row_of_choice = empty(&experts, [n], experts.dtype);
        let choice_of_row = empty(&experts, [n], experts.dtype);
        kernels::place::launch(
            &row_of_choice.client,
            grid(counts.shape()[1]),
            CubeDim::new_1d(UNITS),
            experts.into_tensor_arg(),
            counts.into_tensor_arg(),
            offsets.clone().into_tensor_arg(),
            row_of_choice.clone().into_tensor_arg(),
            choice_of_row.clone().into_tensor_arg(),
            UNITS as usize,
            element(offsets.dtype),
        );
        (offsets, row_of_choice, choice_of_row)
    }

    fn count_experts(experts: IntTensor<Self>, n_samples: usize, n_experts: usize) -> FloatTensor<Self> {
        let experts = into_contiguous(experts);
        let counts = histogram(&experts, n_samples, n_experts);
        let sums = empty(&experts, [n_samples, n_experts], DType::F32);
        kernels::add_chunks::launch(
            &experts.client,
            grid_of_units(n_samples * n_experts, UNITS),
            CubeDim::new_1d(UNITS),
            counts.into_tensor_arg(),
            sums.clone().into_tensor_arg(),
        );
        sums
    }
}

impl<B: RoutingOps, C: CheckpointStrategy> RoutingOps for Autodiff<B, C> {
    fn choose_experts(
        scores: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        is_valid: IntTensor<Self>,
        top_k: usize,
    ) -> IntTensor<Self> {
        B::choose_experts(scores.into_primitive(), bias.into_primitive(), is_valid, top_k)
    }

    fn sort_by_expert(
        experts: IntTensor<Self>,
        n_experts: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>) {
        B::sort_by_expert(experts, n_experts)
    }

    fn count_experts(experts: IntTensor<Self>, n_samples: usize, n_experts: usize) -> FloatTensor<Self> {
        Self::from_inner(B::count_experts(experts, n_samples, n_experts))
    }
}
