//! The kernels for tensor cores: the loops of [`super::kernels`], with products of 16 x 16 x 16 elements
//! of f16 or bf16 that are added up in f32.
//!
//! Each plane holds a strip of 16 rows of the result: queries forward and for the gradient of queries, keys
//! for that of keys and values. The layout of a fragment in the registers of a plane is not known, so scores
//! pass through shared memory, where two units take one row of the plane's strip. Forward, exponents are
//! taken relative to a score at most [`SLACK`] below the largest: the output is multiplied only when that
//! score changes, which after the first tiles is rare.
//!
//! The products are behind [`Products`]. [`TensorCores`] has run as PTX on the CPU (tests/cuda), not on a GPU
//! yet; [`Emulated`] has the same meaning in plain arithmetic, and lets tests run everything else.

// A kernel takes its tensors one by one.
#![allow(clippy::too_many_arguments)]

mod backward;
mod products;

use cubecl::prelude::*;

pub(super) use backward::{backward_keys, backward_queries};
use products::Products;
pub(super) use products::{Emulated, TensorCores};

use super::kernels::{FORBIDDEN, Form};

/// Rows and columns of a fragment.
pub(super) const PART: usize = 16;
/// Units of a plane.
const PLANE: usize = 32;
/// Units of a plane that share one row of scores.
const SHARERS: usize = PLANE / PART;
/// How far scores may be above the one that exponents are relative to: sums stay below `exp(8)` for each key.
const SLACK: f32 = 8.0;
/// Elements read from device memory at a time where possible: 16 bytes.
const VECTOR: usize = 8;
/// Alignment that fragments need in shared memory, in bytes.
const ALIGNMENT: usize = 32;

impl Form {
    /// Units of a cube: a plane for each strip of 16 rows.
    pub(super) const fn tensor_units(tile: usize) -> usize {
        tile / PART * PLANE
    }

    /// Bytes of shared memory of the kernel of keys, which needs most.
    pub(super) const fn tensor_shared_bytes(head_dim: usize, tile: usize, element: usize) -> usize {
        let inputs = 4 * tile * (head_dim + 8) + tile * (tile + 8);
        element * inputs + 4 * tile * (tile + 4)
    }

    /// Distance of rows of queries, keys, values and their gradients in shared memory, so that rows are in
    /// different banks and begin where fragments may.
    fn pitch(self) -> usize {
        self.head_dim + 8
    }

    fn weight_pitch(self) -> usize {
        self.tile + 8
    }

    fn score_pitch(self) -> usize {
        self.tile + 4
    }

    /// Fragments side by side in a tile of scores.
    fn score_parts(self) -> usize {
        self.tile / PART
    }

    /// Fragments side by side in a head.
    fn head_parts(self) -> usize {
        self.head_dim / PART
    }

    /// Scores of a row that belong to one unit.
    fn share(self) -> usize {
        self.tile / SHARERS
    }
}

/// Copies a tile of `rows` rows of one head, with zeros after the last row. `start` is the place of the first
/// element. With `is_wide`, it and `width` are multiples of [`VECTOR`]; kernels that have it also unroll
/// their loops over registers, which makes code too long for the compilers of software GPUs.
#[cube]
fn load<F: Float>(
    from: &Tensor<F>,
    start: usize,
    width: usize,
    rows: usize,
    to: &mut Shared<[F]>,
    #[comptime] is_wide: bool,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(Form::tensor_units(form.tile));
    let pitch = comptime!(form.pitch());
    if comptime!(is_wide) {
        let from = from.as_vectorized().with_vector_size::<Const<VECTOR>>();
        let to = to.as_vectorized_mut().with_vector_size_mut::<Const<VECTOR>>();
        let columns = comptime!(form.head_dim / VECTOR);
        #[unroll]
        for step in 0..comptime!(form.tile * columns / units) {
            let at = unit + comptime!(step * units);
            let (row, column) = (at / columns, at % columns);
            let mut value = Vector::<F, Const<VECTOR>>::new(F::from_int(0));
            if row < rows {
                value = from[(start + row * width) / VECTOR + column];
            }
            to[row * comptime!(pitch / VECTOR) + column] = value;
        }
    } else {
        let mut at = unit;
        while at < comptime!(form.tile * form.head_dim) {
            let (row, column) = (at / comptime!(form.head_dim), at % comptime!(form.head_dim));
            let mut value = F::from_int(0);
            if row < rows {
                value = from[start + row * width + column];
            }
            to[row * pitch + column] = value;
            at += units;
        }
    }
}

