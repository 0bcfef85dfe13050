use serde_json::Value;

use crate::program::{World, json, stderr};

#[test]
fn a_run_begins_with_the_weights_of_another_one() {
    let world = World::new();
    let base = json(&world.train("runs/base", &["--set", "schedule.warmup_tokens=64"]));
    let from =
        |more: &[&str]| world.run(&[&["--from", "runs/base", "--shards", "out", "--json"], more].concat());
    let hash = |found: &Value| found["parameter_hash"].as_str().expect("a hash").to_owned();

    // Saved before its first step, it has the parameters of the other one at step 0.
    let set = ["--set", "optim.lr=1e-3", "--set", "run.seed=9", "--set", "schedule.warmup_tokens=32"];
    let started = from(&[&["--run", "runs/tuned", "--steps", "3", "--stop-after", "1"][..], &set].concat());
    assert_eq!(started.status.code(), Some(0), "{}", stderr(&started));
    let first = world.path("runs/tuned/checkpoints/step-00000000");
    let inspected = json(&world.run(&["inspect", first.to_str().expect("UTF-8"), "--json"]));
    assert_eq!((hash(&inspected["state"]), &inspected["state"]["step"]), (hash(&base), &0.into()));
    assert_eq!(inspected["state"]["t"], 0);
    let parent: Value =
        serde_json::from_slice(&std::fs::read(world.path("runs/tuned/parent.json")).expect("a file"))
            .expect("JSON");
    assert_eq!((hash(&parent), parent["kind"].as_str()), (hash(&base), Some("weights")));
    let differences = parent["differences"].as_array().expect("a list");
    let has =
        |key: &str| differences.iter().any(|line| line.as_str().is_some_and(|line| line.starts_with(key)));
    assert!(has("optim.lr: ") && has("run.seed: "), "{parent}");

    // Resumed, it equals the uninterrupted run, bit for bit.
    let resumed = json(&world.run(&["resume", "runs/tuned", "--json"]));
    let whole = json(&from(&[&["--run", "runs/whole", "--steps", "3"][..], &set].concat()));
    assert_eq!((hash(&resumed), &resumed["step"]), (hash(&whole), &3.into()));
    assert_ne!(hash(&whole), hash(&base));

    for (more, problem) in [
        (
            &["--run", "runs/other", "--set", "moe.expert_ffn=20"][..],
            "the model is that of the run whose weights it uses",
        ),
        (&["--run", "runs/tuned"], "exists"),
        (&["--run", "runs/base/inside"], "--run runs/base/inside: is inside the original run"),
        (&["--run", "runs/other", "--set", "optim.lrr=1"], "optim.lrr"),
    ] {
        let refused = from(more);
        assert!(
            refused.status.code() != Some(0) && stderr(&refused).contains(problem),
            "{}",
            stderr(&refused)
        );
        assert!(!world.path("runs/other").exists());
    }
    let without_folder = from(&[]);
    assert!(without_folder.status.code() == Some(2) && stderr(&without_folder).contains("--run"));
}
