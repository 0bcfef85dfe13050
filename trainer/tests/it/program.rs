use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::write_plan;

/// Keys of a model that trains in a few seconds, with one metrics line and checkpoint per step.
const SMALL: &str = "[run]\nsteps = 24\nlog_every = 1\neval_every = 12\nsave_every = 3\n[data]\nbatch = 2\n\
    validation_samples = 4\n[model]\nd_model = 16\nlayers = 2\ndense_ffn = 16\n[attention]\nheads = 2\n\
    kv_heads = 1\n[moe]\nexperts = 4\nexpert_ffn = 8\n[moe.balance]\nbias_rate = 0.01\nz = 1e-3\n";

pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        write_plan(&dir.path().join("out"), 1);
        std::fs::write(dir.path().join("small.toml"), SMALL).expect("write");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moe-train"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    pub fn train(&self, run: &str, more: &[&str]) -> Output {
        let args = ["--shards", "out", "--config", "small.toml", "--run", run, "--json"];
        self.run(&[&args[..], more].concat())
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("stdout is JSON")
}

#[test]
fn train_eval_sample_inspect_and_the_refusals() {
    let world = World::new();
    let trained = json(&world.train("runs/a", &[]));
    assert_eq!(trained["step"], 24);
    let (loss, unigram) = (
        trained["validation_ce"].as_f64().expect("a loss"),
        trained["validation_unigram_ce"].as_f64().expect("a loss"),
    );
    assert!(loss < unigram, "{loss} {unigram}");

    let inspected = json(&world.run(&["inspect", "runs/a", "--json"]));
    assert_eq!(inspected["state"]["parameter_hash"], trained["parameter_hash"]);
    let evaluated = json(&world.run(&["eval", "runs/a", "--shards", "out", "--samples", "4", "--json"]));
    assert!((evaluated["all"]["ce"].as_f64().expect("a loss") - loss).abs() < 1e-6);
    let router = &evaluated["routers"][0];
    for (source, loads) in router["sources"].as_object().expect("sources") {
        let sum: f64 = loads.as_array().expect("shares").iter().filter_map(serde_json::Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{source}: {loads}");
    }
    let told = world.run(&["eval", "runs/a", "--shards", "out", "--samples", "4"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("experts effective"), "{told:?}");
    let sampled = |seed: &str| {
        let args = ["sample", "runs/a", "--prompt", "a b", "--max-tokens", "8", "--seed", seed, "--json"];
        json(&world.run(&args))["text"].as_str().expect("text").to_string()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert!(sampled("1").starts_with("a b"));
    // Prompts are continued independently, further than the model's training length.
    let of = |prompts: &[&str]| -> Vec<serde_json::Value> {
        let prompts = prompts.iter().flat_map(|prompt| ["--prompt", prompt]);
        let args = ["sample", "runs/a", "--max-tokens", "60", "--top-p", "0.9", "--json"];
        let out = world.run(&args.into_iter().chain(prompts).collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&out.stdout);
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let both = of(&["a b", "c"]);
    assert_eq!(both, [of(&["a b"]), of(&["c"])].concat());
    assert_eq!((&both[1]["prompt"], both.len()), (&serde_json::json!("c"), 2));
    assert_eq!(world.run(&["sample", "runs/a", "--top-p", "0"]).status.code(), Some(2));

    let no_average = world.run(&["eval", "runs/a", "--shards", "out", "--ema"]);
    assert_eq!(no_average.status.code(), Some(4));
    assert!(stderr(&no_average).contains("run.ema_decay"), "{}", stderr(&no_average));

    let again = world.train("runs/a", &[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("moe-train resume runs/a"), "{}", stderr(&again));
    let changed = world.run(&["resume", "runs/a", "--set", "moe.top_k=3", "--set", "run.log_every=2"]);
    assert_eq!(changed.status.code(), Some(2));
    assert!(stderr(&changed).contains("moe.top_k: 2 -> 3"), "{}", stderr(&changed));
    write_plan(&world.path("other"), 2);
    let elsewhere = world.run(&["resume", "runs/a", "--shards", "other"]);
    assert_eq!(elsewhere.status.code(), Some(4), "{}", stderr(&elsewhere));
}

#[test]
fn averages_are_evaluated_and_skipped_updates_reported() {
    let world = World::new();
    let sets =
        ["run.ema_decay=0.5", "optim.skip_sigma=0", "optim.skip_window=6", "run.eval_every=8", "run.steps=8"];
    let sets: Vec<&str> = sets.iter().flat_map(|assignment| ["--set", assignment]).collect();
    let trained = world.train("runs/a", &sets);
    assert!(trained.status.success(), "{}", stderr(&trained));
    let told = stderr(&trained);
    assert!(told.contains("the update was skipped: loss") && told.contains("average of weights"), "{told}");
    let loss = |more: &[&str]| {
        let args = [&["eval", "runs/a", "--shards", "out", "--samples", "4", "--json"], more].concat();
        json(&world.run(&args))["all"]["ce"].as_f64().expect("a loss")
    };
    assert_ne!(loss(&["--ema"]), loss(&[]));
    assert!(world.run(&["sample", "runs/a", "--ema", "--prompt", "a", "--max-tokens", "2"]).status.success());
    let planned = json(
        &world.run(&[&["plan", "--shards", "out", "--config", "small.toml", "--json"], &sets[..]].concat()),
    );
    let bytes = |purpose: &str| planned["memory"]["bytes"][purpose].as_u64().expect("bytes");
    // Two moments and the average of the trained parameters; selection biases have neither.
    assert!(bytes("average") > 0 && 2 * bytes("average") == bytes("moments"));
}

#[test]
fn bad_input_has_an_exit_code_and_no_panic() {
    let world = World::new();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--shards", "nowhere"], 3, "no such folder"),
        (&["--shards", "out", "--set", "moe.topk=2"], 2, "did you mean `moe.top_k`?"),
        (&["--shards", "out", "--preset", "huge"], 2, "smoke, tiny, char"),
        (&["--shards", "out", "--steps", "100000"], 2, "mix --epochs"),
        (&["--shards", "out", "--device", "cuda:9"], 5, "cuda:9"),
        (&["resume", "nowhere"], 4, "no such run"),
        (&["config", "--explain", "moe.balance.swich"], 2, "moe.balance.switch"),
        (&["config", "--set", "optim.group=[{names=['x'], lr=1.0}]"], 2, "does not match any parameter"),
    ];
    for (args, code, text) in cases {
        let output = world.run(args);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(text) && !stderr.contains("panicked"), "{args:?}: {stderr}");
        assert!(!world.path("runs").exists(), "{args:?} left something behind");
    }
}

#[test]
fn every_key_is_explained() {
    let world = World::new();
    for key in moe_train::config::keys::KEYS.iter() {
        let output = world.run(&["config", "--explain", key.name]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(key.doc));
    }
    let explained = world.run(&["config", "--explain", "optim.group"]);
    assert!(explained.status.success() && String::from_utf8_lossy(&explained.stdout).contains("frozen"));
    let group = "optim.group=[{names=['*.attention.*'], rule='muon'}, {names=['embedding'], frozen=true}]";
    let groups = world.run(&["config", "--preset", "moonlet-7b", "--groups", "--set", group]);
    let shown = String::from_utf8_lossy(&groups.stdout).into_owned();
    let cells: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(cells.contains(&vec!["embedding", "2", "embedding", "frozen", "-", "no"]), "{shown}");
    let is_muon =
        |cells: &Vec<&str>| cells[0].contains("attention") && cells[1..4] == ["1", "*.attention.*", "muon"];
    assert!(cells.iter().any(is_muon), "{shown}");
    let whole = world.run(&["config", "--preset", "smoke"]);
    let text = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
}

/// Waits until the run has written `n` lines of metrics.
fn wait_for_lines(run: &Path, n: usize) {
    let start = Instant::now();
    let lines = || std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while lines() < n {
        assert!(start.elapsed() < Duration::from_secs(60), "the run does not get on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_parameters() {
    let world = World::new();
    let straight = json(&world.train("runs/straight", &[]));

    let args = ["-q", "--shards", "out", "--config", "small.toml", "--run", "runs/killed"];
    let mut child = world.command(&args).spawn().expect("the program starts");
    wait_for_lines(&world.path("runs/killed"), 10);
    child.kill().expect("SIGKILL");
    child.wait().expect("the end of the process");

    let resumed = json(&world.run(&["resume", "runs/killed", "--prefetch", "1", "--json"]));
    assert_eq!(resumed["parameter_hash"], straight["parameter_hash"]);
    assert_eq!(resumed["data_hash"], straight["data_hash"]);
}

#[cfg(unix)]
#[test]
fn sigterm_saves_and_says_how_to_continue() {
    let world = World::new();
    let args = ["--shards", "out", "--config", "small.toml", "--run", "runs/stopped", "--steps", "30"];
    let child =
        world.command(&args).stderr(std::process::Stdio::piped()).spawn().expect("the program starts");
    wait_for_lines(&world.path("runs/stopped"), 4);
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("the end of the process");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("moe-train resume runs/stopped"), "{}", stderr(&output));
    let resumed = json(&world.run(&["resume", "runs/stopped", "--json"]));
    assert_eq!(resumed["step"], 30);
}

#[test]
fn bench_measures_every_part_and_whole_steps() {
    let world = World::new();
    let args = ["bench", "--config", "small.toml", "--seq-len", "24", "--vocab", "40", "--device", "cpu"];
    let few = ["--steps", "2", "--repeats", "1", "--set", "data.micro_batch=1"];
    let out = world.run(&[&args[..], &few, &["--json"]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let names: Vec<&str> = report["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .map(|p| p["name"].as_str().expect("a name"))
        .collect();
    let expected =
        ["router", "dispatch and combine", "experts", "attention", "head and loss", "norm and optimizer"];
    assert_eq!(names, expected);
    // One block of two has a mixture of experts; two micro-batches of one sample.
    let times: Vec<u64> = report["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .map(|p| p["times"].as_u64().expect("a number"))
        .collect();
    assert_eq!(times, [2, 2, 2, 4, 2, 1]);
    // Embedding 40 * 16, three norms and the like, and the rest by the formula of the model's size.
    assert!(report["parameters"].as_u64().expect("a number") > 40 * 16);
    // 2 of 4 experts for each of 2 * 24 tokens: 24 rows on average.
    assert_eq!(report["steps"]["rows_per_expert"][1], 24.0);
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let rate = number(&report["steps"]["tokens_per_second"]);
    assert!((rate * number(&report["steps"]["ms"]) / 1e3 / 48.0 - 1.0).abs() < 1e-9);
    let mfu = rate * number(&report["flops_per_token"]) / 1e12 / number(&report["peak_tflops"]);
    assert!((number(&report["mfu"]) / mfu - 1.0).abs() < 1e-9);
    assert!(report["steps"]["reads"].is_null(), "a CPU waits for nothing");

    let table = world.run(&[&args[..], &few].concat());
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(expected.iter().all(|name| table.contains(name)) && table.contains("tokens/s"), "{table}");
}

#[test]
fn the_cpu_refuses_bf16_and_says_what_to_do() {
    let world = World::new();
    for verb in [&["bench"][..], &["--shards", "out", "--run", "no"]] {
        let args = ["--config", "small.toml", "--set", "precision.compute=bf16"];
        let out = world.run(&[verb, &args, &["--device", "cpu"]].concat());
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{err}");
        assert!(err.contains("--set precision.compute=f32"), "{err}");
    }
    assert!(!world.path("no").exists());
}

#[test]
fn a_run_with_recomputation_learns_bit_for_bit_the_same() {
    let world = World::new();
    let hash = |out: &Output| {
        let record: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        record["parameter_hash"].as_str().expect("a hash").to_owned()
    };
    let kept = world.train("kept", &[]);
    let again = world.train("again", &["--set", "run.recompute=true"]);
    assert_eq!(hash(&kept), hash(&again));
    let err = String::from_utf8_lossy(&kept.stderr);
    assert!(err.contains("memory about") && err.contains("activations of 2 samples"), "{err}");
}

#[test]
fn a_model_that_compares_tokens_reads_the_whole_text_for_each_new_one() {
    let world = World::new();
    world.train("runs/a", &["--steps", "2", "--set", "moe.capacity.eval_factor=1.0"]);
    let out = world.run(&["sample", "runs/a", "--max-tokens", "4"]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(stderr(&out).contains("moe.capacity.eval_factor"), "{}", stderr(&out));
}

#[test]
fn each_kind_of_attention_is_measured_over_each_length() {
    let world = World::new();
    let small = ["--set", "model.d_model=16", "--kind", "swa", "--lengths", "8,24"];
    let out = world.run(&[&["bench", "--attention", "--json"][..], &small].concat());
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let cells = json(&out);
    let tokens = |i: usize| cells[i]["tokens"].as_u64();
    assert_eq!([tokens(0), tokens(1), tokens(2)], [Some(8), Some(24), None]);
    assert!(cells[1]["seconds"].as_f64().expect("a time") > 0.0 && cells[1]["kind"] == "swa");
    let wrong =
        world.run(&["bench", "--attention", "--kind", "swa", "--lengths", "8", "--set", "model.d_model=3"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}
