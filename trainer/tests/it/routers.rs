use burn::tensor::{Device, Int, Tensor};
use moe_train::model::config::ModelConfig;
use moe_train::model::context::{BatchCounts, Context, Mode, Pass};
use moe_train::model::init::Init;
use moe_train::model::moe::balance::{Balance, Importance, LikelyLoad, Quantile, Switch};
use moe_train::model::moe::capacity::{CapacitySettings, Order, Policy};
use moe_train::model::moe::router::group_limited::{GroupLimitedSettings, GroupScore};
use moe_train::model::moe::router::gshard::{GShardSettings, Second};
use moe_train::model::moe::router::{expert_choice, hierarchical, noisy_top_k};
use moe_train::model::moe::{MoeLayer, Routed, Routing};
use moe_train::model::rope::Ropes;
use moe_train::model::{Input, PADDING};
use moe_train::ops::routing::{Score, choose, scores};
use moe_train::train::train_step;
use serde_json::Value;

use crate::golden::{flat, input, read};
use crate::support::*;

/// The context of one sample of `n` real tokens in training, and of `padding` more.
pub fn context(n: usize, padding: usize, mode: Mode) -> Context {
    let segments: Vec<u32> = (0..n + padding).map(|i| if i < n { 0 } else { PADDING }).collect();
    let ids = vec![0; n + padding];
    let input = Input::new(&ids, &ids, &segments, [1, n + padding], &autodiff());
    let counts = BatchCounts::of(&input.valid);
    Context::new(&input, Pass { step: 3, mode, seed: 1 }, counts, &Ropes::default())
}

fn tracked(spec: &Value) -> Tensor<2> {
    let [rows, columns] = [0, 1].map(|i| spec["shape"][i].as_u64().expect("a size") as usize);
    tensor(&input(spec), [rows, columns], &autodiff()).require_grad()
}

/// The weight of each expert, `[tokens, experts]`.
fn combine(routing: &Routing) -> Tensor<2> {
    let [tokens, n_experts] = routing.logits.dims();
    let none = Tensor::zeros([tokens, n_experts], &routing.weights.device());
    let at = routing.choices.clone().clamp_min(0);
    none.scatter(1, at, routing.weights.clone(), burn::tensor::IndexingUpdateOp::Add)
}

fn near<const D: usize>(what: &str, found: Tensor<D>, expected: &Value) {
    let (found, expected) = (host(found), flat(expected));
    assert!(distance(&found, &expected) < 5e-6, "{what}: {found:?} {expected:?}");
}

fn gradient<const D: usize>(leaf: &Tensor<D>, loss: Tensor<1>) -> Tensor<D> {
    leaf.grad(&loss.backward()).expect("tracked")
}

#[test]
fn noisy_top_k_and_its_losses_are_those_of_the_paper() {
    let golden = read(include_str!("../data/golden/noisy_topk.json"));
    let [x, gate, noise_gate] = ["x", "w_g", "w_n"].map(|name| tracked(&golden[name]));
    let noise = tensor(&input(&golden["noise"]), [8, 5], &autodiff());
    let ctx = context(8, 0, Mode::Train);
    let width = burn::tensor::activation::softplus(x.clone().matmul(noise_gate.clone()), 1.0);
    let routing = noisy_top_k::answer(x.clone().matmul(gate.clone()), width, Some(noise), 2, &ctx);
    near("gates", combine(&routing), &golden["gates"]);
    near("probability", routing.likelihood.clone().expect("noisy"), &golden["prob"]);
    let routed = Routed::new(routing, 0, &ctx);
    near("importance", routed.importance(), &golden["importance"]);
    let importance = Importance { importance: 0.1 }.loss(&routed, 0.1).expect("on");
    let load = LikelyLoad { load: 0.1 }.loss(&routed, 0.1).expect("on");
    near("cv2 of importance", importance.clone() * 10.0, &golden["cv2_importance"]);
    near("cv2 of load", load.clone() * 10.0, &golden["cv2_load"]);
    let grads = (importance + load).backward();
    for (name, leaf) in [("grad_x", x), ("grad_w_g", gate), ("grad_w_n", noise_gate)] {
        near(name, leaf.grad(&grads).expect("tracked"), &golden[name]);
    }
}

