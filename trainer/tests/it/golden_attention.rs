//! Numbers of published implementations of attention. Weights of theirs are `[out, in]`.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use moe_train::model::attention::Place;
use moe_train::ops::plainly;

use crate::attention::{PLACE, context, gradients, kind, layer};
use crate::golden::{flat, input, read};
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
    let place = Place { d_model: d, norm_eps: 1e-6, out_scale: 1.0 };
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
    // Each head has 8 rows of queries and then 8 of gates; norms are stored less one.
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
