//! The kernels alone: names of CubeCL's prelude clash with burn's.

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

/// `counts[expert, chunk]`: how often the expert occurs in the chunk. Groups of `per_group` choices have
/// their own chunks; each chunk but a group's last one has a choice per unit.
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

/// The sums of the earlier totals, and after them the sum of all. One cube.
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
        // Places after the last row belong to no expert; the choice of the same number fills one.
        if i32::cast_from(choice) >= i32::cast_from(offsets[n_experts]) {
            choice_of_row[choice] = I::new(-1);
        }
    }
}

/// `sums[sample, expert]` of `counts[expert, chunk]`, each sample with the same number of chunks.
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
