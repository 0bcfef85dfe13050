//! Kernels for every device: tiles of 64 by 64 results, 256 units with 4 by 4 of them each.
//!
//! Both factors go through shared memory as f32, 16 terms of the sums at a time (8.25 KiB, 12.4 KiB for
//! SwiGLU). Units load neighboring elements together however a factor is laid out in memory, and read shared
//! memory without bank conflicts.

use cubecl::prelude::*;

/// Rows and columns of a tile of the result.
pub(super) const TILE: usize = 64;
/// Units of a cube: a square of 16 by 16.
pub(super) const UNITS: u32 = 256;
const SIDE: usize = 16;
/// Rows, and columns, of the result that one unit computes, `SIDE` apart.
const EACH: usize = 4;
/// Terms of the sums in shared memory at a time.
pub(super) const DEPTH: usize = 16;
/// From one term to the next in shared memory. Two more than a tile, so that units that write neighboring
/// terms use different banks.
pub(super) const PITCH: usize = TILE + 2;

/// Columns of the plan: expert, first row, end of the rows. The expert is `experts` for rows of no expert; a
/// tile without rows is surplus.
pub(super) const PLAN: usize = 3;

/// Finds the rows of each tile. One unit for each tile looks through all experts.
#[cube(launch)]
pub(super) fn make_plan<I: Int>(
    offsets: &Tensor<I>,
    plan: &mut Tensor<i32>,
    rows: u32,
    #[comptime] tile: usize,
    #[define(I)] _element: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= plan.shape(0) {
        terminate!();
    }
    let experts = offsets.shape(0) - 1;
    let mut expert = 0usize;
    let mut first = 0usize;
    let mut end = 0usize;
    let mut tiles_before = 0usize;
    for group in 0..experts + 1 {
        let group_first = usize::cast_from(offsets[group]);
        let mut group_end = usize::cast_from(rows);
        if group < experts {
            group_end = usize::cast_from(offsets[group + 1]);
        }
        let tiles = (group_end - group_first).div_ceil(tile);
        if index >= tiles_before && index < tiles_before + tiles {
            expert = group;
            first = group_first + (index - tiles_before) * tile;
            end = usize::min(first + tile, group_end);
        }
        tiles_before += tiles;
    }
    plan[index * PLAN] = i32::cast_from(expert);
    plan[index * PLAN + 1] = i32::cast_from(first);
    plan[index * PLAN + 2] = i32::cast_from(end);
}

/// Where the tile of a cube is: its expert, its rows and its columns.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    pub expert: usize,
    pub row: usize,
    pub end_row: usize,
    pub column: usize,
    pub columns: usize,
}

/// The place of this cube; columns change faster than rows, so that neighbors share rows.
#[cube]
pub(super) fn place(plan: &Tensor<i32>, columns: usize, #[comptime] width: usize) -> Place {
    let column_tiles = columns.div_ceil(width);
    let tile = CUBE_POS / column_tiles;
    let mut expert = 0usize;
    let mut row = 0usize;
    let mut end_row = 0usize;
    if tile < plan.shape(0) {
        expert = usize::cast_from(plan[tile * PLAN]);
        row = usize::cast_from(plan[tile * PLAN + 1]);
        end_row = usize::cast_from(plan[tile * PLAN + 2]);
    }
    Place { expert, row, end_row, column: CUBE_POS % column_tiles * width, columns }
}

/// `y[r] = x[r] w[e]`, or `x[r] w[e]^T`.
#[cube(launch)]
pub(super) fn product<F: Float>(
    x: &Tensor<F>,
    w: &Tensor<F>,
    plan: &Tensor<i32>,
    y: &mut Tensor<F>,
    #[comptime] is_transposed: bool,
    #[define(F)] _element: ElemType,
) {
    let place = place(plan, y.shape(1), TILE);
    if place.row >= place.end_row {
        terminate!();
    }
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = zeros();
    add_product(x, w, &place, &mut left, &mut right, &mut sums, is_transposed);
    write(y, &place, &sums);
}

