use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use moe_train::checkpoint;
use moe_train::config::RunConfig;
use moe_train::model::parameters::{Parameter, outline, parameters};
use moe_train::model::transfer::{Multipliers, Parametrization, ParametrizationKind, StepKind, WidthBase};
use moe_train::model::{Model, ModelConfig};
use moe_train::ops::plainly;
use moe_train::optim::{
    AdamWConfig, Group, Groups, Muon, NorMuon, Optimizer, Rule, Schedule, ScheduleKind, Update,
};
use moe_train::run::Validator;
use moe_train::train::{SkipConfig, Spikes, TrainState, averaged, train_step};
use serde_json::Value;

use crate::golden::{flat, input, read};
use crate::support::*;

fn values(state: &TrainState) -> Vec<u32> {
    let bits = |p: Parameter| p.to_host().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    parameters(&state.model).into_iter().flat_map(bits).collect()
}

fn moments(state: &TrainState) -> Vec<u32> {
    let kept = state.optimizer.state(&state.model).into_iter();
    kept.flat_map(|tensor| host(tensor.value)).map(f32::to_bits).collect()
}

#[test]
fn steps_are_skipped_where_olmo_skips_them() {
    let golden = read(include_str!("../data/golden/skip_step.json"));
    let config = SkipConfig { sigma: 6.0, window: 8 };
    let mut n_skipped = 0;
    for sequence in golden["sequences"].as_array().expect("sequences") {
        // A loss that is not finite ends our runs.
        if sequence["name"] == "nan_blocks_the_window" {
            continue;
        }
        let numbers = |key: &str| sequence[key].as_array().cloned().unwrap_or_default();
        let (losses, norms, steps) = (numbers("losses"), numbers("grad_norms"), numbers("step"));
        let mut spikes = Spikes::default();
        for (index, loss) in losses.iter().enumerate() {
            let loss = loss.as_f64().expect("a loss");
            let norm = norms.get(index).map_or(0.0, |norm| norm.as_f64().expect("a norm"));
            let is_made =
                spikes.limits(&config).is_none_or(|limits| loss <= limits.loss && norm <= limits.norm);
            assert_eq!(
                u64::from(is_made),
                steps[index].as_u64().expect("0 or 1"),
                "{} {index}",
                sequence["name"]
            );
            n_skipped += u32::from(!is_made);
            spikes.push(Some(&config), loss, norm);
        }
    }
    assert_eq!(n_skipped, 3);
}

/// After three steps, another one is skipped, and a last one made: parameters, moments and updates at the
/// end.
fn with_a_skipped_step(is_there: bool) -> (Vec<u32>, Vec<u32>, u64) {
    let mut config = tiny_model();
    config.moe.balance = balance(0.1, 0.1, 0.0, 0.0);
    let mut state = state(&config);
    let mut step = step_config(2, 1e-2);
    for t in 0..3 {
        train_step(&mut state, &batch(4 * t, 4), &step).expect("finite");
    }
    if is_there {
        // The window is filled with losses that are far below any other.
        let skip = SkipConfig { sigma: 1.0, window: 6 };
        step.skip = Some(skip);
        for _ in 0..3 {
            state.spikes.push(Some(&skip), 0.01, 1e9);
        }
        let before = (values(&state), moments(&state), state.tokens_seen);
        let report = train_step(&mut state, &batch(12, 4), &step).expect("finite");
        assert!(report.is_skipped && report.cross_entropy > report.limits.expect("limits").loss);
        assert!(
            (values(&state), moments(&state), state.tokens_seen) == before,
            "a skipped step leaves all as it was"
        );
        assert_eq!((state.step, state.t, state.spikes.skipped), (4, 16, 1));
        step.skip = None;
    }
    train_step(&mut state, &batch(16, 4), &step).expect("finite");
    (values(&state), moments(&state), state.updates())
}

#[test]
fn a_skipped_step_is_as_if_it_had_not_been() {
    let check = || assert!(with_a_skipped_step(true) == with_a_skipped_step(false));
    check();
    plainly(check);
    assert_eq!(with_a_skipped_step(true).2, 4);
}

#[test]
fn a_norm_above_its_limit_is_skipped_too() {
    let mut state = state(&tiny_model());
    let skip = SkipConfig { sigma: 1.0, window: 6 };
    for norm in [1e-6, 2e-6] {
        state.spikes.push(Some(&skip), 100.0, norm);
    }
    let step = moe_train::train::StepConfig { skip: Some(skip), ..step_config(4, 1e-2) };
    let report = train_step(&mut state, &batch(0, 4), &step).expect("finite");
    assert!(report.is_skipped && report.n_reads == 1);
}

