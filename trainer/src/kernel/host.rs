//! The kernels themselves: loops over contiguous rows of f32, spread over threads by rows.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, Slice, TensorData};
use rayon::prelude::*;

use super::routes::NO_ROW;
use super::{Angles, HostKernels, Routes, Spans};

/// Rows of one unit of work. Fixed, so that sums over rows do not depend on the threads.
const BLOCK_ROWS: usize = 64;

impl HostKernels for Flex {
    fn k_softmax(x: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (rows, columns) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let (mut out, mut log_sums) = (vec![0.0f32; rows * columns], vec![0.0f32; rows]);
        let work = out.par_chunks_mut(BLOCK_ROWS * columns).zip(log_sums.par_chunks_mut(BLOCK_ROWS));
        work.enumerate().for_each(|(block, (out, log_sums))| {
            for (i, (out, log_sum)) in out.chunks_exact_mut(columns).zip(log_sums).enumerate() {
                let row = block * BLOCK_ROWS + i;
                *log_sum = softmax_row(out, &x[row * columns..(row + 1) * columns], 1.0);
            }
        });
        (tensor(out, [rows, columns]), tensor(log_sums, [rows, 1]))
    }

    fn k_attention(x: FlexTensor, spans: Arc<Spans>, scale: f64) -> FlexTensor {
        let (rows, columns) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let row = first + i;
                let keys = spans.keys(row);
                let x = &x[row * columns..(row + 1) * columns];
                softmax_row(&mut out[keys.clone()], &x[keys], scale as f32);
            }
        });
        tensor(out, [rows, columns])
    }

    fn k_attention_backward(y: FlexTensor, grad: FlexTensor, spans: Arc<Spans>, scale: f64) -> FlexTensor {
        let (rows, columns) = shape2(&y);
        let (y, grad) = (y.to_contiguous(), grad.to_contiguous());
        let (y, grad) = (values(&y), values(&grad));
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let row = first + i;
                let keys = spans.keys(row);
                let at = row * columns + keys.start..row * columns + keys.end;
                let (y, grad) = (&y[at.clone()], &grad[at]);
                let dot = dot(y, grad);
                for ((out, y), grad) in out[keys].iter_mut().zip(y).zip(grad) {
                    *out = y * (grad - dot) * scale as f32;
                }
            }
        });
        tensor(out, [rows, columns])
    }

    fn k_rotate(x: FlexTensor, angles: Arc<Angles>, is_back: bool) -> FlexTensor {
        let (rows, columns) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let half = angles.half;
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let row = first + i;
                let (cos, sin) = angles.of_token(row);
                let x = &x[row * columns..(row + 1) * columns];
                let sign = if is_back { -1.0 } else { 1.0 };
                for (out, x) in out.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                    let (out_a, out_b) = out.split_at_mut(half);
                    let (a, b) = x.split_at(half);
                    for j in 0..half {
                        let sin = sign * sin[j];
                        out_a[j] = a[j] * cos[j] - b[j] * sin;
                        out_b[j] = a[j] * sin + b[j] * cos[j];
                    }
                }
            }
        });
        tensor(out, [rows, columns])
    }

    fn k_swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (rows, columns) = shape2(&gate);
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let (gate, up) = (values(&gate), values(&up));
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            let at = first * columns..first * columns + out.len();
            for ((out, &gate), &up) in out.iter_mut().zip(&gate[at.clone()]).zip(&up[at]) {
                *out = gate * sigmoid(gate) * up;
            }
        });
        tensor(out, [rows, columns])
    }

    fn k_swiglu_backward(gate: FlexTensor, up: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (rows, columns) = shape2(&gate);
        let (gate, up, grad) = (gate.to_contiguous(), up.to_contiguous(), grad.to_contiguous());
        let (gate, up, grad) = (values(&gate), values(&up), values(&grad));
        let (mut d_gate, mut d_up) = (vec![0.0f32; rows * columns], vec![0.0f32; rows * columns]);
        let size = BLOCK_ROWS * columns;
        let outputs = d_gate.par_chunks_mut(size).zip(d_up.par_chunks_mut(size));
        outputs.enumerate().for_each(|(block, (d_gate, d_up))| {
            let at = block * size..block * size + d_gate.len();
            let inputs = gate[at.clone()].iter().zip(&up[at.clone()]).zip(&grad[at]);
            for ((d_gate, d_up), ((&gate, &up), &grad)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
                let sigmoid = sigmoid(gate);
                *d_up = grad * gate * sigmoid;
                *d_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
            }
        });
        (tensor(d_gate, [rows, columns]), tensor(d_up, [rows, columns]))
    }

    fn k_rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        let (rows, columns) = shape2(&x);
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let (x, weight) = (values(&x), values(&weight));
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let x = &x[(first + i) * columns..(first + i + 1) * columns];
                let inverse = inverse_rms(x, eps);
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * inverse * weight;
                }
            }
        });
        tensor(out, [rows, columns])
    }

    /// With `r = 1 / rms(x)` and `h = grad * weight`:
    /// `dx = r h - r^3 x mean(h x)` and `dweight = sum_rows(grad x r)`.
    fn k_rms_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        eps: f64,
    ) -> (FlexTensor, FlexTensor) {
        let (rows, columns) = shape2(&x);
        let (x, weight, grad) = (x.to_contiguous(), weight.to_contiguous(), grad.to_contiguous());
        let (x, weight, grad) = (values(&x), values(&weight), values(&grad));
        let mut d_x = vec![0.0f32; rows * columns];
        let size = BLOCK_ROWS * columns;
        let partial = d_x.par_chunks_mut(size).enumerate().map(|(block, d_x)| {
            let mut d_weight = vec![0.0f32; columns];
            for (i, d_x) in d_x.chunks_exact_mut(columns).enumerate() {
                let at = block * size + i * columns..block * size + (i + 1) * columns;
                let (x, grad) = (&x[at.clone()], &grad[at]);
                let r = inverse_rms(x, eps);
                let product: f32 = x.iter().zip(grad).zip(weight).map(|((x, g), w)| x * g * w).sum();
                let slope = r * r * r * product / columns as f32;
                for (j, d_x) in d_x.iter_mut().enumerate() {
                    *d_x = r * grad[j] * weight[j] - slope * x[j];
                    d_weight[j] += grad[j] * x[j] * r;
                }
            }
            d_weight
        });
        let mut d_weight = vec![0.0f32; columns];
        // Collected in the order of the blocks, then added one after the other.
        for block in partial.collect::<Vec<_>>() {
            d_weight.iter_mut().zip(block).for_each(|(sum, value)| *sum += value);
        }
        (tensor(d_x, [rows, columns]), tensor(d_weight, [columns]))
    }

    fn k_gather(x: FlexTensor, routes: Arc<Routes>) -> FlexTensor {
        let (_, columns) = shape2(&x);
        let x = x.to_contiguous();
        let x = values(&x);
        let rows = routes.n_rows();
        let mut out = vec![0.0f32; rows * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let token = routes.choice_of_row[first + i] as usize / routes.top_k;
                out.copy_from_slice(&x[token * columns..(token + 1) * columns]);
            }
        });
        tensor(out, [rows, columns])
    }

    fn k_gather_backward(grad: FlexTensor, routes: Arc<Routes>) -> FlexTensor {
        let (_, columns) = shape2(&grad);
        let grad = grad.to_contiguous();
        let grad = values(&grad);
        let tokens = routes.row_of_choice.len() / routes.top_k;
        let mut out = vec![0.0f32; tokens * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                for row in rows_of(&routes, first + i) {
                    add(out, &grad[row * columns..(row + 1) * columns], 1.0);
                }
            }
        });
        tensor(out, [tokens, columns])
    }

    fn k_combine(rows: FlexTensor, weights: FlexTensor, routes: Arc<Routes>) -> FlexTensor {
        let (_, columns) = shape2(&rows);
        let (tokens, top_k) = shape2(&weights);
        let (rows, weights) = (rows.to_contiguous(), weights.to_contiguous());
        let (rows, weights) = (values(&rows), values(&weights));
        let mut out = vec![0.0f32; tokens * columns];
        blocks(&mut out, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let choices = (first + i) * top_k..(first + i + 1) * top_k;
                for choice in choices.filter(|&c| routes.row_of_choice[c] != NO_ROW) {
                    let row = routes.row_of_choice[choice] as usize;
                    add(out, &rows[row * columns..(row + 1) * columns], weights[choice]);
                }
            }
        });
        tensor(out, [tokens, columns])
    }

    fn k_combine_backward(
        rows: FlexTensor,
        weights: FlexTensor,
        grad: FlexTensor,
        routes: Arc<Routes>,
    ) -> (FlexTensor, FlexTensor) {
        let (n_rows, columns) = shape2(&rows);
        let (tokens, top_k) = shape2(&weights);
        let (rows, weights, grad) = (rows.to_contiguous(), weights.to_contiguous(), grad.to_contiguous());
        let (rows, weights, grad) = (values(&rows), values(&weights), values(&grad));
        let mut d_rows = vec![0.0f32; n_rows * columns];
        blocks(&mut d_rows, columns, |first, out| {
            for (i, out) in out.chunks_exact_mut(columns).enumerate() {
                let choice = routes.choice_of_row[first + i] as usize;
                let token = choice / top_k;
                add(out, &grad[token * columns..(token + 1) * columns], weights[choice]);
            }
        });
        let mut d_weights = vec![0.0f32; tokens * top_k];
        blocks(&mut d_weights, top_k, |first, out| {
            for (i, out) in out.iter_mut().enumerate() {
                let choice = first * top_k + i;
                let (token, row) = (choice / top_k, routes.row_of_choice[choice]);
                if row != NO_ROW {
                    let row = row as usize;
                    *out = dot(
                        &rows[row * columns..(row + 1) * columns],
                        &grad[token * columns..(token + 1) * columns],
                    );
                }
            }
        });
        (tensor(d_rows, [n_rows, columns]), tensor(d_weights, [tokens, top_k]))
    }

    fn k_grouped(x: FlexTensor, w: FlexTensor, routes: Arc<Routes>) -> FlexTensor {
        let columns = w.shape()[2];
        let (n_rows, _) = shape2(&x);
        let parts = groups(&routes)
            .map(|(expert, rows)| Self::float_matmul(row_slice(x.clone(), rows), matrix(w.clone(), expert)));
        let parts: Vec<FlexTensor> = parts.collect();
        concatenate(parts, [n_rows, columns])
    }

    fn k_grouped_backward(
        x: FlexTensor,
        w: FlexTensor,
        grad: FlexTensor,
        routes: Arc<Routes>,
    ) -> (FlexTensor, FlexTensor) {
        let (n_rows, columns) = shape2(&x);
        let shape = w.shape();
        let (n_experts, size) = (shape[0], shape[1] * shape[2]);
        let mut d_w = vec![0.0f32; n_experts * size];
        let mut d_x = Vec::new();
        for (expert, rows) in groups(&routes) {
            let (x, grad) = (row_slice(x.clone(), rows.clone()), row_slice(grad.clone(), rows));
            let transposed = Self::float_transpose(matrix(w.clone(), expert));
            d_x.push(Self::float_matmul(grad.clone(), transposed));
            let product = Self::float_matmul(Self::float_transpose(x), grad).to_contiguous();
            d_w[expert * size..(expert + 1) * size].copy_from_slice(values(&product));
        }
        (concatenate(d_x, [n_rows, columns]), tensor(d_w, [n_experts, shape[1], shape[2]]))
    }
}

