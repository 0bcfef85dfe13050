//! The kernels for tensor cores: the loops of [`super::kernels`], with products of 16 x 16 x 16 elements
//! of f16 or bf16 that are added up in f32.
//!
//! Each plane holds a strip of 16 rows of the result: queries forward and for the gradient of
//! queries, keys for that of keys and values. How a fragment lies in the registers of a plane is not
//! known, so scores pass through shared memory, where two units take one row of the plane's strip.
//! Forward, exponents are taken relative to a score at most [`SLACK`] below the largest: the output is
//! multiplied only when that score changes, which after the first tiles is rare.
//!
//! The products are behind [`Products`]. [`TensorCores`] has never run on a GPU yet; [`Emulated`] has the
//! same meaning in plain arithmetic, and lets tests run everything else.

// A kernel takes its tensors one by one.
#![allow(clippy::too_many_arguments)]

use cubecl::prelude::*;

use super::kernels::{FORBIDDEN, Form};

/// Rows and columns of a fragment.
pub(super) const PART: usize = 16;
/// Units of a plane.
const PLANE: usize = 32;
/// Units of a plane that share one row of scores.
const SHARERS: usize = PLANE / PART;
/// How far scores may lie above the one that exponents are relative to: sums stay below
/// `exp(8)` for each key.
const SLACK: f32 = 8.0;
/// Elements read from device memory at once where that is possible: 16 bytes.
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

    /// Distance of rows of queries, keys, values and their gradients in shared memory, so that
    /// rows lie in different banks and begin where fragments may.
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

/// Products of 16 x 16 x 16, by the units of a plane together.
#[cube]
pub(super) trait Products: Send + Sync + 'static {
    /// 16 x 16 sums in f32, spread over the units of a plane.
    type Sums: CubeType;

    fn zero() -> Self::Sums;

    /// Adds to sums i = 0..n the products of the rows of `a` (16 x 16) with the rows of part i of `b`;
    /// parts lie 16 rows apart.
    fn add_row_products<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] pitch: usize,
    );

    /// Adds to sums i = 0..n the rows of part i of `b`, weighted by the rows of `a` (16 x 16); parts lie
    /// 16 columns apart.
    fn add_weighted_rows<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] a_pitch: usize,
        #[comptime] pitch: usize,
    );

    /// Writes sums to shared memory.
    fn store(sums: &Self::Sums, to: &mut [f32], #[comptime] pitch: usize);

    /// Multiplies row r by `factors[r]`; `scratch` is 16 rows of memory of the plane.
    fn scale_rows(sums: &mut Self::Sums, factors: &[f32], scratch: &mut [f32], #[comptime] pitch: usize);

    /// What units of the plane wrote to shared memory before is visible to the others after.
    fn sync();
}

/// Products by tensor cores. Never run on a GPU yet.
pub(super) struct TensorCores;

#[cube]
impl Products for TensorCores {
    type Sums = cmma::Matrix<f32>;

    fn zero() -> Self::Sums {
        cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            PART,
            PART,
            PART,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        )
    }

    fn add_row_products<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] pitch: usize,
    ) {
        let left = cmma::Matrix::<F>::from_slice(
            cmma::MatrixIdent::A,
            PART,
            PART,
            PART,
            cmma::MatrixLayout::RowMajor,
            a,
            comptime!(pitch as u32),
        );
        #[unroll]
        for i in 0..n {
            // The rows of `b` are the columns of the right factor.
            let right = cmma::Matrix::<F>::from_slice(
                cmma::MatrixIdent::B,
                PART,
                PART,
                PART,
                cmma::MatrixLayout::ColMajor,
                &b[comptime!(i * PART * pitch)..b.len()],
                comptime!(pitch as u32),
            );
            let sum = &sums[i];
            cmma::execute(&left, &right, sum, sum);
        }
    }

    fn add_weighted_rows<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] a_pitch: usize,
        #[comptime] pitch: usize,
    ) {
        let left = cmma::Matrix::<F>::from_slice(
            cmma::MatrixIdent::A,
            PART,
            PART,
            PART,
            cmma::MatrixLayout::RowMajor,
            a,
            comptime!(a_pitch as u32),
        );
        #[unroll]
        for i in 0..n {
            let right = cmma::Matrix::<F>::from_slice(
                cmma::MatrixIdent::B,
                PART,
                PART,
                PART,
                cmma::MatrixLayout::RowMajor,
                &b[comptime!(i * PART)..b.len()],
                comptime!(pitch as u32),
            );
            let sum = &sums[i];
            cmma::execute(&left, &right, sum, sum);
        }
    }

    fn store(sums: &Self::Sums, to: &mut [f32], #[comptime] pitch: usize) {
        cmma::store(to, sums, comptime!(pitch as u32), cmma::MatrixLayout::RowMajor);
    }

    fn scale_rows(sums: &mut Self::Sums, factors: &[f32], scratch: &mut [f32], #[comptime] pitch: usize) {
        let lane = UNIT_POS as usize % PLANE;
        sync_plane();
        cmma::store(scratch, &*sums, comptime!(pitch as u32), cmma::MatrixLayout::RowMajor);
        sync_plane();
        #[unroll]
        for i in 0..comptime!(PART * PART / PLANE) {
            let row = lane / PART + comptime!(i * SHARERS);
            scratch[row * pitch + lane % PART] *= factors[row];
        }
        sync_plane();
        cmma::load_with_layout(sums, &*scratch, comptime!(pitch as u32), cmma::MatrixLayout::RowMajor);
    }

    fn sync() {
        sync_plane();
    }
}