/// `y[r] = x[r] w[e]^T + x_2[r] w_2[e]^T`.
#[cube(launch)]
pub(super) fn two_products<F: Float>(
    x: &Tensor<F>,
    w: &Tensor<F>,
    x_2: &Tensor<F>,
    w_2: &Tensor<F>,
    plan: &Tensor<i32>,
    y: &mut Tensor<F>,
    #[define(F)] _element: ElemType,
) {
    let place = place(plan, y.shape(1), TILE);
    if place.row >= place.end_row {
        terminate!();
    }
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = zeros();
    add_product(x, w, &place, &mut left, &mut right, &mut sums, true);
    add_product(x_2, w_2, &place, &mut left, &mut right, &mut sums, true);
    write(y, &place, &sums);
}

/// `gate[r] = x[r] w_gate[e]`, `up[r] = x[r] w_up[e]`, `y[r] = silu(gate[r]) * up[r]`.
#[cube(launch)]
pub(super) fn swiglu<F: Float>(
    x: &Tensor<F>,
    w_gate: &Tensor<F>,
    w_up: &Tensor<F>,
    plan: &Tensor<i32>,
    y: &mut Tensor<F>,
    gate: &mut Tensor<F>,
    up: &mut Tensor<F>,
    #[define(F)] _element: ElemType,
) {
    let place = place(plan, y.shape(1), TILE);
    if place.row >= place.end_row {
        terminate!();
    }
    let k = x.shape(1);
    let terms = terms(w_gate, &place, k);
    let base = place.expert * k * place.columns;
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_gate = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_up = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut gates = zeros();
    let mut ups = zeros();
    let mut term = 0usize;
    while term < terms {
        load(x, 0, k, place.row, place.end_row, term, terms, &mut left, true);
        load(w_gate, base, place.columns, place.column, place.columns, term, terms, &mut right_gate, false);
        load(w_up, base, place.columns, place.column, place.columns, term, terms, &mut right_up, false);
        sync_cube();
        multiply(&left, &right_gate, &mut gates);
        multiply(&left, &right_up, &mut ups);
        sync_cube();
        term += DEPTH;
    }
    let mut values = zeros();
    #[unroll]
    for i in 0..comptime!(EACH * EACH) {
        values[i] = gates[i] / (1.0f32 + (-gates[i]).exp()) * ups[i];
    }
    write(y, &place, &values);
    write(gate, &place, &gates);
    write(up, &place, &ups);
}

/// `d_w[e] = x_e^T grad_e`: one cube for each tile of each expert adds the rows in order.
#[cube(launch)]
pub(super) fn weight_gradient<F: Float, O: Float, I: Int>(
    x: &Tensor<F>,
    grad: &Tensor<F>,
    offsets: &Tensor<I>,
    d_w: &mut Tensor<O>,
    #[define(F, O, I)] _elements: [ElemType; 3],
) {
    let k = d_w.shape(1);
    let n = d_w.shape(2);
    let column_tiles = n.div_ceil(TILE);
    let row_tiles = k.div_ceil(TILE);
    let tile = CUBE_POS / column_tiles;
    let expert = tile / row_tiles;
    if expert >= d_w.shape(0) {
        terminate!();
    }
    let row = tile % row_tiles * TILE;
    let column = CUBE_POS % column_tiles * TILE;
    let mut left = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = zeros();
    let mut term = usize::cast_from(offsets[expert]);
    let end = usize::cast_from(offsets[expert + 1]);
    while term < end {
        load(x, 0, k, row, k, term, end, &mut left, false);
        load(grad, 0, n, column, n, term, end, &mut right, false);
        sync_cube();
        multiply(&left, &right, &mut sums);
        sync_cube();
        term += DEPTH;
    }
    let first = expert * k;
    let place = Place { expert, row: first + row, end_row: first + k, column, columns: n };
    write(d_w, &place, &sums);
}

