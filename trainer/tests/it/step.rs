use std::sync::{Arc, Mutex, PoisonError};

use moe_train::model::ModelConfig;
use moe_train::model::config::{BalanceConfig, Compute};
use moe_train::model::parameters::{Parameter, host as flat, parameters};
use moe_train::ops::cpu::{Vectors, use_vectors};
use moe_train::ops::plainly;
use moe_train::ops::routing::Score;
use moe_train::optim::{AdamWConfig, Group, Groups, Optimizer};
use moe_train::run::Validator;
use moe_train::train::{StepConfig, TrainState, train_step};

use crate::support::*;

/// Held by tests that set the vectors of all threads.
static VECTORS: Mutex<()> = Mutex::new(());

fn values(state: &TrainState) -> Vec<f32> {
    parameters(&state.model).iter().flat_map(Parameter::to_host).collect()
}

fn biases(state: &TrainState) -> Vec<f32> {
    let biases = state.model.mixtures().filter_map(|(_, moe)| moe.router().bias());
    biases.flat_map(flat).collect()
}

/// A state in which every loss and gradient is NaN.
fn poisoned_state() -> TrainState {
    let mut state = state(&tiny_model());
    let poisoned: Vec<_> = parameters(&state.model)
        .iter()
        .map(|p| {
            let mut values = p.to_host();
            if p.name == "head" {
                values[0] = f32::NAN;
            }
            let n = values.len();
            tensor(&values, [n], &burn::tensor::Device::flex())
        })
        .collect();
    state.model = moe_train::model::parameters::replace_all(state.model, poisoned);
    state
}

#[test]
fn the_micro_batch_does_not_change_the_step() {
    let mut config = tiny_model();
    config.moe.balance = balance(0.1, 0.1, 0.1, 0.01);
    let stepped = |micro_batch| {
        let mut state = state(&config);
        let report = train_step(&mut state, &batch(0, 8), &step_config(micro_batch, 1e-3)).expect("finite");
        (values(&state), biases(&state), report)
    };
    let (whole, whole_bias, whole_report) = stepped(8);
    for micro_batch in [1, 3, 4] {
        let (split, bias, report) = stepped(micro_batch);
        // Adam's first step divides each gradient by its own size, which makes rounding visible
        // where a gradient is nearly zero; 1e-3 is a whole step.
        let moved = whole.iter().zip(&split).filter(|(a, b)| (*a - *b).abs() > 2e-5).count();
        assert!(moved * 500 < whole.len(), "{moved} of {} parameters differ", whole.len());
        assert!((report.grad_norm - whole_report.grad_norm).abs() < 1e-4 * whole_report.grad_norm);
        assert!((report.cross_entropy - whole_report.cross_entropy).abs() < 1e-5);
        // The bias moves once for each step, by the counts of all micro-batches.
        assert_eq!(bias, whole_bias);
    }
}

/// Samples of 12 tokens, of which a few are real in some and most in others.
fn uneven_batch() -> moe_train::data::Batch {
    let mut batch = batch(0, 8);
    for sample in [1, 2, 6] {
        for token in sample * SEQ + 4..(sample + 1) * SEQ {
            batch.segments[token] = moe_train::model::PADDING;
            batch.loss_mask[token] = false;
            batch.tokens[token] = 0;
        }
    }
    batch
}

/// The losses of a router, and the norm of the gradient, with one of them turned up. The Switch loss is one
/// of them only when it is on: else the metrics report its mean over micro-batches.
fn objective(balance: BalanceConfig, micro_batch: usize) -> (f64, Vec<f64>) {
    let counts_batch = balance.switch.switch > 0.0;
    let mut config = tiny_model();
    config.moe.balance = balance;
    let step = step_config(micro_batch, 1e-3);
    let report = train_step(&mut state(&config), &uneven_batch(), &step).expect("finite");
    let losses = report.routers[0].1.losses.iter().filter(|(name, _)| counts_batch || *name != "aux_switch");
    (report.grad_norm, losses.map(|(_, loss)| *loss).collect())
}

