use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::{command, fail, succeed};
use moe_shards::permute::mix64;
use moe_shards::{Hash, Plan, Sample};

use crate::resume::{kill_after_checkpoint, state};

/// Lines of JSON with made-up texts, different for every seed.
fn documents(name: &str, numbers: std::ops::Range<u64>) -> String {
    const WORDS: [&str; 16] = [
        "river", "stone", "light", "paper", "morning", "harbour", "engine", "letter", "window", "salt",
        "copper", "road", "village", "teacher", "machine", "forest",
    ];
    let seed = Hash::of(name.as_bytes()).0[0];
    let line = |n: u64| {
        let word = |i: u64| WORDS[(mix64(mix64(n ^ u64::from(seed) << 32) + i) % 16) as usize];
        let text: Vec<&str> = (0..70).map(word).collect();
        format!("{{\"id\":\"{name}-{n}\",\"text\":\"{} {name} {n}.\"}}\n", text.join(" "))
    };
    numbers.map(line).collect()
}

fn recipe(dir: &Path, file: &str, sources: &[(&str, &str)], tokenizer: &str) {
    let source = |(name, paths): &(&str, &str)| {
        format!("[[source]]\nname = \"{name}\"\npaths = [\"{paths}\"]\nid = \"id\"\n")
    };
    let sources: String = sources.iter().map(source).collect();
    fs::write(dir.join(file), format!("{sources}[tokenizer]\n{tokenizer}\n")).unwrap();
}

fn samples(dir: &Path, until: u64) -> Vec<Sample> {
    let plan = Plan::open(&dir.join("out")).unwrap();
    let sample = |t| {
        let mut sample = plan.sample(t).unwrap();
        // Shards are numbered in the manifest, which has new ones.
        sample.pieces.iter_mut().for_each(|piece| piece.shard = 0);
        sample
    };
    (0..until).map(sample).collect()
}

fn shards(dir: &Path, of: &str) -> BTreeMap<String, Hash> {
    let mut shards = e2e::digests(&dir.join("out/shards"));
    shards.retain(|name, _| name.starts_with(of));
    assert!(!shards.is_empty());
    shards
}

fn train(run: &str) -> Vec<&str> {
    let mut args = vec!["--shards", "out/", "--preset", "smoke", "--steps", "14", "--run", run];
    args.extend(["--set", "run.save_every=2", "--set", "run.eval_every=14", "--set", "data.batch=8"]);
    args
}

/// Adding a source used to change the digest of the recipe in every shard, and `mix --extend` refused them all.
#[test]
fn data_that_is_added_leaves_the_past_of_a_run_as_it_was_sample_for_sample() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    fs::write(dir.join("a.jsonl"), documents("a", 0..80)).unwrap();
    recipe(dir, "t.toml", &[("a", "a.jsonl")], "train = { vocab_size = 300 }");
    succeed("moe-data", dir, &["build", "--recipe", "t.toml", "--out", "tok"]);
    fs::copy(dir.join("tok/tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let file = "file = \"tokenizer.json\"";
    recipe(dir, "r.toml", &[("a", "a.jsonl")], file);
    succeed("moe-data", dir, &["build", "--recipe", "r.toml"]);
    fs::write(dir.join("m.toml"), "[mix]\nepochs = 2\nseq_len = 64\nholdout = 0.1\n").unwrap();
    succeed("moe-data", dir, &["mix", "--mixture", "m.toml"]);
    let (before, bytes) = (samples(dir, 64), shards(dir, "a-"));
    let checkpoint = "runs/grown/checkpoints/step-00000002";
    kill_after_checkpoint(dir, &train("runs/grown"), checkpoint, Duration::ZERO);
    let killed = state(dir, "runs/grown").2;
    assert!(killed < 8, "the kill came too late, at step {killed}");

    // More documents of the source itself change its shards: the build says what hangs on them, and the old input brings them back.
    fs::write(dir.join("a.jsonl"), documents("a", 0..90)).unwrap();
    let output = command("moe-data", dir, &["build", "--recipe", "r.toml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "samples from 1 shards that this build changes (a-v0-00000)",
        "runs/grown (at sample ",
        "extending.md",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = fail("moe-data", dir, &["mix", "--extend", "--from", "64", "--epochs", "3"], 3);
    assert!(said.contains("a build has changed the documents of this shard"), "{said}");
    fs::write(dir.join("a.jsonl"), documents("a", 0..80)).unwrap();
    succeed("moe-data", dir, &["build", "--recipe", "r.toml"]);
    assert_eq!(shards(dir, "a-"), bytes);

    // A new source, before the old one in the recipe, and more of the old one as a source behind it.
    fs::write(dir.join("b.jsonl"), documents("b", 0..40)).unwrap();
    fs::write(dir.join("more.jsonl"), documents("a", 80..110) + &documents("a", 0..5)).unwrap();
    recipe(dir, "r.toml", &[("b", "b.jsonl"), ("a", "a.jsonl"), ("a-more", "more.jsonl")], file);
    let output = command("moe-data", dir, &["build", "--recipe", "r.toml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("that this build changes"), "{said}");
    assert_eq!(shards(dir, "a-v0"), bytes);
    fs::write(
        dir.join("m.toml"),
        "[mix]\nepochs = 3\nseq_len = 64\nholdout = 0.1\n[[pool]]\nname = \"a\"\nsource = [\"a\", \"a-more\"]\n[[pool]]\nsource = \"b\"\n",
    )
    .unwrap();
    let extend = ["mix", "--extend", "--from", "64", "--mixture", "m.toml"];
    succeed("moe-data", dir, &extend);
    assert_eq!(samples(dir, 64), before);
    let plan = Plan::open(&dir.join("out")).unwrap();
    assert_eq!(plan.pool_names(), ["a", "a@t64", "a@g1", "b"]);
    // The five documents that the old shards have are not taken in again.
    let n_docs = |name: &str| plan.manifest().shards.iter().find(|shard| shard.name == name).unwrap().n_docs;
    assert_eq!((n_docs("a-v0-00000"), n_docs("a-more-v0-00000"), n_docs("b-v0-00000")), (80, 30, 40));

    // The run goes on, and is the run that had the extended plan from the start.
    succeed("moe-train", dir, &["resume", "runs/grown"]);
    succeed("moe-train", dir, &train("runs/straight"));
    assert_eq!(state(dir, "runs/grown"), state(dir, "runs/straight"));
    succeed("moe-data", dir, &["verify", "out"]);
}