/// Products by plain arithmetic, for tests. Unit `lane` of a plane holds the elements
/// (lane / 16 + 2 i, lane % 16).
pub(super) struct Emulated;

/// Elements of one unit in [`Emulated`].
const HELD: usize = PART * PART / PLANE;

#[cube]
impl Products for Emulated {
    type Sums = Array<f32>;

    fn zero() -> Self::Sums {
        let mut sums = Array::<f32>::new(HELD);
        for i in 0..HELD {
            sums[i] = 0.0f32;
        }
        sums
    }

    fn add_row_products<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] pitch: usize,
    ) {
        let lane = UNIT_POS as usize % PLANE;
        #[unroll]
        for part in 0..n {
            let sum = sums.index_mut(part);
            // One long loop, which the compilers of software GPUs leave as it is.
            for step in 0..comptime!(HELD * PART) {
                let (i, k) = (step / PART, step % PART);
                let row = lane / PART + i * SHARERS;
                let other = lane % PART + comptime!(part * PART);
                sum[i] += f32::cast_from(a[row * pitch + k]) * f32::cast_from(b[other * pitch + k]);
            }
        }
    }

    fn add_weighted_rows<F: Float>(
        a: &[F],
        b: &[F],
        sums: &mut Sequence<Self::Sums>,
        #[comptime] n: usize,
        #[comptime] a_pitch: usize,
        #[comptime] pitch: usize,
    ) {
        let lane = UNIT_POS as usize % PLANE;
        #[unroll]
        for part in 0..n {
            let sum = sums.index_mut(part);
            for step in 0..comptime!(HELD * PART) {
                let (i, k) = (step / PART, step % PART);
                let row = lane / PART + i * SHARERS;
                let column = lane % PART + comptime!(part * PART);
                sum[i] += f32::cast_from(a[row * a_pitch + k]) * f32::cast_from(b[k * pitch + column]);
            }
        }
    }

    fn store(sums: &Self::Sums, to: &mut [f32], #[comptime] pitch: usize) {
        let mut at = UNIT_POS as usize % PLANE;
        while at < comptime!(PART * PART) {
            to[at / PART * pitch + at % PART] = sums[at / PLANE];
            at += PLANE;
        }
    }

    fn scale_rows(sums: &mut Self::Sums, factors: &[f32], _scratch: &mut [f32], #[comptime] _pitch: usize) {
        let mut at = UNIT_POS as usize % PLANE;
        while at < comptime!(PART * PART) {
            sums[at / PLANE] *= factors[at / PART];
            at += PLANE;
        }
    }

    /// The whole cube: planes of other sizes than 32 may be executed apart.
    fn sync() {
        sync_cube();
    }
}

/// Copies a tile of `rows` rows of one head, with zeros after the last row. `start` is the place of the
/// first element. With `is_wide`, it and `width` are multiples of [`VECTOR`]; kernels that have it also unroll
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
    // Of the columns of this unit only, until the end.
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

