//! Which experts each token goes to, and which row each choice gets.
//!
//! A token's choice is one of its k experts; choice `token * k + j` is the j-th best. Choices
//! sorted by expert are the rows of the grouped matrix products (MegaBlocks, Gale et al. 2022,
//! arXiv 2211.15841, section 4). Nothing here reads a number back to the host: shapes depend on the
//! number of tokens alone, and rows of padding lie unused behind the others.
//!
//! - [`choose`]: 32 units for each token. They read its scores k times, from the cache but for the
//!   first time, and each time agree on the best one that comes after the last choice.
//! - [`sort_by_expert`]: a stable counting sort, in four launches. (1) One cube for each chunk of
//!   256 choices counts its experts; (2) one cube for each expert adds its counts up over the
//!   chunks; (3) one cube adds the experts up; (4) each choice finds its place: the start of its
//!   expert, the choices of earlier chunks, and the earlier ones of its own, which it compares in
//!   shared memory. Choices are read twice and both permutations written once, 16 bytes for each
//!   choice, and `experts / 64` bytes of counts are written twice and read twice.
//! - [`count`]: launch (1) of the sort with chunks that end where samples end, and a sum.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The rows of one batch: all choices in the order of their experts. Both directions are stored, so
/// that forward and backward only read.
#[derive(Debug, Clone)]
pub struct Routes {
    /// First row of each expert, and the number of rows, `[experts + 1]`.
    pub offsets: Tensor<1, Int>,
    /// The row of each choice `token * top_k + j`, -1 on padding, `[tokens * top_k]`.
    pub row_of_choice: Tensor<1, Int>,
    /// The choice that made each row, -1 behind the last row, `[tokens * top_k]`.
    pub choice_of_row: Tensor<1, Int>,
    /// Choices of each token.
    pub top_k: usize,
}

/// The k experts of highest `score + bias` for each token, best first, ties to the lowest expert;
/// -1 on padding. The bias takes part in the choice only (DeepSeek-V3, arXiv 2412.19437, section
/// 2.1.2). No gradient.
///
/// # Shapes
/// - scores: `[tokens, experts]`, f32, none of them NaN
/// - bias: `[experts]`, f32
/// - is_valid: `[tokens]`, 0 on padding
/// - result: `[tokens, top_k]`
///
/// # Panics
/// When there are fewer experts than choices, when the shapes do not agree, and on a GPU when scores
/// or bias are not f32.
pub fn choose(scores: Tensor<2>, bias: Tensor<1>, is_valid: Tensor<1, Int>, top_k: usize) -> Tensor<2, Int> {
    let [tokens, n_experts] = scores.dims();
    assert_eq!((bias.dims(), is_valid.dims()), ([n_experts], [tokens]), "shapes of bias and is_valid");
    assert!(top_k <= n_experts, "cannot choose {top_k} of {n_experts} experts");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&scores.device()) {
        return gpu::choose(scores, bias, is_valid, top_k);
    }
    choose_plain(scores, bias, is_valid, top_k)
}

/// [`choose`] on the host.
pub fn choose_plain(
    scores: Tensor<2>,
    bias: Tensor<1>,
    is_valid: Tensor<1, Int>,
    top_k: usize,
) -> Tensor<2, Int> {
    let device = scores.device();
    let [tokens, n_experts] = scores.dims();
    let scores: Vec<f32> = scores.into_data().iter().collect();
    let bias: Vec<f32> = bias.into_data().iter().collect();
    let mut choices = Vec::with_capacity(tokens * top_k);
    for (row, is_valid) in scores.chunks_exact(n_experts).zip(integers(is_valid)) {
        if is_valid == 0 {
            choices.extend(std::iter::repeat_n(-1, top_k));
            continue;
        }
        let biased: Vec<f32> = row.iter().zip(&bias).map(|(score, bias)| score + bias).collect();
        let mut left: Vec<usize> = (0..n_experts).collect();
        for _ in 0..top_k {
            let mut best = 0;
            for at in 1..left.len() {
                if biased[left[at]] > biased[left[best]] {
                    best = at;
                }
            }
            choices.push(left.remove(best) as i64);
        }
    }
    Tensor::from_data(TensorData::new(choices, [tokens, top_k]), &device)
}

/// Sorts choices by expert; choices of one expert keep their order.
///
/// # Shapes
/// - experts: `[tokens, top_k]`, each below `n_experts`, or -1 on padding
pub fn sort_by_expert(experts: &Tensor<2, Int>, n_experts: usize) -> Routes {
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&experts.device()) {
        return gpu::sort_by_expert(experts, n_experts);
    }
    sort_by_expert_plain(experts, n_experts)
}

