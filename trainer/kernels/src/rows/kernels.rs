//! The kernels alone: names of CubeCL's prelude clash with burn's.

use cubecl::prelude::*;

/// Row r of the result is row `choice_of_row[r] / top_k` of `x`, or zero.
#[cube(launch)]
pub(super) fn gather<F: Float, I: Int, N: Size>(
    x: &Tensor<Vector<F, N>>,
    choice_of_row: &Tensor<I>,
    rows: &mut Tensor<Vector<F, N>>,
    #[comptime] top_k: usize,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let columns = x.shape(1) / x.vector_size();
    let position = ABSOLUTE_POS;
    if position >= rows.shape(0) * columns {
        terminate!();
    }
    let (row, column) = (position / columns, position % columns);
    let choice = i32::cast_from(choice_of_row[row]);
    let mut value = Vector::<F, N>::new(F::new(0.0));
    if choice >= 0 {
        value = x[usize::cast_from(choice) / top_k * columns + column];
    }
    rows[position] = value;
}

/// The sum of each token's rows, each times its weight if there are weights.
#[cube(launch)]
pub(super) fn combine<F: Float, I: Int, N: Size>(
    rows: &Tensor<Vector<F, N>>,
    row_of_choice: &Tensor<I>,
    y: &mut Tensor<Vector<F, N>>,
    weights: ComptimeOption<&Tensor<f32>>,
    #[comptime] top_k: usize,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let columns = rows.shape(1) / rows.vector_size();
    let position = ABSOLUTE_POS;
    if position >= y.shape(0) * columns {
        terminate!();
    }
    let (token, column) = (position / columns, position % columns);
    let mut sum = Vector::<f32, N>::new(0.0f32);
    // Unrolled, so that the loads of all rows are in flight together.
    #[unroll]
    for j in 0..top_k {
        let choice = token * top_k + j;
        let row = i32::cast_from(row_of_choice[choice]);
        if row >= 0 {
            let value = Vector::<f32, N>::cast_from(rows[usize::cast_from(row) * columns + column]);
            #[comptime]
            match weights {
                ComptimeOption::Some(weights) => {
                    sum += value * Vector::<f32, N>::new(weights[choice]);
                }
                ComptimeOption::None => {
                    sum += value;
                }
            };
        }
    }
    y[position] = Vector::<F, N>::cast_from(sum);
}

/// Both gradients of `combine`, by `lanes` units for each choice, a power of two. The choice with the number
/// of an unused row fills that row's gradient with zeros.
#[cube(launch)]
pub(super) fn combine_backward<F: Float, I: Int, N: Size>(
    rows: &Tensor<Vector<F, N>>,
    weights: &Tensor<f32>,
    grad: &Tensor<Vector<F, N>>,
    row_of_choice: &Tensor<I>,
    choice_of_row: &Tensor<I>,
    d_rows: &mut Tensor<Vector<F, N>>,
    d_weights: &mut Tensor<f32>,
    #[comptime] top_k: usize,
    #[comptime] lanes: usize,
    #[comptime] units: usize,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let columns = rows.shape(1) / rows.vector_size();
    let choices = rows.shape(0);
    let unit = UNIT_POS as usize;
    let lane = unit % lanes;
    let choice = CUBE_POS * comptime!(units / lanes) + unit / lanes;
    let mut products = Vector::<f32, N>::new(0.0f32);
    if choice < choices {
        let row = i32::cast_from(row_of_choice[choice]);
        if row >= 0 {
            let of_row = usize::cast_from(row) * columns;
            let of_token = choice / top_k * columns;
            let weight = Vector::<f32, N>::new(weights[choice]);
            let mut column = lane;
            while column < columns {
                let grad = Vector::<f32, N>::cast_from(grad[of_token + column]);
                products += grad * Vector::<f32, N>::cast_from(rows[of_row + column]);
                d_rows[of_row + column] = Vector::<F, N>::cast_from(grad * weight);
                column += lanes;
            }
        }
        if i32::cast_from(choice_of_row[choice]) < 0 {
            let mut column = lane;
            while column < columns {
                d_rows[choice * columns + column] = Vector::<F, N>::new(F::new(0.0));
                column += lanes;
            }
        }
    }
    let mut product = 0.0f32;
    #[unroll]
    for i in 0..N::value() {
        product += products.extract(i);
    }
    scratch[unit] = product;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(lanes.ilog2()) {
        let half = comptime!(lanes >> (level + 1));
        if lane < half {
            let other = scratch[unit + half];
            scratch[unit] += other;
        }
        sync_cube();
    }
    if lane == 0 && choice < choices {
        d_weights[choice] = scratch[unit];
    }
}