#[test]
fn gshard_sends_drops_and_differentiates_as_the_reference() {
    let golden = read(include_str!("../data/golden/gshard_top2.json"));
    let ctx = context(12, 0, Mode::Train);
    let coefficients = tensor(&input(&golden["coef"]), [12, 4], &autodiff());
    let draws = tensor(&flat(&golden["uniform"]), [12, 1], &autodiff());
    let cases = golden["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (policy, norm) =
            (case["policy"].as_str().expect("a word"), case["norm"].as_str().expect("a word"));
        let second: Second = serde_json::from_value(policy.into()).expect("a policy");
        let logits = tensor(&flat(&golden["logits"]), [12, 4], &autodiff()).require_grad();
        let settings = GShardSettings { second, norm_weights: norm == "before" };
        let routing = settings.answer(logits.clone(), Some(draws.clone()), &ctx);
        let sent: Vec<i64> = routing.choices.clone().slice([0..12, 1..2]).into_data().iter().collect();
        let wanted: Vec<i64> = flat(&case["second_wanted"]).iter().map(|&w| w as i64).collect();
        assert_eq!(sent.iter().map(|&e| i64::from(e >= 0)).collect::<Vec<_>>(), wanted, "{policy}");
        // Four slots of an even load of six.
        let capacity = CapacitySettings {
            factor: 0.66,
            min: 0,
            order: Order::Rank,
            renormalize: norm == "after",
            ..CapacitySettings::default()
        };
        let routing = capacity.drop(routing, 2, "moe", &ctx);
        let what = format!("{policy}, {norm}");
        near(&what, combine(&routing), &case["combine"]);
        let weighted = (combine(&routing) * coefficients.clone()).sum();
        let auxiliary = Switch { switch: 1.0 }.loss(&Routed::new(routing, 0, &ctx), 1.0).expect("a loss");
        near(&what, auxiliary.clone(), &case["aux"]);
        near(&what, gradient(&logits, weighted + auxiliary * 0.01), &case["grad_logits"]);
    }
}

#[test]
fn hierarchical_gates_are_products() {
    let golden = read(include_str!("../data/golden/hierarchical.json"));
    let (x, primary) = (tracked(&golden["x"]), tracked(&golden["w_primary"]));
    let secondary = tensor(&input(&golden["w_secondary"]), [3, 4, 3], &autodiff()).require_grad();
    let ctx = context(6, 0, Mode::Train);
    let inner = x.clone().matmul(secondary.clone().swap_dims(0, 1).reshape([4, 9])).reshape([6, 3, 3]);
    let routing = hierarchical::answer(x.clone().matmul(primary.clone()), inner, [2, 2], &ctx);
    near("gates", combine(&routing), &golden["gate"]);
    let coefficients = tensor(&input(&golden["coef"]), [6, 9], &autodiff());
    let weighted = (combine(&routing) * coefficients).sum();
    let routed = Routed::new(routing, 0, &ctx);
    near("importance", routed.importance(), &golden["importance"]);
    let grads = (weighted + Importance { importance: 0.1 }.loss(&routed, 0.1).expect("on")).backward();
    near("grad_x", x.grad(&grads).expect("tracked"), &golden["grad_x"]);
    near("grad_w_primary", primary.grad(&grads).expect("tracked"), &golden["grad_w_primary"]);
    near("grad_w_secondary", secondary.grad(&grads).expect("tracked"), &golden["grad_w_secondary"]);
}

#[test]
fn experts_choose_their_tokens() {
    let golden = read(include_str!("../data/golden/expert_choice.json"));
    let logits = tracked(&golden["logits"]);
    let ctx = context(8, 0, Mode::Train);
    let routing = expert_choice::answer(logits.clone(), 2, &ctx);
    near("weights", combine(&routing), &golden["combine"]);
    let coefficients = tensor(&input(&golden["coef"]), [8, 4], &autodiff());
    let weighted = (combine(&routing) * coefficients).sum();
    near("gradient", gradient(&logits, weighted), &golden["grad_logits"]);
}

#[test]
fn groups_limit_the_experts() {
    let golden = read(include_str!("../data/golden/group_limited.json"));
    let (logits, ctx) = (tracked(&golden["logits"]), context(8, 0, Mode::Train));
    let bias = tensor(&input(&golden["bias"]), [12], &Device::flex());
    let settings = |score, group_score| GroupLimitedSettings {
        groups: 4,
        kept_groups: 2,
        group_score,
        score,
        norm_weights: true,
        route_scale: 2.5,
    };
    let experts = |routing: &Routing| -> Vec<Vec<i64>> {
        let all: Vec<i64> = routing.choices.clone().into_data().iter().collect();
        let mut rows: Vec<Vec<i64>> = all.chunks(4).map(<[i64]>::to_vec).collect();
        rows.iter_mut().for_each(|row| row.sort_unstable());
        rows
    };
    let third = settings(Score::Sigmoid, GroupScore::TopTwo).answer(logits.clone(), bias.clone(), 4, &ctx);
    assert_eq!(serde_json::json!(experts(&third)), golden["v3_index_sorted"]);
    near("weights", combine(&third), &golden["v3_weight"]);
    let second = settings(Score::Softmax, GroupScore::Max).answer(logits, bias.zeros_like(), 4, &ctx);
    assert_eq!(serde_json::json!(experts(&second)), golden["v2_index_sorted"]);
}

