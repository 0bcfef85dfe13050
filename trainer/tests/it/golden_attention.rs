//! Numbers of published implementations of attention. Their weights are `[out, in]`.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softplus};
use moe_train::model::attention::Place;
use moe_train::model::rope::Stretch;
use moe_train::ops::attention::{Scoring, by_head, by_token};
use moe_train::ops::delta_rule::{DeltaInput, gated_delta_rule};
use moe_train::ops::native_sparse::{Branches, sparse_attention};
use moe_train::ops::plainly;
use moe_train::ops::short_conv::short_conv;
use serde_json::Value;

use crate::attention::{PLACE, context, gradients, kind, layer, stretched_context};
use crate::golden::{flat, h, input, read};
use crate::support::*;

/// A matrix that is given by the rows of its transpose.
fn columns(rows: &[&[f32]]) -> Vec<f32> {
    (0..rows[0].len()).flat_map(|i| rows.iter().map(move |row| row[i])).collect()
}

fn rows(values: &[f32], width: usize) -> Vec<&[f32]> {
    values.chunks(width).collect()
}

fn near(what: &str, found: &[f32], expected: &[f32], most: f32) {
    assert!(expected.iter().any(|e| e.abs() > 1e-3), "{what}: all zero proves nothing");
    let far = distance(found, expected);
    assert!(far < most, "{what} is off by {far}");
}

fn leaf(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
    tensor(values, shape, &autodiff()).require_grad()
}

fn both(check: impl Fn()) {
    check();
    plainly(check);
}

#[test]
fn normed_windowed_and_sunk_attention_is_that_of_gpt_oss() {
    let golden = read(include_str!("../data/golden/gqa_qknorm_swa_sinks.json"));
    let [q, k, v] = ["q", "k", "v"].map(|name| input(&golden[name]));
    // Each of 9 tokens finds its queries, keys and values in its row of the weights.
    let (tokens, dim, d) = (9, 6, 24);
    let mut w_qkv = vec![0.0; d * 48];
    for t in 0..tokens {
        let heads = [(&q, 4), (&k, 2), (&v, 2)].into_iter().flat_map(|(x, n)| (0..n).map(move |h| (x, h)));
        for (column, (x, h)) in heads.enumerate() {
            let from = (h * tokens + t) * dim;
            w_qkv[t * 48 + column * dim..][..dim].copy_from_slice(&x[from..from + dim]);
        }
    }
    let identity = |n: usize| (0..n * d).map(|i| f32::from(u8::from(i / d == i % d))).collect::<Vec<f32>>();
    let give = BTreeMap::from([
        ("w_qkv", w_qkv),
        ("w_out", identity(d)),
        ("q_norm.weight", input(&golden["q_norm"])),
        ("k_norm.weight", input(&golden["k_norm"])),
        ("sinks", input(&golden["sinks"])),
    ]);
    let heads = ["attention.heads=4", "attention.head_dim=6", "attention.rope_theta=50"];
    let window = ["attention.kind=swa", "attention.swa.window=4"];
    let place = Place::new(d, 1e-6, 1.0);
    both(|| {
        for case in golden["cases"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            let mut assignments = heads.to_vec();
            assignments.push("attention.qk_norm=true");
            if name.contains("window") {
                assignments.extend(window);
            }
            if name.contains("sink") {
                assignments.push("attention.sinks=true");
            }
            let config = kind(&assignments);
            let layer = layer(&config, place, |name, _| give[name].clone());
            let cut = if name.contains("documents") { 5 } else { tokens };
            let segments: Vec<u32> = (0..tokens).map(|t| u32::from(t >= cut)).collect();
            let positions: Vec<u32> = (0..tokens as u32).collect();
            let y = layer
                .forward(leaf(&identity(tokens), [tokens, d]), &context(&config, &segments, &positions, 1));
            near(name, &host(y.clone()), &flat(&case["output"]), 1e-5);
            let coef = tensor(&input(&golden["coef"]), [tokens, d], &autodiff());
            let mut found = gradients(&layer, &(y * coef).sum().backward());
            let of_qkv = host(found.remove("w_qkv").expect("a gradient"));
            let mut from = 0;
            for (what, n) in [("grad_q", 4), ("grad_k", 2), ("grad_v", 2)] {
                let of = |h: usize, t: usize| of_qkv[t * 48 + from + h * dim..][..dim].to_vec();
                let own: Vec<f32> = (0..n)
                    .flat_map(|h| (0..tokens).flat_map(move |t| [(h, t)]))
                    .flat_map(|(h, t)| of(h, t))
                    .collect();
                near(&format!("{what} of {name}"), &own, &flat(&case[what]), 1e-5);
                from += n * dim;
            }
            if let Some(sinks) = found.remove("sinks") {
                near(&format!("sinks of {name}"), &host(sinks), &flat(&case["grad_sinks"]), 1e-5);
            }
        }
    });
}

