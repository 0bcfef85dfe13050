//! The kernels for tensor cores, with the same structure as the plain ones: tiles of 128 by 128 results (128
//! by 64 of both products for SwiGLU), 8 planes with 8 fragments of 16 by 16 f32 sums each.
//!
//! Tiles of both factors have the same layout in shared memory as in device memory, 32 terms at a time,
//! double-buffered: while the planes multiply one pair of tiles, the next pair is being loaded into
//! registers, 16 bytes per unit. Rows in shared memory are a little longer than the tile, so that a
//! fragment's rows are in different banks.
//!
//! The products themselves are in [`super::products`]. They have run as PTX on the CPU
//! (tests/cuda), **not on a GPU yet**.

// A kernel takes its tensors one by one.
#![allow(clippy::too_many_arguments)]

use cubecl::prelude::*;

use super::form::Form;
use super::plain::{Place, place};
use super::products::{EACH, Factor, PART, PLANE, Products};

/// Alignment that fragments need in shared memory, in bytes, and more.
const ALIGNMENT: usize = 128;

/// `y[r] = x[r] w[e]`, or `x[r] w[e]^T`.
#[cube(launch)]
pub(super) fn product<P: Products, F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    w: &Tensor<Vector<F, N>>,
    plan: &Tensor<i32>,
    y: &mut Tensor<Vector<F, N>>,
    #[comptime] form: Form,
    #[comptime] is_transposed: bool,
    #[define(F)] _element: ElemType,
) {
    let place = place(plan, y.shape(1), comptime!(form.columns));
    if place.row >= place.end_row {
        terminate!();
    }
    let mut left = tiles::<F, N>(comptime!(form.rows), true, form);
    let mut right = tiles::<F, N>(comptime!(form.columns), is_transposed, form);
    let mut sums = zeros::<P>(comptime!(form.columns), form);
    add_product::<P, F, N>(x, w, &place, &mut left, &mut right, &mut sums, is_transposed, form);
    write::<P, F, N>(y, &place, &sums, form);
}

/// `y[r] = x[r] w[e]^T + x_2[r] w_2[e]^T`.
#[cube(launch)]
pub(super) fn two_products<P: Products, F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    w: &Tensor<Vector<F, N>>,
    x_2: &Tensor<Vector<F, N>>,
    w_2: &Tensor<Vector<F, N>>,
    plan: &Tensor<i32>,
    y: &mut Tensor<Vector<F, N>>,
    #[comptime] form: Form,
    #[define(F)] _element: ElemType,
) {
    let place = place(plan, y.shape(1), comptime!(form.columns));
    if place.row >= place.end_row {
        terminate!();
    }
    let mut left = tiles::<F, N>(comptime!(form.rows), true, form);
    let mut right = tiles::<F, N>(comptime!(form.columns), true, form);
    let mut sums = zeros::<P>(comptime!(form.columns), form);
    add_product::<P, F, N>(x, w, &place, &mut left, &mut right, &mut sums, true, form);
    add_product::<P, F, N>(x_2, w_2, &place, &mut left, &mut right, &mut sums, true, form);
    write::<P, F, N>(y, &place, &sums, form);
}

