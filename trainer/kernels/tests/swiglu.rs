use moe_kernels::swiglu::{swiglu, swiglu_plain};

use crate::support::{close, pair, tolerance, types};

#[test]
fn swiglu_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        // Elements that vectors of 8, 4, 2 and 1 divide, and more than one cube of units.
        for (rows, columns) in [(1, 1), (3, 19), (3, 6), (5, 12), (40, 130)] {
            let limit = tolerance(dtype);
            let [gate, gpu_gate] = pair(1, [rows, columns], dtype);
            let [up, gpu_up] = pair(2, [rows, columns], dtype);
            let [direction, gpu_direction] = pair(3, [rows, columns], dtype);
            let y = swiglu_plain(gate.clone() * 4.0, up.clone());
            let gpu_y = swiglu(gpu_gate.clone() * 4.0, gpu_up.clone());
            let name = format!("{dtype:?} {rows}x{columns}");
            close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
            let grads = (y * direction.detach()).sum().backward();
            let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
            let [a, b] = [gate.grad(&grads).expect("gate"), gpu_gate.grad(&gpu_grads).expect("gate")];
            close(&format!("{name} d gate"), a, b, limit);
            let [a, b] = [up.grad(&grads).expect("up"), gpu_up.grad(&gpu_grads).expect("up")];
            close(&format!("{name} d up"), a, b, limit);
        }
    }
}
