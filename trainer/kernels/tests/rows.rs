use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use moe_kernels::routing::{Routes, sort_by_expert, sort_by_expert_plain};
use moe_kernels::rows::{combine_rows, combine_rows_plain, gather_rows, gather_rows_plain};

use crate::support::{close, gpu, noise, pair, tolerance, types};

const N_EXPERTS: usize = 5;

/// The same routes on the CPU and on the GPU. Expert 3 has no row, and every fifth token is padding
/// where there are more than two.
fn routes(tokens: usize, top_k: usize) -> [Routes; 2] {
    let noise = noise(9, tokens * top_k);
    let expert = |(choice, x): (usize, &f32)| {
        let expert = ((x.abs() * N_EXPERTS as f32) as i64).min(N_EXPERTS as i64 - 1);
        if tokens > 2 && choice / top_k % 5 == 2 {
            -1
        } else if expert == 3 {
            4
        } else {
            expert
        }
    };
    let experts: Vec<i64> = noise.iter().enumerate().map(expert).collect();
    let on = |device: &Device| {
        Tensor::<2, Int>::from_data(TensorData::new(experts.clone(), [tokens, top_k]), device)
    };
    [sort_by_expert_plain(&on(&Device::flex()), N_EXPERTS), sort_by_expert(&on(&gpu()), N_EXPERTS)]
}

/// Tokens, choices and columns: a vector of every width, fewer and more columns than a choice has units.
const SHAPES: [(usize, usize, usize); 5] = [(1, 1, 1), (2, 3, 6), (23, 2, 19), (131, 4, 136), (7, 8, 260)];

/// Leaves nonzero buffers of this many elements behind, for the next kernel to get.
fn litter(n: usize) {
    for _ in 0..3 {
        Tensor::<1>::full([n], f32::NAN, &gpu()).into_data();
    }
}

#[test]
fn gather_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        for (tokens, top_k, columns) in SHAPES {
            let limit = tolerance(dtype);
            let [routes, gpu_routes] = routes(tokens, top_k);
            let [x, gpu_x] = pair(1, [tokens, columns], dtype);
            let [direction, gpu_direction] = pair(2, [tokens * top_k, columns], dtype);
            let rows = gather_rows_plain(x.clone(), &routes);
            let gpu_rows = gather_rows(gpu_x.clone(), &gpu_routes);
            let name = format!("{dtype:?} {tokens} {top_k} {columns}");
            close(&format!("{name} rows"), rows.clone(), gpu_rows.clone(), 0.0);
            let grads = (rows * direction.detach()).sum().backward();
            let gpu_grads = (gpu_rows * gpu_direction.detach()).sum().backward();
            let [a, b] = [x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x")];
            close(&format!("{name} d x"), a, b, limit);
        }
    }
}

#[test]
fn combine_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        for (tokens, top_k, columns) in SHAPES {
            let limit = tolerance(dtype);
            let [routes, gpu_routes] = routes(tokens, top_k);
            let [rows, gpu_rows] = pair(3, [tokens * top_k, columns], dtype);
            let [weights, gpu_weights] = pair(4, [tokens, top_k], FloatDType::F32);
            let [direction, gpu_direction] = pair(5, [tokens, columns], dtype);
            let y = combine_rows_plain(rows.clone(), weights.clone(), &routes);
            let gpu_y = combine_rows(gpu_rows.clone(), gpu_weights.clone(), &gpu_routes);
            let name = format!("{dtype:?} {tokens} {top_k} {columns}");
            close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
            let grads = (y * direction.detach()).sum().backward();
            litter(tokens * top_k * columns);
            let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
            let [a, b] = [rows.grad(&grads).expect("rows"), gpu_rows.grad(&gpu_grads).expect("rows")];
            close(&format!("{name} d rows"), a, b, limit);
            let [a, b] =
                [weights.grad(&grads).expect("weights"), gpu_weights.grad(&gpu_grads).expect("weights")];
            close(&format!("{name} d weights"), a, b, limit);
        }
    }
}

#[test]
fn numbers_that_are_not_finite_stay_in_their_rows() {
    // Padding and unused rows must not be zero times something.
    let [_, routes] = routes(23, 2);
    let valid: Vec<bool> = (0..23).map(|token| token % 5 != 2).collect();
    let mut values = vec![f32::NAN; 23 * 3];
    for (token, _) in valid.iter().enumerate().filter(|(_, is_valid)| **is_valid) {
        values[token * 3..token * 3 + 3].fill(1.0);
    }
    let x = Tensor::<2>::from_data(TensorData::new(values, [23, 3]), &gpu());
    let rows = gather_rows(x, &routes);
    let weights = Tensor::full([23, 2], f32::NAN, &gpu());
    let sums: Vec<f32> = rows.clone().sum_dim(1).into_data().iter().collect();
    let n_rows = 2 * valid.iter().filter(|is_valid| **is_valid).count();
    assert!(sums.iter().enumerate().all(|(row, &sum)| sum == if row < n_rows { 3.0 } else { 0.0 }));
    let y: Vec<f32> = combine_rows(rows, weights, &routes).into_data().iter().collect();
    for (token, is_valid) in valid.into_iter().enumerate() {
        assert_eq!(y[token * 3].is_nan(), is_valid, "token {token}");
    }
}