#[cube]
fn zeros() -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(EACH * EACH));
    #[unroll]
    for i in 0..comptime!(EACH * EACH) {
        sums[i] = 0.0f32;
    }
    sums
}

/// Terms of the sums of this tile: none for rows of no expert, which thus become 0.
#[cube]
fn terms<F: Float>(w: &Tensor<F>, place: &Place, terms: usize) -> usize {
    if place.expert < w.shape(0) { terms } else { 0usize }
}

/// Adds the tile of `x w[e]`, or `x w[e]^T`, to the sums.
#[cube]
fn add_product<F: Float>(
    x: &Tensor<F>,
    w: &Tensor<F>,
    place: &Place,
    left: &mut Shared<[f32]>,
    right: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] is_transposed: bool,
) {
    let k = x.shape(1);
    let terms = terms(w, place, k);
    let base = place.expert * k * place.columns;
    // From one row of the matrix in memory to the next.
    let pitch = if comptime!(is_transposed) { k } else { place.columns };
    let mut term = 0usize;
    while term < terms {
        load(x, 0, k, place.row, place.end_row, term, terms, left, true);
        load(w, base, pitch, place.column, place.columns, term, terms, right, is_transposed);
        sync_cube();
        multiply(&*left, &*right, sums);
        sync_cube();
        term += DEPTH;
    }
}

/// Loads `DEPTH` terms of `TILE` lines (rows or columns of the result) into shared memory, with
/// zeros beyond the ends. In memory either the terms of one line follow each other, or the lines of
/// one term.
#[cube]
fn load<F: Float>(
    source: &Tensor<F>,
    base: usize,
    pitch: usize,
    first_line: usize,
    end_line: usize,
    first_term: usize,
    end_term: usize,
    tile: &mut Shared<[f32]>,
    #[comptime] are_terms_adjacent: bool,
) {
    #[unroll]
    for i in 0..comptime!(TILE * DEPTH / UNITS as usize) {
        let position = UNIT_POS as usize + i * UNITS as usize;
        let (line, term) = if comptime!(are_terms_adjacent) {
            (position / DEPTH, position % DEPTH)
        } else {
            (position % TILE, position / TILE)
        };
        let from_line = first_line + line;
        let from_term = first_term + term;
        let mut value = 0.0f32;
        if from_line < end_line && from_term < end_term {
            let at = if comptime!(are_terms_adjacent) {
                from_line * pitch + from_term
            } else {
                from_term * pitch + from_line
            };
            value = f32::cast_from(source[base + at]);
        }
        tile[term * PITCH + line] = value;
    }
}

/// Adds the products of the terms in shared memory.
#[cube]
fn multiply(left: &Shared<[f32]>, right: &Shared<[f32]>, sums: &mut Array<f32>) {
    let row = UNIT_POS as usize / SIDE;
    let column = UNIT_POS as usize % SIDE;
    for term in 0..DEPTH {
        let mut rows = Array::<f32>::new(EACH);
        let mut columns = Array::<f32>::new(EACH);
        #[unroll]
        for i in 0..EACH {
            rows[i] = left[term * PITCH + row + i * SIDE];
            columns[i] = right[term * PITCH + column + i * SIDE];
        }
        #[unroll]
        for i in 0..EACH {
            #[unroll]
            for j in 0..EACH {
                sums[i * EACH + j] += rows[i] * columns[j];
            }
        }
    }
}

/// Writes the part of the tile that is inside the result.
#[cube]
fn write<F: Float>(y: &mut Tensor<F>, place: &Place, sums: &Array<f32>) {
    let first_row = place.row + UNIT_POS as usize / SIDE;
    let first_column = place.column + UNIT_POS as usize % SIDE;
    #[unroll]
    for i in 0..EACH {
        #[unroll]
        for j in 0..EACH {
            let row = first_row + i * SIDE;
            let column = first_column + j * SIDE;
            if row < place.end_row && column < place.columns {
                y[row * place.columns + column] = F::cast_from(sums[i * EACH + j]);
            }
        }
    }
}
