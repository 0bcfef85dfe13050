use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{command, digests, fail, kill_after, succeed};
use moe_shards::Hash;
use moe_shards::permute::mix64;
use serde_json::{Value, json};

use crate::determinism::project;

/// The quickstart's recipe over several files, with everything that looks at all documents.
fn corpus() -> tempfile::TempDir {
    let dir = project(3);
    let path = dir.path().join("configs/build.toml");
    let mut recipe = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("[dedup]\n", "[dedup.minhash]\nestimate = 50\n\n[dedup]\n"),
        ("slice_bytes = \"64MB\"", "slice_bytes = \"200KB\""),
    ] {
        assert!(recipe.contains(from), "the recipe has {from}");
        recipe = recipe.replace(from, to);
    }
    fs::write(&path, recipe).unwrap();
    dir
}

/// All that a build shows.
fn published(dir: &Path) -> BTreeMap<String, Hash> {
    let mut files = digests(&dir.join("out"));
    files.retain(|name, _| !name.starts_with("work/") && name != ".lock");
    assert!(
        files.contains_key("MANIFEST.json") && files.contains_key("audit/dups-minhash.parquet"),
        "{files:?}"
    );
    files
}

fn built_here() -> BTreeMap<String, Hash> {
    let dir = corpus();
    succeed("moe-data", dir.path(), &["build", "--threads", "2"]);
    published(dir.path())
}

