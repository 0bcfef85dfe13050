//! Numbers of reference implementations (`tests/data/golden`): each file says what they are and what made
//! them; inputs are formulas, so that every language has the same.

use burn::tensor::{Device, Tensor};
use moe_train::model::Input;
use moe_train::model::PADDING;
use moe_train::model::context::{BatchCounts, Context, Pass};
use moe_train::model::moe::balance::{Balance, Sequence, Switch, Z};
use moe_train::model::moe::{Routed, Routing};
use moe_train::model::parameters::Parameter;
use moe_train::model::rope::Ropes;
use moe_train::model::transfer::Multipliers;
use moe_train::ops::newton_schulz::newton_schulz;
use moe_train::ops::plainly;
use moe_train::ops::routing::{Score, choose, scores};
use moe_train::optim::{AdamWConfig, Lion, Muon, NorMuon, Rule, Scale, Schedule, ScheduleKind, Sgd, Update};
use serde_json::Value;

use crate::support::*;

/// The i-th number in [-1, 1) from a seed.
pub fn h(seed: u64, i: u64) -> f64 {
    let mut x = ((i + 1) * 2_654_435_761 + seed * 40_503) & 0xFFFF_FFFF;
    for _ in 0..2 {
        x ^= x >> 16;
        x = (x * 0x45D_9F3B) & 0xFFFF_FFFF;
    }
    x ^= x >> 16;
    x as f64 / 2_147_483_648.0 - 1.0
}

/// The values of an input that is given by its seed.
pub fn input(spec: &Value) -> Vec<f32> {
    let number = |key: &str| spec[key].as_f64().expect("a number");
    let n: u64 =
        spec["shape"].as_array().expect("a shape").iter().map(|n| n.as_u64().expect("a size")).product();
    let seed = spec["seed"].as_u64().expect("a seed");
    (0..n).map(|i| (h(seed, i) * number("scale") + number("offset")) as f32).collect()
}

/// All numbers of nested lists, in order.
pub fn flat(value: &Value) -> Vec<f32> {
    match value.as_array() {
        Some(list) => list.iter().flat_map(flat).collect(),
        None => vec![value.as_f64().expect("a number") as f32],
    }
}

pub fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn inputs_are_those_of_the_reference() {
    let expected = [-0.549_279_114_231_467_2, 0.155_001_854_058_355_1];
    assert!((0..2).all(|i| (h(1, i) - expected[i as usize]).abs() < 1e-15));
}

#[test]
fn balancing_losses_and_their_gradients() {
    let golden = read(include_str!("../data/golden/balance_losses.json"));
    let check = || {
        let device = autodiff();
        let mask = flat(&golden["mask"]);
        let segments: Vec<u32> = mask.iter().map(|&m| if m > 0.0 { 0 } else { PADDING }).collect();
        let input_of = Input::new(&[0; 12], &[0; 12], &segments, [2, 6], &device);
        let counts = BatchCounts::of(&input_of.valid);
        let ctx = Context::new(&input_of, Pass::EVAL, counts, &Ropes::default());
        // The Switch loss is that of softmax scores, the sequence-wise one that of sigmoid scores.
        let losses: [(&str, Box<dyn Balance>, Score); 3] = [
            ("switch", Box::new(Switch { switch: 1.0 }), Score::Softmax),
            ("sequence", Box::new(Sequence { sequence: 1.0 }), Score::Sigmoid),
            ("z", Box::new(Z { z: 1.0 }), Score::Softmax),
        ];
        for (name, balancer, score) in losses {
            let logits = tensor(&input(&golden["logits"]), [12, 4], &device).require_grad();
            let scores = scores(logits.clone(), score);
            let no_bias = Tensor::zeros([4], &Device::flex());
            let choices = choose(scores.clone(), no_bias, ctx.valid.flags(), 2);
            let routing = Routing {
                unbiased: choices.clone(),
                choices,
                weights: Tensor::ones([12, 2], &device),
                logits: logits.clone(),
                scores,
                is_distribution: score == Score::Softmax,
                n_counted: 2,
                likelihood: None,
            };
            let loss = balancer.loss(&Routed::new(routing, 0, &ctx), 1.0).expect("a loss");
            let gradient = host(logits.grad(&loss.backward()).expect("tracked"));
            let expected = flat(&golden[name])[0];
            assert!((host(loss)[0] - expected).abs() < 3e-6 * expected, "{name}");
            assert!(distance(&gradient, &flat(&golden[format!("grad_{name}")])) < 3e-6, "{name}");
        }
    };
    check();
    plainly(check);
}

/// The values of a parameter after each update by a rule, and what the rule kept at the end.
fn updates(
    rule: &dyn Rule,
    shape: &[usize],
    value: &[f32],
    gradients: &[Vec<f32>],
    rate: f64,
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let device = Device::flex();
    let vector = |values: &[f32]| tensor(values, [values.len()], &device);
    let mut parameter =
        Parameter { name: "w".into(), shape: shape.to_vec(), value: vector(value), widths: Vec::new() };
    let zeros = |kind: &&str| vector(&vec![0.0; rule.state_shape(kind, &parameter).iter().product()]);
    let mut state: Vec<Tensor<1>> = rule.state().iter().map(zeros).collect();
    let factor = Tensor::ones([1], &device);
    let mut found = Vec::new();
    for (gradient, number) in gradients.iter().zip(1..) {
        let update = Update { number, rate, factor: &factor, multipliers: Multipliers::default() };
        let off = Update { factor: &Tensor::full([1], f32::NAN, &device), ..update };
        let (kept, same) = rule.update(&parameter, vector(gradient), state.clone(), &off);
        assert_eq!(host(kept), parameter.to_host(), "a factor that is not finite moves nothing");
        assert!(same.iter().zip(&state).all(|(a, b)| host(a.clone()) == host(b.clone())));
        (parameter.value, state) = rule.update(&parameter, vector(gradient), state, &update);
        found.push(parameter.to_host());
    }
    (found, state.into_iter().map(host).collect())
}