/// [`sort_by_expert`] on the host.
pub fn sort_by_expert_plain(experts: &Tensor<2, Int>, n_experts: usize) -> Routes {
    let device = experts.device();
    let [_, top_k] = experts.dims();
    let experts = integers(experts.clone());
    let experts: Vec<Option<usize>> =
        experts.into_iter().map(|expert| usize::try_from(expert).ok().filter(|e| *e < n_experts)).collect();
    let mut offsets = vec![0i64; n_experts + 1];
    for expert in experts.iter().flatten() {
        offsets[expert + 1] += 1;
    }
    for expert in 0..n_experts {
        offsets[expert + 1] += offsets[expert];
    }
    let mut next = offsets.clone();
    let mut row_of_choice = vec![-1; experts.len()];
    let mut choice_of_row = vec![-1; experts.len()];
    for (choice, expert) in experts.into_iter().enumerate() {
        if let Some(expert) = expert {
            row_of_choice[choice] = next[expert];
            choice_of_row[next[expert] as usize] = choice as i64;
            next[expert] += 1;
        }
    }
    Routes {
        offsets: from_integers(offsets, &device),
        row_of_choice: from_integers(row_of_choice, &device),
        choice_of_row: from_integers(choice_of_row, &device),
        top_k,
    }
}

/// How often each expert occurs in each sample; exact below 2^24.
///
/// # Shapes
/// - experts: `[tokens, top_k]`, each below `n_experts`, or -1, which counts nowhere; the samples
///   follow one another and have equally many tokens
/// - result: `[n_samples, n_experts]`, f32
///
/// # Panics
/// When the tokens do not divide into the samples.
pub fn count(experts: Tensor<2, Int>, n_samples: usize, n_experts: usize) -> Tensor<2> {
    let [tokens, _] = experts.dims();
    assert!(tokens.is_multiple_of(n_samples), "{tokens} tokens do not divide into {n_samples} samples");
    #[cfg(feature = "gpu")]
    if crate::is_gpu(&experts.device()) {
        return gpu::count(experts, n_samples, n_experts);
    }
    count_plain(experts, n_samples, n_experts)
}

/// [`count`] on the host.
pub fn count_plain(experts: Tensor<2, Int>, n_samples: usize, n_experts: usize) -> Tensor<2> {
    let device = experts.device();
    let per_sample = experts.dims().iter().product::<usize>() / n_samples;
    let mut counts = vec![0.0f32; n_samples * n_experts];
    for (choice, expert) in integers(experts).into_iter().enumerate() {
        if let Some(expert) = usize::try_from(expert).ok().filter(|e| *e < n_experts) {
            counts[choice / per_sample * n_experts + expert] += 1.0;
        }
    }
    Tensor::from_data(TensorData::new(counts, [n_samples, n_experts]), &device)
}

/// The values of a tensor of integers, whatever their type on the device.
fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter().collect()
}