/// As [`super::kernels::backward_queries`].
#[cube(launch)]
pub(super) fn backward_queries<P: Products, F: Float, I: Int>(
    qkv: &Tensor<F>,
    first: &Tensor<I>,
    grad: &Tensor<F>,
    log_sums: &Tensor<f32>,
    dots: &Tensor<f32>,
    d_qkv: &mut Tensor<F>,
    seq: usize,
    #[comptime] is_wide: bool,
    #[comptime] form: Form,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let tile = comptime!(form.tile);
    let share = comptime!(form.share());
    let tokens = qkv.shape(0);
    let tiles = seq.div_ceil(tile);
    if CUBE_POS >= tokens / seq * tiles * comptime!(form.heads) {
        terminate!();
    }
    let query0 = (tiles - 1 - CUBE_POS % tiles) * tile;
    let head = CUBE_POS / tiles % comptime!(form.heads);
    let token0 = CUBE_POS / tiles / comptime!(form.heads) * seq;
    let queries = usize::min(tile, seq - query0);
    let width = comptime!(form.width());
    let out_width = comptime!(form.heads * form.head_dim);
    let kv_head = head / comptime!(form.group());
    let q_start = (token0 + query0) * width + head * comptime!(form.head_dim);
    let k_start = token0 * width + (comptime!(form.heads) + kv_head) * comptime!(form.head_dim);
    let v_start = k_start + comptime!(form.kv_heads * form.head_dim);
    let grad_start = (token0 + query0) * out_width + head * comptime!(form.head_dim);

    let inputs = comptime!(tile * form.pitch());
    let mut stage_q = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut stage_grad = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut stage_k = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut stage_v = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut slopes = Shared::<[F]>::new_aligned_slice(comptime!(tile * form.weight_pitch()), ALIGNMENT);
    // Of scores, then of weights.
    let mut scores = Shared::<[f32]>::new_aligned_slice(comptime!(tile * form.score_pitch()), ALIGNMENT);

    let unit = UNIT_POS as usize;
    let lane = unit % PLANE;
    let row = unit / PLANE * PART + lane / SHARERS;
    let x = lane % SHARERS;
    let mut start = seq;
    let mut log_sum = 0.0f32;
    let mut dot = 0.0f32;
    if row < queries {
        let token = token0 + query0 + row;
        start = usize::cast_from(first[token]);
        log_sum = log_sums[head * tokens + token];
        dot = dots[head * tokens + token];
    }
    let mut row_weights = Array::<f32>::new(share);
    let mut sums = zeros::<P>(comptime!(form.head_parts()));

    load::<F>(qkv, q_start, width, queries, &mut stage_q, is_wide, form);
    load::<F>(grad, grad_start, out_width, queries, &mut stage_grad, is_wide, form);
    let mut key0 = usize::cast_from(first[token0 + query0]) / tile * tile;
    while key0 < query0 + queries {
        let keys = usize::min(tile, seq - key0);
        sync_cube();
        load::<F>(qkv, k_start + key0 * width, width, keys, &mut stage_k, is_wide, form);
        load::<F>(qkv, v_start + key0 * width, width, keys, &mut stage_v, is_wide, form);
        sync_cube();
        row_products::<P, F>(&stage_q, &stage_k, &mut scores, form);
        P::sync();
        #[unroll(is_wide)]
        for i in 0..share {
            let column = x + i * SHARERS;
            let key = key0 + column;
            let mut weight = 0.0f32;
            if key >= start && key <= query0 + row {
                let score = scores[row * comptime!(form.score_pitch()) + column] * comptime!(form.scale());
                weight = f32::exp(score - log_sum);
            }
            row_weights[i] = weight;
        }
        P::sync();
        row_products::<P, F>(&stage_grad, &stage_v, &mut scores, form);
        P::sync();
        #[unroll(is_wide)]
        for i in 0..share {
            let column = x + i * SHARERS;
            let d_weight = scores[row * comptime!(form.score_pitch()) + column];
            let slope = row_weights[i] * (d_weight - dot) * comptime!(form.scale());
            slopes[row * comptime!(form.weight_pitch()) + column] = F::cast_from(slope);
        }
        P::sync();
        add_weighted_rows::<P, F>(&slopes, &stage_k, &mut sums, form);
        key0 += tile;
    }
    store::<P, F>(&sums, 1.0f32, &mut scores, d_qkv, q_start, width, queries, form);
}