#[cube]
fn zeros<P: Products>(#[comptime] n: usize) -> Sequence<P::Sums> {
    let mut sums = Sequence::new();
    #[unroll]
    for _ in 0..n {
        sums.push(P::zero());
    }
    sums
}

/// The plane's rows of `scores` = the products of its rows of `a` with all rows of `b`.
#[cube]
fn row_products<P: Products, F: Float>(
    a: &Shared<[F]>,
    b: &Shared<[F]>,
    scores: &mut Shared<[f32]>,
    #[comptime] form: Form,
) {
    let row = UNIT_POS as usize / PLANE * PART;
    let pitch = comptime!(form.pitch());
    let mut sums = zeros::<P>(comptime!(form.score_parts()));
    #[unroll]
    for part in 0..comptime!(form.head_parts()) {
        let a = &a[row * pitch + comptime!(part * PART)..a.len()];
        let b = &b[comptime!(part * PART)..b.len()];
        P::add_row_products::<F>(a, b, &mut sums, comptime!(form.score_parts()), pitch);
    }
    let score_pitch = comptime!(form.score_pitch());
    #[unroll]
    for part in 0..comptime!(form.score_parts()) {
        let end = scores.len();
        P::store(&sums[part], &mut scores[row * score_pitch + comptime!(part * PART)..end], score_pitch);
    }
}

/// Adds to `sums` the rows of `b`, weighted by the plane's rows of `weights`.
#[cube]
fn add_weighted_rows<P: Products, F: Float>(
    weights: &Shared<[F]>,
    b: &Shared<[F]>,
    sums: &mut Sequence<P::Sums>,
    #[comptime] form: Form,
) {
    let row = UNIT_POS as usize / PLANE * PART;
    let (weight_pitch, pitch) = comptime!((form.weight_pitch(), form.pitch()));
    #[unroll]
    for part in 0..comptime!(form.score_parts()) {
        let a = &weights[row * weight_pitch + comptime!(part * PART)..weights.len()];
        let b = &b[comptime!(part * PART * pitch)..b.len()];
        P::add_weighted_rows::<F>(a, b, sums, comptime!(form.head_parts()), weight_pitch, pitch);
    }
}

/// Writes a tile of one head, each row multiplied by its factor, through the plane's rows of
/// `scratch`.
#[cube]
fn store<P: Products, F: Float>(
    sums: &Sequence<P::Sums>,
    factor: f32,
    scratch: &mut Shared<[f32]>,
    to: &mut Tensor<F>,
    start: usize,
    width: usize,
    rows: usize,
    #[comptime] form: Form,
) {
    let pitch = comptime!(form.score_pitch());
    let lane = UNIT_POS as usize % PLANE;
    let row = UNIT_POS as usize / PLANE * PART + lane / SHARERS;
    #[unroll]
    for part in 0..comptime!(form.head_parts()) {
        P::sync();
        let end = scratch.len();
        P::store(&sums[part], &mut scratch[UNIT_POS as usize / PLANE * comptime!(PART * pitch)..end], pitch);
        P::sync();
        let mut column = lane % SHARERS;
        while column < PART {
            if row < rows {
                let value = scratch[row * pitch + column] * factor;
                to[start + row * width + comptime!(part * PART) + column] = F::cast_from(value);
            }
            column += SHARERS;
        }
    }
}

