//! The kernels that need no tensor cores: all products of f32 tiles in shared memory.
//!
//! A cube is [`SIDE`] x [`SIDE`] units. Unit (y, x) computes the elements (y + SIDE i, x + SIDE j) of each
//! product, so that at each step it reads a few values of both factors and uses each several times. A tile of
//! queries or keys passes through shared memory in chunks of [`CHUNK`] channels; sums over the loop stay in
//! registers.

// A kernel takes its tensors one by one.
#![allow(clippy::too_many_arguments)]

mod backward;

use cubecl::prelude::*;

pub(super) use backward::{backward_keys, backward_queries};

use super::AttentionShape;

/// Units of a cube in each of two directions.
pub(super) const SIDE: usize = 16;
/// Channels of a head that are in shared memory at a time.
const CHUNK: usize = 32;
/// Distance of rows of a chunk in shared memory: odd, so that a column is spread over banks.
const PITCH: usize = CHUNK + 1;
/// Channels of a chunk that belong to one unit.
const COLUMNS: usize = CHUNK / SIDE;
/// Score of keys that a query must not see.
pub(super) const FORBIDDEN: f32 = -1e30;

/// Units that add up one row in [`row_dot`].
const LANES: usize = 32;
/// Rows of one cube in [`row_dot`].
pub(super) const DOTS_PER_CUBE: usize = SIDE * SIDE / LANES;

/// Sizes known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Queries, and keys, of a tile.
    pub(super) tile: usize,
}

impl Form {
    pub(super) fn new(shape: AttentionShape, tile: usize) -> Self {
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        Self { heads, kv_heads, head_dim, tile }
    }

    /// Bytes of shared memory of the forward kernel, which needs most.
    pub(super) const fn shared_bytes(tile: usize) -> usize {
        4 * (2 * tile * PITCH + tile * (tile + 1) + tile * (SIDE + 1))
    }

    pub(super) fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    fn chunks(self) -> usize {
        self.head_dim.div_ceil(CHUNK)
    }

    /// Rows of a tile that belong to one unit.
    fn rows(self) -> usize {
        self.tile / SIDE
    }

    pub(super) fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    pub(super) fn scale(self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }
}

/// Copies a chunk of `rows` rows, with zeros after the last row and the last channel of a head.
/// `start` is the place of the first element of the head in the first row.
#[cube]
fn load<F: Float>(
    from: &Tensor<F>,
    start: usize,
    width: usize,
    rows: usize,
    to: &mut [f32],
    #[comptime] chunk: usize,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let column = unit % CHUNK;
    let channel = column + comptime!(chunk * CHUNK);
    #[unroll]
    for step in 0..comptime!(form.tile * CHUNK / (SIDE * SIDE)) {
        let row = unit / CHUNK + comptime!(step * (SIDE * SIDE / CHUNK));
        let mut value = 0.0f32;
        if row < rows && channel < comptime!(form.head_dim) {
            value = f32::cast_from(from[start + row * width + channel]);
        }
        to[row * PITCH + column] = value;
    }
}

/// Adds to `sum` (rows x rows) the products of the rows of two chunks.
#[cube]
fn add_row_products(a: &[f32], b: &[f32], sum: &mut Array<f32>, #[comptime] form: Form) {
    let rows = comptime!(form.rows());
    let unit = UNIT_POS as usize;
    let a_start = unit / SIDE * PITCH;
    let b_start = unit % SIDE * PITCH;
    let mut left = Array::<f32>::new(rows);
    for k in 0..CHUNK {
        #[unroll]
        for i in 0..rows {
            left[i] = a[a_start + comptime!(i * SIDE * PITCH) + k];
        }
        #[unroll]
        for j in 0..rows {
            let right = b[b_start + comptime!(j * SIDE * PITCH) + k];
            #[unroll]
            for i in 0..rows {
                sum[comptime!(i * rows + j)] += left[i] * right;
            }
        }
    }
}

/// Adds to the columns of one chunk of `sum` (rows x chunks x COLUMNS) the rows of `b`, weighted.
#[cube]
fn add_weighted_rows(
    weights: &[f32],
    b: &[f32],
    sum: &mut Array<f32>,
    #[comptime] chunk: usize,
    #[comptime] form: Form,
) {
    let rows = comptime!(form.rows());
    let unit = UNIT_POS as usize;
    let pitch = comptime!(form.tile + 1);
    let start = unit / SIDE * pitch;
    let column = unit % SIDE;
    let mut left = Array::<f32>::new(rows);
    for k in 0..comptime!(form.tile) {
        #[unroll]
        for i in 0..rows {
            left[i] = weights[start + comptime!(i * SIDE * pitch) + k];
        }
        #[unroll]
        for j in 0..COLUMNS {
            let right = b[k * PITCH + comptime!(j * SIDE) + column];
            #[unroll]
            for i in 0..rows {
                sum[comptime!((i * form.chunks() + chunk) * COLUMNS + j)] += left[i] * right;
            }
        }
    }
}

