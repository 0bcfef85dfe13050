use burn::tensor::{Device, FloatDType, Int, Tensor};
use moe_kernels::grouped::{
    grouped_matmul, grouped_matmul_emulated, grouped_matmul_plain, grouped_swiglu, grouped_swiglu_emulated,
    grouped_swiglu_plain,
};

use crate::support::{close, gpu, host, pair, tolerance, types};

/// Columns of x, columns of the weights, rows, offsets.
type Case = (usize, usize, usize, &'static [i32]);

const CASES: &[Case] = &[
    // One row.
    (2, 3, 1, &[0, 1]),
    // Empty experts in the middle and at the end.
    (40, 24, 100, &[0, 30, 30, 75, 100, 100]),
    // One expert; columns just beyond a tile.
    (17, 65, 70, &[0, 70]),
    // All rows in the last expert, more than two tiles of 64.
    (33, 70, 140, &[0, 0, 0, 140]),
    // Rows of no expert, in a tile with others and in their own tile.
    (19, 33, 150, &[0, 3, 3, 20, 61]),
    // Several tiles of rows, of columns and of terms.
    (130, 136, 210, &[0, 5, 180, 210]),
    // Multiples of everything.
    (64, 128, 256, &[0, 128, 256]),
];

fn offsets(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(values, device)
}

/// Leaves nonzero memory of this size behind.
fn litter(shape: [usize; 2]) {
    let _ = Tensor::<2>::full(shape, 7.0, &gpu()).into_data();
}

type Matmul = fn(Tensor<2>, Tensor<3>, Tensor<1, Int>) -> Tensor<2>;
type Swiglu = fn(Tensor<2>, Tensor<3>, Tensor<3>, Tensor<1, Int>) -> Tensor<2>;

fn compare_matmul(kernel: Matmul, (k, n, rows, at): Case, dtype: FloatDType, weight_dtype: FloatDType) {
    let limit = tolerance(dtype);
    let [x, gpu_x] = pair(1, [rows, k], dtype);
    let [w, gpu_w] = pair(2, [at.len() - 1, k, n], weight_dtype);
    let [direction, gpu_direction] = pair(3, [rows, n], dtype);
    litter([rows, n]);
    let y = grouped_matmul_plain(x.clone(), w.clone(), offsets(at, &Device::flex()));
    let gpu_y = kernel(gpu_x.clone(), gpu_w.clone(), offsets(at, &gpu()));
    let name = format!("{dtype:?} {weight_dtype:?} k {k} n {n} {at:?}");
    close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
    litter([rows, k]);
    let grads = (y * direction.detach()).sum().backward();
    let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
    let [a, b] = [x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x")];
    close(&format!("{name} d x"), a, b, limit);
    let [a, b] = [w.grad(&grads).expect("w"), gpu_w.grad(&gpu_grads).expect("w")];
    assert_eq!(b.dtype(), weight_dtype.into(), "the gradient has the type of the weights");
    close(&format!("{name} d w"), a, b, limit);
}

fn compare_swiglu(kernel: Swiglu, (k, n, rows, at): Case, dtype: FloatDType) {
    let limit = tolerance(dtype);
    let [x, gpu_x] = pair(4, [rows, k], dtype);
    let [gate, gpu_gate] = pair(5, [at.len() - 1, k, n], dtype);
    let [up, gpu_up] = pair(6, [at.len() - 1, k, n], FloatDType::F32);
    let [direction, gpu_direction] = pair(7, [rows, n], dtype);
    litter([rows, n]);
    let [flex, device] = [offsets(at, &Device::flex()), offsets(at, &gpu())];
    let y = grouped_swiglu_plain(x.clone(), gate.clone(), up.clone(), flex);
    let gpu_y = kernel(gpu_x.clone(), gpu_gate.clone(), gpu_up.clone(), device);
    let name = format!("{dtype:?} k {k} n {n} {at:?}");
    close(&format!("{name} y"), y.clone(), gpu_y.clone(), limit);
    litter([rows, k]);
    let grads = (y * direction.detach()).sum().backward();
    let gpu_grads = (gpu_y * gpu_direction.detach()).sum().backward();
    let [a, b] = [x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x")];
    close(&format!("{name} d x"), a, b, limit);
    let [a, b] = [gate.grad(&grads).expect("gate"), gpu_gate.grad(&gpu_grads).expect("gate")];
    close(&format!("{name} d gate"), a, b, limit);
    let [a, b] = [up.grad(&grads).expect("up"), gpu_up.grad(&gpu_grads).expect("up")];
    close(&format!("{name} d up"), a, b, limit);
}

#[test]
fn grouped_matmul_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        for &case in CASES {
            compare_matmul(grouped_matmul, case, dtype, dtype);
            if dtype != FloatDType::F32 {
                compare_matmul(grouped_matmul, case, dtype, FloatDType::F32);
            }
        }
    }
}

#[test]
fn grouped_swiglu_equals_its_plain_form_forward_and_backward() {
    for dtype in types() {
        for &case in CASES {
            compare_swiglu(grouped_swiglu, case, dtype);
        }
    }
}

#[test]
fn the_kernels_for_tensor_cores_equal_the_plain_form_with_products_in_plain_arithmetic() {
    for &case in CASES {
        compare_matmul(grouped_matmul_emulated, case, FloatDType::F32, FloatDType::F32);
        compare_swiglu(grouped_swiglu_emulated, case, FloatDType::F32);
    }
}

#[test]
fn without_rows_of_experts_everything_is_zero() {
    let (rows, k, n) = (70, 20, 30);
    let [_, x] = pair(8, [rows, k], FloatDType::F32);
    let [_, gate] = pair(9, [2, k, n], FloatDType::F32);
    let [_, up] = pair(10, [2, k, n], FloatDType::F32);
    let at = || offsets(&[0, 0, 0], &gpu());
    let zero =
        |what, values: Vec<f32>| assert!(values.iter().all(|&value| value == 0.0), "{what}: {values:?}");

    litter([rows, n]);
    let y = grouped_matmul(x.clone(), gate.clone(), at());
    zero("y", host(y.clone()));
    litter([rows, k]);
    litter([2 * k, n]);
    let grads = y.sum().backward();
    zero("d x", host(x.grad(&grads).expect("x")));
    zero("d w", host(gate.grad(&grads).expect("w")));

    let y = grouped_swiglu(x.clone(), gate.clone(), up.clone(), at());
    zero("swiglu y", host(y.clone()));
    let grads = y.sum().backward();
    zero("swiglu d x", host(x.grad(&grads).expect("x")));
    zero("swiglu d gate", host(gate.grad(&grads).expect("gate")));
    zero("swiglu d up", host(up.grad(&grads).expect("up")));
}

#[test]
fn factors_without_gradients_and_views_are_fine() {
    // w as a transposed view, x constant.
    let [x, gpu_x] = pair(11, [70, 9], FloatDType::F32);
    let [w, gpu_w] = pair(12, [2, 7, 9], FloatDType::F32);
    let at = [0, 40, 66];
    let y = grouped_matmul_plain(x.detach(), w.clone().swap_dims(1, 2), offsets(&at, &Device::flex()));
    let gpu_y = grouped_matmul(gpu_x.detach(), gpu_w.clone().swap_dims(1, 2), offsets(&at, &gpu()));
    close("y", y.clone(), gpu_y.clone(), 1e-5);
    let [grads, gpu_grads] = [y.sum().backward(), gpu_y.sum().backward()];
    close("d w", w.grad(&grads).expect("w"), gpu_w.grad(&gpu_grads).expect("w"), 1e-5);

    // x trained, weights constant; and without any gradients.
    let [x, gpu_x] = pair(13, [70, 9], FloatDType::F32);
    let [w, gpu_w] = [w.swap_dims(1, 2).detach(), gpu_w.swap_dims(1, 2).detach()];
    let y = grouped_swiglu_plain(x.clone(), w.clone(), w, offsets(&at, &Device::flex()));
    let gpu_y = grouped_swiglu(gpu_x.clone(), gpu_w.clone(), gpu_w.clone(), offsets(&at, &gpu()));
    let inner = Tensor::without_autodiff;
    let at = offsets(&at, &gpu().without_autodiff());
    let inference =
        grouped_swiglu(inner(gpu_x.clone()), gpu_w.clone().without_autodiff(), gpu_w.without_autodiff(), at);
    close("y", y.clone(), gpu_y.clone(), 1e-5);
    assert_eq!(host(gpu_y.clone()), host(inference), "the same numbers with gradients and without");
    let [grads, gpu_grads] = [y.sum().backward(), gpu_y.sum().backward()];
    close("d x", x.grad(&grads).expect("x"), gpu_x.grad(&gpu_grads).expect("x"), 1e-5);
}

#[test]
fn two_runs_give_the_same_bits() {
    let run = || {
        let [_, x] = pair(14, [200, 40], FloatDType::F32);
        let [_, w] = pair(15, [3, 40, 70], FloatDType::F32);
        let y = grouped_matmul(x.clone(), w.clone(), offsets(&[0, 90, 90, 200], &gpu()));
        let grads = (y.clone() * y).sum().backward();
        [host(x.grad(&grads).expect("x")), host(w.grad(&grads).expect("w"))]
    };
    assert_eq!(run(), run());
}
