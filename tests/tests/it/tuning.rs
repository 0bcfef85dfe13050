use std::fs;

use e2e::succeed;
use serde_json::{Value, json};

use crate::resume::state;

const RECIPE: &str = "[[source]]\nname = \"talk\"\npaths = [\"talk.jsonl\"]\nchat = \"instruction\"\n\
                      [tokenizer]\ntrain = { vocab_size = 300, special_tokens = [\"<|im_start|>\", \"<|im_end|>\"] }\n\
                      [chat]\ntemplate = \"chatml\"\n";

/// From records to tuned weights: what is learnt are the answers, and a stop changes nothing.
#[test]
fn conversations_tune_a_run_and_a_stop_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let record =
        |n: usize| json!({ "instruction": format!("What follows {n}?"), "output": format!("{}.", n + 1) });
    let lines: String = (0..400).map(|n| format!("{}\n", record(n))).collect();
    fs::write(dir.path().join("talk.jsonl"), lines).unwrap();
    fs::write(dir.path().join("r.toml"), RECIPE).unwrap();
    succeed("moe-data", dir.path(), &["build", "--recipe", "r.toml"]);
    succeed("moe-data", dir.path(), &["mix", "--epochs", "2", "--seq-len", "64"]);
    let lock: Value = serde_json::from_slice(&fs::read(dir.path().join("out/plan.lock")).unwrap()).unwrap();
    let pool = &lock["pools"][0];

    let train = |more: &[&str]| {
        succeed(
            "moe-train",
            dir.path(),
            &[&["--shards", "out/"], more, &["--set", "run.save_every=4"]].concat(),
        );
    };
    train(&["--preset", "smoke", "--steps", "8", "--run", "runs/base"]);
    let said = succeed("moe-train", dir.path(), &["eval", "runs/base", "--shards", "out", "--json"]);
    let evaluated: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(evaluated["all"]["targets"], pool["validation"]["trained_tokens"]);

    let tuned = |run: &str| -> Vec<String> {
        let words = ["--from", "runs/base", "--steps", "8", "--set", "optim.lr=1e-3", "--run", run];
        words.map(str::to_owned).to_vec()
    };
    let with = |mut words: Vec<String>, more: &[&str]| {
        words.extend(more.iter().map(|word| (*word).to_owned()));
        train(&words.iter().map(String::as_str).collect::<Vec<_>>());
    };
    with(tuned("runs/whole"), &[]);
    with(tuned("runs/stopped"), &["--stop-after", "3"]);
    succeed("moe-train", dir.path(), &["resume", "runs/stopped"]);
    assert_eq!(state(dir.path(), "runs/stopped"), state(dir.path(), "runs/whole"));
    let parent: Value =
        serde_json::from_slice(&fs::read(dir.path().join("runs/whole/parent.json")).unwrap()).unwrap();
    assert_eq!(parent["parameter_hash"], state(dir.path(), "runs/base").0);
}
