use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{command, fail, succeed};
use moe_shards::permute::mix64;

use crate::determinism::project;

const STEPS: u64 = 16;

/// A project with a plan, and an uninterrupted run of [`STEPS`] steps in `runs/straight`.
fn trained() -> tempfile::TempDir {
    let dir = project(1);
    succeed("moe-data", dir.path(), &["build"]);
    succeed("moe-data", dir.path(), &["mix", "--epochs", "2", "--seq-len", "64"]);
    succeed("moe-train", dir.path(), &train("runs/straight"));
    dir
}

fn train(run: &str) -> Vec<&str> {
    let mut args = vec!["--shards", "out/", "--preset", "smoke", "--steps", "16", "--run", run];
    args.extend(["--set", "run.save_every=4", "--set", "run.eval_every=8", "--set", "data.batch=8"]);
    args
}

/// Parameter hash, data hash and step of the newest checkpoint.
pub fn state(dir: &Path, run: &str) -> (String, String, u64) {
    let said: serde_json::Value =
        serde_json::from_str(&succeed("moe-train", dir, &["inspect", run, "--json"])).unwrap();
    let text = |key: &str| said["state"][key].as_str().unwrap().to_owned();
    (text("parameter_hash"), text("data_hash"), said["state"]["step"].as_u64().unwrap())
}

/// Lets a command run until there is a checkpoint, then a moment longer, then kills it with SIGKILL.
pub fn kill_after_checkpoint(dir: &Path, args: &[&str], checkpoint: &str, extra: Duration) {
    let mut child = command("moe-train", dir, args)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !dir.join(checkpoint).exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {checkpoint}");
        assert!(Instant::now() < deadline, "{checkpoint} did not appear");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(extra);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_and_resumed_run_has_the_same_parameters() {
    let dir = trained();
    let straight = state(dir.path(), "runs/straight");
    assert_eq!(straight.2, STEPS);
    for i in 0..3u64 {
        let run = format!("runs/killed-{i}");
        // The moment after the checkpoint is during a step, an evaluation or the next save.
        let extra = Duration::from_millis(mix64(i) % 120);
        kill_after_checkpoint(dir.path(), &train(&run), &format!("{run}/checkpoints/step-00000004"), extra);
        assert!(state(dir.path(), &run).2 < STEPS, "the kill came too late");
        // Another prefetch depth on the way back.
        let prefetch = ["0", "1", "8"][i as usize];
        succeed("moe-train", dir.path(), &["resume", &run, "--prefetch", prefetch]);
        assert_eq!(state(dir.path(), &run), straight, "{run}");
        let lines = |run: &str| -> Vec<String> {
            let text = fs::read_to_string(dir.path().join(run).join("metrics.jsonl")).unwrap();
            let keep = |line: &str| {
                let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
                // Everything except times.
                value.as_object_mut().unwrap().retain(|key, _| !key.starts_with("perf/"));
                value.to_string()
            };
            text.lines().map(keep).collect()
        };
        assert_eq!(lines(&run), lines("runs/straight"), "no step is missing or twice in the metrics");
    }
}

/// The phases meet within a batch, whose shorter samples are padded.
#[test]
fn a_plan_of_two_lengths_is_trained_and_resumed_bit_for_bit() {
    let dir = project(1);
    let mixture = "[mix]\nepochs = 3\nseq_len = 32\n[[pool]]\nsource = \"bible\"\n[[phase]]\nname = \"short\"\n\
                   tokens = 1_100\nweights = { bible = 1.0 }\n[[phase]]\nname = \"long\"\nseq_len = 64\ntokens = 3_500\n\
                   weights = { bible = 1.0 }\n";
    fs::write(dir.path().join("mix.toml"), mixture).unwrap();
    succeed("moe-data", dir.path(), &["build"]);
    succeed("moe-data", dir.path(), &["mix", "--mixture", "mix.toml"]);
    let lock: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("out/plan.lock")).unwrap()).unwrap();
    let n_samples = |i: usize| lock["phases"][i]["n_samples"].as_u64().unwrap();
    let (short, long) = (n_samples(0), n_samples(1));
    assert!(!short.is_multiple_of(8), "{short} samples end with a batch");
    let steps = (short + long) / 8;

    let train = |run: &str, more: &[&str]| {
        let mut args = vec!["--shards", "out/", "--preset", "smoke", "--run", run, "--set", "data.batch=8"];
        args.extend(["--set", "run.save_every=1", "--set", "run.keep=99", "--set", "data.micro_batch=3"]);
        // The rate rises while the short phase is read.
        let (steps, tokens) = (steps.to_string(), format!("schedule.warmup_tokens={}", 32 * short));
        args.extend(["--steps", &steps, "--set", &tokens].iter().chain(more));
        succeed("moe-train", dir.path(), &args);
    };
    train("runs/straight", &[]);
    assert_eq!(state(dir.path(), "runs/straight").2, steps);
    let lock = fs::read_to_string(dir.path().join("runs/straight/config.lock.toml")).unwrap();
    // The step on the boundary also reads samples of 64 tokens, so it is the last in which the rate rises.
    assert!(lock.contains(&format!("warmup_steps = {}", short.div_ceil(8))), "{lock}");
    let first_long = (short / 8).to_string();
    train("runs/stopped", &["--stop-after", &first_long]);
    succeed("moe-train", dir.path(), &["resume", "runs/stopped"]);
    assert_eq!(state(dir.path(), "runs/stopped"), state(dir.path(), "runs/straight"));
}

/// Another split into micro-batches rounds differently; the samples are the same.
#[test]
fn micro_batches_do_not_change_the_data() {
    let dir = trained();
    let straight = state(dir.path(), "runs/straight");
    for micro in ["1", "3", "8"] {
        let run = format!("runs/micro-{micro}");
        let set = format!("data.micro_batch={micro}");
        let mut args = train(&run);
        args.extend(["--set", &set]);
        succeed("moe-train", dir.path(), &args);
        let other = state(dir.path(), &run);
        assert_eq!((other.1, other.2), (straight.1.clone(), straight.2), "micro-batch {micro}");
    }
}

#[test]
fn runs_are_neither_overwritten_nor_mixed_up() {
    let dir = trained();
    let said = fail("moe-train", dir.path(), &train("runs/straight"), 2);
    assert!(said.contains("resume"), "{said}");

    // A plan that is not the run's.
    succeed("moe-data", dir.path(), &["mix", "--epochs", "3", "--seq-len", "64", "--force"]);
    let said = fail("moe-train", dir.path(), &["resume", "runs/straight"], 4);
    assert!(said.contains("plan"), "{said}");
    succeed("moe-data", dir.path(), &["mix", "--epochs", "2", "--seq-len", "64", "--force"]);

    // One flipped bit in the newest checkpoint.
    let model = dir.path().join("runs/straight/checkpoints/step-00000016/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&model, bytes).unwrap();
    let said = fail("moe-train", dir.path(), &["resume", "runs/straight"], 4);
    assert!(said.contains("model.safetensors") && said.contains("step-00000012"), "{said}");
    succeed("moe-train", dir.path(), &["resume", "runs/straight", "--from", "step-00000012"]);

    let said =
        fail("moe-train", dir.path(), &["--shards", "out/", "--set", "moe.topk=2", "--run", "runs/x"], 2);
    assert!(said.contains("moe.top_k"), "{said}");
    let said = fail("moe-train", dir.path(), &["--shards", "out/", "--device", "cuda", "--run", "runs/x"], 5);
    assert!(!said.is_empty());
}
