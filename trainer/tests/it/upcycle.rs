use burn::tensor::Device;
use moe_train::export::apart;
use moe_train::model::parameters::parameters;
use moe_train::model::{Model, ModelConfig};
use moe_train::upcycle::Upcycling;

use crate::program::{World, json, stderr};
use crate::support::*;

/// A dense model, and a mixture of 8 experts to replace it.
fn both(granularity: usize, score: &str) -> (ModelConfig, Model, ModelConfig) {
    let dense = run_config(&["model.dense_layers=2"]).model(VOCAB, SEQ);
    let (experts, ffn, k) = ("moe.experts=8", 10 / granularity, 2 * granularity);
    let (ffn, k) = (format!("moe.expert_ffn={ffn}"), format!("moe.top_k={k}"));
    let score = format!("moe.router.score={score}");
    let keys =
        ["model.dense_layers=0", experts, &ffn, &k, "moe.shared=0", &score, "moe.router.route_scale=2.5"];
    let mixture = run_config(&keys).model(VOCAB, SEQ);
    let model = Model::new(&ModelConfig { init_std: 0.3, ..dense.clone() }, 3, &Device::flex());
    (dense, model, mixture)
}

#[test]
fn the_mixture_computes_what_the_dense_model_did() {
    for granularity in [1, 2] {
        for score in ["sigmoid", "softmax"] {
            let (dense, model, mixture) = both(granularity, score);
            let how = Upcycling { granularity, redraw: 0.0 };
            let upcycled = how.apply((&dense, &model), &mixture, 7, &autodiff()).expect("upcycled");
            let far = apart(&model, &upcycled, SEQ, VOCAB).expect("logits").max;
            assert!(far < 1e-5, "granularity {granularity}, {score}: {far}");
            let experts = parameters(&upcycled).into_iter().find(|p| p.name.ends_with("experts.w_up"));
            assert_eq!(experts.expect("experts").shape, [8, 12, 10 / granularity]);
        }
    }
}

#[test]
fn channels_are_redrawn_in_all_three_matrices() {
    let (dense, model, mixture) = both(2, "sigmoid");
    let of = |redraw: f64| {
        let how = Upcycling { granularity: 2, redraw };
        parameters(&how.apply((&dense, &model), &mixture, 7, &Device::flex()).expect("upcycled"))
    };
    let changed = |matrix: &str| -> Vec<bool> {
        let values = |redraw| {
            let all: Vec<_> = of(redraw);
            all.iter()
                .find(|p| p.name == format!("blocks.0.feed_forward.experts.{matrix}"))
                .expect("it")
                .to_host()
        };
        let (old, new) = (values(0.0), values(0.5));
        // Experts, hidden channels, and the first number of each.
        let place = |e: usize, c: usize| if matrix == "w_down" { (e * 5 + c) * 12 } else { e * 12 * 5 + c };
        (0..40).map(|i| old[place(i / 5, i % 5)] != new[place(i / 5, i % 5)]).collect()
    };
    let gate = changed("w_gate");
    assert!((8..32).contains(&gate.iter().filter(|is| **is).count()), "{gate:?}");
    assert_eq!((changed("w_up"), changed("w_down")), (gate.clone(), gate));
    let norms = |parameters: Vec<_>| -> Vec<f32> {
        let is_norm = |p: &&moe_train::model::parameters::Parameter| p.name == "norm.weight";
        parameters.iter().find(is_norm).expect("a norm").to_host()
    };
    assert_eq!(norms(of(0.5)), norms(parameters(&model)));
}

#[test]
fn a_dense_run_becomes_a_mixture_and_can_be_trained() {
    let world = World::new();
    let dense = json(&world.train("runs/dense", &["--set", "model.dense_layers=2"]));
    let upcycle = |more: &[&str]| {
        let args = ["upcycle", "runs/dense", "--experts", "4", "--run", "runs/moe", "--json"];
        world.run(&[&args[..], more].concat())
    };
    for (more, problem) in [
        (
            &["--granularity", "3", "--top-k", "3"][..],
            "--granularity 3: does not divide model.dense_ffn = 16",
        ),
        (&["--granularity", "2", "--top-k", "3"], "moe.top_k = 3 is not a multiple of --granularity 2"),
        (&["--set", "moe.shared=1"], "moe.shared = 1: must be 0"),
        (&["--set", "moe.router.norm_weights=false"], "must be top_k with norm_weights = true"),
    ] {
        let refused = upcycle(more);
        assert!(
            refused.status.code() == Some(2) && stderr(&refused).contains(problem),
            "{}",
            stderr(&refused)
        );
    }
    assert!(!world.path("runs/moe").exists());
    let inside = world.run(&["upcycle", "runs/dense", "--experts", "4", "--run", "runs/dense/moe"]);
    assert!(stderr(&inside).contains("is inside the original run"), "{}", stderr(&inside));
    let made = upcycle(&["--granularity", "2"]);
    assert!(stderr(&made).contains("logits differ from the dense model's by at most"));
    assert_eq!(json(&made)["step"], 0);
    let evaluated = json(&world.run(&["eval", "runs/moe", "--shards", "out", "--samples", "4", "--json"]));
    let (was, is) = (dense["validation_ce"].as_f64(), evaluated["all"]["ce"].as_f64());
    assert!((was.expect("a loss") - is.expect("a loss")).abs() < 1e-5, "{was:?} {is:?}");
    let resumed = json(&world.run(&["resume", "runs/moe", "--json"]));
    assert!(resumed["validation_ce"].as_f64() < was, "{resumed}");
    let again = world.run(&["upcycle", "runs/moe", "--experts", "4", "--run", "runs/b"]);
    assert!(stderr(&again).contains("already has mixtures of experts"), "{}", stderr(&again));
}