/// A top-2 routing with softmax scores that are not divided by their sum.
fn top_two(logits: Tensor<2>, ctx: &Context) -> Routing {
    let scores = scores(logits.clone(), Score::Softmax);
    let [_, n_experts] = logits.dims();
    let choices = choose(scores.clone(), Tensor::zeros([n_experts], &Device::flex()), ctx.valid.flags(), 2);
    let weights = scores.clone().gather(1, choices.clone().clamp_min(0)) * ctx.valid.column();
    let unbiased: Tensor<2, Int> = choices.clone();
    Routing {
        choices,
        unbiased,
        weights,
        logits,
        scores,
        is_distribution: true,
        n_counted: 2,
        likelihood: None,
    }
}

#[test]
fn full_experts_drop_by_position_and_by_weight() {
    let golden = read(include_str!("../data/golden/capacity_drop.json"));
    let mut logits = input(&golden["logits"]);
    logits.iter_mut().skip(1).step_by(4).for_each(|z| *z += 0.7);
    let ctx = context(8, 0, Mode::Train);
    for case in golden["cases"].as_array().expect("cases") {
        for (policy, name) in [(Policy::Position, "kept_position"), (Policy::Probs, "kept_probs")] {
            let factor = case["factor"].as_f64().expect("a number");
            let settings = CapacitySettings { factor, min: 0, policy, ..CapacitySettings::default() };
            let slots = settings.slots(true, 8, 2, 4).expect("fewer than tokens");
            assert_eq!(case["capacity"], slots);
            let routing = top_two(tensor(&logits, [8, 4], &autodiff()), &ctx);
            let kept = settings.drop(routing, 2, "moe", &ctx);
            let found: Vec<f32> = host(combine(&kept)).iter().map(|&w| f32::from(w > 0.0)).collect();
            assert_eq!(found, flat(&case[name]), "{factor} {name}");
        }
    }
}

/// Assignments for each kind of router, and whether it is causal.
pub const KINDS: &[(&[&str], bool)] = &[
    (&["moe.router.kind=top_k"], true),
    (&["moe.router.kind=group_limited", "moe.router.group_limited.kept_groups=2"], true),
    (&["moe.router.kind=switch", "moe.balance.bias_rate=0", "moe.top_k=1"], true),
    (&["moe.router.kind=gshard", "moe.balance.bias_rate=0"], true),
    (&["moe.router.kind=noisy_top_k", "moe.balance.bias_rate=0"], true),
    (&["moe.router.kind=hierarchical", "moe.balance.bias_rate=0"], true),
    (
        &[
            "moe.router.kind=expert_choice",
            "moe.balance.bias_rate=0",
            "moe.router.expert_choice.allow_noncausal=true",
        ],
        false,
    ),
];

pub fn model_of(kind: &[&str], more: &[&str]) -> ModelConfig {
    let base = ["moe.experts=8", "model.d_model=12", "model.init_std=0.3"];
    run_config(&[&base[..], kind, more].concat()).model(VOCAB, SEQ)
}

/// The choices and weights of a router for these inputs, `[tokens, d_model]`, and the output of its layer.
fn routed(config: &ModelConfig, x: &[f32], ctx: &Context) -> (Vec<i64>, Vec<f32>, Vec<f32>) {
    let layer = MoeLayer::new(config, 0, 1.0, "layer", &Init::new(5, 0.5, &autodiff()));
    let x = tensor(x, [x.len() / config.d_model, config.d_model], &autodiff());
    let routing = layer.router().route(x.clone(), ctx);
    let (y, _) = layer.forward(x, ctx);
    (routing.choices.into_data().iter().collect(), host(routing.weights), host(y))
}

