use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use moe_kernels::embedding::{TokenOrder, embed, embed_plain};

use crate::support::{close, gpu, noise, pair, tolerance, types};

#[test]
fn embed_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        // Vectors of every width, more columns than units, tokens that occur often and never, and
        // more cubes than one extent of a grid may have.
        for (n, vocab, width) in
            [(1, 1, 1), (90, 7, 6), (40, 60, 19), (64, 3, 132), (9, 4, 1100), (9, 70_001, 2)]
        {
            let limit = tolerance(dtype);
            let tokens: Vec<u32> =
                noise(1, n).iter().map(|x| ((x * x * vocab as f32) as u32).min(vocab as u32 - 1)).collect();
            let on = |device: &Device| {
                let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
                Tensor::<1, Int>::from_data(TensorData::new(tokens, [n]), device)
            };
            let order = TokenOrder::new(&tokens, vocab, &gpu());
            let [table, gpu_table] = pair(2, [vocab, width], FloatDType::F32);
            let [direction, gpu_direction] = pair(3, [n, width], dtype);
            let rows = embed_plain(table.clone(), on(&Device::flex()), FloatDType::F32);
            let gpu_rows = embed(gpu_table.clone(), on(&gpu()), &order, dtype);
            let name = format!("{dtype:?} {n} {vocab} {width}");
            close(&format!("{name} rows"), rows.clone(), gpu_rows.clone(), limit);
            let grads = (rows * direction.detach()).sum().backward();
            let gpu_grads = (gpu_rows * gpu_direction.detach()).sum().backward();
            let [a, b] = [table.grad(&grads).expect("table"), gpu_table.grad(&gpu_grads).expect("table")];
            close(&format!("{name} d table"), a, b, limit);
        }
    }
}