/// The lines of a run's metrics without times.
fn metrics(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).expect("metrics");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for line in &mut lines {
        line.as_object_mut().expect("an object").retain(|key, _| !key.starts_with("perf/"));
    }
    lines
}

/// Checks that an uninterrupted run and one that is stopped after `stop_after` and continued end the same;
/// returns the folder of the former.
fn resumes_exactly(dir: &Path, config: &RunConfig, stop_after: u64) -> std::path::PathBuf {
    let (straight, broken) = (dir.join("straight"), dir.join("broken"));
    let whole = train(&straight, config, None, None);
    train(&broken, config, None, Some(stop_after));
    let path = checkpoint::resolve(&broken, None).expect("a checkpoint");
    let second = train(&broken, config, Some(loaded(&path)), None);
    assert_eq!((second.parameter_hash, second.data_hash), (whole.parameter_hash, whole.data_hash));
    assert_eq!(metrics(&broken), metrics(&straight));
    let name = whole.checkpoint.file_name().expect("a name");
    for file in ["model.safetensors", "optim.safetensors", "ema.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints").join(name).join(file)).ok();
        assert!(read(&straight) == read(&broken), "{file}");
    }
    straight
}

#[test]
fn a_run_that_skips_resumes_in_its_window_bit_for_bit() {
    let dir = tempfile::tempdir().expect("dir");
    let config =
        run_config(&["optim.skip_sigma=0.5", "optim.skip_window=6", "run.steps=14", "run.log_every=4"]);
    let run = resumes_exactly(dir.path(), &config, 6);
    let lines: Vec<Value> = metrics(&run).into_iter().filter(|line| line.get("train/ce").is_some()).collect();
    let number = |line: &Value, key: &str| line[key].as_u64().expect("a number");
    let skipped: u64 = lines.iter().map(|line| number(line, "optim/skipped")).sum();
    let updates = number(&lines[lines.len() - 1], "optim/updates");
    assert!(skipped > 2 && updates + skipped == 14, "{skipped} {updates}");
    let state =
        checkpoint::load(&checkpoint::resolve(&run, None).expect("a checkpoint")).expect("whole").state;
    assert_eq!(state.spikes.map(|spikes| spikes.skipped), Some(skipped));
    let plain = train(&dir.path().join("plain"), &run_config(&["run.steps=14"]), None, None);
    assert!(checkpoint::load(&plain.checkpoint).expect("whole").state.spikes.is_none());
    assert_ne!(plain.parameter_hash, state.parameter_hash);
}

#[test]
fn averages_are_those_of_the_reference() {
    let golden = read(include_str!("../data/golden/ema_clip.json"));
    let device = Device::flex();
    let value = |index: usize| tensor(&input(&golden["params"][index]), [4], &device);
    let mut average = value(0);
    for step in 1..5 {
        average = averaged(average, value(step), 0.8);
        assert!(distance(&host(average.clone()), &flat(&golden["ema"][step - 1])) < 1e-6, "step {step}");
    }
}

#[test]
fn a_moving_average_is_evaluated_saved_and_resumed_bit_for_bit() {
    let dir = tempfile::tempdir().expect("dir");
    let steps = ["run.steps=10", "run.eval_every=5"];
    let config = run_config(&[&steps[..], &["run.ema_decay=0.8", "run.ema_from=2"]].concat());
    let run = resumes_exactly(dir.path(), &config, 5);
    let plain = train(&dir.path().join("plain"), &run_config(&steps), None, None);
    let loaded = checkpoint::load(&checkpoint::resolve(&run, None).expect("a checkpoint")).expect("whole");
    assert_eq!(plain.parameter_hash, loaded.state.parameter_hash, "nothing is trained from it");
    let corpus = corpus();
    let validator = Validator::new(&corpus, 64, 4).expect("samples").expect("validation");
    let average = checkpoint::load_weights(&loaded, true, &Device::flex()).expect("an average");
    let found = validator.run(&average, &corpus).expect("on the host").losses.all.nats();
    let last = metrics(&run).pop().expect("lines");
    assert_eq!(last["validation/ema/ce"].as_f64(), found);
    assert_ne!(last["validation/ema/ce"], last["validation/ce"]);
    let none = checkpoint::load(&plain.checkpoint).expect("whole");
    let error = checkpoint::load_weights(&none, true, &Device::flex()).expect_err("none").to_string();
    assert!(error.contains("run.ema_decay"), "{error}");
}

