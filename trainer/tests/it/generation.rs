//! Models that read a text token by token.

use burn::tensor::{Device, Tensor};
use moe_train::model::config::ModelConfig;
use moe_train::model::{Input, Model};
use moe_train::ops::plainly;

use crate::attention::{KINDS, model_of};
use crate::support::*;

/// Hidden states of a document, for all tokens at once and in several parts.
fn read_in_two_ways(config: &ModelConfig, cuts: &[usize]) -> [Vec<f32>; 2] {
    let device = Device::flex();
    let model = Model::new(config, 1, &device);
    let n = cuts.iter().sum::<usize>();
    let tokens: Vec<u32> = (0..n).map(|i| (1 + i * i % (VOCAB - 1)) as u32).collect();
    let input = |from: usize, len: usize| {
        let positions: Vec<u32> = (from as u32..(from + len) as u32).collect();
        Input::new(&tokens[from..from + len], &positions, &vec![0; len], [1, len], &device)
    };
    let whole = input(0, n);
    let whole = model.forward(&whole, &model.eval_context(&whole)).hidden;
    let (mut caches, mut at, mut parts) = (model.caches(), 0, Vec::new());
    for &len in cuts {
        parts.push(model.extend(&input(at, len), &mut caches));
        at += len;
    }
    [whole, Tensor::cat(parts, 0)].map(|hidden| host(hidden.matmul(model.head())))
}

#[test]
fn tokens_that_follow_have_the_logits_of_the_whole_document() {
    // A prompt of 5 tokens, then one by one, and once three at a time.
    let cuts = [&[5, 1, 1, 3][..], &[1; 13]].concat();
    let check = |name: &str, config: &ModelConfig| {
        let config = ModelConfig { seq_len: 23, ..config.clone() };
        assert_eq!(config.sees_later_tokens(), None, "{name}");
        let [whole, parts] = read_in_two_ways(&config, &cuts);
        assert!(whole.iter().any(|value| value.abs() > 0.1), "{name}");
        let far = distance(&whole, &parts);
        assert!(far < 1e-5, "{name}: {far}");
    };
    for assignments in KINDS {
        let config = model_of(&[assignments, &[]]);
        check(&format!("{assignments:?}"), &config);
        plainly(|| check(&format!("{assignments:?}, plainly"), &config));
    }
    check("a pattern", &model_of(&[KINDS[7], KINDS[KINDS.len() - 2], KINDS[10], KINDS[13], &[]]));
    for (router, is_causal) in crate::routers::KINDS {
        let config = crate::routers::model_of(router, &[]);
        assert_eq!(config.sees_later_tokens().is_none(), *is_causal, "{router:?}");
        if *is_causal {
            check(&format!("{router:?}"), &config);
        }
    }
    let capacity = crate::routers::model_of(&[], &["moe.capacity.eval_factor=1.5"]);
    assert!(capacity.sees_later_tokens().is_some_and(|reason| reason.contains("moe.capacity.eval_factor")));
}

#[test]
fn stretched_positions_are_another_model() {
    let latent = ["attention.kind=mla", "attention.mla.rope_dim=8"];
    for kind in [&[][..], &latent, &["attention.kind=nsa"]] {
        let of = |scaling: &[&str]| {
            let config = run_config(&[kind, scaling].concat()).model(VOCAB, SEQ);
            read_in_two_ways(&config, &[SEQ])[0].clone()
        };
        let factor = "attention.rope.factor=8";
        let ntk = of(&["attention.rope.scaling=ntk", factor]);
        let yarn = of(&["attention.rope.scaling=yarn", factor, "attention.rope.original=20"]);
        let plain = of(&[]);
        for (a, b) in [(&plain, &ntk), (&plain, &yarn), (&ntk, &yarn)] {
            assert!(distance(a, b) > 1e-6, "{kind:?}");
        }
    }
}
