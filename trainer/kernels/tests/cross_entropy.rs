use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use moe_kernels::cross_entropy::{cross_entropy_rows, cross_entropy_rows_plain};

use crate::support::{close, gpu, host, noise, pair, tolerance, types};

fn targets(rows: usize, vocab: usize, device: &Device) -> Tensor<1, Int> {
    let targets: Vec<i64> = (0..rows).map(|row| (row * 7 + vocab - 1) as i64 % vocab as i64).collect();
    Tensor::from_data(TensorData::new(targets, [rows]), device)
}

/// Every third factor is zero.
fn factors(rows: usize, device: &Device) -> Tensor<1> {
    let factors: Vec<f32> =
        noise(2, rows).iter().enumerate().map(|(row, x)| if row % 3 == 2 { 0.0 } else { *x }).collect();
    Tensor::from_data(TensorData::new(factors, [rows]), device)
}

#[test]
fn losses_and_gradients_equal_those_of_the_plain_form() {
    let plain = Device::flex();
    let device = gpu().without_autodiff();
    for dtype in types() {
        // Fewer and more columns than units, vectors of every width; with and without other references.
        for (rows, vocab, scale) in
            [(1, 2, 1.0), (3, 19, 10.0), (5, 70, 500.0), (9, 2500, 3.0), (2, 515, 30.0)]
        {
            for is_held in [false, true] {
                let limit = tolerance(dtype);
                let [logits, gpu_logits] = pair(1, [rows, vocab], dtype);
                let logits = (logits.without_autodiff() * scale).cast(dtype).cast(FloatDType::F32);
                let gpu_logits = gpu_logits.without_autodiff() * scale;
                let copy = is_held.then(|| gpu_logits.clone());
                let (losses, gradients) = cross_entropy_rows_plain(
                    logits.clone(),
                    targets(rows, vocab, &plain),
                    factors(rows, &plain),
                );
                let (gpu_losses, gpu_gradients) =
                    cross_entropy_rows(gpu_logits, targets(rows, vocab, &device), factors(rows, &device));
                let name = format!("{dtype:?} {rows}x{vocab} {is_held}");
                close(&format!("{name} losses"), losses, gpu_losses, limit);
                close(&format!("{name} gradients"), gradients, gpu_gradients, limit);
                if let Some(copy) = copy {
                    close(&format!("{name} logits"), logits, copy, 0.0);
                }
            }
        }
    }
}

#[test]
fn large_logits_stay_finite() {
    let device = gpu();
    let logits = vec![500.0f32, -500.0, 499.0, -500.0, 500.0, -500.0];
    let logits = Tensor::from_data(TensorData::new(logits, [2, 3]), &device);
    let targets = Tensor::from_data([0, 2], &device);
    let (losses, gradients) = cross_entropy_rows(logits, targets, Tensor::ones([2], &device));
    let (losses, gradients) = (host(losses), host(gradients));
    // log(1 + 1/e), and a target whose probability is zero.
    assert!((losses[0] - 0.313_262).abs() < 1e-4 && losses[1] == 1000.0, "{losses:?}");
    let p = 0.731_058_6;
    let expected = [p - 1.0, 0.0, 1.0 - p, 0.0, 1.0, -1.0];
    assert!(gradients.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{gradients:?}");
}
