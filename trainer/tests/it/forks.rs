use std::fs;

use serde_json::Value;

use crate::program::{World, json, stderr};
use crate::support::write_plan;

/// The state in a checkpoint.
fn state(world: &World, run: &str, step: u64) -> Value {
    let path = format!("{run}/checkpoints/step-{step:08}");
    json(&world.run(&["inspect", &path, "--json"]))["state"].take()
}

/// All files of a folder with their contents.
fn content(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => found.extend(content(&path)),
            false => found.push((path.clone(), fs::read(&path).expect("read"))),
        }
    }
    found.sort();
    found
}

const FROM_6: [&str; 4] = ["resume", "r", "--from", "step-00000006"];

#[test]
fn a_fork_leaves_its_parent_alone_and_says_how_it_differs() {
    let world = World::new();
    json(&world.train("r", &["--steps", "12", "--set", "run.keep=99"]));
    let before = content(&world.path("r"));
    let changed = ["--set", "moe.balance.switch=0.05", "--set", "optim.lr=1e-3"];
    let output = world.run(&[&FROM_6[..], &["--fork", "f", "--json"], &changed].concat());
    assert_eq!(json(&output)["step"], 12);
    let text = stderr(&output);
    for expected in
        ["forking", "moe.balance.switch: 0.0 -> 0.05", "optim.lr: 0.002 -> 0.001", "warning: step 1 was"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(content(&world.path("r")), before, "the parent");

    let parent: Value =
        serde_json::from_slice(&fs::read(world.path("f/parent.json")).expect("read")).expect("JSON");
    let left = state(&world, "r", 6);
    assert_eq!(parent["parameter_hash"], left["parameter_hash"]);
    assert_eq!((&parent["step"], &parent["t"]), (&6.into(), &12.into()));
    assert_eq!(parent["first_step_at_another_rate"], 1);
    let expected = ["moe.balance.switch: 0.0 -> 0.05", "optim.lr: 0.002 -> 0.001"];
    assert_eq!(parent["differences"], serde_json::json!(expected));
    assert_ne!(state(&world, "f", 12)["parameter_hash"], state(&world, "r", 12)["parameter_hash"]);
    // The data continued where the parent was.
    assert_eq!(state(&world, "f", 12)["data_hash"], state(&world, "r", 12)["data_hash"]);

    // The same with a file, and in two parts.
    let config = fs::read_to_string(world.path("small.toml")).expect("read");
    let config = config.replace("z = 1e-3\n", "z = 1e-3\nswitch = 0.05\n[optim]\nlr = 1e-3\n");
    fs::write(world.path("other.toml"), config).expect("write");
    let args = ["--fork", "g", "--config", "other.toml", "--steps", "12", "--stop-after", "9", "--json"];
    assert_eq!(json(&world.run(&[&FROM_6[..], &args].concat()))["step"], 9);
    assert_eq!(json(&world.run(&["resume", "g", "--json"]))["step"], 12);
    assert_eq!(state(&world, "g", 12)["parameter_hash"], state(&world, "f", 12)["parameter_hash"]);

    // Without a difference it is the same as its parent.
    json(&world.run(&[&FROM_6[..], &["--fork", "same", "--json"]].concat()));
    assert_eq!(state(&world, "same", 12)["parameter_hash"], state(&world, "r", 12)["parameter_hash"]);
    let parent = fs::read_to_string(world.path("same/parent.json")).expect("read");
    assert!(
        parent.contains("\"differences\": []") && parent.contains("\"first_step_at_another_rate\": null")
    );
}

#[test]
fn a_fork_may_read_other_batches_or_another_plan() {
    let world = World::new();
    json(&world.train("r", &["--steps", "12", "--set", "run.keep=99"]));
    json(&world.run(
        &[&FROM_6[..], &["--fork", "wide", "--set", "data.batch=3", "--stop-after", "8", "--json"]].concat(),
    ));
    // 6 steps of 2 samples, and 2 of 3.
    assert_eq!(state(&world, "wide", 8)["t"], 18);
    json(&world.run(&["resume", "wide", "--json"]));
    assert_eq!(state(&world, "wide", 12)["t"], 30);

    write_plan(&world.path("other"), 2);
    let output = world.run(&[&FROM_6[..], &["--fork", "else", "--shards", "other", "--json"]].concat());
    assert_eq!(json(&output)["step"], 12);
    assert!(stderr(&output).contains("read from its first sample"), "{}", stderr(&output));
    assert_eq!(state(&world, "else", 12)["t"], 12);
    // A fork of a fork.
    let again =
        ["resume", "else", "--from", "step-00000009", "--fork", "again", "--set", "run.seed=5", "--json"];
    assert_eq!(json(&world.run(&again))["step"], 12);
    assert_eq!(state(&world, "again", 12)["t"], 12);
}

#[test]
fn an_impossible_fork_is_refused_and_leaves_nothing() {
    let world = World::new();
    json(&world.train("r", &["--steps", "12", "--set", "run.keep=99"]));
    let refused = |args: &[&str], code: i32, texts: &[&str]| {
        let output = world.run(&[&FROM_6[..], args].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        texts.iter().for_each(|expected| assert!(text.contains(expected), "{args:?}: {text}"));
        assert!(!world.path("f").exists() && !text.contains("panicked"), "{args:?}: {text}");
    };
    let fork = ["--fork", "f"];
    let with = |more: &[&'static str]| [&fork[..], more].concat();
    refused(&with(&["--set", "moe.experts=5"]), 4, &["tensor", "shape", "moe.experts: 4 -> 5"]);
    refused(&with(&["--set", "moe.top_k=9"]), 2, &["moe.top_k = 9"]);
    refused(&with(&["--steps", "4"]), 2, &["step 6 is past the last one"]);
    refused(&with(&["--steps", "100000"]), 2, &["step 7 begins at sample 12"]);
    refused(&with(&["--shards", "nowhere"]), 3, &["nowhere"]);
    refused(&["--fork", "r"], 2, &["is inside the original run"]);
    refused(&["--fork", "r/checkpoints/step-00000005"], 2, &["is inside the original run"]);
    refused(&with(&["--stop-after", "5"]), 2, &["--stop-after 5: is in the past"]);
    json(&world.train("s", &["--steps", "2"]));
    refused(&["--fork", "s"], 2, &["--fork s: exists"]);
    let output = world.run(&["resume", "r/checkpoints/step-00000006"]);
    assert!(stderr(&output).contains("moe-train resume r --from step-00000006"), "{}", stderr(&output));
    assert!(!world.path("r/checkpoints/step-00000006/.lock").exists());
    refused(&["--config", "small.toml"], 2, &["--fork"]);
}

#[test]
fn stopping_after_a_step_keeps_the_learning_rates_of_the_whole_run() {
    let world = World::new();
    let whole = json(&world.train("whole", &[]));
    let output = world.train("part", &["--stop-after", "7"]);
    assert_eq!((json(&output)["step"].as_u64(), output.status.code()), (Some(7), Some(0)));
    assert!(stderr(&output).contains("stopped after step 7"), "{}", stderr(&output));
    assert_eq!(json(&world.run(&["resume", "part", "--json"]))["parameter_hash"], whole["parameter_hash"]);
    assert_eq!(world.run(&["resume", "part", "--stop-after", "3"]).status.code(), Some(2));
}

#[test]
fn a_fork_can_be_resumed_from_its_very_beginning() {
    let world = World::new();
    json(&world.train("r", &["--steps", "12", "--set", "run.keep=99"]));
    // It has no steps of its own left, and yet it is a complete run.
    json(&world.run(&[&FROM_6[..], &["--fork", "f", "--stop-after", "6", "--json"]].concat()));
    assert_eq!(state(&world, "f", 6)["parameter_hash"], state(&world, "r", 6)["parameter_hash"]);
    assert_eq!(json(&world.run(&["resume", "f", "--json"]))["step"], 12);
    // One that was killed before its first checkpoint begins again.
    fs::create_dir(world.path("g")).expect("folder");
    for file in [".lock", "config.lock.toml", "metrics.jsonl", "parent.json"] {
        fs::write(world.path("g").join(file), "").expect("write");
    }
    json(&world.run(&[&FROM_6[..], &["--fork", "g", "--json"]].concat()));
    // Another file with that name is neither replaced nor removed.
    fs::create_dir(world.path("theirs")).expect("folder");
    fs::write(world.path("theirs/parent.json"), "notes").expect("write");
    assert_eq!(world.run(&[&FROM_6[..], &["--fork", "theirs"]].concat()).status.code(), Some(2));
    assert_eq!(world.train("theirs", &[]).status.code(), Some(2));
    assert_eq!(fs::read(world.path("theirs/parent.json")).expect("read"), b"notes");
    assert_eq!(state(&world, "g", 12)["parameter_hash"], state(&world, "r", 12)["parameter_hash"]);
}

#[test]
fn a_run_that_goes_back_to_an_earlier_step_continues_from_there() {
    let world = World::new();
    json(&world.train("r", &["--steps", "12", "--set", "run.keep=99"]));
    json(&world.run(&[&FROM_6[..], &["--stop-after", "6", "--json"]].concat()));
    // Lines of later steps are gone, and so `latest` names the step that they were cut back to.
    assert_eq!(json(&world.run(&["inspect", "r", "--json"]))["state"]["step"], 6);
    json(&world.run(&["resume", "r", "--json"]));
    let lines = fs::read_to_string(world.path("r/metrics.jsonl")).expect("read");
    let steps = lines.lines().filter(|line| line.contains("train/ce")).count();
    assert_eq!(steps, 12, "{lines}");
}

#[test]
fn a_run_whose_samples_compete_keeps_its_micro_batch() {
    let world = World::new();
    let capacity = ["--steps", "12", "--set", "moe.capacity.factor=0.5", "--stop-after", "6"];
    json(&world.train("r", &capacity));
    let output = world.run(&["resume", "r", "--set", "data.micro_batch=1"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("data.micro_batch: 2 -> 1"), "{}", stderr(&output));
    json(&world.train("s", &["--steps", "12", "--stop-after", "6"]));
    json(&world.run(&["resume", "s", "--set", "data.micro_batch=1", "--json"]));
}

#[test]
fn resuming_is_verified_on_the_configuration_of_the_user() {
    let world = World::new();
    let args = ["verify-resume", "--shards", "out", "--config", "small.toml", "--steps", "7"];
    let report = json(&world.run(&[&args[..], &["--json"]].concat()));
    assert_eq!((&report["exact"], &report["killed_after"]), (&true.into(), &3.into()));
    assert_eq!(report["without_a_stop"], report["killed_and_resumed"]);
    assert!(!world.path("runs/verify-resume").exists());
    let straight = json(&world.train("r", &["--stop-after", "7"]));
    let hash = straight["parameter_hash"].as_str().expect("a hash");
    assert_eq!(report["without_a_stop"]["parameters"], hash[..12]);

    let text = world.run(&args);
    assert_eq!(String::from_utf8_lossy(&text.stdout).matches("the same").count(), 4, "{}", stderr(&text));

    // A signal also ends the run that is being checked.
    #[cfg(unix)]
    {
        let long = [
            "verify-resume",
            "--shards",
            "out",
            "--config",
            "small.toml",
            "--steps",
            "24",
            "--work",
            "stopped",
        ];
        let mut child = world.command(&long).spawn().expect("the program starts");
        while !world.path("stopped/straight/checkpoints/step-00000000").exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(killed.expect("kill").success());
        assert_eq!(child.wait().expect("an end").code(), Some(130));
        assert!(!world.path("stopped").exists());
    }

    // Existing files stay, too short a run is reported, and a run that fails says why.
    fs::create_dir(world.path("mine")).expect("folder");
    let cases: [(&[&str], i32, &str); 3] = [
        (&["--work", "mine"], 2, "--work mine: exists"),
        (&["--steps", "30"], 2, "the run has only 24 steps"),
        (&["--shards", "nowhere"], 3, "nowhere"),
    ];
    for (more, code, text) in cases {
        let base = ["verify-resume", "--config", "small.toml"];
        let shards: &[&str] = if more.contains(&"--shards") { &[] } else { &["--shards", "out"] };
        let output = world.run(&[&base[..], shards, more].concat());
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{more:?}: {}", stderr(&output));
        assert!(!world.path("runs/verify-resume").exists());
    }
    assert!(world.path("mine").is_dir());
}

#[test]
fn a_plan_tells_size_work_memory_and_passes() {
    let world = World::new();
    let args = ["plan", "--shards", "out", "--config", "small.toml"];
    let told = json(&world.run(&[&args[..], &["--tokens-per-second", "768", "--json"]].concat()));
    // Embedding 9 * 16; two blocks of (2 + 2) * 8 * 16 + 16 * 16; dense 3 * 16 * 16; router 16 * 4, four
    // experts and a shared one of 3 * 16 * 8; five normalizations of 16.
    let parts = [144, 1536, 768, 64 + 5 * 384, 80, 0];
    let names =
        ["embedding", "attention", "dense feed-forward", "mixture of experts", "normalisation", "head"];
    for (name, expected) in names.iter().zip(parts) {
        assert_eq!(told["parts"][name]["parameters"], expected, "{name}");
    }
    assert_eq!(told["parameters"], parts.iter().sum::<u64>());
    // Two of the four experts are not visited.
    assert_eq!(told["active_parameters"], parts.iter().sum::<u64>() - 2 * 384);
    assert_eq!((&told["steps"], &told["tokens"]), (&24.into(), &(24 * 2 * 32).into()));
    assert_eq!(told["seconds"], 2.0);
    // 2 samples of 32 tokens, 2 choices of each among 4 experts.
    assert_eq!(told["rows_per_expert"]["of_a_step"], 32.0);
    let bytes = &told["memory"]["bytes"];
    assert_eq!((&bytes["parameters"], &bytes["moments"]), (&(4 * 4512).into(), &(8 * 4512).into()));
    let lock: Value =
        serde_json::from_slice(&fs::read(world.path("out/plan.lock")).expect("read")).expect("JSON");
    let bins = |pass: usize| {
        let windows = lock["pools"][0]["passes"][pass]["bins_per_window"].as_array().expect("windows");
        windows.iter().map(|n| n.as_u64().expect("a number")).sum::<u64>()
    };
    let source = &told["sources"][lock["pools"][0]["name"].as_str().expect("a name")];
    assert_eq!(source["samples"], 48);
    let expected = match 48u64.checked_sub(bins(0)) {
        Some(over) => 1.0 + over as f64 / bins(1) as f64,
        None => 48.0 / bins(0) as f64,
    };
    assert!((source["passes"].as_f64().expect("a number") - expected).abs() < 1e-9, "{source}");

    let text = world.run(&[&args[..], &["--measure", "1"]].concat());
    let text = String::from_utf8(text.stdout).expect("text");
    for expected in ["total", "gradients", "rows per expert (4 experts)", "time at"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let huge = ["--set", "moe.experts=65536", "--set", "moe.expert_ffn=65536", "--measure"];
    let output = world.run(&[&args[..], &huge].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("GiB of memory")
            && String::from_utf8_lossy(&output.stdout).contains("total")
    );
    assert!(!world.path("runs").exists());
}

#[test]
fn losses_at_several_capacities_are_printed_with_dropped_choices() {
    let world = World::new();
    json(&world.train("r", &["--steps", "4"]));
    let args = ["eval", "r", "--shards", "out", "--capacity", "0.5,1,inf"];
    let told = json(&world.run(&[&args[..], &["--json"]].concat()));
    let all = told["capacities"].as_array().expect("a list");
    let number = |i: usize, key: &str| all[i][key].as_f64().expect("a number");
    assert_eq!(all.len(), 3);
    assert!(number(0, "dropped") >= number(1, "dropped") && number(0, "dropped") > 0.4);
    assert_eq!(number(2, "dropped"), 0.0);
    let plain = json(&world.run(&["eval", "r", "--shards", "out", "--json"]));
    assert_eq!(plain["all"]["ce"], all[2]["ce"]);
    let text = world.run(&args);
    assert!(String::from_utf8_lossy(&text.stdout).contains("capacity    inf: loss"));
    assert_eq!(world.run(&["eval", "r", "--shards", "out", "--capacity", "0"]).status.code(), Some(2));
}
