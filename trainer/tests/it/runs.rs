use std::fs;
use std::path::Path;

use crate::program::{World, json, stderr};

/// Exit code and standard error of a command that must not panic.
fn said(world: &World, args: &[&str]) -> (i32, String) {
    let output = world.run(args);
    let said = stderr(&output);
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    (output.status.code().expect("no signal"), said)
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).expect("folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_lost_latest_names_the_newest_intact_checkpoint() {
    let world = World::new();
    json(&world.train("r", &["--steps", "8", "--set", "run.keep=9"]));
    let latest = world.path("r/checkpoints/latest");
    // The newest is damaged, so the one before it is named.
    let model = world.path("r/checkpoints/step-00000008/model.safetensors");
    fs::write(&model, b"short").expect("write");
    fs::create_dir_all(world.path("x/checkpoints")).expect("folder");
    let outside = fs::canonicalize(world.path("x")).expect("path");
    let broken =
        ["", "\n", "step-00000099\n", "../../x", "step-6", outside.to_str().expect("text"), "\u{1b}[2J"];
    for text in broken.iter().map(Some).chain([None]) {
        match text {
            Some(text) => fs::write(&latest, text).expect("write"),
            None => fs::remove_file(&latest).expect("remove"),
        }
        for verb in
            [&["resume", "r"][..], &["inspect", "r"], &["sample", "r"], &["eval", "r", "--shards", "out"]]
        {
            let (code, said) = said(&world, verb);
            assert_eq!(code, 4, "{text:?} {verb:?}: {said}");
            assert!(said.contains("moe-train resume r --from step-00000006"), "{text:?} {verb:?}: {said}");
            assert!(!said.contains("remove the folder") && !said.contains('\u{1b}'), "{said}");
        }
    }
    let (code, text) = said(&world, &["resume", "r", "--from", "../../x"]);
    assert!(code == 4 && text.contains("is not a checkpoint name"), "{text}");
    // The suggested command works, and `latest` exists again.
    assert_eq!(json(&world.run(&["resume", "r", "--from", "step-00000006", "--json"]))["step"], 8);
    assert_eq!(json(&world.run(&["inspect", "r", "--json"]))["state"]["step"], 8);
}

#[test]
fn latest_is_restored_even_if_no_step_is_left() {
    let world = World::new();
    json(&world.train("r", &["--steps", "3"]));
    fs::remove_file(world.path("r/checkpoints/latest")).expect("remove");
    json(&world.run(&["resume", "r", "--from", "step-00000003", "--json"]));
    assert_eq!(json(&world.run(&["inspect", "r", "--json"]))["state"]["step"], 3);
}

#[test]
fn a_start_that_was_killed_before_its_first_checkpoint_starts_again() {
    let world = World::new();
    fs::create_dir_all(world.path("r/checkpoints/.tmp-step-00000000")).expect("folder");
    let state = "checkpoints/.tmp-step-00000000/state.json";
    let half = ["config.lock.toml.17.0.moe-tmp", "checkpoints/latest.17.0.moe-tmp"];
    for file in [".lock", "config.lock.toml", "metrics.jsonl", state, half[0], half[1]] {
        fs::write(world.path("r").join(file), "").expect("write");
    }
    let (code, text) = said(&world, &["resume", "r"]);
    assert!(code == 4 && text.contains("starts it again") && !text.contains("remove"), "{text}");
    json(&world.train("r", &["--steps", "2"]));
    assert_eq!(checkpoints(&world.path("r")), ["latest", "step-00000000", "step-00000002"]);
    // Another folder is not such a start.
    fs::create_dir(world.path("notes")).expect("folder");
    fs::write(world.path("notes/todo.txt"), "x").expect("write");
    assert_eq!(world.train("notes", &[]).status.code(), Some(2));
    assert_eq!(fs::read_dir(world.path("notes")).expect("folder").count(), 1);
}

#[test]
fn global_flags_may_be_anywhere() {
    let world = World::new();
    json(&world.train("r", &["--steps", "3"]));
    for args in [
        &["-q", "resume", "r"][..],
        &["resume", "-q", "r"],
        &["resume", "r", "--quiet"],
        &["-v", "resume", "r"],
        &["--quiet", "inspect", "r"],
    ] {
        let (code, text) = said(&world, args);
        assert_eq!(code, 0, "{args:?}: {text}");
        assert!(!args.iter().any(|arg| arg.contains('q')) || text.is_empty(), "{args:?}: {text}");
    }
    let (code, text) = said(&world, &["--steps", "9", "resume", "r"]);
    assert!(code == 2 && text.contains("--steps comes before the verb"), "{text}");
}

