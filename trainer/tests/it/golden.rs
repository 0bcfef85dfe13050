//! Numbers of reference implementations (`tests/data/golden`): each file says what they are and who made
//! them; inputs are formulas, so that every language has the same.

use burn::tensor::{Device, Tensor};
use moe_train::model::Input;
use moe_train::model::PADDING;
use moe_train::model::context::{BatchCounts, Context, Pass};
use moe_train::model::moe::balance::{Balance, Sequence, Switch, Z};
use moe_train::model::moe::{Routed, Routing};
use moe_train::model::parameters::Parameter;
use moe_train::model::rope::Ropes;
use moe_train::ops::plainly;
use moe_train::ops::routing::{Score, choose, scores};
use moe_train::optim::{AdamWConfig, Rule, Update};
use serde_json::Value;

use crate::support::*;

/// The i-th number in [-1, 1) of a seed.
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

#[test]
fn adamw_makes_the_steps_of_torch() {
    let golden = read(include_str!("../data/golden/adamw.json"));
    let adamw = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let check = || {
        let device = Device::flex();
        let vector = |values: Vec<f32>| tensor(&values, [12], &device);
        let shape = vec![3, 4];
        let mut parameter = Parameter { name: "w".into(), shape, value: vector(input(&golden["weight"])) };
        let mut state = vec![vector(vec![0.0; 12]); 2];
        let factor = Tensor::ones([1], &device);
        for step in 0..3 {
            let update = Update { number: step as u64 + 1, rate: 0.01, factor: &factor };
            let gradient = vector(input(&golden["grads"][step]));
            (parameter.value, state) = adamw.update(&parameter, gradient, state, &update);
            assert!(distance(&parameter.to_host(), &flat(&golden["adamw"][step])) < 3e-7, "step {step}");
        }
    };
    check();
    plainly(check);
}