/// As [`super::kernels::backward_keys`].
#[cube(launch)]
pub(super) fn backward_keys<P: Products, F: Float, I: Int>(
    qkv: &Tensor<F>,
    first: &Tensor<I>,
    grad: &Tensor<F>,
    log_sums: &Tensor<f32>,
    dots: &Tensor<f32>,
    d_qkv: &mut Tensor<F>,
    seq: usize,
    #[comptime] is_wide: bool,
    #[comptime] form: Form,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let tile = comptime!(form.tile);
    let share = comptime!(form.share());
    let tokens = qkv.shape(0);
    let tiles = seq.div_ceil(tile);
    if CUBE_POS >= tokens / seq * tiles * comptime!(form.kv_heads) {
        terminate!();
    }
    // The first keys are seen by most queries: they start first.
    let key0 = CUBE_POS % tiles * tile;
    let kv_head = CUBE_POS / tiles % comptime!(form.kv_heads);
    let token0 = CUBE_POS / tiles / comptime!(form.kv_heads) * seq;
    let keys = usize::min(tile, seq - key0);
    let width = comptime!(form.width());
    let out_width = comptime!(form.heads * form.head_dim);
    let k_start = (token0 + key0) * width + (comptime!(form.heads) + kv_head) * comptime!(form.head_dim);
    let v_start = k_start + comptime!(form.kv_heads * form.head_dim);

    let inputs = comptime!(tile * form.pitch());
    let mut stage_k = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut stage_v = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut stage_q = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    let mut stage_grad = Shared::<[F]>::new_aligned_slice(inputs, ALIGNMENT);
    // By keys and queries: weights first, then slopes of scores.
    let mut weights = Shared::<[F]>::new_aligned_slice(comptime!(tile * form.weight_pitch()), ALIGNMENT);
    let mut scores = Shared::<[f32]>::new_aligned_slice(comptime!(tile * form.score_pitch()), ALIGNMENT);

    let unit = UNIT_POS as usize;
    let lane = unit % PLANE;
    let row = unit / PLANE * PART + lane / SHARERS;
    let x = lane % SHARERS;
    let key = key0 + row;
    let mut row_weights = Array::<f32>::new(share);
    let mut d_keys = zeros::<P>(comptime!(form.head_parts()));
    let mut d_values = zeros::<P>(comptime!(form.head_parts()));

    load::<F>(qkv, k_start, width, keys, &mut stage_k, is_wide, form);
    load::<F>(qkv, v_start, width, keys, &mut stage_v, is_wide, form);
    for member in 0..comptime!(form.group()) {
        let head = kv_head * comptime!(form.group()) + member;
        let mut query0 = key0;
        while query0 < seq && usize::cast_from(first[token0 + query0]) < key0 + keys {
            let queries = usize::min(tile, seq - query0);
            let q_start = (token0 + query0) * width + head * comptime!(form.head_dim);
            let grad_start = (token0 + query0) * out_width + head * comptime!(form.head_dim);
            sync_cube();
            load::<F>(qkv, q_start, width, queries, &mut stage_q, is_wide, form);
            load::<F>(grad, grad_start, out_width, queries, &mut stage_grad, is_wide, form);
            sync_cube();
            row_products::<P, F>(&stage_k, &stage_q, &mut scores, form);
            P::sync();
            #[unroll(is_wide)]
            for i in 0..share {
                let column = x + i * SHARERS;
                let query = query0 + column;
                let mut weight = 0.0f32;
                if column < queries && key <= query {
                    let token = token0 + query;
                    if key >= usize::cast_from(first[token]) {
                        let score = scores[row * comptime!(form.score_pitch()) + column];
                        weight = f32::exp(score * comptime!(form.scale()) - log_sums[head * tokens + token]);
                    }
                }
                row_weights[i] = weight;
                weights[row * comptime!(form.weight_pitch()) + column] = F::cast_from(weight);
            }
            P::sync();
            add_weighted_rows::<P, F>(&weights, &stage_grad, &mut d_values, form);
            row_products::<P, F>(&stage_v, &stage_grad, &mut scores, form);
            P::sync();
            #[unroll(is_wide)]
            for i in 0..share {
                let column = x + i * SHARERS;
                let mut dot = 0.0f32;
                if column < queries {
                    dot = dots[head * tokens + token0 + query0 + column];
                }
                let d_weight = scores[row * comptime!(form.score_pitch()) + column];
                let slope = row_weights[i] * (d_weight - dot) * comptime!(form.scale());
                weights[row * comptime!(form.weight_pitch()) + column] = F::cast_from(slope);
            }
            P::sync();
            add_weighted_rows::<P, F>(&weights, &stage_q, &mut d_keys, form);
            query0 += tile;
        }
    }
    store::<P, F>(&d_keys, 1.0f32, &mut scores, d_qkv, k_start, width, keys, form);
    store::<P, F>(&d_values, 1.0f32, &mut scores, d_qkv, v_start, width, keys, form);
}
