use burn::tensor::FloatDType;
use moe_kernels::rotary::{rotate, rotate_plain};

use crate::support::{close, pair, tolerance, types};

#[test]
fn rotate_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        // One token; more pairs than one cube; all, some and no heads rotated.
        for (tokens, heads, half, n_turned) in [(1, 1, 1, 1), (7, 5, 12, 3), (33, 6, 32, 6), (3, 2, 8, 0)] {
            let limit = tolerance(dtype);
            let width = heads * 2 * half;
            let [x, gpu_x] = pair(1, [tokens, width], dtype);
            let [cos, gpu_cos] = pair(2, [tokens, half], FloatDType::F32).map(|t| t.detach());
            let [sin, gpu_sin] = pair(3, [tokens, half], FloatDType::F32).map(|t| t.detach());
            let [direction, gpu_direction] = pair(4, [tokens, width], dtype);
            let y = rotate_plain(x.clone(), cos, sin, n_turned);
            let gpu_y = rotate(gpu_x.clone(), gpu_cos, gpu_sin, n_turned);
            let name = format!("{dtype:?} {tokens}x{heads}x{half} turned {n_turned}");
            close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
            let grads = (y * direction.detach()).sum().backward();
            let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
            let [a, b] = [x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x")];
            close(&format!("{name} d x"), a, b, limit);
        }
    }
}
