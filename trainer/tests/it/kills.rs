use std::process::Stdio;
use std::time::{Duration, Instant};

use moe_train::random::mix;

use crate::program::{World, json, stderr};

/// Default number of kills; `MOE_TEST_KILLS` sets another.
const KILLS: u64 = 10;

/// A checkpoint after every step, so that a run spends most of its time saving.
const SAVING: [&str; 8] = [
    "--set",
    "run.save_every=1",
    "--set",
    "run.keep=2",
    "--set",
    "run.log_every=7",
    "--set",
    "data.prefetch=3",
];

/// The entries in the checkpoint folder of a run.
fn names(world: &World, run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(world.path(run).join("checkpoints")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn runs_killed_while_they_save_end_with_the_same_parameters() {
    let asked = std::env::var("MOE_TEST_KILLS").ok();
    let n_kills = asked.map_or(KILLS, |text| text.parse().expect("MOE_TEST_KILLS is a number"));
    let world = World::new();
    let start = Instant::now();
    let straight = json(&world.train("straight", &SAVING));
    let whole = start.elapsed();

    let (mut kills, mut tries, mut runs, mut torn) = (0, 0, 0, 0);
    while kills < n_kills {
        let run = format!("killed-{runs}");
        runs += 1;
        // Killed and resumed until it finishes, then the next one.
        loop {
            let begun = names(&world, &run).iter().any(|name| name.starts_with("step-"));
            let begin = ["--shards", "out", "--config", "small.toml", "--run", &run];
            let args = if begun { vec!["resume", &run] } else { [&begin[..], &SAVING].concat() };
            let mut child = world
                .command(&args)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts");
            if kills < n_kills {
                // A different moment for each try: one that comes after the end of a run would do so again.
                std::thread::sleep(Duration::from_nanos(mix(tries) % whole.as_nanos() as u64));
                tries += 1;
                let is_working = child.try_wait().expect("asked").is_none();
                child.kill().expect("SIGKILL");
                kills += u64::from(is_working);
            }
            let output = child.wait_with_output().expect("the end of the process");
            assert!(output.status.success() || output.status.code().is_none(), "{}", stderr(&output));
            torn += names(&world, &run).iter().filter(|name| name.starts_with('.')).count();
            if output.status.success() {
                break;
            }
        }
        let inspected = json(&world.run(&["inspect", &run, "--json"]));
        for hash in ["parameter_hash", "data_hash"] {
            assert_eq!(inspected["state"][hash], straight[hash], "{run} after {kills} kills");
        }
        let lines = |run: &str| {
            let text = std::fs::read_to_string(world.path(run).join("metrics.jsonl")).expect("metrics");
            let line = |line: &str| {
                let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                line.as_object_mut().expect("an object").retain(|key, _| !key.starts_with("perf/"));
                line
            };
            text.lines().map(line).collect::<Vec<_>>()
        };
        assert_eq!(lines(&run), lines("straight"), "{run} after {kills} kills");
    }
    println!("{kills} kills of {runs} runs, {torn} of them within a save: the parameters of a straight run");
}