/// `gate[r] = x[r] w_gate[e]`, `up[r] = x[r] w_up[e]`, `y[r] = silu(gate[r]) * up[r]`.
#[cube(launch)]
pub(super) fn swiglu<P: Products, F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    w_gate: &Tensor<Vector<F, N>>,
    w_up: &Tensor<Vector<F, N>>,
    plan: &Tensor<i32>,
    y: &mut Tensor<Vector<F, N>>,
    gate: &mut Tensor<Vector<F, N>>,
    up: &mut Tensor<Vector<F, N>>,
    #[comptime] form: Form,
    #[define(F)] _element: ElemType,
) {
    let rows = comptime!(form.rows);
    let columns = comptime!(form.swiglu_columns);
    let place = place(plan, y.shape(1), columns);
    if place.row >= place.end_row {
        terminate!();
    }
    let (k, n) = (x.shape(1), place.columns);
    let terms = if place.expert < w_gate.shape(0) { k } else { 0usize };
    let base = place.expert * k * n;
    let (row, end_row, column) = (place.row, place.end_row, place.column);
    let mut left = tiles::<F, N>(rows, true, form);
    let mut gate_tiles = tiles::<F, N>(columns, false, form);
    let mut up_tiles = tiles::<F, N>(columns, false, form);
    let mut gates = zeros::<P>(columns, form);
    let mut ups = zeros::<P>(columns, form);

    let first = fetch(x, 0, k, row, end_row, 0, terms, rows, true, form);
    let first_gate = fetch(w_gate, base, n, column, n, 0, terms, columns, false, form);
    let first_up = fetch(w_up, base, n, column, n, 0, terms, columns, false, form);
    stow(&first, &mut left, 0, rows, true, form);
    stow(&first_gate, &mut gate_tiles, 0, columns, false, form);
    stow(&first_up, &mut up_tiles, 0, columns, false, form);
    sync_cube();
    let mut turn = 0usize;
    let mut term = 0usize;
    while term < terms {
        term += form.depth;
        // Beyond the last term this loads nothing and returns zeros.
        let next = fetch(x, 0, k, row, end_row, term, terms, rows, true, form);
        let next_gate = fetch(w_gate, base, n, column, n, term, terms, columns, false, form);
        let next_up = fetch(w_up, base, n, column, n, term, terms, columns, false, form);
        multiply::<P, F, N>(&left, &gate_tiles, turn, &mut gates, columns, true, false, form);
        multiply::<P, F, N>(&left, &up_tiles, turn, &mut ups, columns, true, false, form);
        turn = 1 - turn;
        stow(&next, &mut left, turn, rows, true, form);
        stow(&next_gate, &mut gate_tiles, turn, columns, false, form);
        stow(&next_up, &mut up_tiles, turn, columns, false, form);
        sync_cube();
    }
    let mut results = results(form);
    #[unroll]
    for part in 0..comptime!(form.down() * form.across(columns)) {
        let gates = take::<P>(&gates[part], &mut results);
        let ups = take::<P>(&ups[part], &mut results);
        let mut values = Array::<f32>::new(EACH);
        #[unroll]
        for i in 0..EACH {
            values[i] = gates[i] / (1.0f32 + (-gates[i]).exp()) * ups[i];
        }
        write_part(gate, &place, &gates, part, columns, form);
        write_part(up, &place, &ups, part, columns, form);
        write_part(y, &place, &values, part, columns, form);
    }
}

/// `d_w[e] = x_e^T grad_e`: one cube for each tile of each expert adds the rows in order.
#[cube(launch)]
pub(super) fn weight_gradient<P: Products, F: Float, N: Size, O: Float, M: Size, I: Int>(
    x: &Tensor<Vector<F, N>>,
    grad: &Tensor<Vector<F, N>>,
    offsets: &Tensor<I>,
    d_w: &mut Tensor<Vector<O, M>>,
    #[comptime] form: Form,
    #[define(F, O, I)] _elements: [ElemType; 3],
) {
    let rows = comptime!(form.rows);
    let columns = comptime!(form.columns);
    let (k, n) = (d_w.shape(1), d_w.shape(2));
    let column_tiles = n.div_ceil(columns);
    let row_tiles = k.div_ceil(rows);
    let tile = CUBE_POS / column_tiles;
    let expert = tile / row_tiles;
    if expert >= d_w.shape(0) {
        terminate!();
    }
    let row = tile % row_tiles * rows;
    let column = CUBE_POS % column_tiles * columns;
    let mut left = tiles::<F, N>(rows, false, form);
    let mut right = tiles::<F, N>(columns, false, form);
    let mut sums = zeros::<P>(columns, form);
    let mut term = usize::cast_from(offsets[expert]);
    let end = usize::cast_from(offsets[expert + 1]);

    let first_left = fetch(x, 0, k, row, k, term, end, rows, false, form);
    let first_right = fetch(grad, 0, n, column, n, term, end, columns, false, form);
    stow(&first_left, &mut left, 0, rows, false, form);
    stow(&first_right, &mut right, 0, columns, false, form);
    sync_cube();
    let mut turn = 0usize;
    while term < end {
        term += form.depth;
        let next_left = fetch(x, 0, k, row, k, term, end, rows, false, form);
        let next_right = fetch(grad, 0, n, column, n, term, end, columns, false, form);
        multiply::<P, F, N>(&left, &right, turn, &mut sums, columns, false, false, form);
        turn = 1 - turn;
        stow(&next_left, &mut left, turn, rows, false, form);
        stow(&next_right, &mut right, turn, columns, false, form);
        sync_cube();
    }
    let first = expert * k;
    let place = Place { expert, row: first + row, end_row: first + k, column, columns: n };
    write::<P, O, M>(d_w, &place, &sums, form);
}

