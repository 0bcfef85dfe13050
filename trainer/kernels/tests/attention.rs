use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use moe_kernels::attention::{AttentionShape, attention, attention_emulated, attention_plain};

use crate::support::{close, gpu, pair, tolerance, types};

/// The start of its piece for each token of samples that are cut into pieces of these lengths.
fn starts(samples: &[&[usize]]) -> Vec<i32> {
    let mut all = Vec::new();
    for pieces in samples {
        let mut start = 0;
        for length in *pieces {
            all.extend(std::iter::repeat_n(start as i32, *length));
            start += length;
        }
    }
    all
}

type Kernel = fn(Tensor<2>, Tensor<1, Int>, AttentionShape) -> Tensor<2>;

/// Inputs are multiplied by `stretch`: the larger, the less equal the weights.
fn compare(kernel: Kernel, stretch: f32, shape: AttentionShape, samples: &[&[usize]], dtype: FloatDType) {
    let starts = starts(samples);
    let tokens = starts.len();
    assert_eq!(tokens, samples.len() * shape.seq);
    let first = |device: &Device| -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(starts.clone(), [tokens]), device)
    };
    let limit = 2.0 * tolerance(dtype);
    let [x, gpu_x] = pair(1, [tokens, shape.packed_width()], dtype);
    let [direction, gpu_direction] = pair(2, [tokens, shape.heads * shape.head_dim], dtype);
    let y = attention_plain(x.clone().mul_scalar(stretch), first(&Device::flex().autodiff()), shape);
    let gpu_y = kernel(gpu_x.clone().mul_scalar(stretch), first(&gpu()), shape);
    let name = format!("{dtype:?} {shape:?} {samples:?}");
    close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
    let grads = (y * direction.detach()).sum().backward();
    let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
    let [a, b] = [x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x")];
    let from = [0, shape.heads, shape.heads + shape.kv_heads];
    let heads = [shape.heads, shape.kv_heads, shape.kv_heads];
    let parts = ["queries", "keys", "values"].iter().zip(from.into_iter().zip(heads));
    // A query that sees one key gives it weight 1 regardless of the score.
    let n_skipped = if shape.seq == 1 { 2 } else { 0 };
    // Gradients of queries and keys are differences of products with the output, which bf16 rounds: where
    // these nearly cancel, the error is measured relative to the terms.
    if dtype == FloatDType::BF16 {
        return close(&format!("{name} d"), a, b, limit);
    }
    for (part, (from, heads)) in parts.skip(n_skipped) {
        let columns = |t: &Tensor<2>| t.clone().narrow(1, from * shape.head_dim, heads * shape.head_dim);
        close(&format!("{name} d {part}"), columns(&a), columns(&b), limit);
    }
}

#[test]
fn attention_equals_its_plain_form_forward_and_backward() {
    let shape = |seq, heads, kv_heads, head_dim| AttentionShape { seq, heads, kv_heads, head_dim };
    for dtype in types() {
        // Narrow and odd heads, groups of queries, tiles that are not full.
        compare(attention, 3.0, shape(5, 2, 1, 16), &[&[5], &[2, 3]], dtype);
        compare(attention, 3.0, shape(37, 3, 1, 24), &[&[37]], dtype);
        compare(attention, 3.0, shape(64, 2, 2, 80), &[&[20, 1, 1, 42]], dtype);
        compare(attention, 3.0, shape(100, 4, 2, 64), &[&[100], &[31, 1, 3, 65]], dtype);
        // Whole tiles outside of the pieces.
        compare(attention, 3.0, shape(200, 2, 1, 128), &[&[70, 128, 2]], dtype);
        compare(attention, 3.0, shape(2, 1, 1, 3), &[&[2]], dtype);
        compare(attention, 3.0, shape(1, 2, 1, 16), &[&[1], &[1], &[1]], dtype);
    }
}

#[test]
fn the_kernels_for_tensor_cores_equal_the_plain_form_with_products_in_plain_arithmetic() {
    let shape = |seq, heads, kv_heads, head_dim| AttentionShape { seq, heads, kv_heads, head_dim };
    let dtype = FloatDType::F32;
    // Scores that grow so much from tile to tile that the output is rescaled; two planes, groups of
    // queries, whole tiles outside of the pieces; two fragments in a head.
    compare(attention_emulated, 6.0, shape(75, 4, 2, 16), &[&[75], &[31, 1, 3, 40]], dtype);
    compare(attention_emulated, 6.0, shape(20, 1, 1, 32), &[&[20]], dtype);
}
