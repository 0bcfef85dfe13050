use std::fs;
use std::path::Path;

use e2e::succeed;
use serde_json::{Value, json};

use crate::resume::state;

const RECIPE: &str = "[[source]]\nname = \"talk\"\npaths = [\"talk.jsonl\"]\nchat = \"instruction\"\n\
                      [tokenizer]\ntrain = { vocab_size = 300, special_tokens = [\"<|im_start|>\", \"<|im_end|>\"] }\n\
                      [chat]\ntemplate = \"chatml\"\neos_token = \"<|im_end|>\"\n";

/// What a program that opens an exported model needs to talk to it: the template of the data, with its tokens.
fn exports_carry_the_chat_template(dir: &Path) {
    let json = |path: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(path)).unwrap()).unwrap() };
    let template = fs::read(dir.join("out/chat_template.jinja")).unwrap();
    succeed("moe-train", dir, &["export", "runs/whole", "--to", "hf", "theirs"]);
    assert_eq!(fs::read(dir.join("theirs/chat_template.jinja")).unwrap(), template);
    assert_eq!(json("out/tokenizer_config.json"), json!({ "eos_token": "<|im_end|>" }));
    assert_eq!(json("theirs/tokenizer_config.json")["eos_token"], "<|im_end|>");
    assert_eq!(json("theirs/special_tokens_map.json")["eos_token"], "<|im_end|>");
    let added = json("out/tokenizer.json")["added_tokens"].clone();
    let id = |content: &str| -> Value {
        added.as_array().unwrap().iter().find(|token| token["content"] == content).unwrap()["id"].clone()
    };
    let eod = json("out/MANIFEST.json")["tokenizer"]["eod_id"].clone();
    assert_eq!(json("theirs/generation_config.json")["eos_token_id"], json!([eod, id("<|im_end|>")]));

    succeed("moe-train", dir, &["export", "runs/whole", "--to", "gguf", "theirs.gguf"]);
    let file = fs::read(dir.join("theirs.gguf")).unwrap();
    let holds = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
    let key = [b"tokenizer.chat_template\x08\0\0\0", &(template.len() as u64).to_le_bytes()[..], &template]
        .concat();
    assert!(holds(&key));
    let id = u32::try_from(id("<|im_end|>").as_u64().unwrap()).unwrap();
    assert!(holds(&[b"tokenizer.ggml.eot_token_id\x04\0\0\0", &id.to_le_bytes()[..]].concat()));

    // The folder serves the next build as well: no template is named, and the tokens are the same.
    let recipe = RECIPE.split("[tokenizer]").next().unwrap();
    let eod = "[tokenizer]\nfile = \"theirs/tokenizer.json\"\neod = \"<|endoftext|>\"\n";
    fs::write(dir.join("again.toml"), format!("{recipe}{eod}")).unwrap();
    succeed("moe-data", dir, &["build", "--recipe", "again.toml", "--out", "again"]);
    let shard = |out: &str| {
        let shard = &json(&format!("{out}/MANIFEST.json"))["shards"][0];
        ["bin_blake3", "n_tokens", "n_trained_tokens"].map(|key| shard[key].clone())
    };
    assert_eq!(shard("again"), shard("out"));
}

/// From records to tuned weights: only the answers are learned, and a stop changes nothing.
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
    exports_carry_the_chat_template(dir.path());
}