/// Adds the tile of `x w[e]`, or `x w[e]^T`, to the sums.
#[cube]
fn add_product<P: Products, F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    w: &Tensor<Vector<F, N>>,
    place: &Place,
    left: &mut Shared<[Vector<F, N>]>,
    right: &mut Shared<[Vector<F, N>]>,
    sums: &mut Sequence<P::Sums>,
    #[comptime] is_transposed: bool,
    #[comptime] form: Form,
) {
    let rows = comptime!(form.rows);
    let columns = comptime!(form.columns);
    let (k, n) = (x.shape(1), place.columns);
    let terms = if place.expert < w.shape(0) { k } else { 0usize };
    let base = place.expert * k * n;
    // From one row of the matrix in memory to the next.
    let pitch = if comptime!(is_transposed) { k } else { n };
    let (row, end_row, column) = (place.row, place.end_row, place.column);

    let first_left = fetch(x, 0, k, row, end_row, 0, terms, rows, true, form);
    let first_right = fetch(w, base, pitch, column, n, 0, terms, columns, is_transposed, form);
    stow(&first_left, left, 0, rows, true, form);
    stow(&first_right, right, 0, columns, is_transposed, form);
    sync_cube();
    let mut turn = 0usize;
    let mut term = 0usize;
    while term < terms {
        term += form.depth;
        let next_left = fetch(x, 0, k, row, end_row, term, terms, rows, true, form);
        let next_right = fetch(w, base, pitch, column, n, term, terms, columns, is_transposed, form);
        multiply::<P, F, N>(&*left, &*right, turn, sums, columns, true, is_transposed, form);
        turn = 1 - turn;
        stow(&next_left, left, turn, rows, true, form);
        stow(&next_right, right, turn, columns, is_transposed, form);
        sync_cube();
    }
}

/// Shared memory for two tiles of one factor.
#[cube]
fn tiles<F: Float, N: Size>(
    #[comptime] lines: usize,
    #[comptime] are_terms_adjacent: bool,
    #[comptime] form: Form,
) -> Shared<[Vector<F, N>]> {
    let size = N::value();
    Shared::new_aligned_slice(comptime!(2 * form.tile_size(lines, are_terms_adjacent) / size), ALIGNMENT)
}

#[cube]
fn zeros<P: Products>(#[comptime] columns: usize, #[comptime] form: Form) -> Sequence<P::Sums> {
    let mut sums = Sequence::<P::Sums>::new();
    #[unroll]
    for _ in 0..comptime!(form.down() * form.across(columns)) {
        sums.push(P::zero());
    }
    sums
}

/// Loads this unit's part of the next terms of `lines` lines (rows or columns of the result), with
/// zeros beyond the ends. In memory either the terms of one line follow each other, or the lines
/// of one term; vectors go along what is adjacent, whose ends are multiples of them.
#[cube]
fn fetch<F: Float, N: Size>(
    source: &Tensor<Vector<F, N>>,
    base: usize,
    pitch: usize,
    first_line: usize,
    end_line: usize,
    first_term: usize,
    end_term: usize,
    #[comptime] lines: usize,
    #[comptime] are_terms_adjacent: bool,
    #[comptime] form: Form,
) -> Array<Vector<F, N>> {
    let size = N::value();
    let count = comptime!(form.vectors(lines, size));
    let depth = comptime!(form.depth);
    let mut part = Array::<Vector<F, N>>::new(count);
    #[unroll]
    for i in 0..count {
        let position = (UNIT_POS as usize + comptime!(i * form.units() as usize)) * size;
        let (line, term) = if comptime!(are_terms_adjacent) {
            (position / depth, position % depth)
        } else {
            (position % lines, position / lines)
        };
        let from_line = first_line + line;
        let from_term = first_term + term;
        let mut value = Vector::<F, N>::zeroed();
        if from_line < end_line && from_term < end_term {
            let at = if comptime!(are_terms_adjacent) {
                from_line * pitch + from_term
            } else {
                from_term * pitch + from_line
            };
            value = source[(base + at) / size];
        }
        part[i] = value;
    }
    part
}

/// Writes what [`fetch`] loaded into the first or second tile in shared memory.
#[cube]
fn stow<F: Float, N: Size>(
    part: &Array<Vector<F, N>>,
    tiles: &mut Shared<[Vector<F, N>]>,
    turn: usize,
    #[comptime] lines: usize,
    #[comptime] are_terms_adjacent: bool,
    #[comptime] form: Form,
) {
    let size = N::value();
    let along = comptime!(if are_terms_adjacent { form.depth } else { lines });
    let pitch = comptime!(form.pitch(lines, are_terms_adjacent));
    let first = turn * comptime!(form.tile_size(lines, are_terms_adjacent));
    #[unroll]
    for i in 0..comptime!(form.vectors(lines, size)) {
        let position = (UNIT_POS as usize + comptime!(i * form.units() as usize)) * size;
        tiles[(first + position / along * pitch + position % along) / size] = part[i];
    }
}