fn check_objective(balance: BalanceConfig) {
    let (norm, losses) = objective(balance.clone(), 8);
    for micro_batch in [1, 3, 4] {
        let (split, split_losses) = objective(balance.clone(), micro_batch);
        assert!((split / norm - 1.0).abs() < 1e-4, "{micro_batch}: {split} {norm}");
        for (a, b) in losses.iter().zip(&split_losses) {
            assert!((a - b).abs() < 1e-5 * a, "{micro_batch}: {losses:?} {split_losses:?}");
        }
    }
}

#[test]
fn the_sequence_loss_does_not_depend_on_the_micro_batch() {
    check_objective(balance(0.0, 0.0, 30.0, 0.0));
}

#[test]
fn the_switch_loss_does_not_depend_on_the_micro_batch() {
    check_objective(balance(0.0, 30.0, 0.0, 0.0));
}

#[test]
fn the_orthogonality_loss_does_not_depend_on_the_micro_batch() {
    let mut strong = balance(0.0, 0.0, 0.0, 0.0);
    strong.orthogonality.orthogonality = 30.0;
    check_objective(strong);
}

#[test]
fn the_bias_moves_once_a_step_against_the_load_and_not_in_validation() {
    let mut config = tiny_model();
    config.moe.balance.bias.bias_rate = 0.1;
    let mut state = state(&config);
    let report = train_step(&mut state, &batch(0, 8), &step_config(2, 1e-3)).expect("finite");
    let (bias, load) = (biases(&state), &report.routers[0].1.load);
    let (most, least) = (
        (0..5).max_by_key(|&e| load[e]).expect("experts"),
        (0..5).min_by_key(|&e| load[e]).expect("experts"),
    );
    assert!(bias[most] < 0.0 && bias[least] > 0.0, "{load:?} {bias:?}");
    assert!(bias.iter().all(|b| b.abs() < 0.2 + 1e-6), "one step of 0.1, mean taken off: {bias:?}");
    assert!(bias.iter().sum::<f32>().abs() < 1e-6, "no drift");

    let corpus = corpus();
    let validator = Validator::new(&corpus, 4, 2).expect("readable").expect("validation samples");
    let first = validator.run(&state.model, &corpus).expect("on the host");
    assert_eq!(validator.run(&state.model, &corpus).expect("on the host").losses, first.losses);
    assert_eq!(biases(&state), bias);
}

#[test]
fn the_reported_loss_excludes_the_balancing_losses() {
    let loss = |switch: f64| {
        let mut config = tiny_model();
        config.moe.balance.switch.switch = switch;
        train_step(&mut state(&config), &batch(0, 4), &step_config(4, 1e-3)).expect("finite").cross_entropy
    };
    assert_eq!(loss(0.0), loss(5.0));
}

#[test]
fn padding_changes_neither_loss_nor_counts() {
    let mut config = tiny_model();
    config.moe.balance = balance(0.0, 0.5, 0.5, 0.1);
    let stepped = |poison: u32| {
        let mut batch = batch(0, 4);
        let mut n = 0;
        for i in 0..batch.tokens.len() {
            if batch.segments[i] == moe_train::model::PADDING {
                batch.tokens[i] = poison;
                n += 1;
            }
        }
        assert!(n > 0, "there must be padding");
        let mut state = state(&config);
        let report = train_step(&mut state, &batch, &step_config(4, 1e-3)).expect("finite");
        (report.cross_entropy, report.routers, report.grad_norm)
    };
    assert_eq!(stepped(0), stepped(17));
}

#[test]
fn one_batch_is_memorized() {
    let mut config = tiny_model();
    config.init_std = 0.1;
    let mut state = state(&config);
    let batch = batch(0, 4);
    let step = step_config(4, 1e-2);
    let first = train_step(&mut state, &batch, &step).expect("finite").cross_entropy;
    let mut last = first;
    for _ in 0..150 {
        last = train_step(&mut state, &batch, &step).expect("finite").cross_entropy;
    }
    assert!((first - (VOCAB as f64).ln()).abs() < 0.3, "first loss {first}");
    assert!(last < 0.15, "last loss {last}");
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_state_alone() {
    let mut state = poisoned_state();
    let before = values(&state);
    assert!(train_step(&mut state, &batch(0, 4), &step_config(4, 1e-3)).is_err());
    assert_eq!((state.step, state.t), (0, 0));
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&values(&state)), bits(&before));
}