/// What `build --plan-tasks` says when tasks are waiting; `None` when the build is finished.
fn plan(dir: &Path) -> Option<Value> {
    let output = command("moe-data", dir, &["build", "--plan-tasks", "--json", "-q"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => None,
        Some(8) => {
            assert_eq!(said, "", "waiting is no error");
            Some(serde_json::from_slice(&output.stdout).unwrap())
        }
        code => panic!("{code:?}: {said}"),
    }
}

fn share(dir: &Path, array: &str) -> Command {
    command("moe-data", dir, &["task", "run", "--array", array, "--threads", "1", "-q"])
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Lets a build go on until it is finished; `between` does the tasks that are waiting.
fn finish(dir: &Path, mut between: impl FnMut(&str)) {
    let mut stages = Vec::new();
    while let Some(waiting) = plan(dir) {
        let stage = waiting["stage"].as_str().unwrap().to_owned();
        between(&stage);
        stages.push(stage);
        assert!(stages.len() < 30, "no end is in sight: {stages:?}");
    }
    for stage in ["read", "measure", "filter", "sketch", "members", "verify", "train", "tokenize", "shard"] {
        assert_eq!(stages.iter().filter(|other| *other == stage).count(), 1, "{stage} in {stages:?}");
    }
}

/// Everything in the work folder that is no result of a task that is done.
fn leftovers(dir: &Path) -> Vec<String> {
    let is_left = |name: &String| {
        [".tries/", ".failed", ".moe-tmp", "tasks.jsonl"].iter().any(|kind| name.contains(kind))
    };
    digests(&dir.join("out/work")).into_keys().filter(is_left).collect()
}

fn wait_for(mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_there() {
        assert!(Instant::now() < deadline, "it did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(process: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn shares_of_tasks_give_the_bytes_of_a_build_on_one_machine() {
    let dir = corpus();
    finish(dir.path(), |_| {
        let shares = ["0/3", "1/3", "2/3"].map(|array| start(share(dir.path(), array)));
        shares.into_iter().for_each(end);
    });
    assert_eq!(published(dir.path()), built_here());
    assert_eq!(leftovers(dir.path()), [""; 0]);
}

/// A build that was begun with tasks for others goes on without them, and the other way round.
#[test]
fn a_build_goes_on_here_or_elsewhere() {
    let dir = corpus();
    let said = plan(dir.path()).unwrap();
    let n_tasks = said["tasks"].as_u64().unwrap();
    assert!(said["stage"] == "read" && said["waiting"] == n_tasks && n_tasks > 8, "{said}");
    end(start(share(dir.path(), "1/2")));
    let said = plan(dir.path()).unwrap();
    assert_eq!((&said["waiting"], &said["tasks"]), (&n_tasks.div_ceil(2).into(), &n_tasks.into()));
    kill_after(command("moe-data", dir.path(), &["build"]), Duration::from_millis(400));
    while plan(dir.path()).is_some() {
        end(start(share(dir.path(), "0/1")));
    }
    succeed("moe-data", dir.path(), &["build"]);
    assert_eq!(published(dir.path()), built_here());
}

#[test]
fn killed_shares_and_shares_done_twice_at_once_do_not_change_a_byte() {
    let dir = corpus();
    let mut n_killed = 0;
    finish(dir.path(), |stage| {
        let delay = Duration::from_millis(mix64(stage.len() as u64) % 150);
        n_killed += u32::from(kill_after(share(dir.path(), "0/1"), delay));
        let both = [0, 1].map(|_| start(share(dir.path(), "0/1")));
        both.into_iter().for_each(end);
    });
    assert!(n_killed >= 3, "only {n_killed} kills came in time");
    assert_eq!(published(dir.path()), built_here());
    assert_eq!(leftovers(dir.path()), [""; 0]);
}

/// The attempt of a node that the scheduler has given up may go on at any later time.
#[test]
fn an_attempt_that_was_given_up_and_lives_on_does_no_harm() {
    let dir = corpus();
    plan(dir.path()).unwrap();
    let given_up = start(share(dir.path(), "0/1"));
    let work = dir.path().join("out/work/read");
    let is_at_work = || {
        fs::read_dir(&work).is_ok_and(|mut entries| entries.any(|entry| is_attempt(&entry.unwrap().path())))
    };
    wait_for(|| {
        signal(&given_up, "-STOP");
        // The signal arrives a moment later.
        std::thread::sleep(Duration::from_millis(20));
        let is_caught = is_at_work();
        if !is_caught {
            signal(&given_up, "-CONT");
        }
        is_caught
    });
    end(start(share(dir.path(), "0/1")));
    // All tasks are done, and the attempt is as it was.
    assert_eq!(plan(dir.path()).unwrap()["stage"], "measure");
    assert!(is_at_work());
    let before = digests(&work);
    signal(&given_up, "-CONT");
    end(given_up);
    let after: BTreeMap<String, Hash> = digests(&work);
    let kept = |files: &BTreeMap<String, Hash>| -> Vec<(String, Hash)> {
        let kept = files.iter().filter(|(name, _)| !name.contains(".tries/"));
        kept.map(|(name, hash)| (name.clone(), *hash)).collect()
    };
    assert_eq!(kept(&after), kept(&before));
    assert!(!is_at_work());
    finish_alone(dir.path());
    assert_eq!(published(dir.path()), built_here());
}

fn finish_alone(dir: &Path) {
    while plan(dir).is_some() {
        end(start(share(dir, "0/1")));
    }
}

fn is_attempt(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "tries")
}

/// Where the attempts of the third task in the list are made.
fn tries_of_a_task(dir: &Path) -> PathBuf {
    let list = fs::read_to_string(dir.join("out/work/tasks.jsonl")).unwrap();
    let task: Value = serde_json::from_str(list.lines().nth(3).unwrap()).unwrap();
    dir.join(task["output"].as_str().unwrap()).with_extension("tries")
}

#[test]
fn a_task_that_fails_is_named_and_does_not_stop_the_others() {
    let dir = corpus();
    let n_tasks = plan(dir.path()).unwrap()["tasks"].as_u64().unwrap();
    let blocked = tries_of_a_task(dir.path());
    fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    fs::write(&blocked, "").unwrap();
    for n in 1..=2 {
        let args = ["task", "run", "--array", "0/1", "--log", "job.log"];
        let said = fail("moe-data", dir.path(), &args, 2);
        assert!(said.contains("of `read`: ") && said.contains(".tries: cannot read"), "{said}");
        assert!(said.contains(&format!("1 of {n_tasks} tasks of `read` failed")), "{said}");
        let status: Value =
            serde_json::from_str(&succeed("moe-data", dir.path(), &["task", "status", "--json"])).unwrap();
        assert_eq!((&status["done"], &status["waiting"]), (&(n_tasks - 1).into(), &0.into()), "{status}");
        let failed = &status["failed"][0];
        assert_eq!(failed["n_tries"], n, "{status}");
        assert!(failed["reason"].as_str().unwrap().contains("cannot read"), "{status}");
        assert!(failed["log"].as_str().unwrap().ends_with("/job.log"), "{status}");
    }
    let said = plan(dir.path()).unwrap();
    assert_eq!((&said["waiting"], &said["failed"]), (&1.into(), &1.into()), "{said}");
    let text = succeed("moe-data", dir.path(), &["task", "status"]);
    let counts = format!("read: {n_tasks} tasks, {} done, 0 running, 0 waiting, 1 failed\n", n_tasks - 1);
    assert!(text.starts_with(&counts), "{text}");
    assert!(text.contains("failed 2 times"), "{text}");
    fs::remove_file(&blocked).unwrap();
    end(start(share(dir.path(), "0/1")));
    assert!(!blocked.with_extension("failed").exists());
    finish_alone(dir.path());
    assert_eq!(published(dir.path()), built_here());
}

#[test]
fn a_list_that_is_not_of_this_program_and_folder_is_refused() {
    let dir = corpus();
    let nothing = command("moe-data", dir.path(), &["task", "run", "--array", "0/1"]).output().unwrap();
    assert!(nothing.status.success());
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no tasks are waiting in out"));
    plan(dir.path()).unwrap();
    let path = dir.path().join("out/work/tasks.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let refused = |out: &str, code: i32, message: &str| {
        let said = fail("moe-data", dir.path(), &["task", "run", "--array", "0/1", "--out", out], code);
        assert!(said.contains(message), "{said}");
    };
    fs::write(&path, whole.replacen("\"program\":\"", "\"program\":\"0.0.0-", 1)).unwrap();
    refused("out", 2, "use one program on all machines");
    fs::write(&path, whole.replacen("\"weight\":", "\"weight\":1", 1)).unwrap();
    refused("out", 3, "is damaged");
    fs::create_dir_all(dir.path().join("copy/work")).unwrap();
    fs::write(dir.path().join("copy/work/tasks.jsonl"), &whole).unwrap();
    refused("copy", 2, "run the build again in the folder where it is now");
    fs::write(&path, &whole).unwrap();
    let said = fail("moe-data", dir.path(), &["task", "run", "--array", "3/3"], 2);
    assert!(said.contains("count from 0 to 2"), "{said}");
    let said = fail("moe-data", dir.path(), &["task", "run"], 2);
    assert!(said.contains("--array I/N"), "{said}");
    assert!(!dir.path().join("out/work/read").exists(), "nothing was done");
    // From another folder the tasks still find their input.
    let elsewhere = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = ["task", "run", "--array", "0/1", "--json", "--out", out.to_str().unwrap()];
    let said: Value = serde_json::from_str(&succeed("moe-data", elsewhere.path(), &args)).unwrap();
    let n_tasks = whole.lines().count() - 1;
    assert_eq!(said, json!({"stage": "read", "tasks": n_tasks, "share": 0, "shares": 1}));
    assert_eq!(plan(dir.path()).unwrap()["stage"], "measure");
}

#[test]
fn a_program_without_executors_says_how_to_get_one_with_them() {
    let dir = corpus();
    for args in [&["build", "--engine", "ballista"][..], &["executor", "--scheduler", "127.0.0.1:1"]] {
        let said = fail("moe-data", dir.path(), args, 2);
        assert!(said.contains("--features cluster"), "{said}");
    }
    let said = fail("moe-data", dir.path(), &["executor", "--scheduler", "here"], 2);
    assert!(said.contains("expected HOST:PORT"), "{said}");
}
