//! Devices, noise and comparisons.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

/// The GPU under test, with gradients.
pub fn gpu() -> Device {
    #[cfg(feature = "cuda")]
    if let Some(device) = Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().next() {
        return device.autodiff();
    }
    #[cfg(feature = "wgpu")]
    return Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff();
    #[cfg(not(feature = "wgpu"))]
    panic!("these tests need a CUDA device or the feature `wgpu`")
}

/// The types that the device can compute with.
pub fn types() -> Vec<FloatDType> {
    [FloatDType::F32, FloatDType::BF16].into_iter().filter(|&dtype| gpu().supports_dtype(dtype)).collect()
}

/// Numbers between -1 and 1 that look random, different for every seed.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n + 8).map(|_| next()).skip(8).collect()
}

/// The same noise as a tensor on the CPU (the oracle) and on the GPU, both tracked. Values are
/// rounded to `dtype` first, so that both see the same numbers; the oracle computes in f32.
pub fn pair<const D: usize>(seed: u64, shape: [usize; D], dtype: FloatDType) -> [Tensor<D>; 2] {
    let values = noise(seed, shape.iter().product());
    let values = match dtype {
        FloatDType::BF16 => values.into_iter().map(to_bf16).collect(),
        _ => values,
    };
    let on = |device: &Device| Tensor::<D>::from_data(TensorData::new(values.clone(), shape), device);
    let oracle = on(&Device::flex().autodiff());
    [oracle.require_grad(), on(&gpu()).cast(dtype).detach().require_grad()]
}

/// Rounds to the nearest bf16, ties to even.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// The values of a tensor as f32.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(FloatDType::F32).into_data().try_into_vec().expect("f32")
}

/// Compares the result of the GPU with the oracle: the largest difference must be below `tolerance` times the
/// largest value, and the oracle must not be zero everywhere.
pub fn close<const D: usize>(what: &str, oracle: Tensor<D>, found: Tensor<D>, tolerance: f32) {
    assert_eq!(oracle.dims(), found.dims(), "{what}: shapes");
    let (oracle, found) = (host(oracle), host(found));
    let largest = oracle.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    assert!(largest > 1e-3, "{what}: the oracle is zero everywhere, which proves nothing");
    for (index, (expected, found)) in oracle.iter().zip(&found).enumerate() {
        let difference = (expected - found).abs();
        assert!(
            difference <= tolerance * largest,
            "{what}[{index}]: expected {expected}, found {found}; the largest value is {largest}"
        );
    }
}

/// Largest relative difference allowed: rounding of the type, times what sums of some hundred
/// terms add.
pub fn tolerance(dtype: FloatDType) -> f32 {
    match dtype {
        FloatDType::BF16 => 1.6e-2,
        _ => 1e-5,
    }
}