#[test]
fn a_run_resumed_elsewhere_is_told_to_say_shards() {
    let world = World::new();
    json(&world.train("r", &["--steps", "3"]));
    fs::create_dir_all(world.path("x/out")).expect("folder");
    for folder in ["x", "x/out"] {
        let run = if folder == "x" { "../r" } else { "../../r" };
        let output = world.command(&["resume", run]).current_dir(world.path(folder)).output().expect("runs");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(&format!("moe-train resume {run} --shards DIR")), "{text}");
        assert!(!text.contains("moe-data build"), "{text}");
    }
    let output =
        world.command(&["resume", "../r", "--shards", "../out"]).current_dir(world.path("x")).output();
    assert!(output.expect("runs").status.success());
}

#[test]
fn redirected_output_that_cannot_be_written_is_an_error() {
    let world = World::new();
    json(&world.train("r", &["--steps", "2"]));
    let small = ["--config", "small.toml"];
    let bench = ["bench", "--seq-len", "8", "--vocab", "9", "--steps", "1", "--repeats", "1"];
    let verbs: [&[&str]; 9] = [
        &["config"],
        &["config", "--explain", "run.seed"],
        &["inspect", "r"],
        &["inspect", "r", "--json"],
        &["sample", "r", "--max-tokens", "2"],
        &["eval", "r", "--shards", "out"],
        &["resume", "r", "--json"],
        &[&["--shards", "out", "--steps", "1", "--run", "s", "--json"], &small[..]].concat(),
        &[&bench[..], &small[..]].concat(),
    ];
    for verb in verbs {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = world.command(verb).stdout(full).output().expect("runs");
        let text = stderr(&output);
        assert!(!output.status.success() && output.status.code().is_some(), "{verb:?}: {text}");
        assert!(text.contains("standard output") && !text.contains("panicked"), "{verb:?}: {text}");
    }
}

#[test]
fn meaningless_numbers_are_refused_and_leave_nothing() {
    let world = World::new();
    let cases: [(&[&str], &str); 5] = [
        (&["--steps", "0"], "0"),
        (&["--steps", "2000000000000"], "run.steps"),
        (
            &["--set", "moe.experts=65536", "--set", "moe.expert_ffn=1048576", "--set", "model.layers=10000"],
            "parameters",
        ),
        (&["--set", "moe.experts=65536", "--set", "moe.expert_ffn=65536"], "data.micro_batch = 1"),
        (&["--set", "schedule.warmup_steps=50", "--steps", "20"], "schedule.warmup_steps = 50"),
    ];
    for (args, text) in cases {
        let output = world.train("r", args);
        let err = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains(text) && !err.contains("panicked"), "{args:?}: {err}");
        assert!(!world.path("r").exists(), "{args:?} left a folder");
    }
    let output = world.train("r", &["--set", "moe.experts=65536", "--set", "moe.expert_ffn=65536"]);
    let err = stderr(&output);
    for text in ["GiB of memory", "run.recompute = true", "model.layers, moe.experts, moe.expert_ffn"] {
        assert!(err.contains(text), "{err}");
    }
    let (code, _) = said(&world, &["bench", "--peak-tflops", "0"]);
    assert_eq!(code, 2);
}

#[test]
fn a_plan_without_held_out_documents_trains_without_validation() {
    let world = World::new();
    crate::support::write_plan_without_validation(&world.path("bare"), 1);
    let args = ["--shards", "bare", "--config", "small.toml", "--steps", "3", "--run", "r", "--json"];
    let output = world.run(&args);
    assert!(stderr(&output).contains("without validation"), "{}", stderr(&output));
    let trained = json(&output);
    assert_eq!((trained["step"].as_u64(), trained["validation_ce"].is_null()), (Some(3), true));
    let metrics = fs::read_to_string(world.path("r/metrics.jsonl")).expect("metrics");
    assert!(!metrics.contains("validation/"), "{metrics}");
    assert!(world.run(&["resume", "r"]).status.success());
    let (code, text) = said(&world, &["eval", "r", "--shards", "bare"]);
    assert!(code == 3 && text.contains("no held-out documents"), "{text}");
}