#[cube]
fn clear(values: &mut Array<f32>, #[comptime] n: usize) {
    #[unroll]
    for i in 0..n {
        values[i] = 0.0f32;
    }
}

/// `sum` (rows x rows) = the products of the rows of one head in a tile of `a` and in a tile of `b`.
#[cube]
fn all_row_products<F: Float>(
    a: &Tensor<F>,
    a_start: usize,
    a_width: usize,
    a_rows: usize,
    b: &Tensor<F>,
    b_start: usize,
    b_width: usize,
    b_rows: usize,
    stage_a: &mut [f32],
    stage_b: &mut [f32],
    sum: &mut Array<f32>,
    #[comptime] form: Form,
) {
    clear(sum, comptime!(form.rows() * form.rows()));
    #[unroll]
    for chunk in 0..comptime!(form.chunks()) {
        sync_cube();
        load::<F>(a, a_start, a_width, a_rows, stage_a, chunk, form);
        load::<F>(b, b_start, b_width, b_rows, stage_b, chunk, form);
        sync_cube();
        add_row_products(&*stage_a, &*stage_b, sum, form);
    }
}

/// Adds to `sum` (rows x chunks x COLUMNS) the rows of one head in a tile of `b`, weighted.
///
/// All units must have passed a `sync_cube` since they last read `stage`.
#[cube]
fn add_all_weighted_rows<F: Float>(
    weights: &[f32],
    b: &Tensor<F>,
    b_start: usize,
    b_width: usize,
    b_rows: usize,
    stage: &mut [f32],
    sum: &mut Array<f32>,
    #[comptime] form: Form,
) {
    #[unroll]
    for chunk in 0..comptime!(form.chunks()) {
        if comptime!(chunk > 0) {
            sync_cube();
        }
        load::<F>(b, b_start, b_width, b_rows, stage, chunk, form);
        sync_cube();
        add_weighted_rows(weights, &*stage, sum, chunk, form);
    }
}

/// Writes a tile of one head from registers (rows x chunks x COLUMNS).
#[cube]
fn store<F: Float>(
    values: &Array<f32>,
    to: &mut Tensor<F>,
    start: usize,
    width: usize,
    rows: usize,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for i in 0..comptime!(form.rows()) {
        let row = unit / SIDE + comptime!(i * SIDE);
        #[unroll]
        for chunk in 0..comptime!(form.chunks()) {
            #[unroll]
            for j in 0..COLUMNS {
                let channel = unit % SIDE + comptime!(chunk * CHUNK + j * SIDE);
                if row < rows && channel < comptime!(form.head_dim) {
                    let value = values[comptime!((i * form.chunks() + chunk) * COLUMNS + j)];
                    to[start + row * width + channel] = F::cast_from(value);
                }
            }
        }
    }
}

