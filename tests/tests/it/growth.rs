use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::{command, fail, succeed};
use moe_shards::permute::mix64;
use moe_shards::{Hash, Plan, Sample};

use crate::resume::{kill_after_checkpoint, state};

/// Lines of JSON with synthetic texts, different for every seed.
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

/// Adding a source used to change the digest of the recipe in every shard, and `mix --extend` refused them
/// all.
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

    // Removing a document changes a shard: the build says what depends on it, and the old input restores it.
    fs::write(dir.join("a.jsonl"), documents("a", 1..80)).unwrap();
    let said = build(dir);
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
    assert!(!build(dir).contains("keeps its shards"));
    assert_eq!(shards(dir, "a-"), bytes);

    // More documents of the source, a new source in front of it, and more of the same as a source after it.
    fs::write(dir.join("a.jsonl"), documents("a", 0..100)).unwrap();
    fs::write(dir.join("b.jsonl"), documents("b", 0..40)).unwrap();
    fs::write(dir.join("more.jsonl"), documents("a", 100..110) + &documents("a", 0..5)).unwrap();
    recipe(dir, "r.toml", &[("b", "b.jsonl"), ("a", "a.jsonl"), ("a-more", "more.jsonl")], file);
    let said = build(dir);
    assert!(said.contains("new documents are in a-v0-00000-g1"), "{said}");
    assert!(!said.contains("that this build changes"), "{said}");
    let now = shards(dir, "a-v0-00000.");
    assert_eq!(now, bytes);
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
    // The five documents that the old shards have are not added again.
    let n_docs = |plan: &Plan, name: &str| {
        plan.manifest().shards.iter().find(|shard| shard.name == name).unwrap().n_docs
    };
    let names = ["a-v0-00000", "a-v0-00000-g1", "a-more-v0-00000", "b-v0-00000"];
    assert_eq!(names.map(|name| n_docs(&plan, name)), [80, 20, 10, 40]);

    // The run continues, and is the run that had the extended plan from the start.
    succeed("moe-train", dir, &["resume", "runs/grown"]);
    succeed("moe-train", dir, &train("runs/straight"));
    assert_eq!(state(dir, "runs/grown"), state(dir, "runs/straight"));
    succeed("moe-data", dir, &["verify", "out"]);

    // Once more; kills along the way change nothing.
    fs::write(dir.join("a.jsonl"), documents("a", 0..100) + &documents("a", 110..115)).unwrap();
    for delay in [20, 60, 100, 140, 180] {
        e2e::kill_after(
            command("moe-data", dir, &["build", "--recipe", "r.toml"]),
            Duration::from_millis(delay),
        );
    }
    build_and_extend_again(dir, &plan);
    assert_eq!(samples(dir, 64), before);
}

/// Builds, checks that the shards of the plan are as they were, and extends the plan at its end.
fn build_and_extend_again(dir: &Path, plan: &Plan) {
    build(dir);
    let of_plan: BTreeMap<String, Hash> = (plan.manifest().shards.iter())
        .flat_map(|shard| {
            [
                (format!("{}.mdx", shard.name), shard.mdx_blake3),
                (format!("{}.bin", shard.name), shard.bin_blake3),
            ]
        })
        .collect();
    let now = e2e::digests(&dir.join("out/shards"));
    assert!(of_plan.iter().all(|(name, digest)| now.get(name) == Some(digest)));
    assert_eq!(now.len(), of_plan.len() + 2, "{now:?}");
    assert!(now.contains_key("a-v0-00000-g2.mdx"));
    let end = plan.len().to_string();
    succeed("moe-data", dir, &["mix", "--extend", "--from", &end, "--epochs", "4"]);
    succeed("moe-data", dir, &["verify", "out"]);
}

/// The standard error of a build.
fn build(dir: &Path) -> String {
    let output = command("moe-data", dir, &["build", "--recipe", "r.toml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}
