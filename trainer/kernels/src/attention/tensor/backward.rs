//! The gradients.

use super::*;

/// As [`super::kernels::backward_queries`].
#[cube(launch)]
pub(in crate::attention) fn backward_queries<P: Products, F: Float, I: Int>(
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
pub(in crate::attention) fn backward_keys<P: Products, F: Float, I: Int>(
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