#[test]
fn groups_are_clipped_separately_and_non_finite_values_stop_everything() {
    let model = Model::new(&tiny_model(), 3, &autodiff());
    let adamw = Arc::new(AdamWConfig::default());
    let own = Group::new(&["embedding", "head"], adamw.clone()).expect("patterns").clipped(2.0);
    let optimizer = Optimizer::new(Groups::of_all(adamw).with(own), &model);
    let ones = |value: f32| -> Vec<Option<Tensor<1>>> {
        let all = moe_train::optim::trained(&model);
        let at = |p: &Parameter| if p.name == "head" { value } else { 1.0 };
        all.iter().map(|p| Some(p.value.ones_like() * at(p))).collect()
    };
    let clip = |value: f32| {
        let loss = Tensor::ones([1], &Device::flex());
        let clipping = optimizer.clip(optimizer.norms(&model, &ones(value)), loss, 3.0);
        let number = |x: &Tensor<1>| x.clone().into_data().iter::<f64>().next().expect("one value");
        let own = clipping.own[1].as_ref().map(number).expect("a factor");
        assert!(clipping.own[0].is_none());
        (
            [number(&clipping.norm), number(&clipping.factor), own],
            clipping.of_groups.iter().map(number).collect::<Vec<_>>(),
        )
    };
    let n: usize = moe_train::optim::trained(&model).iter().map(Parameter::len).sum();
    let in_group = 2 * VOCAB * 12;
    let root = |n: usize| (n as f64).sqrt();
    let (found, of_groups) = clip(1.0);
    let expected = [root(n), 3.0 / root(n - in_group), 2.0 / root(in_group)];
    assert!(found.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{found:?} {expected:?}");
    assert!((of_groups[0].powi(2) + of_groups[1].powi(2) - n as f64).abs() < 1e-3 * n as f64);
    assert!((optimizer.clip_factor(found[0], &of_groups, 3.0) - found[1]).abs() < 1e-6);
    for value in [f32::NAN, f32::INFINITY] {
        let ([_, rest, own], _) = clip(value);
        assert!(rest.is_nan() && own.is_nan());
    }
}

#[test]
fn the_metrics_have_each_group() {
    let dir = tempfile::tempdir().expect("dir");
    let group = "optim.group=[{names=['*.experts.*'], clip=1e-3, moments='bf16'}, {names=['*.router.*'], frozen=true}]";
    let config = run_config(&["run.steps=6", "run.save_every=3", group]);
    let run = resumes_exactly(dir.path(), &config, 2);
    let line = metrics(&run).remove(0);
    let number = |key: String| line[&key].as_f64().expect("a number");
    let of =
        |what: &str| (0..3).map(|group| number(format!("optim/group/{group}/{what}"))).collect::<Vec<f64>>();
    let (norms, moved, weights) = (of("grad_norm"), of("update_rms"), of("weight_rms"));
    let all = norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
    assert!((number("optim/grad_norm".into()) / all - 1.0).abs() < 1e-5);
    assert!(moved[0] > 0.0 && moved[1] > 0.0 && moved[2] == 0.0 && norms[2] == 0.0, "{moved:?} {norms:?}");
    assert!(weights.iter().all(|rms| *rms > 0.0) && number("optim/weight_rms".into()) > 0.0);
}

#[test]
fn moments_in_bf16_are_rounded_and_resume_bit_for_bit() {
    let dir = tempfile::tempdir().expect("dir");
    for kind in ["adamw", "normuon"] {
        let config = run_config(&[
            "run.steps=6",
            "run.save_every=3",
            "optim.moments=bf16",
            &format!("optim.kind={kind}"),
        ]);
        let run = resumes_exactly(&dir.path().join(kind), &config, 2);
        let (state, _) = loaded(&checkpoint::resolve(&run, None).expect("a checkpoint"));
        for kept in state.optimizer.state(&state.model) {
            let is_rounded = kept.name.starts_with("m.") || kept.name.starts_with("momentum.");
            let has_low_bits = host(kept.value).iter().any(|value| value.to_bits() & 0xFFFF != 0);
            assert_eq!(has_low_bits, !is_rounded, "{kind} {}", kept.name);
        }
    }
}

/// The value after two updates of a parameter with 12 rows and these matrices side by side.
fn two_updates(rule: &dyn Rule, widths: &[usize], value: &[f32], gradients: &[Vec<f32>]) -> Vec<f32> {
    let device = Device::flex();
    let columns = value.len() / 12;
    let vector = |values: &[f32]| tensor(values, [values.len()], &device);
    let mut parameter = Parameter {
        name: "w".into(),
        shape: vec![12, columns],
        value: vector(value),
        widths: widths.to_vec(),
    };
    let zeros = |kind: &&str| vector(&vec![0.0; rule.state_shape(kind, &parameter).iter().product()]);
    let mut state: Vec<Tensor<1>> = rule.state().iter().map(zeros).collect();
    let factor = Tensor::ones([1], &device);
    for (gradient, number) in gradients.iter().zip(1..) {
        let update = Update { number, rate: 0.02, factor: &factor, multipliers: Multipliers::default() };
        (parameter.value, state) = rule.update(&parameter, vector(gradient), state, &update);
    }
    parameter.to_host()
}

#[test]
fn fused_queries_keys_and_values_are_separate_matrices() {
    let widths = [8, 4, 6];
    let columns: usize = widths.iter().sum();
    let all: Vec<Vec<f32>> = (0..3).map(|seed| noise(seed, 12 * columns)).collect();
    for rule in [&Muon::default() as &dyn Rule, &NorMuon::default()] {
        let together = two_updates(rule, &widths, &all[0], &all[1..]);
        let mut from = 0;
        for width in widths {
            let part = |values: &Vec<f32>| -> Vec<f32> {
                values.chunks(columns).flat_map(|row| row[from..from + width].to_vec()).collect()
            };
            let alone =
                two_updates(rule, &[], &part(&all[0]), &all[1..].iter().map(part).collect::<Vec<_>>());
            assert!(distance(&part(&together), &alone) < 1e-6, "{rule:?}");
            from += width;
        }
        assert!(
            distance(&together, &two_updates(rule, &[], &all[0], &all[1..])) > 1e-4,
            "as one it is another"
        );
    }
    let fused = |config: &ModelConfig| {
        let all = outline(config).into_iter();
        all.filter(|p| !p.widths.is_empty()).map(|p| (p.name, p.widths)).collect::<Vec<_>>()
    };
    let name = |layer: usize| format!("blocks.{layer}.attention.w_qkv");
    assert_eq!(fused(&tiny_model()), [(name(0), vec![12, 6, 6]), (name(1), vec![12, 6, 6])]);
    let kda = [
        "attention.kind=kda",
        "attention.kda.heads=2",
        "attention.kda.key_dim=4",
        "attention.kda.value_dim=3",
    ];
    assert_eq!(fused(&run_config(&kda).model(VOCAB, SEQ))[0], (name(0), vec![8, 8, 6]));
}

#[test]
fn periods_of_unequal_length_have_the_rates_of_olmo() {
    let golden = read(include_str!("../data/golden/schedules.json"));
    let cases = golden["cases"].as_array().expect("cases");
    let rates =
        cases.iter().find(|case| case["name"] == "wsds").expect("a case")["lr"].as_array().expect("rates");
    let schedule = |warmup, decay, period, n_steps| Schedule {
        kind: ScheduleKind::Wsd,
        peak: 1.0,
        warmup,
        decay,
        period: Some(period),
        floor: 0.0,
        n_steps,
    };
    // Periods of 40, 30 and 30 steps with a fifth of each to fall in: ours have one length, so the first is
    // compared separately.
    let (first, others) = (schedule(10, 8, 40, 40), schedule(0, 6, 30, 60));
    for (point, expected) in golden["points"].as_array().expect("points").iter().zip(rates) {
        let Some(step) = point.as_u64().and_then(|point| point.checked_sub(1)) else { continue };
        let found = if step < 40 { first.rate(step) } else { others.rate(step - 40) };
        assert!((found - expected.as_f64().expect("a rate")).abs() < 1e-9, "step {step}: {found}");
    }
}

#[test]
fn a_batch_ramp_reads_the_samples_of_any_run_and_resumes_bit_for_bit() {
    let dir = tempfile::tempdir().expect("dir");
    let ramp = "data.batch_ramp=['1 until step 3', '2 until sample 8']";
    // 3 steps of 1, 3 of 2 (samples 3 to 9), the rest of 4.
    let config = run_config(&[ramp, "run.steps=9"]);
    let run = resumes_exactly(dir.path(), &config, 4);
    let batches: Vec<u64> =
        metrics(&run).iter().filter_map(|line| line.get("data/batch")?.as_u64()).collect();
    assert_eq!(batches, [1, 1, 1, 2, 2, 2, 4, 4, 4]);
    let hash = |config: &RunConfig, name: &str| train(&dir.path().join(name), config, None, None).data_hash;
    let plain = hash(&run_config(&["data.batch=3", "run.steps=7"]), "plain");
    let last =
        checkpoint::load(&checkpoint::resolve(&run, None).expect("a checkpoint")).expect("whole").state;
    assert_eq!((last.t, last.data_hash), (21, plain), "the first 21 samples, however many a step takes");
    // Of 80 samples 9 are in the first 6 steps, and 17 whole batches of 4 follow.
    assert_eq!(run_config(&[ramp]).run.steps, Some(23));
}

/// A mixture of experts with another width, depth and sparsity, in a parametrization relative to 16 channels.
fn sized(kind: ParametrizationKind, width: usize) -> ModelConfig {
    let mut config = tiny_model();
    let assignments = [
        format!("model.d_model={width}"),
        format!("attention.heads={}", width / 8),
        "attention.kv_heads=1".into(),
    ];
    let assignments: Vec<&str> = assignments.iter().map(String::as_str).collect();
    config.attention = run_config(&assignments).model(VOCAB, SEQ).attention;
    (config.d_model, config.dense_ffn, config.moe.expert_ffn) = (width, 2 * width, width);
    config.init_std = 0.15;
    let width = WidthBase { d_model: 16, head_dim: Some(8) };
    let depth = moe_train::model::transfer::DepthBase { layers: 2, ffn: 32 };
    config.parametrization = Parametrization { kind, width, depth };
    config
}

#[test]
fn the_parametrization_of_complete_p_has_the_factors_of_its_authors() {
    let golden = read(include_str!("../data/golden/transfer.json"));
    for case in golden["completep"].as_array().expect("cases") {
        let ratio = |key: &str| case[key].as_u64().expect("a ratio") as usize;
        let (width, depth) = (ratio("width_ratio"), ratio("depth_ratio"));
        let mut config = sized(ParametrizationKind::Complete, 16 * width);
        (config.n_layers, config.n_dense_layers) = (2 * depth, 2 * depth);
        let transfer = config.transfer();
        let of = |name: &str, dimensions: usize| {
            let value = Tensor::zeros([1], &Device::flex());
            let parameter =
                Parameter { name: name.into(), shape: vec![1; dimensions], value, widths: Vec::new() };
            transfer.multipliers(&parameter, StepKind::Adaptive)
        };
        let factors = &case["factors"];
        let names = [
            ("embedding", "embedding", 2),
            ("hidden_matrix", "blocks.0.attention.w_qkv", 2),
            ("final_norm", "norm.weight", 1),
        ];
        for (key, name, dimensions) in names {
            assert_eq!(Some(of(name, dimensions).rate), factors["lr"][key].as_f64(), "{name}");
            assert_eq!(Some(of(name, dimensions).eps), factors["eps"].as_f64(), "{name}");
        }
        assert_eq!(
            Some(of("blocks.0.attention.w_qkv", 2).decay),
            factors["weight_decay"]["hidden_matrix"].as_f64()
        );
    }
}

#[test]
fn what_a_step_does_to_the_outputs_does_not_grow_with_the_width() {
    // The change of a batch's logits after three steps, divided by that at the width of the base.
    let growth = |kind: ParametrizationKind| {
        let change = |width: usize| {
            let config = sized(kind, width);
            let mut state = state(&config);
            let first = batch(0, 4);
            let logits = |model: &Model| {
                let input = first.input(0..4, &model.device());
                let hidden = model.forward(&input, &model.eval_context(&input)).hidden;
                host(hidden.matmul(model.head()).without_autodiff())
            };
            let before = logits(&state.model);
            for _ in 0..3 {
                train_step(&mut state, &first, &step_config(4, 2e-2)).expect("finite");
            }
            let after = logits(&state.model);
            let squares: f64 = before.iter().zip(&after).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            (squares / before.len() as f64).sqrt()
        };
        change(128) / change(16)
    };
    let [standard, mup, complete] =
        [ParametrizationKind::Standard, ParametrizationKind::Mup, ParametrizationKind::Complete].map(growth);
    assert!(standard > 2.5, "standard {standard}, mup {mup}, complete {complete}");
    assert!((0.4..1.6).contains(&mup) && (0.4..1.6).contains(&complete), "mup {mup}, complete {complete}");
}