/// Experts that have rows, with those rows.
fn groups(routes: &Routes) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + '_ {
    routes
        .offsets
        .windows(2)
        .enumerate()
        .map(|(expert, pair)| (expert, pair[0]..pair[1]))
        .filter(|(_, rows)| !rows.is_empty())
}

fn row_slice(x: FlexTensor, rows: std::ops::Range<usize>) -> FlexTensor {
    let columns = x.shape()[1];
    Flex::float_slice(x, &[Slice::from(rows), Slice::from(0..columns)])
}

fn matrix(w: FlexTensor, expert: usize) -> FlexTensor {
    let shape = w.shape();
    let slices = [Slice::from(expert..expert + 1), Slice::from(0..shape[1]), Slice::from(0..shape[2])];
    Flex::float_reshape(Flex::float_slice(w, &slices), Shape::from([shape[1], shape[2]]))
}

fn concatenate<const D: usize>(parts: Vec<FlexTensor>, empty: [usize; D]) -> FlexTensor {
    if parts.is_empty() {
        tensor(vec![0.0; empty.iter().product()], empty)
    } else {
        Flex::float_cat(parts, 0)
    }
}

fn rows_of(routes: &Routes, token: usize) -> impl Iterator<Item = usize> + '_ {
    let choices = token * routes.top_k..(token + 1) * routes.top_k;
    routes.row_of_choice[choices].iter().filter(|row| **row != NO_ROW).map(|row| *row as usize)
}