/// Adds the products of the terms in the first or second tiles in shared memory.
#[cube]
fn multiply<P: Products, F: Float, N: Size>(
    left: &Shared<[Vector<F, N>]>,
    right: &Shared<[Vector<F, N>]>,
    turn: usize,
    sums: &mut Sequence<P::Sums>,
    #[comptime] columns: usize,
    #[comptime] is_left_adjacent: bool,
    #[comptime] is_right_adjacent: bool,
    #[comptime] form: Form,
) {
    let size = N::value();
    let left_form = comptime!(Factor {
        parts: form.down(),
        pitch: form.pitch(form.rows, is_left_adjacent),
        are_terms_adjacent: is_left_adjacent,
    });
    let right_form = comptime!(Factor {
        parts: form.across(columns),
        pitch: form.pitch(columns, is_right_adjacent),
        are_terms_adjacent: is_right_adjacent,
    });
    let plane = UNIT_POS as usize / PLANE;
    let row = plane / form.planes_across * comptime!(left_form.parts * PART);
    let column = plane % form.planes_across * comptime!(right_form.parts * PART);
    let left_tile = turn * comptime!(form.tile_size(form.rows, is_left_adjacent));
    let right_tile = turn * comptime!(form.tile_size(columns, is_right_adjacent));
    #[unroll]
    for step in 0..comptime!(form.depth / PART) {
        let left_at =
            left_tile + row * comptime!(left_form.at(1, 0)) + comptime!(left_form.at(0, step * PART));
        let right_at =
            right_tile + column * comptime!(right_form.at(1, 0)) + comptime!(right_form.at(0, step * PART));
        let left = &left[left_at / size..left.len()];
        let right = &right[right_at / size..right.len()];
        P::add_products::<F, N>(left, right, sums, left_form, right_form);
    }
}

/// Shared memory for one fragment of results of each plane.
#[cube]
fn results(#[comptime] form: Form) -> Shared<[f32]> {
    Shared::<[f32]>::new_aligned_slice(comptime!(form.results()), ALIGNMENT)
}

/// This unit's half row of a fragment.
#[cube]
fn take<P: Products>(sums: &P::Sums, results: &mut Shared<[f32]>) -> Array<f32> {
    let first = UNIT_POS as usize / PLANE * comptime!(PART * PART);
    let end = first + comptime!(PART * PART);
    P::store(sums, &mut results[first..end]);
    P::sync();
    let mut half_row = Array::<f32>::new(EACH);
    #[unroll]
    for i in 0..EACH {
        half_row[i] = results[UNIT_POS as usize * EACH + i];
    }
    P::sync();
    half_row
}

/// Writes the part of the tile that is inside the result.
#[cube]
fn write<P: Products, O: Float, M: Size>(
    y: &mut Tensor<Vector<O, M>>,
    place: &Place,
    sums: &Sequence<P::Sums>,
    #[comptime] form: Form,
) {
    let columns = comptime!(form.columns);
    let mut results = results(form);
    #[unroll]
    for part in 0..comptime!(form.down() * form.across(columns)) {
        let half_row = take::<P>(&sums[part], &mut results);
        write_part(y, place, &half_row, part, columns, form);
    }
}

/// Writes this unit's half row of a fragment of its plane, if it is inside the result.
#[cube]
fn write_part<O: Float, M: Size>(
    y: &mut Tensor<Vector<O, M>>,
    place: &Place,
    half_row: &Array<f32>,
    #[comptime] part: usize,
    #[comptime] columns: usize,
    #[comptime] form: Form,
) {
    let size = M::value();
    let (down, across) = comptime!((form.down(), form.across(columns)));
    let plane = UNIT_POS as usize / PLANE;
    let lane = UNIT_POS as usize % PLANE;
    let row_of_parts = plane / form.planes_across * down + comptime!(part / across);
    let column_of_parts = plane % form.planes_across * across + comptime!(part % across);
    let row = place.row + row_of_parts * PART + lane / 2;
    let first_column = place.column + column_of_parts * PART + lane % 2 * EACH;
    #[unroll]
    for i in 0..comptime!(EACH / size) {
        let column = first_column + comptime!(i * size);
        if row < place.end_row && column < place.columns {
            let mut vector = Vector::<O, M>::zeroed();
            #[unroll]
            for j in 0..size {
                vector.insert(j, O::cast_from(half_row[comptime!(i * size + j)]));
            }
            y[(row * place.columns + column) / size] = vector;
        }
    }
}
