use burn::tensor::Device;
use moe_train::model::config::ModelConfig;
use moe_train::model::parameters::{Parameter, parameters};
use moe_train::train::{StepReport, train_step};

use crate::routers::{KINDS, model_of};
use crate::support::*;

/// The GPU under test: CUDA if there is one, else the first of Vulkan.
fn gpu() -> Device {
    #[cfg(feature = "cuda")]
    if let Some(device) = Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().next() {
        return device;
    }
    #[cfg(feature = "wgpu")]
    return Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    #[cfg(not(feature = "wgpu"))]
    panic!("this test needs a CUDA device or the feature `wgpu`")
}

/// On tensor cores burn multiplies matrices of f32 as TF32, which has 10 bits after the point.
fn is_tf32() -> bool {
    cfg!(feature = "cuda") && !Device::enumerate(burn::tensor::DeviceType::Cuda).is_empty()
}

/// Two steps of two micro-batches: parameters, and the steps' reports.
fn two_steps(config: &ModelConfig, device: Device) -> (Vec<Parameter>, Vec<StepReport>) {
    let step = step_config(2, 1e-3);
    let mut state = state_on(config, &device);
    let reports = (0..2).map(|i| train_step(&mut state, &batch(4 * i, 4), &step).expect("finite")).collect();
    (parameters(&state.model), reports)
}

#[test]
fn a_gpu_makes_the_steps_of_the_cpu() {
    let mut config = tiny_model();
    config.moe.balance = balance(0.1, 0.1, 0.1, 0.01);
    let (cpu, cpu_reports) = two_steps(&config, Device::flex());
    let (gpu_parameters, reports) = two_steps(&config, gpu());
    let is_tf32 = is_tf32();
    let (loss_limit, norm_limit) = if is_tf32 { (5e-4, 5e-3) } else { (1e-5, 1e-4) };
    for (cpu, gpu) in cpu_reports.iter().zip(&reports) {
        assert!(
            (cpu.cross_entropy - gpu.cross_entropy).abs() < loss_limit,
            "{} {}",
            cpu.cross_entropy,
            gpu.cross_entropy
        );
        let (expected, found) = (cpu.grad_norm, gpu.grad_norm);
        assert!((expected / found - 1.0).abs() < norm_limit, "{expected} {found}");
        assert_eq!(cpu.routers[0].1.load, gpu.routers[0].1.load);
        assert_eq!(gpu.n_reads, 1);
    }
    for (cpu, gpu) in cpu.iter().zip(&gpu_parameters) {
        assert_eq!(cpu.name, gpu.name);
        let (cpu_values, gpu_values) = (cpu.to_host(), gpu.to_host());
        // Adam makes rounding visible where a gradient is nearly zero; a step is 1e-3.
        let moved_limit = if is_tf32 { 1e-4 } else { 2e-5 };
        let moved = cpu_values.iter().zip(&gpu_values).filter(|(a, b)| (*a - *b).abs() > moved_limit).count();
        let share = if is_tf32 { 10 } else { 100 };
        assert!(moved * share <= cpu_values.len(), "{}: {moved} of {}", cpu.name, cpu_values.len());
    }
}

#[test]
fn every_router_and_expert_makes_the_step_of_the_cpu() {
    let more: [&[&str]; 3] = [
        &["moe.router.kind=top_k", "moe.balance.bias_rate=0", "moe.balance.quantile=true"],
        &[
            "moe.router.kind=top_k",
            "moe.capacity.factor=1.0",
            "moe.capacity.min=0",
            "moe.capacity.policy=probs",
        ],
        &[
            "moe.router.kind=top_k",
            "moe.expert_activation=relu2",
            "moe.shared_gate=true",
            "moe.expert_dropout=0.2",
            "moe.latent=6",
            "moe.balance.orthogonality=0.1",
        ],
    ];
    let limit = if is_tf32() { 1e-2 } else { 1e-4 };
    for kind in KINDS.iter().map(|(kind, _)| *kind).chain(more) {
        let config = model_of(kind, &[]);
        let [cpu, gpu] = [Device::flex(), gpu()].map(|device| {
            train_step(&mut state_on(&config, &device), &batch(0, 4), &step_config(4, 1e-3)).expect("finite")
        });
        let off = (cpu.cross_entropy - gpu.cross_entropy).abs();
        assert!(off < limit, "{kind:?}: {} {}", cpu.cross_entropy, gpu.cross_entropy);
        // If two experts are nearly equal, rounding decides.
        assert!(
            (cpu.grad_norm / gpu.grad_norm - 1.0).abs() < 10.0 * limit,
            "{kind:?}: {} {}",
            cpu.grad_norm,
            gpu.grad_norm
        );
        assert_eq!(gpu.routers[0].1.n_tokens, cpu.routers[0].1.n_tokens);
    }
}