#[test]
fn gated_attention_is_that_of_qwen3_next() {
    let golden = read(include_str!("../data/golden/gated_attention.json"));
    let of = |name: &str| input(&golden["weights"][name]);
    let [q, k, v, out] = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|name| of(&format!("{name}.weight")));
    // Each head has 8 rows of queries and then 8 of gates; norms are stored minus one.
    let (q, k, v) = (rows(&q, 12), rows(&k, 12), rows(&v, 12));
    let part = |gate: usize| [&q[8 * gate..8 * gate + 8], &q[16 + 8 * gate..24 + 8 * gate]].concat();
    let norm = |name: &str| of(name).into_iter().map(|w| 1.0 + w).collect::<Vec<f32>>();
    let head_gate = input(&golden["head_gate"]);
    let place = Place { norm_eps: 1e-6, ..PLACE };
    both(|| {
        for (gate, w_gate, output) in [
            ("channel", columns(&part(1)), "output"),
            ("head", columns(&rows(&head_gate, 12)), "headwise_output"),
        ] {
            let give = BTreeMap::from([
                ("w_qkv", columns(&[&part(0)[..], &k, &v].concat())),
                ("w_gate", w_gate),
                ("w_out", columns(&rows(&out, 16))),
                ("q_norm.weight", norm("q_norm.weight")),
                ("k_norm.weight", norm("k_norm.weight")),
            ]);
            let gate = format!("attention.gate={gate}");
            let heads = ["attention.heads=2", "attention.kv_heads=1", "attention.head_dim=8", &gate];
            let config = kind(
                &[
                    &heads[..],
                    &["attention.qk_norm=true", "attention.rotary_fraction=0.5", "attention.rope_theta=100"],
                ]
                .concat(),
            );
            let layer = layer(&config, place, |name, _| give[name].clone());
            let x = leaf(&input(&golden["x"]), [6, 12]);
            let y = layer.forward(x.clone(), &context(&config, &[0; 6], &[0, 1, 2, 3, 4, 5], 1));
            near(output, &host(y.clone()), &flat(&golden[output]), 1e-5);
            if output == "output" {
                let grads = (y * tensor(&input(&golden["coef"]), [6, 12], &autodiff())).sum().backward();
                near("grad_x", &host(x.grad(&grads).expect("x")), &flat(&golden["grad_x"]), 1e-5);
                let found = gradients(&layer, &grads);
                let (qkv, gate) =
                    (host(found["w_qkv"].clone().transpose()), host(found["w_gate"].clone().transpose()));
                let own = [&qkv[..96], &gate[..96], &qkv[96..192], &gate[96..]].concat();
                near("grad_q_proj", &own, &flat(&golden["grad_q_proj"]), 1e-5);
            }
        }
    });
}