#[test]
fn every_router_learns_and_leaves_padding_alone() {
    for (kind, is_causal) in KINDS {
        let config = model_of(kind, &[]);
        for mode in [Mode::Train, Mode::Eval] {
            let ctx = context(9, 3, mode);
            let x = noise(2, 12 * config.d_model);
            let (choices, weights, y) = routed(&config, &x, &ctx);
            let k = choices.len() / 12;
            assert!(choices.iter().all(|e| (-1..8).contains(e)), "{kind:?}: {choices:?}");
            assert!(choices[9 * k..].iter().all(|e| *e == -1), "{kind:?}: {choices:?}");
            for (row, weights) in choices.chunks(k).zip(weights.chunks(k)) {
                let mut made: Vec<i64> = row.iter().copied().filter(|e| *e >= 0).collect();
                made.sort_unstable();
                made.dedup();
                assert_eq!(made.len(), row.iter().filter(|e| **e >= 0).count(), "{kind:?}: twice in {row:?}");
                let none = row.iter().zip(weights).filter(|(e, _)| **e < 0).all(|(_, w)| *w == 0.0);
                assert!(none && weights.iter().all(|w| w.is_finite() && *w >= 0.0), "{kind:?} {weights:?}");
            }
            // The contents of padding change nothing.
            let mut wild = x.clone();
            wild[9 * config.d_model..].iter_mut().for_each(|value| *value = 50.0);
            assert_eq!(
                routed(&config, &wild, &ctx).2[..9 * config.d_model],
                y[..9 * config.d_model],
                "{kind:?}"
            );
            // Later tokens do not change earlier results.
            let mut later = x.clone();
            later[6 * config.d_model..9 * config.d_model].iter_mut().for_each(|value| *value *= -7.0);
            let same = routed(&config, &later, &ctx).2[..6 * config.d_model] == y[..6 * config.d_model];
            assert_eq!(same, *is_causal, "{kind:?}");
        }
        let (mut state, step) = (state(&config), step_config(4, 3e-3));
        let losses: Vec<f64> = (0..40)
            .map(|_| train_step(&mut state, &batch(0, 4), &step).expect("finite").cross_entropy)
            .collect();
        assert!(losses[39] < losses[0] - 0.5, "{kind:?}: {losses:?}");
    }
}

#[test]
fn token_order_is_causal_and_rank_order_is_not() {
    let differs = |order: &str, policy: &str| {
        let capacity = [
            "moe.capacity.factor=0.5".to_string(),
            "moe.capacity.eval_factor=0.5".to_string(),
            "moe.capacity.min=0".to_string(),
            format!("moe.capacity.order={order}"),
            format!("moe.capacity.policy={policy}"),
        ];
        let config = model_of(KINDS[0].0, &capacity.each_ref().map(String::as_str));
        let ctx = context(12, 0, Mode::Eval);
        (0..20).any(|seed| {
            let x = noise(seed, 12 * config.d_model);
            let mut later = x.clone();
            later[8 * config.d_model..].iter_mut().for_each(|value| *value *= -7.0);
            let [a, b] = [x, later].map(|x| routed(&config, &x, &ctx).2);
            a[..8 * config.d_model] != b[..8 * config.d_model]
        })
    };
    assert!(!differs("token", "position"));
    assert!(differs("rank", "position") && differs("token", "probs"));
}

#[test]
fn expert_choice_is_not_causal_and_must_be_asked_for() {
    let (mut values, mut problems) = (moe_train::config::Values::default(), Vec::new());
    values.read_assignment("moe.router.kind=expert_choice", &mut problems);
    let error = moe_train::config::RunConfig::new(values, problems).expect_err("refused").to_string();
    assert!(error.contains("allow_noncausal"), "{error}");
}

#[test]
fn contradictions_of_routers_are_refused_with_the_reason() {
    let cases: [(&[&str], &str); 10] = [
        (&["moe.balance.quantile=true", "moe.balance.bias_rate=0.1"], "leave one of them off"),
        (&["moe.balance.quantile=true", "moe.router.kind=gshard"], "sets a logit bias"),
        (&["moe.router.kind=switch"], "expected moe.top_k = 1, found 2"),
        (&["moe.router.kind=gshard", "moe.top_k=3"], "expected moe.top_k = 2, found 3"),
        (&["moe.router.kind=gshard", "moe.balance.bias_rate=0.1"], "has no selection bias"),
        (&["moe.balance.load=0.1"], "noisy_top_k"),
        (
            &["moe.router.kind=hierarchical", "moe.balance.bias_rate=0", "moe.balance.orthogonality=0.1"],
            "compares the columns of one matrix",
        ),
        (&["moe.router.kind=noisy_top_k", "moe.top_k=8"], "less than moe.experts = 8"),
        (
            &["moe.router.kind=hierarchical", "moe.router.hierarchical.groups=3"],
            "does not divide moe.experts = 8",
        ),
        (
            &["moe.router.kind=group_limited", "moe.router.group_limited.kept_groups=5"],
            "more than its groups = 4",
        ),
    ];
    for (assignments, expected) in cases {
        let (mut values, mut problems) = (moe_train::config::Values::default(), Vec::new());
        assignments.iter().for_each(|assignment| values.read_assignment(assignment, &mut problems));
        let error = moe_train::config::RunConfig::new(values, problems).expect_err("refused").to_string();
        assert!(error.contains(expected), "{assignments:?}: {error}");
    }
}