/// As [`super::kernels::forward`].
#[cube(launch)]
pub(super) fn forward<P: Products, F: Float, I: Int>(
    qkv: &Tensor<F>,
    first: &Tensor<I>,
    out: &mut Tensor<F>,
    log_sums: &mut Tensor<f32>,
    seq: usize,
    #[comptime] is_wide: bool,
    #[comptime] form: Form,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let tile = comptime!(form.tile);
    let share = comptime!(form.share());
    let tokens = out.shape(0);
    let tiles = seq.div_ceil(tile);
    if CUBE_POS >= tokens / seq * tiles * comptime!(form.heads) {
        terminate!();
    }
    // The last queries see most keys: they start first.
    let query0 = (tiles - 1 - CUBE_POS % tiles) * tile;
    let head = CUBE_POS / tiles % comptime!(form.heads);
    let token0 = CUBE_POS / tiles / comptime!(form.heads) * seq;
    let queries = usize::min(tile, seq - query0);
    let width = comptime!(form.width());
    let kv_head = head / comptime!(form.group());
    let q_start = (token0 + query0) * width + head * comptime!(form.head_dim);
    let k_start = token0 * width + (comptime!(form.heads) + kv_head) * comptime!(form.head_dim);
    let v_start = k_start + comptime!(form.kv_heads * form.head_dim);

    let inputs = comptime!(tile * form.pitch());
    let mut stage_q = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    // Keys, then values.
    let mut stage_kv = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut weights = Shared::<[F]>::new_aligned_slice(comptime!(tile * form.weight_pitch()), ALIGNMENT);
    let mut scores = Shared::<[f32]>::new_aligned_slice(comptime!(tile * form.score_pitch()), ALIGNMENT);
    let mut partial = Shared::<[f32]>::new_slice(comptime!(tile * SHARERS));
    let mut factors = Shared::<[f32]>::new_slice(tile);

    let unit = UNIT_POS as usize;
    let lane = unit % PLANE;
    let row0 = unit / PLANE * PART;
    let row = row0 + lane / SHARERS;
    let x = lane % SHARERS;
    let mut start = seq;
    if row < queries {
        start = usize::cast_from(first[token0 + query0 + row]);
    }
    let mut reference = FORBIDDEN.runtime();
    // Only for the columns of this unit, until the end.
    let mut exponentials = 0.0f32;
    let mut sums = zeros::<P>(comptime!(form.head_parts()));

    load::<F>(qkv, q_start, width, queries, &mut stage_q, is_wide, form);
    let mut key0 = usize::cast_from(first[token0 + query0]) / tile * tile;
    while key0 < query0 + queries {
        let keys = usize::min(tile, seq - key0);
        sync_cube();
        load::<F>(qkv, k_start + key0 * width, width, keys, &mut stage_kv, is_wide, form);
        sync_cube();
        row_products::<P, F>(&stage_q, &stage_kv, &mut scores, form);
        sync_cube();
        load::<F>(qkv, v_start + key0 * width, width, keys, &mut stage_kv, is_wide, form);
        let mut largest = FORBIDDEN.runtime();
        for i in 0..share {
            let column = x + i * SHARERS;
            let key = key0 + column;
            let at = row * comptime!(form.score_pitch()) + column;
            let mut score = FORBIDDEN.runtime();
            if key >= start && key <= query0 + row {
                score = scores[at] * comptime!(form.scale());
            }
            scores[at] = score;
            largest = f32::max(largest, score);
        }
        partial[unit] = largest;
        sync_cube();
        #[unroll]
        for other in 0..SHARERS {
            largest = f32::max(largest, partial[row * SHARERS + other]);
        }
        let mut factor = 1.0f32;
        if largest > reference + SLACK {
            factor = f32::exp(reference - largest);
            reference = largest;
        }
        exponentials *= factor;
        if x == 0 {
            factors[row] = factor;
        }
        for i in 0..share {
            let column = x + i * SHARERS;
            let score = scores[row * comptime!(form.score_pitch()) + column];
            let mut weight = 0.0f32;
            if score > comptime!(0.5 * FORBIDDEN) {
                weight = f32::exp(score - reference);
            }
            exponentials += weight;
            weights[row * comptime!(form.weight_pitch()) + column] = F::cast_from(weight);
        }
        P::sync();
        let mut is_scaled = false;
        for i in 0..PART {
            is_scaled = is_scaled || factors[row0 + i] != 1.0f32;
        }
        if is_scaled {
            #[unroll]
            for part in 0..comptime!(form.head_parts()) {
                let end = scores.len();
                P::scale_rows(
                    sums.index_mut(part),
                    &factors[row0..tile],
                    &mut scores[row0 * comptime!(form.score_pitch())..end],
                    comptime!(form.score_pitch()),
                );
            }
        }
        add_weighted_rows::<P, F>(&weights, &stage_kv, &mut sums, form);
        key0 += tile;
    }

    sync_cube();
    partial[unit] = exponentials;
    sync_cube();
    let mut total = 0.0f32;
    #[unroll]
    for other in 0..SHARERS {
        total += partial[row * SHARERS + other];
    }
    if x == 0 && row < queries {
        log_sums[head * tokens + token0 + query0 + row] = reference + f32::ln(total);
    }
    let out_width = comptime!(form.heads * form.head_dim);
    let out_start = (token0 + query0) * out_width + head * comptime!(form.head_dim);
    store::<P, F>(&sums, 1.0 / total, &mut scores, out, out_start, out_width, queries, form);
}
