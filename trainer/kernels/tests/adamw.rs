use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use moe_kernels::adamw::{AdamW, adamw, adamw_plain, sum_of_squares, sum_of_squares_plain};

use crate::support::{close, gpu, host, noise, pair, tolerance, types};

const CONSTANTS: AdamW = AdamW {
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    decay: 0.99,
    rate: 0.1,
    correction1: 0.271,
    correction2: 0.378,
};

fn tensor(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// Value, first and second moment; the second is positive.
fn state(n: usize, device: &Device) -> [Tensor<1>; 3] {
    let second: Vec<f32> = noise(3, n).into_iter().map(|x| x * x).collect();
    [tensor(&noise(1, n), device), tensor(&noise(2, n), device), tensor(&second, device)]
}

#[test]
fn adamw_equals_its_plain_form() {
    let device = gpu().without_autodiff();
    for dtype in types() {
        // Less and more than a cube, vectors of every width.
        for n in [1, 6, 300, 2051] {
            // With a gradient and without; in place and not.
            for (has_gradient, is_held) in [(true, false), (true, true), (false, false), (false, true)] {
                let [gradient, gpu_gradient] = pair(4, [n], dtype).map(Tensor::without_autodiff);
                let (gradient, gpu_gradient) =
                    (has_gradient.then_some(gradient), has_gradient.then_some(gpu_gradient));
                let [value, first, second] = state(n, &Device::flex());
                let factor = tensor(&[0.7], &Device::flex());
                let expected = adamw_plain(value, gradient, first, second, factor, CONSTANTS);
                let [value, first, second] = state(n, &device);
                let copy = is_held.then(|| [value.clone(), first.clone(), second.clone()]);
                let factor = tensor(&[0.7], &device);
                let found = adamw(value, gpu_gradient, first, second, factor, CONSTANTS);
                let name = format!("{dtype:?} {n} {has_gradient} {is_held}");
                close(&format!("{name} value"), expected.0, found.0, 1e-5);
                close(&format!("{name} first"), expected.1, found.1, 1e-5);
                close(&format!("{name} second"), expected.2, found.2, 1e-5);
                for (old, copy) in state(n, &Device::flex()).into_iter().zip(copy.into_iter().flatten()) {
                    assert_eq!(host(old), host(copy), "{name}: an array that somebody holds has changed");
                }
            }
        }
    }
}

#[test]
fn a_factor_that_is_not_finite_changes_nothing() {
    let devices = [gpu(), gpu().without_autodiff(), gpu()];
    for (factor, device) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().zip(devices) {
        for gradient in [Some(tensor(&[f32::NAN; 5], &device)), None] {
            for is_held in [false, true] {
                let [value, first, second] = state(5, &device);
                let _copy = is_held.then(|| [value.clone(), first.clone(), second.clone()]);
                let factor = tensor(&[factor], &device);
                let found = adamw(value, gradient.clone(), first, second, factor, CONSTANTS);
                let found = [found.0, found.1, found.2].map(host);
                assert_eq!(found, state(5, &Device::flex()).map(host));
            }
        }
    }
}

#[test]
fn sums_of_squares_equal_those_of_the_plain_form_and_repeat() {
    for dtype in types() {
        // One cube and several, and more cubes than the last one has units.
        for n in [1, 255, 2600, 70_001, 2_200_000] {
            let [x, gpu_x] = pair(5, [n], dtype);
            let sum = sum_of_squares(gpu_x.clone());
            close(
                &format!("{dtype:?} {n}"),
                sum_of_squares_plain(x),
                sum.clone(),
                tolerance(FloatDType::F32),
            );
            assert_eq!(host(sum), host(sum_of_squares(gpu_x)));
        }
    }
}