#[test]
fn clipped_steps_of_a_four_million_embedding_depend_on_no_thread() {
    let mut config = tiny_model();
    (config.vocab_size, config.d_model, config.tie_embeddings) = (1 << 15, 128, true);
    config.moe.balance = balance(0.1, 0.1, 0.1, 0.01);
    let first = state(&config);
    let hash = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut state = first.clone();
            for t in [0, 4] {
                let report = train_step(&mut state, &batch(t, 4), &step_config(4, 1e-3)).expect("finite");
                assert!(report.clip_factor < 1.0, "clipping must act: {}", report.grad_norm);
            }
            moe_train::checkpoint::parameter_hash(&parameters(&state.model))
        })
    };
    let expected = hash(1);
    for threads in [2, 3, 8, 8, 8, 64] {
        assert_eq!(hash(threads), expected, "{threads} threads");
    }
    let _alone = VECTORS.lock().unwrap_or_else(PoisonError::into_inner);
    use_vectors(Vectors::Avx2);
    assert_eq!(hash(2), expected, "narrower vectors");
    use_vectors(Vectors::Widest);
}

#[test]
fn steps_have_the_same_bits_on_every_processor() {
    let _alone = VECTORS.lock().unwrap_or_else(PoisonError::into_inner);
    let steps = |vectors: Vectors, config: &ModelConfig, recompute: bool| {
        use_vectors(vectors);
        let mut state = state(config);
        let step = StepConfig { recompute, ..step_config(3, 1e-3) };
        for t in 0..2 {
            train_step(&mut state, &batch(8 * t, 8), &step).expect("finite");
        }
        use_vectors(Vectors::Widest);
        moe_train::checkpoint::parameter_hash(&parameters(&state.model))
    };
    let mut config = tiny_model();
    config.moe.balance = balance(0.1, 0.1, 0.1, 0.01);
    // More experts than the widest vector has numbers.
    config.moe.n_experts = 19;
    for (score, is_tied) in [(Score::Sigmoid, false), (Score::Softmax, true)] {
        config.moe.router = router(score);
        config.tie_embeddings = is_tied;
        let expected = steps(Vectors::Widest, &config, is_tied);
        for vectors in [Vectors::None, Vectors::Avx2] {
            assert_eq!(steps(vectors, &config, is_tied), expected, "{vectors:?}");
        }
    }
}

/// Parameters, biases and report after three steps in micro-batches of 3, every loss turned on.
fn three_steps(
    recompute: bool,
    is_tied: bool,
    compute: Compute,
) -> (Vec<f32>, Vec<f32>, moe_train::train::StepReport) {
    let mut config = tiny_model();
    config.compute = compute;
    config.tie_embeddings = is_tied;
    config.moe.balance = balance(0.1, 0.1, 0.1, 0.01);
    let mut state = state(&config);
    let step = StepConfig { recompute, ..step_config(3, 1e-3) };
    let mut last = None;
    for t in 0..3 {
        last = Some(train_step(&mut state, &batch(8 * t, 8), &step).expect("finite"));
    }
    (values(&state), biases(&state), last.expect("three steps"))
}

#[test]
fn recomputation_changes_no_bit() {
    let check = || {
        for is_tied in [false, true] {
            let (kept, kept_bias, kept_report) = three_steps(false, is_tied, Compute::F32);
            let (again, bias, report) = three_steps(true, is_tied, Compute::F32);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&kept), bits(&again), "tied: {is_tied}");
            assert_eq!((kept_bias, kept_report.losses), (bias, report.losses));
        }
    };
    check();
    plainly(check);
}

