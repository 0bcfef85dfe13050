use moe_kernels::norm::{rms_norm, rms_norm_plain};

use crate::support::{close, pair, tolerance, types};

#[test]
fn rms_norm_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        // More rows than one block of the weight's gradient, fewer and more columns than units.
        for (rows, columns) in [(1, 1), (3, 19), (131, 70), (70, 515)] {
            let limit = tolerance(dtype);
            let [x, gpu_x] = pair(1, [rows, columns], dtype);
            let [weight, gpu_weight] = pair(2, [columns], burn::tensor::FloatDType::F32);
            let [direction, gpu_direction] = pair(3, [rows, columns], dtype);
            let y = rms_norm_plain(x.clone(), weight.clone(), 1e-5);
            let gpu_y = rms_norm(gpu_x.clone(), gpu_weight.clone(), 1e-5);
            let name = format!("{dtype:?} {rows}x{columns}");
            close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
            let grads = (y * direction.detach()).sum().backward();
            let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
            let [a, b] = [x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x")];
            if columns > 1 {
                close(&format!("{name} d x"), a, b, limit);
            }
            let [a, b] = [weight.grad(&grads).expect("w"), gpu_weight.grad(&gpu_grads).expect("w")];
            close(&format!("{name} d weight"), a, b, limit);
        }
    }
}
