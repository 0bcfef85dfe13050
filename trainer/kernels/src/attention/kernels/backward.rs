//! The gradients (algorithm 2).

use super::*;

/// A tile of queries of one head (algorithm 2): the columns of queries of the gradient.
///
/// # Shapes
/// - grad: `[tokens, heads * head_dim]`
/// - log_sums, dots: `[heads, tokens]`
/// - d_qkv: like qkv
#[cube(launch)]
pub(in crate::attention) fn backward_queries<F: Float, I: Int>(
    qkv: &Tensor<F>,
    first: &Tensor<I>,
    grad: &Tensor<F>,
    log_sums: &Tensor<f32>,
    dots: &Tensor<f32>,
    d_qkv: &mut Tensor<F>,
    seq: usize,
    #[comptime] form: Form,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let tile = comptime!(form.tile);
    let rows = comptime!(form.rows());
    let n_sums = comptime!(form.rows() * form.chunks() * COLUMNS);
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

    let mut stage_a = Shared::<[f32]>::new_slice(comptime!(tile * PITCH));
    let mut stage_b = Shared::<[f32]>::new_slice(comptime!(tile * PITCH));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));

    let y = UNIT_POS as usize / SIDE;
    let x = UNIT_POS as usize % SIDE;
    let mut starts = Array::<usize>::new(rows);
    let mut log_sum = Array::<f32>::new(rows);
    let mut dot = Array::<f32>::new(rows);
    #[unroll]
    for i in 0..rows {
        let row = y + comptime!(i * SIDE);
        starts[i] = seq;
        log_sum[i] = 0.0f32;
        dot[i] = 0.0f32;
        if row < queries {
            let token = token0 + query0 + row;
            starts[i] = usize::cast_from(first[token]);
            log_sum[i] = log_sums[head * tokens + token];
            dot[i] = dots[head * tokens + token];
        }
    }
    let mut scores = Array::<f32>::new(comptime!(rows * rows));
    let mut d_weights = Array::<f32>::new(comptime!(rows * rows));
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
        all_row_products::<F>(
            grad,
            grad_start,
            out_width,
            queries,
            qkv,
            v_start + key0 * width,
            width,
            keys,
            &mut stage_a,
            &mut stage_b,
            &mut d_weights,
            form,
        );
        #[unroll]
        for i in 0..rows {
            let row = y + comptime!(i * SIDE);
            #[unroll]
            for j in 0..rows {
                let key = key0 + x + comptime!(j * SIDE);
                let mut slope = 0.0f32;
                if key >= starts[i] && key <= query0 + row {
                    let score = scores[comptime!(i * rows + j)] * comptime!(form.scale());
                    let weight = f32::exp(score - log_sum[i]);
                    slope = weight * (d_weights[comptime!(i * rows + j)] - dot[i]) * comptime!(form.scale());
                }
                slopes[row * comptime!(tile + 1) + comptime!(j * SIDE) + x] = slope;
            }
        }
        sync_cube();
        add_all_weighted_rows::<F>(
            &slopes,
            qkv,
            k_start + key0 * width,
            width,
            keys,
            &mut stage_b,
            &mut sums,
            form,
        );
        key0 += tile;
    }
    store::<F>(&sums, d_qkv, q_start, width, queries, form);
}

/// A tile of keys of one key head (algorithm 2): the columns of keys and of values of the gradient.
///
/// # Shapes
/// As for [`backward_queries`].
#[cube(launch)]
pub(in crate::attention) fn backward_keys<F: Float, I: Int>(
    qkv: &Tensor<F>,
    first: &Tensor<I>,
    grad: &Tensor<F>,
    log_sums: &Tensor<f32>,
    dots: &Tensor<f32>,
    d_qkv: &mut Tensor<F>,
    seq: usize,
    #[comptime] form: Form,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    let tile = comptime!(form.tile);
    let rows = comptime!(form.rows());
    let n_sums = comptime!(form.rows() * form.chunks() * COLUMNS);
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

    let mut stage_a = Shared::<[f32]>::new_slice(comptime!(tile * PITCH));
    let mut stage_b = Shared::<[f32]>::new_slice(comptime!(tile * PITCH));
    // By keys and queries: weights first, then slopes of scores.
    let mut factors = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));

    let y = UNIT_POS as usize / SIDE;
    let x = UNIT_POS as usize % SIDE;
    let mut scores = Array::<f32>::new(comptime!(rows * rows));
    let mut d_weights = Array::<f32>::new(comptime!(rows * rows));
    let mut d_keys = Array::<f32>::new(n_sums);
    let mut d_values = Array::<f32>::new(n_sums);
    clear(&mut d_keys, n_sums);
    clear(&mut d_values, n_sums);

    for member in 0..comptime!(form.group()) {
        let head = kv_head * comptime!(form.group()) + member;
        let mut query0 = key0;
        // Starts never decrease: after the first tile whose first query starts after the last key, no query
        // sees any key of this tile.
        while query0 < seq && usize::cast_from(first[token0 + query0]) < key0 + keys {
            let queries = usize::min(tile, seq - query0);
            let q_start = (token0 + query0) * width + head * comptime!(form.head_dim);
            let grad_start = (token0 + query0) * out_width + head * comptime!(form.head_dim);
            all_row_products::<F>(
                qkv,
                k_start,
                width,
                keys,
                qkv,
                q_start,
                width,
                queries,
                &mut stage_a,
                &mut stage_b,
                &mut scores,
                form,
            );
            all_row_products::<F>(
                qkv,
                v_start,
                width,
                keys,
                grad,
                grad_start,
                out_width,
                queries,
                &mut stage_a,
                &mut stage_b,
                &mut d_weights,
                form,
            );
            #[unroll]
            for j in 0..rows {
                let column = x + comptime!(j * SIDE);
                let query = query0 + column;
                let mut start = seq;
                let mut log_sum = 0.0f32;
                let mut dot = 0.0f32;
                if column < queries {
                    start = usize::cast_from(first[token0 + query]);
                    log_sum = log_sums[head * tokens + token0 + query];
                    dot = dots[head * tokens + token0 + query];
                }
                #[unroll]
                for i in 0..rows {
                    let row = y + comptime!(i * SIDE);
                    let key = key0 + row;
                    let mut weight = 0.0f32;
                    if key >= start && key <= query {
                        weight =
                            f32::exp(scores[comptime!(i * rows + j)] * comptime!(form.scale()) - log_sum);
                    }
                    let slope = weight * (d_weights[comptime!(i * rows + j)] - dot);
                    scores[comptime!(i * rows + j)] = slope * comptime!(form.scale());
                    factors[row * comptime!(tile + 1) + column] = weight;
                }
            }
            sync_cube();
            add_all_weighted_rows::<F>(
                &factors,
                grad,
                grad_start,
                out_width,
                queries,
                &mut stage_b,
                &mut d_values,
                form,
            );
            sync_cube();
            #[unroll]
            for i in 0..rows {
                #[unroll]
                for j in 0..rows {
                    let at = (y + comptime!(i * SIDE)) * comptime!(tile + 1) + x + comptime!(j * SIDE);
                    factors[at] = scores[comptime!(i * rows + j)];
                }
            }
            add_all_weighted_rows::<F>(
                &factors,
                qkv,
                q_start,
                width,
                queries,
                &mut stage_b,
                &mut d_keys,
                form,
            );
            query0 += tile;
        }
    }
    store::<F>(&d_keys, d_qkv, k_start, width, keys, form);
    store::<F>(&d_values, d_qkv, v_start, width, keys, form);
}