#[test]
fn importance_and_load_do_not_depend_on_the_micro_batch() {
    let mut config = model_of(&["moe.router.kind=noisy_top_k", "moe.balance.bias_rate=0"], &[]);
    config.moe.balance.importance.importance = 3.0;
    config.moe.balance.likely_load.load = 3.0;
    let run = |micro_batch: usize| {
        let (mut state, step) = (state(&config), step_config(micro_batch, 1e-2));
        // The first step moves the router away from zero.
        let reports: Vec<_> =
            (0..3).map(|t| train_step(&mut state, &batch(8 * t, 8), &step).expect("finite")).collect();
        let last = reports.last().expect("steps");
        let loss = |name: &str| last.routers[0].1.loss(name).expect("on");
        [last.grad_norm, loss("importance"), loss("likely_load")]
    };
    let whole = run(8);
    assert!(whole.iter().all(|value| *value > 1e-4), "{whole:?}");
    for micro_batch in [1, 3] {
        let split = run(micro_batch);
        for (a, b) in whole.iter().zip(split) {
            assert!((a - b).abs() < 2e-4 * a, "{micro_batch}: {whole:?} {split:?}");
        }
    }
}

#[test]
fn dropped_choices_are_counted_and_lose_nothing_else() {
    let config = model_of(KINDS[0].0, &["moe.capacity.factor=0.5", "moe.capacity.min=0"]);
    let report = train_step(&mut state(&config), &batch(0, 4), &step_config(4, 1e-3)).expect("finite");
    let stats = &report.routers[0].1;
    let sent = stats.load.iter().sum::<u64>();
    assert_eq!(sent + stats.n_dropped, 2 * stats.n_tokens);
    let slots = config.moe.capacity.slots(true, stats.n_tokens as usize, 2, 8).expect("fewer") as u64;
    assert!(stats.n_dropped > 0 && stats.load.iter().all(|n| *n <= slots), "{:?} of {slots}", stats.load);
}