#[test]
fn latent_attention_is_that_of_deepseek_v3() {
    let golden = read(include_str!("../data/golden/mla_tiny.json"));
    let check = |case: &Value| {
        let of = |name: &str| input(&case["weights"][format!("{name}.weight")]);
        let is_interleaved = case["rope_interleave"] == true;
        // Pairs side by side are pairs of our halves in another order of rows.
        let order: &[usize] = if is_interleaved { &[0, 2, 1, 3] } else { &[0, 1, 2, 3] };
        let permuted = |rows: Vec<&[f32]>, group: usize| {
            let all = rows.chunks(group).flat_map(|group| {
                let (nope, rope) = group.split_at(group.len() - 4);
                nope.iter()
                    .copied()
                    .chain(order.iter().map(|&i| rope[i]))
                    .map(<[f32]>::to_vec)
                    .collect::<Vec<_>>()
            });
            let all: Vec<Vec<f32>> = all.collect();
            columns(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };
        let has_low_rank = !case["q_lora_rank"].is_null();
        let (latent, kv, out) = (of("kv_a_proj_with_mqa"), of("kv_b_proj"), of("o_proj"));
        let mut give = BTreeMap::from([
            ("w_latent", permuted(rows(&latent, 16), 10)),
            ("kv_norm.weight", of("kv_a_layernorm")),
            ("w_kv", columns(&rows(&kv, 6))),
            ("w_out", columns(&rows(&out, 10))),
        ]);
        if has_low_rank {
            give.insert("w_q_latent", columns(&rows(&of("q_a_proj"), 16)));
            give.insert("q_norm.weight", of("q_a_layernorm"));
            give.insert("w_q", permuted(rows(&of("q_b_proj"), 8), 10));
        } else {
            give.insert("w_q", permuted(rows(&of("q_proj"), 16), 10));
        }
        let mut assignments: Vec<String> =
            ["heads=2", "kv_rank=6", "nope_dim=6", "rope_dim=4", "value_dim=5", "rope_theta=100"]
                .map(|assignment| format!("attention.mla.{assignment}"))
                .to_vec();
        assignments.push("attention.kind=mla".into());
        if has_low_rank {
            assignments.push("attention.mla.q_rank=8".into());
        }
        let config = kind(&assignments.iter().map(String::as_str).collect::<Vec<_>>());
        // If scores are sharper than the root of the width, positions are stretched to 4 times 16 tokens.
        let is_stretched = case["scaling"].as_f64().is_some_and(|scale| scale > 0.32);
        let stretch = is_stretched.then_some(Stretch::Yarn { factor: 4.0, original: 16 });
        let place = Place { d_model: 16, stretch, ..PLACE };
        let layer = layer(&config, place, |name, _| give[name].clone());
        let x = leaf(&input(&case["x"]), [7, 16]);
        let y = layer
            .forward(x.clone(), &stretched_context(&config, &[0; 7], &[0, 1, 2, 3, 4, 5, 6], 1, stretch));
        near("output", &host(y.clone()), &flat(&case["output"]), 1e-5);
        let grads = (y * tensor(&input(&case["coef"]), [7, 16], &autodiff())).sum().backward();
        near("grad_x", &host(x.grad(&grads).expect("x")), &flat(&case["grad_x"]), 1e-5);
        let found = host(gradients(&layer, &grads)["w_latent"].clone().transpose());
        let mut own = found.clone();
        for (ours, &theirs) in order.iter().enumerate() {
            own[(6 + theirs) * 16..(7 + theirs) * 16]
                .copy_from_slice(&found[(6 + ours) * 16..(7 + ours) * 16]);
        }
        near("grad_kv_a", &own, &flat(&case["grad_kv_a"]), 1e-5);
    };
    both(|| golden["cases"].as_array().expect("cases").iter().for_each(check));
}

/// Positions at which the documents of 8 and 4 tokens of a golden file begin.
const STARTS: [usize; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8];

/// Two heads of 12 tokens, divided by their length.
fn unit(x: Tensor<2>) -> Tensor<4> {
    let x = by_head(x, 12, 2);
    let square = (x.clone() * x.clone()).sum_dim(3);
    x / (square + 1e-6).sqrt()
}

#[test]
fn the_delta_rule_is_that_of_kimi_linear() {
    let golden = read(include_str!("../data/golden/kda_two_documents.json"));
    let of = |name: &str, width: usize| leaf(&input(&golden[name]), [12, width]);
    let [q, k, v, f, b] =
        [("q", 8), ("k", 8), ("v", 6), ("f", 8), ("b", 2)].map(|(name, width)| of(name, width));
    let (a_log, dt_bias) = (leaf(&input(&golden["a_log"]), [1, 2]), leaf(&input(&golden["dt_bias"]), [1, 8]));
    let step = softplus(f.clone() + dt_bias.clone(), 1.0);
    let decay = by_head(step, 12, 2) * a_log.clone().exp().neg().reshape([1, 2, 1, 1]);
    near("g", &host(by_token(decay.clone())), &flat(&golden["g"]), 1e-5);
    let rule = DeltaInput {
        query: unit(q.clone()) * 0.5,
        key: unit(k.clone()),
        value: by_head(v.clone(), 12, 2),
        decay,
        beta: by_head(sigmoid(b.clone()), 12, 2),
    };
    let y = by_token(gated_delta_rule(rule.clone(), &STARTS));
    near("output", &host(y.clone()), &flat(&golden["output"]), 1e-5);
    let leaky = by_token(gated_delta_rule(rule, &[0; 12])).narrow(0, 8, 1);
    near("no reset", &host(leaky), &flat(&golden["first_output_of_document_2_without_reset"]), 1e-5);
    let grads = (y * of("coef", 6).detach()).sum().backward();
    let inputs = [("q", q), ("k", k), ("v", v), ("f", f), ("b", b)];
    for (name, x) in inputs {
        near(name, &host(x.grad(&grads).expect("tracked")), &flat(&golden["grad"][name]), 1e-5);
    }
    for (name, x) in [("grad_a_log", a_log), ("grad_dt_bias", dt_bias)] {
        near(name, &host(x.grad(&grads).expect("tracked")), &flat(&golden[name]), 1e-5);
    }
}

#[test]
fn one_decay_for_each_head_is_a_gated_delta_network() {
    let golden = read(include_str!("../data/golden/gated_delta_net.json"));
    let of = |name: &str, width: usize| leaf(&input(&golden[name]), [12, width]);
    let of_seed =
        |seed: u64| tensor(&(0..24).map(|i| h(seed, i) as f32).collect::<Vec<_>>(), [12, 2], &autodiff());
    let rule = DeltaInput {
        query: unit(of("q", 8)) * 0.5,
        key: unit(of("k", 8)),
        value: by_head(of("v", 6), 12, 2),
        decay: by_head(softplus(of_seed(124), 1.0).neg(), 12, 2).expand([1, 2, 12, 4]),
        beta: by_head(sigmoid(of_seed(125)), 12, 2),
    };
    let y = by_token(gated_delta_rule(rule, &[0; 12]));
    near("output", &host(y), &flat(&golden["output"]), 1e-5);
}

#[test]
fn short_convolutions_begin_with_the_document() {
    let golden = read(include_str!("../data/golden/short_conv.json"));
    let x = leaf(&input(&golden["x"]), [12, 5]);
    let weight = tensor(&input(&golden["weight"]), [20], &autodiff());
    let y = short_conv(x.clone(), weight, &STARTS, 12);
    near("output", &host(y.clone()), &flat(&golden["output"]), 1e-5);
    let grads = (y * leaf(&input(&golden["coef"]), [12, 5]).detach()).sum().backward();
    near("grad_x", &host(x.grad(&grads).expect("tracked")), &flat(&golden["grad_x"]), 1e-5);
}

#[test]
fn sparse_attention_is_that_of_its_reference() {
    let golden = read(include_str!("../data/golden/nsa_tiny.json"));
    let of = |name: &str, heads: usize| leaf(&input(&golden[name]), [18, 4 * heads]);
    let [q, k, v] = [("q", 4), ("k", 2), ("v", 2)].map(|(name, heads)| of(name, heads));
    let gates: Vec<f32> = (0..18 * 4 * 3).map(|i| h(134, i) as f32).collect();
    let gates = by_head(sigmoid(tensor(&gates, [18, 12], &autodiff())), 18, 4);
    let branches = Branches { block: 4, selected: 2, window: 5 };
    both(|| {
        let parts = [(&q, 4), (&k, 2), (&v, 2)].map(|(x, heads)| by_head(x.clone(), 18, heads));
        let scoring = Scoring::scaled(0.5, 1024);
        let y = by_token(sparse_attention(parts, gates.clone(), &[0; 18], branches, &scoring));
        near("output", &host(y.clone()), &flat(&golden["output"]), 1e-5);
        let grads = (y * of("coef", 4).detach()).sum().backward();
        for (name, x) in [("grad_q", &q), ("grad_k", &k), ("grad_v", &v)] {
            near(name, &host(x.grad(&grads).expect("tracked")), &flat(&golden[name]), 1e-5);
        }
    });
}