/// Parameter hash of a step's checkpoint.
fn hash(world: &World, run: &str, step: u64) -> String {
    let path = format!("{run}/checkpoints/step-{step:08}");
    json(&world.run(&["inspect", &path, "--json"]))["state"]["parameter_hash"]
        .as_str()
        .expect("a hash")
        .into()
}

const STABLE: [&str; 8] = [
    "--set",
    "schedule.warmup_steps=2",
    "--set",
    "schedule.decay_steps=4",
    "--set",
    "run.keep=99",
    "--set",
    "run.eval_every=100",
];

#[test]
fn a_stable_part_is_extended_and_decays_branch_off_it() {
    let world = World::new();
    json(&world.train("short", &[&STABLE[..], &["--steps", "12"]].concat()));
    json(&world.train("long", &[&STABLE[..], &["--steps", "18"]].concat()));

    // The decay of the short run, which begins after step 8, from the stable part of the long one.
    let branch = ["resume", "long", "--from", "step-00000006", "--fork", "branch", "--steps", "12", "--json"];
    let branched = json(&world.run(&branch));
    assert_eq!(branched["step"], 12);
    assert_eq!(hash(&world, "branch", 12), hash(&world, "short", 12));
    assert!(world.path("branch/parent.json").is_file() && checkpoints(&world.path("long")).len() == 8);

    // The short run made longer: past its first length, and so without its own decay.
    let args = ["resume", "short", "--from", "step-00000006", "--fork", "longer", "--steps", "18", "--json"];
    assert_eq!(json(&world.run(&args))["step"], 18);
    assert_eq!(hash(&world, "longer", 18), hash(&world, "long", 18));

    // In place, if there are no later steps.
    let mut stopped = world.path("short/checkpoints");
    for step in [9, 12] {
        fs::remove_dir_all(stopped.join(format!("step-{step:08}"))).expect("remove");
    }
    stopped.push("latest");
    fs::write(stopped, "step-00000006\n").expect("write");
    json(&world.run(&["resume", "short", "--steps", "18", "--json"]));
    assert_eq!(hash(&world, "short", 18), hash(&world, "long", 18));
}

#[test]
fn a_constant_run_continues_past_its_length_with_the_same_warm_up() {
    let world = World::new();
    let constant = ["--set", "schedule.kind=constant", "--set", "schedule.warmup=0.5"];
    json(&world.train("r", &[&constant[..], &["--steps", "6"]].concat()));
    json(&world.run(&["resume", "r", "--steps", "12", "--json"]));
    let straight = ["--set", "schedule.kind=constant", "--set", "schedule.warmup_steps=3", "--steps", "12"];
    json(&world.train("s", &straight));
    assert_eq!(hash(&world, "r", 12), hash(&world, "s", 12));
}

#[test]
fn a_future_that_would_change_the_past_is_refused_by_name() {
    let world = World::new();
    json(&world.train("r", &[&STABLE[..], &["--steps", "12"]].concat()));
    let refused = |args: &[&str], texts: &[&str]| {
        let (code, text) = said(&world, &[&["resume", "r"], args].concat());
        assert_eq!(code, 2, "{args:?}: {text}");
        texts.iter().for_each(|expected| assert!(text.contains(expected), "{args:?}: {text}"));
    };
    // From within the decay: steps 1 to 8 were the same.
    refused(
        &["--steps", "18"],
        &["step 9 was made at a learning rate of", "step-00000008", "run.steps: 12 -> 18"],
    );
    refused(&["--from", "step-00000006", "--set", "optim.lr=0.5"], &["step 1 was made", "optim.lr"]);
    refused(&["--from", "step-00000006", "--set", "schedule.kind=cosine"], &["schedule.kind"]);
    refused(&["--from", "step-00000006", "--steps", "18"], &["step-00000012", "--fork DIR"]);
    refused(&["--from", "step-00000006", "--steps", "7"], &["step 4 was made"]);
    refused(&["--from", "step-00000006", "--steps", "5"], &["schedule.decay_steps = 4"]);
    refused(
        &["--from", "step-00000006", "--set", "optim.beta1=0.5"],
        &["optim.beta1: 0.9 -> 0.5", "--fork DIR"],
    );
    assert_eq!(
        said(&world, &["resume", "r", "--from", "step-00000006", "--steps", "18", "--fork", "out"]).0,
        2
    );
}