/// A tensor of integers of the device's own type.
pub(crate) fn from_integers(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

#[cfg(feature = "gpu")]
mod kernels {
    use cubecl::prelude::*;

    /// Whether `other` comes before `expert`: a higher value, or the same and a lower index. An
    /// expert of -1 comes after all.
    #[cube]
    fn is_better(other_value: f32, other: i32, value: f32, expert: i32) -> bool {
        other >= 0 && (expert < 0 || other_value > value || (other_value == value && other < expert))
    }

    /// `lanes` units, a power of two, choose for one token.
    #[cube(launch)]
    pub(super) fn choose<I: Int>(
        scores: &Tensor<f32>,
        bias: &Tensor<f32>,
        is_valid: &Tensor<I>,
        choices: &mut Tensor<I>,
        #[comptime] top_k: usize,
        #[comptime] lanes: usize,
        #[comptime] units: usize,
        #[define(I)] _element: ElemType,
    ) {
        let (tokens, n_experts) = (scores.shape(0), scores.shape(1));
        let mut values = Shared::<[f32]>::new_slice(units);
        let mut experts = Shared::<[i32]>::new_slice(units);
        let unit = UNIT_POS as usize;
        let lane = unit % lanes;
        let token = CUBE_POS * comptime!(units / lanes) + unit / lanes;
        let first = token * n_experts;
        let mut is_padding = true;
        if token < tokens {
            is_padding = i32::cast_from(is_valid[token]) == 0;
        }
        let mut last_value = 0.0f32;
        let mut last = i32::new(-1);
        for j in 0..top_k {
            // The best of this unit's experts that come after the last choice.
            let mut best_value = 0.0f32;
            let mut best = i32::new(-1);
            if !is_padding {
                let mut at = lane;
                while at < n_experts {
                    let value = scores[first + at] + bias[at];
                    let expert = i32::cast_from(at);
                    let is_left = j == 0 || value < last_value || (value == last_value && expert > last);
                    if is_left && is_better(value, expert, best_value, best) {
                        best_value = value;
                        best = expert;
                    }
                    at += lanes;
                }
            }
            values[unit] = best_value;
            experts[unit] = best;
            sync_cube();
            #[unroll]
            for level in 0..comptime!(lanes.ilog2()) {
                let half = comptime!(lanes >> (level + 1));
                if lane < half {
                    let (value, expert) = (values[unit + half], experts[unit + half]);
                    if is_better(value, expert, values[unit], experts[unit]) {
                        values[unit] = value;
                        experts[unit] = expert;
                    }
                }
                sync_cube();
            }
            last_value = values[unit - lane];
            last = experts[unit - lane];
            if lane == 0 && token < tokens {
                choices[token * top_k + j] = I::cast_from(last);
            }
            sync_cube();
        }
    }

    /// `counts[expert, chunk]`: how often the expert occurs in the chunk. Groups of `per_group`
    /// choices have chunks of their own; each chunk but a group's last one has a choice per unit.
    #[cube(launch)]
    pub(super) fn histogram<I: Int>(
        experts: &Tensor<I>,
        counts: &mut Tensor<i32>,
        per_group: usize,
        #[comptime] units: usize,
        #[define(I)] _element: ElemType,
    ) {
        let chunk = CUBE_POS;
        let (n_experts, chunks) = (counts.shape(0), counts.shape(1));
        if chunk >= chunks {
            terminate!();
        }
        let mut held = Shared::<[i32]>::new_slice(units);
        let unit = UNIT_POS as usize;
        let chunks_per_group = per_group.div_ceil(units);
        let group = chunk / chunks_per_group;
        let choice = chunk % chunks_per_group * units + unit;
        let mut expert = i32::new(-1);
        if choice < per_group {
            expert = i32::cast_from(experts[group * per_group + choice]);
        }
        held[unit] = expert;
        sync_cube();
        let mut at = unit;
        while at < n_experts {
            let expert = i32::cast_from(at);
            let mut n = 0i32;
            for other in 0..units {
                if held[other] == expert {
                    n += 1;
                }
            }
            counts[at * chunks + chunk] = n;
            at += units;
        }
    }

    /// The sum of `value` over this unit and those before it. Every unit must call it.
    #[cube]
    fn sum_until(value: i32, scratch: &mut Shared<[i32]>, #[comptime] units: usize) -> i32 {
        let unit = UNIT_POS as usize;
        sync_cube();
        scratch[unit] = value;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(units.ilog2()) {
            let distance = comptime!(1usize << level);
            let mut before = 0i32;
            if unit >= distance {
                before = scratch[unit - distance];
            }
            sync_cube();
            scratch[unit] += before;
            sync_cube();
        }
        scratch[unit]
    }

    /// Replaces each count by the sum of the earlier ones of its row; `totals` are the sums of rows.
    #[cube(launch)]
    pub(super) fn scan_rows(counts: &mut Tensor<i32>, totals: &mut Tensor<i32>, #[comptime] units: usize) {
        let row = CUBE_POS;
        let columns = counts.shape(1);
        if row >= counts.shape(0) {
            terminate!();
        }
        let mut scratch = Shared::<[i32]>::new_slice(units);
        let unit = UNIT_POS as usize;
        let mut before = 0i32;
        let mut start = 0usize;
        while start < columns {
            let column = start + unit;
            let mut value = 0i32;
            if column < columns {
                value = counts[row * columns + column];
            }
            let sum = sum_until(value, &mut scratch, units);
            if column < columns {
                counts[row * columns + column] = before + sum - value;
            }
            before += scratch[comptime!(units - 1)];
            start += units;
        }
        if unit == 0 {
            totals[row] = before;
        }
    }

    /// The sums of the earlier totals, and behind them the sum of all. One cube.
    #[cube(launch)]
    pub(super) fn scan_totals<I: Int>(
        totals: &Tensor<i32>,
        offsets: &mut Tensor<I>,
        #[comptime] units: usize,
        #[define(I)] _element: ElemType,
    ) {
        let n = totals.shape(0);
        let mut scratch = Shared::<[i32]>::new_slice(units);
        let unit = UNIT_POS as usize;
        let mut before = 0i32;
        let mut start = 0usize;
        while start < n {
            let at = start + unit;
            let mut value = 0i32;
            if at < n {
                value = totals[at];
            }
            let sum = sum_until(value, &mut scratch, units);
            if at < n {
                offsets[at] = I::cast_from(before + sum - value);
            }
            before += scratch[comptime!(units - 1)];
            start += units;
        }
        if unit == 0 {
            offsets[n] = I::cast_from(before);
        }
    }

    /// The row of each choice, and the choice of each row. `before[expert, chunk]` are the choices
    /// of an expert in earlier chunks.
    #[cube(launch)]
    pub(super) fn place<I: Int>(
        experts: &Tensor<I>,
        before: &Tensor<i32>,
        offsets: &Tensor<I>,
        row_of_choice: &mut Tensor<I>,
        choice_of_row: &mut Tensor<I>,
        #[comptime] units: usize,
        #[define(I)] _element: ElemType,
    ) {
        let chunk = CUBE_POS;
        let (n_experts, chunks) = (before.shape(0), before.shape(1));
        if chunk >= chunks {
            terminate!();
        }
        let mut held = Shared::<[i32]>::new_slice(units);
        let unit = UNIT_POS as usize;
        let n = experts.len();
        let choice = chunk * units + unit;
        let mut expert = i32::new(-1);
        if choice < n {
            expert = i32::cast_from(experts[choice]);
        }
        held[unit] = expert;
        sync_cube();
        if choice < n {
            let mut row = i32::new(-1);
            if expert >= 0 && expert < i32::cast_from(n_experts) {
                let at = usize::cast_from(expert);
                row = i32::cast_from(offsets[at]) + before[at * chunks + chunk];
                for other in 0..unit {
                    if held[other] == expert {
                        row += 1;
                    }
                }
                choice_of_row[usize::cast_from(row)] = I::cast_from(choice);
            }
            row_of_choice[choice] = I::cast_from(row);
            // Places behind the last row are nobody's; the choice of the same number fills one.
            if i32::cast_from(choice) >= i32::cast_from(offsets[n_experts]) {
                choice_of_row[choice] = I::new(-1);
            }
        }
    }

    /// `sums[sample, expert]` of `counts[expert, chunk]`, each sample with equally many chunks.
    #[cube(launch)]
    pub(super) fn add_chunks(counts: &Tensor<i32>, sums: &mut Tensor<f32>) {
        let (n_samples, n_experts) = (sums.shape(0), sums.shape(1));
        let position = ABSOLUTE_POS;
        if position >= n_samples * n_experts {
            terminate!();
        }
        let (sample, expert) = (position / n_experts, position % n_experts);
        let chunks = counts.shape(1);
        let per_sample = chunks / n_samples;
        let first = expert * chunks + sample * per_sample;
        let mut sum = 0i32;
        for chunk in 0..per_sample {
            sum += counts[first + chunk];
        }
        sums[position] = f32::cast_from(sum);
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
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
    #[backend_extension(Cube, Autodiff, Fusion)]
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

    fn choices_spec(scores: &TensorSpec, is_valid: &TensorSpec, top_k: usize) -> TensorSpec {
        TensorSpec::new(Shape::from([scores.shape[0], top_k]), is_valid.dtype)
    }

    fn sorted_spec(experts: &TensorSpec, n_experts: usize) -> (TensorSpec, TensorSpec, TensorSpec) {
        let spec = |n: usize| TensorSpec::new(Shape::from([n]), experts.dtype);
        let n = experts.shape.num_elements();
        (spec(n_experts + 1), spec(n), spec(n))
    }

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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn ints(values: &[i64]) -> Tensor<1, Int> {
        from_integers(values.to_vec(), &Device::flex())
    }

    #[test]
    fn ties_go_to_the_lowest_expert_and_padding_chooses_nothing() {
        let bias = Tensor::zeros([3], &Device::flex());
        let scores = scores(&[0.5, 0.5, 0.1, 0.9, 0.1, 0.2], [2, 3]);
        let choices = choose(scores, bias, ints(&[1, 0]), 2);
        assert_eq!(integers(choices), [0, 1, -1, -1]);
    }

    #[test]
    fn the_bias_changes_the_choice() {
        let bias = Tensor::from_data([-0.2f32, 0.0, 0.0], &Device::flex());
        let choices = choose(scores(&[0.5, 0.4, 0.1], [1, 3]), bias, ints(&[1]), 1);
        assert_eq!(integers(choices), [1]);
    }

    #[test]
    fn rows_follow_experts_and_keep_their_order() {
        // Tokens 0 and 2 choose experts 2 and 0, token 1 is padding; expert 1 has no row.
        let experts = ints(&[2, 0, -1, -1, 2, 0]).reshape([3, 2]);
        let routes = sort_by_expert(&experts, 3);
        assert_eq!(integers(routes.offsets), [0, 2, 2, 4]);
        assert_eq!(integers(routes.row_of_choice), [2, 0, -1, -1, 3, 1]);
        assert_eq!(integers(routes.choice_of_row), [1, 5, 0, 4, -1, -1]);
        assert_eq!(routes.top_k, 2);
    }

    #[test]
    fn each_sample_has_its_own_counts() {
        let experts = ints(&[2, 0, -1, -1, 2, 0, 2, 1]).reshape([4, 2]);
        let counts: Vec<f32> = count(experts, 2, 3).into_data().iter().collect();
        assert_eq!(counts, [1.0, 0.0, 1.0, 1.0, 1.0, 2.0]);
    }
}