/// Fills `out` block by block on all threads; the function gets a block's first row.
fn blocks(out: &mut [f32], columns: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    let size = BLOCK_ROWS * columns;
    out.par_chunks_mut(size).enumerate().for_each(|(block, out)| fill(block * BLOCK_ROWS, out));
}

fn shape2(tensor: &FlexTensor) -> (usize, usize) {
    let shape = tensor.shape();
    (shape[0], shape[1])
}

/// The values of a contiguous tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    // Cannot fail: callers make their tensors contiguous, and all of this crate's are f32.
    tensor.as_slice().expect("a contiguous f32 tensor")
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// `out = softmax(scale * x)`; returns `log(sum(exp(scale * x)))`.
fn softmax_row(out: &mut [f32], x: &[f32], scale: f32) -> f32 {
    let max = max(x) * scale;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = exp(x * scale - max);
    }
    let sum = sum(out);
    let factor = sum.recip();
    out.iter_mut().for_each(|out| *out *= factor);
    max + sum.ln()
}

fn inverse_rms(x: &[f32], eps: f64) -> f32 {
    (dot(x, x) / x.len() as f32 + eps as f32).sqrt().recip()
}

/// Eight sums side by side, which the compiler turns into vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn add(out: &mut [f32], row: &[f32], factor: f32) {
    for (out, value) in out.iter_mut().zip(row) {
        *out += value * factor;
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

fn sum(a: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let a8 = a.chunks_exact(8);
    let rest: f32 = a8.remainder().iter().sum();
    for a in a8 {
        for i in 0..8 {
            sums[i] += a[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn max(a: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; 8];
    let a8 = a.chunks_exact(8);
    let rest = a8.remainder().iter().copied().fold(f32::NEG_INFINITY, greater);
    for a in a8 {
        for i in 0..8 {
            largest[i] = greater(largest[i], a[i]);
        }
    }
    largest.into_iter().fold(rest, greater)
}

/// The greater one, and not a number if the second is not: unlike `f32::max`, a single
/// instruction, and no way for a value that is not finite to hide.
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `e^x` for `x < 87`, 0 for `x < -87`, to about 2 units in the last place; without branches or
/// calls, so that loops over it become vector code (after Cephes' `expf`).
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let is_zero = x < -87.0;
    let x = x.clamp(-87.0, 87.0);
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    // The low bits of `rounded` are n itself: shifted into the exponent, they make 2^n.
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let y = (p * r * r + r + 1.0) * scale;
    if is_zero { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -8690..=8690 {
            let x = i as f32 / 100.0;
            let (fast, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((fast / exact - 1.0).abs() < 3e-7, "exp({x}) = {fast}, not {exact}");
        }
        assert!(exp(-1e30) == 0.0 && exp(1e30).is_finite() && exp(f32::NAN).is_nan());
    }
}