#[test]
fn experts_of_squared_relu_gates_of_shared_ones_and_dropout_do_what_they_say() {
    let config = model_of(KINDS[0].0, &["moe.expert_activation=relu2", "moe.shared_gate=true"]);
    let layer = MoeLayer::new(&config, 0, 1.0, "layer", &Init::new(5, 0.5, &autodiff()));
    let (x, ctx) = (noise(2, 9 * config.d_model), context(9, 0, Mode::Train));
    let (choices, weights, y) = routed(&config, &x, &ctx);
    let weights_of = layer.experts().weights();
    assert!(weights_of.gate.is_none());
    let (up, down) = (host(weights_of.up), host(weights_of.down));
    let (d, f) = (config.d_model, config.moe.expert_ffn);
    // The routed part by loops; the shared part is halved by its gate of one half.
    let no_shared = model_of(KINDS[0].0, &["moe.expert_activation=relu2", "moe.shared=0"]);
    let alone = routed(&no_shared, &x, &ctx).2;
    for t in 0..9 {
        let mut expected = vec![0.0f32; d];
        for j in 0..2 {
            let expert = choices[2 * t + j] as usize;
            for h in 0..f {
                let z: f32 = (0..d).map(|i| x[t * d + i] * up[(expert * d + i) * f + h]).sum();
                let value = z.max(0.0).powi(2) * weights[2 * t + j];
                (0..d).for_each(|i| expected[i] += value * down[(expert * f + h) * d + i]);
            }
        }
        assert!(distance(&alone[t * d..(t + 1) * d], &expected) < 1e-4, "token {t}");
    }
    let gates: Vec<f32> = y.iter().zip(&alone).map(|(all, routed)| all - routed).collect();
    let ungated = model_of(KINDS[0].0, &["moe.expert_activation=relu2"]);
    let full: Vec<f32> =
        routed(&ungated, &x, &ctx).2.iter().zip(&alone).map(|(all, routed)| all - routed).collect();
    for t in 0..9 {
        let ratio = |i: usize| gates[t * d + i] / full[t * d + i];
        let best =
            (0..d).max_by(|&a, &b| full[t * d + a].abs().total_cmp(&full[t * d + b].abs())).expect("d");
        let gate = ratio(best);
        assert!((0.0..1.0).contains(&gate), "token {t}: {gate}");
        (0..d).for_each(|i| assert!((gates[t * d + i] - gate * full[t * d + i]).abs() < 1e-4, "token {t}"));
    }

    let dropped = model_of(KINDS[0].0, &["moe.expert_dropout=0.5", "moe.shared=0"]);
    let plain = model_of(KINDS[0].0, &["moe.shared=0"]);
    let eval = context(9, 0, Mode::Eval);
    assert_eq!(routed(&dropped, &x, &eval).2, routed(&plain, &x, &eval).2);
    assert_ne!(routed(&dropped, &x, &ctx).2, routed(&plain, &x, &ctx).2);
    // Over many steps its mean is the same as without.
    let n = 600;
    let mut mean = vec![0.0f32; 9 * d];
    for step in 0..n {
        let mut ctx = ctx.clone();
        ctx.pass.step = step;
        mean.iter_mut().zip(routed(&dropped, &x, &ctx).2).for_each(|(sum, y)| *sum += y / n as f32);
    }
    let expected = routed(&plain, &x, &ctx).2;
    let size = expected.iter().map(|y| y.abs()).fold(0.0, f32::max);
    assert!(distance(&mean, &expected) < 0.25 * size, "{} of {size}", distance(&mean, &expected));
    // The micro-batch changes no draw.
    let loss = |micro_batch: usize| {
        let report = train_step(&mut state(&dropped), &batch(0, 4), &step_config(micro_batch, 1e-3));
        report.expect("finite").cross_entropy
    };
    assert!((loss(4) - loss(1)).abs() < 1e-5, "{} {}", loss(4), loss(1));
}

#[test]
fn quantiles_set_the_bias_of_the_reference() {
    let golden = read(include_str!("../data/golden/quantile_balancing.json"));
    let (quantile, ctx) = (Quantile { quantile: true }, context(16, 0, Mode::Train));
    let mut bias = Tensor::<1>::zeros([4], &Device::flex());
    for step in golden["steps"].as_array().expect("steps") {
        let mut logits = input(&step["logits"]);
        logits.iter_mut().step_by(4).for_each(|z| *z += 0.8);
        near("bias before", bias.clone(), &step["grug_bias_in"]);
        let (mut counts, mut sum) = (vec![0i64; 4], Tensor::<1>::zeros([4], &Device::flex()));
        for micro in logits.chunks(64) {
            let logits = tensor(micro, [16, 4], &Device::flex());
            let biased = logits.clone() + bias.clone().reshape([1, 4]);
            let routing = Routing { logits, ..top_two(biased, &ctx) };
            for choice in routing.choices.clone().into_data().iter::<i64>() {
                counts[choice as usize] += 1;
            }
            let statistic = quantile.statistic(&Routed::new(routing, 0, &ctx), bias.clone());
            // The context is of half of the batch.
            sum = sum + statistic.expect("on") * 0.5;
        }
        assert_eq!(serde_json::json!(counts), step["grug_counts"]);
        near("quantile", sum.clone(), &step["grug_beta"]);
        bias = quantile.next_bias(bias, Tensor::zeros([4], &Device::flex()), Some(sum)).expect("on");
    }
    near("bias after", bias, &golden["steps"][2]["grug_bias_out"]);
}

#[test]
fn quantile_balancing_evens_the_load() {
    let violation = |quantile: bool| {
        let switch = format!("moe.balance.quantile={quantile}");
        let config = model_of(&["moe.balance.bias_rate=0"], &[&switch, "moe.router.score=softmax"]);
        let (mut state, step) = (state(&config), step_config(4, 1e-3));
        let last = (0..30).map(|_| train_step(&mut state, &batch(0, 8), &step).expect("finite")).last();
        last.expect("steps").routers[0].1.summary().max_violation
    };
    let (with, without) = (violation(true), violation(false));
    assert!(with < 0.3 && with < without / 2.0, "{with} {without}");
}