#[test]
fn fast_and_plain_forms_make_the_same_steps() {
    let (cpu, cpu_bias, cpu_report) = three_steps(false, false, Compute::F32);
    let (gpu, gpu_bias, report) = plainly(|| three_steps(false, false, Compute::F32));
    // As for micro-batches: Adam makes rounding visible where a gradient is nearly zero.
    let moved = cpu.iter().zip(&gpu).filter(|(a, b)| (*a - *b).abs() > 2e-5).count();
    assert!(moved * 500 < cpu.len(), "{moved} of {} parameters differ", cpu.len());
    assert!(distance(&cpu_bias, &gpu_bias) < 1e-6 && cpu_bias.iter().any(|b| *b != 0.0));
    assert!((report.cross_entropy - cpu_report.cross_entropy).abs() < 1e-5);
    assert!((report.grad_norm - cpu_report.grad_norm).abs() < 1e-4 * cpu_report.grad_norm);
    for ((layer, a), (other, b)) in cpu_report.routers.iter().zip(&report.routers) {
        assert_eq!((layer, &a.load, a.n_tokens), (other, &b.load, b.n_tokens));
        let values = |s: &moe_train::model::moe::RouterStats| -> Vec<f64> {
            let losses = s.losses.iter().map(|(_, loss)| *loss);
            losses.chain([s.logit_max.into(), s.logit_min.into()]).collect()
        };
        assert_eq!(values(a).len(), 5);
        for (a, b) in values(a).into_iter().zip(values(b)) {
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{a} {b}");
        }
    }
}

#[test]
fn bf16_learns_nearly_the_same() {
    let (exact, _, exact_report) = plainly(|| three_steps(false, false, Compute::F32));
    let (rounded, _, report) = three_steps(true, false, Compute::Bf16);
    let difference = (report.cross_entropy - exact_report.cross_entropy).abs();
    assert!(difference > 0.0, "bf16 must round");
    assert!(difference < 0.02 * exact_report.cross_entropy, "{difference}");
    assert!((report.grad_norm / exact_report.grad_norm - 1.0).abs() < 0.05);
    // A step is at most 1e-3 for each parameter, so two runs are at most 6e-3 apart after three.
    assert!(distance(&exact, &rounded) < 6.1e-3);
}

#[test]
fn a_gradient_that_is_not_finite_leaves_the_moments_alone() {
    let mut state = poisoned_state();
    let bits = |state: &TrainState| values(state).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let before = bits(&state);
    assert!(plainly(|| train_step(&mut state, &batch(0, 4), &step_config(4, 1e-3))).is_err());
    assert_eq!((state.step, state.t), (0, 0));
    assert_eq!(bits(&state), before);
    let moments = state.optimizer.state(&state.model);
    assert!(moments.iter().all(|moment| flat(moment.value.clone()).iter().all(|v| *v == 0.0)));
}

#[test]
fn a_frozen_router_keeps_everything_and_the_rest_learns() {
    let mut config = tiny_model();
    config.moe.balance = balance(0.1, 0.0, 0.0, 0.0);
    let mut state = state(&config);
    let adamw = Arc::new(AdamWConfig::default());
    let frozen = Group::new(&["*.router.*"], adamw.clone()).expect("a pattern").frozen();
    state.optimizer = Optimizer::new(Groups::of_all(adamw).with(frozen), &state.model);
    let names: Vec<String> = state.optimizer.state(&state.model).into_iter().map(|t| t.name).collect();
    assert!(names.iter().all(|name| !name.contains("router")) && names.len() > 10, "{names:?}");
    let before = parameters(&state.model);
    let report = train_step(&mut state, &batch(0, 8), &step_config(4, 1e-3)).expect("finite");
    for (old, new) in before.iter().zip(parameters(&state.model)) {
        let is_same = old.to_host() == new.to_host();
        assert_eq!(is_same, old.name.contains("router"), "{}", old.name);
    }
    let mut free = self::state(&config);
    let free = train_step(&mut free, &batch(0, 8), &step_config(4, 1e-3)).expect("finite");
    assert!(report.grad_norm < free.grad_norm, "a frozen gradient is no part of the norm");
}

#[test]
fn a_step_reads_back_once() {
    for recompute in [false, true] {
        let mut config = tiny_model();
        config.moe.balance = balance(0.1, 0.1, 0.1, 0.01);
        let step = moe_train::train::StepConfig { recompute, ..step_config(2, 1e-3) };
        let mut state = state(&config);
        assert_eq!(train_step(&mut state, &batch(0, 8), &step).expect("finite").n_reads, 1);
        assert_eq!(plainly(|| train_step(&mut state, &batch(8, 8), &step)).expect("finite").n_reads, 1);
    }
}