/// Replaces a file of a run's newest checkpoint, and its manifest entry.
fn forge(run: &Path, file: &str, bytes: &[u8]) {
    let dir = run.join("checkpoints/step-00000002");
    fs::write(dir.join(file), bytes).expect("write");
    let path = dir.join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    for entry in manifest["files"].as_array_mut().expect("files") {
        if entry["name"] == file {
            entry["bytes"] = bytes.len().into();
            entry["blake3"] = moe_shards::Hash::of(bytes).to_string().into();
        }
    }
    fs::write(path, manifest.to_string()).expect("write");
}

#[test]
fn a_run_of_another_arithmetic_continues_with_a_warning() {
    let world = World::new();
    json(&world.train("r", &["--steps", "4", "--stop-after", "2"]));
    let run = world.path("r");
    let state = fs::read(run.join("checkpoints/step-00000002/state.json")).expect("read");
    let mut state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
    assert_eq!(state["arithmetic"], "cpu-1");
    state["arithmetic"] = "cpu-0".into();
    forge(&run, "state.json", state.to_string().as_bytes());
    let (code, text) = said(&world, &["resume", "r", "--stop-after", "3"]);
    assert!(code == 0 && text.contains("arithmetic cpu-0, the next ones will be in cpu-1"), "{code} {text}");
    let (code, text) = said(&world, &["resume", "r"]);
    assert!(code == 0 && !text.contains("arithmetic"), "{code} {text}");
}

#[test]
fn impossible_sizes_in_a_checkpoint_are_refused_before_they_are_allocated() {
    let world = World::new();
    json(&world.train("r", &["--steps", "2"]));
    let run = world.path("r");
    let state_path = run.join("checkpoints/step-00000002/state.json");
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(&state_path).expect("read")).expect("JSON");
    let config = fs::read_to_string(run.join("checkpoints/step-00000002/config.toml")).expect("read");
    let refused = |texts: &[&str]| {
        for verb in [&["inspect", "r"][..], &["sample", "r"], &["resume", "r"]] {
            let (code, text) = said(&world, verb);
            assert!(code == 4 || code == 2, "{verb:?}: {code} {text}");
            assert!(texts.iter().any(|expected| text.contains(expected)), "{verb:?}: {text}");
        }
    };
    let huge = u64::MAX;
    for key in ["vocab_size", "seq_len", "step", "t", "tokens_seen"] {
        for value in [0, 1u64 << 40, huge] {
            let mut state = state.clone();
            state[key] = value.into();
            if (key, value) == ("tokens_seen", 0) {
                continue;
            }
            forge(&run, "state.json", state.to_string().as_bytes());
            refused(&["state.json"]);
        }
    }
    let mut wide = state.clone();
    wide["vocab_size"] = u32::MAX.into();
    forge(&run, "state.json", wide.to_string().as_bytes());
    refused(&["describes a model with", "vocabulary"]);
    wide["vocab_size"] = 10.into();
    forge(&run, "state.json", wide.to_string().as_bytes());
    refused(&["tensor embedding: expected shape [10, 16], found [9, 16]", "vocabulary"]);
    forge(&run, "state.json", state.to_string().as_bytes());

    // A model of another configuration: the first tensor that differs is named.
    forge(&run, "config.toml", config.replace("expert_ffn = 8", "expert_ffn = 9").as_bytes());
    refused(&["tensor blocks.1.feed_forward.experts."]);
    forge(&run, "config.toml", config.replace("expert_ffn = 8", "expert_ffn = 1000000").as_bytes());
    refused(&["describes a model with", "GiB of memory"]);
    forge(&run, "config.toml", config.as_bytes());
    assert!(world.run(&["inspect", "r"]).status.success(), "the forging itself is no damage");
}

#[test]
fn an_incomplete_manifest_verifies_nothing() {
    let world = World::new();
    json(&world.train("r", &["--steps", "2"]));
    let path = world.path("r/checkpoints/step-00000002/manifest.json");
    fs::write(path, "{\"version\":2,\"files\":[]}").expect("write");
    let (code, text) = said(&world, &["inspect", "r"]);
    assert!(code == 4 && text.contains("model.safetensors is not in it"), "{text}");
}