fn inputs(list: &Value) -> Vec<Vec<f32>> {
    list.as_array().expect("a list").iter().map(input).collect()
}

/// The same matrix with rows and columns exchanged.
fn turned(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect()
}

#[test]
fn elementwise_rules_make_the_steps_of_torch_and_of_olmo() {
    let golden = read(include_str!("../data/golden/optim_small.json"));
    let adamw = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let lion = Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.1 };
    let sgd = Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.01 };
    let nesterov = Sgd { nesterov: true, ..sgd.clone() };
    let rules: [(&str, &dyn Rule, f64); 4] = [
        ("adamw", &adamw, 0.01),
        ("lion", &lion, 0.01),
        ("sgd", &sgd, 0.1),
        ("sgd_nesterov", &nesterov, 0.1),
    ];
    let check = || {
        for (name, rule, rate) in rules {
            let gradients = inputs(&golden["grads"]);
            let (found, _) = updates(rule, &[3, 4], &input(&golden["weight"]), &gradients, rate);
            for (step, values) in found.iter().enumerate() {
                assert!(distance(values, &flat(&golden[name][step])) < 3e-7, "{name}, step {step}");
            }
        }
    };
    check();
    plainly(check);
}

#[test]
fn newton_schulz_treats_each_matrix_of_a_stack_separately() {
    let golden = read(include_str!("../data/golden/muon.json"));
    let mut matrices = input(&golden["g"]);
    matrices[24..48].iter_mut().for_each(|x| *x *= 100.0);
    matrices[48..].iter_mut().for_each(|x| *x *= 1e-3);
    let found = host(newton_schulz(tensor(&matrices, [3, 4, 6], &Device::flex())));
    assert!(distance(&found, &flat(&golden["ns_fp64"])) < 2e-5);
}

#[test]
fn muon_makes_the_steps_of_moonlight_and_slices_are_separate_matrices() {
    let golden = &read(include_str!("../data/golden/muon.json"))["moonlight"];
    let muon = Muon { weight_decay: 0.1, momentum: 0.95, ..Muon::default() };
    let (value, gradients) = (input(&golden["weight"]), inputs(&golden["grads"]));
    let (found, state) = updates(&muon, &[3, 4, 6], &value, &gradients, 0.02);
    for (step, values) in found.iter().enumerate() {
        assert!(distance(values, &flat(&golden["steps"][step]["weight"])) < 1e-6, "step {step}");
    }
    assert!(distance(&state[0], &flat(&golden["steps"][1]["momentum"])) < 1e-6);
    for slice in 0..3 {
        let of = |values: &Vec<f32>| values[slice * 24..(slice + 1) * 24].to_vec();
        let gradients: Vec<Vec<f32>> = gradients.iter().map(of).collect();
        let (alone, _) = updates(&muon, &[4, 6], &of(&value), &gradients, 0.02);
        assert_eq!(alone, found.iter().map(of).collect::<Vec<_>>(), "slice {slice}");
    }
}

#[test]
fn normuon_makes_the_steps_of_its_authors_and_of_dion() {
    let golden = read(include_str!("../data/golden/normuon.json"));
    // Theirs are `[out, in]`, ours `[in, out]`.
    let value = turned(&input(&golden["weight"]), [6, 4]);
    let gradients: Vec<Vec<f32>> = inputs(&golden["grads"]).iter().map(|g| turned(g, [6, 4])).collect();
    for (form, scale) in [("original", Scale::Original), ("dion_rms", Scale::MatchRms)] {
        let rule = NorMuon { momentum: 0.95, neurons: 0.95, weight_decay: 0.1, scale, ..NorMuon::default() };
        let (found, state) = updates(&rule, &[4, 6], &value, &gradients, 0.02);
        for (step, values) in found.iter().enumerate() {
            let expected = turned(&flat(&golden[form]["steps"][step]["weight"]), [6, 4]);
            assert!(distance(values, &expected) < 2e-6, "{form}, step {step}");
        }
        assert_eq!(state[1].len(), 6, "one value for each output");
        assert!(distance(&state[1], &flat(&golden[form]["steps"][1]["second"])) < 1e-6, "{form}");
    }
}

#[test]
fn schedules_have_the_rates_of_olmo() {
    let golden = read(include_str!("../data/golden/schedules.json"));
    let kinds = [
        ("constant_with_warmup", ScheduleKind::Constant, 0.0),
        ("wsd", ScheduleKind::Wsd, 0.0),
        ("linear", ScheduleKind::Linear, 0.1),
        ("cosine", ScheduleKind::Cosine, 0.1),
        ("inv_sqrt", ScheduleKind::InverseSqrt, 0.0),
    ];
    for (name, kind, floor) in kinds {
        let schedule = Schedule { kind, peak: 1.0, warmup: 10, decay: 20, period: None, floor, n_steps: 100 };
        let cases = golden["cases"].as_array().expect("cases");
        let rates = cases.iter().find(|case| case["name"] == name).expect("a case")["lr"].as_array();
        for (point, expected) in
            golden["points"].as_array().expect("points").iter().zip(rates.expect("rates"))
        {
            // Theirs is the rate before this many updates, ours that of the last of them; theirs of wsd
            // continues below 0.
            let Some(step) = point.as_u64().and_then(|point| point.checked_sub(1)) else { continue };
            let expected = expected.as_f64().expect("a rate").max(0.0);
            assert!((schedule.rate(step) - expected).abs() < 1e-9, "{name}, step {step}");
        }
    }
}