/// A tile of queries of one head (algorithm 1): the output, and `L` for each of its rows.
///
/// # Shapes
/// - out: `[tokens, heads * head_dim]`
/// - log_sums: `[heads, tokens]`
#[cube(launch)]
pub(super) fn forward<F: Float, I: Int>(
    qkv: &Tensor<F>,
    first: &Tensor<I>,
    out: &mut Tensor<F>,
    log_sums: &mut Tensor<f32>,
    seq: usize,
    #[comptime] form: Form,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let tile = comptime!(form.tile);
    let rows = comptime!(form.rows());
    let n_sums = comptime!(form.rows() * form.chunks() * COLUMNS);
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

    let mut stage_a = Shared::<[f32]>::new_slice(comptime!(tile * PITCH));
    let mut stage_b = Shared::<[f32]>::new_slice(comptime!(tile * PITCH));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(tile * (SIDE + 1)));

    let y = UNIT_POS as usize / SIDE;
    let x = UNIT_POS as usize % SIDE;
    let mut starts = Array::<usize>::new(rows);
    let mut largest = Array::<f32>::new(rows);
    // Only for the columns of this unit, until the end.
    let mut exponentials = Array::<f32>::new(rows);
    #[unroll]
    for i in 0..rows {
        let row = y + comptime!(i * SIDE);
        starts[i] = seq;
        if row < queries {
            starts[i] = usize::cast_from(first[token0 + query0 + row]);
        }
        largest[i] = FORBIDDEN;
        exponentials[i] = 0.0f32;
    }
    let mut scores = Array::<f32>::new(comptime!(rows * rows));
    let mut sums = Array::<f32>::new(n_sums);
    clear(&mut sums, n_sums);

    let mut key0 = usize::cast_from(first[token0 + query0]) / tile * tile;
    while key0 < query0 + queries {
        let keys = usize::min(tile, seq - key0);
        all_row_products::<F>(
            qkv,
            q_start,
            width,
            queries,
            qkv,
            k_start + key0 * width,
            width,
            keys,
            &mut stage_a,
            &mut stage_b,
            &mut scores,
            form,
        );
        #[unroll]
        for i in 0..rows {
            let row = y + comptime!(i * SIDE);
            let mut row_max = FORBIDDEN.runtime();
            #[unroll]
            for j in 0..rows {
                let key = key0 + x + comptime!(j * SIDE);
                let mut score = FORBIDDEN.runtime();
                if key >= starts[i] && key <= query0 + row {
                    score = scores[comptime!(i * rows + j)] * comptime!(form.scale());
                }
                scores[comptime!(i * rows + j)] = score;
                row_max = f32::max(row_max, score);
            }
            partial[row * comptime!(SIDE + 1) + x] = row_max;
        }
        sync_cube();
        #[unroll]
        for i in 0..rows {
            let row = y + comptime!(i * SIDE);
            let mut new = largest[i];
            for column in 0..SIDE {
                new = f32::max(new, partial[row * comptime!(SIDE + 1) + column]);
            }
            let factor = f32::exp(largest[i] - new);
            largest[i] = new;
            exponentials[i] *= factor;
            #[unroll]
            for j in 0..comptime!(n_sums / rows) {
                sums[comptime!(i * n_sums / rows + j)] *= factor;
            }
            #[unroll]
            for j in 0..rows {
                let score = scores[comptime!(i * rows + j)];
                let mut weight = 0.0f32;
                if score > comptime!(0.5 * FORBIDDEN) {
                    weight = f32::exp(score - new);
                }
                exponentials[i] += weight;
                weights[row * comptime!(tile + 1) + comptime!(j * SIDE) + x] = weight;
            }
        }
        // The first barrier inside also makes the weights visible.
        add_all_weighted_rows::<F>(
            &weights,
            qkv,
            v_start + key0 * width,
            width,
            keys,
            &mut stage_b,
            &mut sums,
            form,
        );
        key0 += tile;
    }

    sync_cube();
    #[unroll]
    for i in 0..rows {
        partial[(y + comptime!(i * SIDE)) * comptime!(SIDE + 1) + x] = exponentials[i];
    }
    sync_cube();
    #[unroll]
    for i in 0..rows {
        let row = y + comptime!(i * SIDE);
        let mut total = 0.0f32;
        for column in 0..SIDE {
            total += partial[row * comptime!(SIDE + 1) + column];
        }
        #[unroll]
        for j in 0..comptime!(n_sums / rows) {
            sums[comptime!(i * n_sums / rows + j)] /= total;
        }
        if x == 0 && row < queries {
            log_sums[head * tokens + token0 + query0 + row] = largest[i] + f32::ln(total);
        }
    }
    let out_width = comptime!(form.heads * form.head_dim);
    let out_start = (token0 + query0) * out_width + head * comptime!(form.head_dim);
    store::<F>(&sums, out, out_start, out_width, queries, form);
}

/// `dots[head, token]`: the sum of `a b` over the channels of a head, for `[tokens, heads * head_dim]`.
#[cube(launch)]
pub(super) fn row_dot<F: Float>(
    a: &Tensor<F>,
    b: &Tensor<F>,
    dots: &mut Tensor<f32>,
    #[comptime] form: Form,
    #[define(F)] _element: ElemType,
) {
    let head_dim = comptime!(form.head_dim);
    let mut partial = Shared::<[f32]>::new_slice(comptime!(SIDE * SIDE));
    let unit = UNIT_POS as usize;
    let lane = unit % LANES;
    let row = CUBE_POS * comptime!(SIDE * SIDE / LANES) + unit / LANES;
    let tokens = dots.shape(1);
    let is_inside = row < tokens * comptime!(form.heads);
    let mut sum = 0.0f32;
    if is_inside {
        let mut channel = lane;
        while channel < head_dim {
            let at = row * head_dim + channel;
            sum += f32::cast_from(a[at]) * f32::cast_from(b[at]);
            channel += LANES;
        }
    }
    partial[unit] = sum;
    sync_cube();
    if is_inside && lane == 0 {
        let mut total = 0.0f32;
        for other in 0..LANES {
            total += partial[unit + other];
        }
        let (token, head) = (row / comptime!(form.heads), row % comptime!(form.heads));
        dots[head * tokens + token] = total;
    }
}
