use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::{command, digests, kill_after, repo, succeed};
use moe_shards::Hash;
use moe_shards::permute::mix64;

/// A folder with the repository's recipe and mixture, and its data in a given number of files.
pub fn project(files_per_source: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("configs")).unwrap();
    fs::create_dir_all(dir.path().join("datasets")).unwrap();
    fs::copy(repo().join("configs/mix.toml"), dir.path().join("configs/mix.toml")).unwrap();
    let mut recipe = fs::read_to_string(repo().join("configs/build.toml")).unwrap();
    for name in ["bible_kjv_web", "django_docs_two_versions"] {
        let from = repo().join(format!("datasets/{name}.jsonl.gz"));
        if files_per_source == 1 {
            fs::copy(from, dir.path().join(format!("datasets/{name}.jsonl.gz"))).unwrap();
            continue;
        }
        split(&from, &dir.path().join("datasets"), name, files_per_source);
        let (one, many) = (format!("{name}.jsonl.gz"), format!("{name}.*.jsonl"));
        assert!(recipe.contains(&one), "the recipe reads {one}");
        recipe = recipe.replace(&one, &many);
    }
    fs::write(dir.path().join("configs/build.toml"), recipe).unwrap();
    dir
}

/// Deals the lines of a file to `n` plain files, in a different order.
fn split(from: &Path, to: &Path, name: &str, n: usize) {
    let lines = BufReader::new(flate2::read::MultiGzDecoder::new(fs::File::open(from).unwrap())).lines();
    let mut lines: Vec<String> = lines.map(|line| line.unwrap()).collect();
    lines.sort_by_key(|line| Hash::of(line.as_bytes()));
    let path = |i: usize| -> PathBuf { to.join(format!("{name}.{i}.jsonl")) };
    let mut files: Vec<fs::File> = (0..n).map(|i| fs::File::create(path(i)).unwrap()).collect();
    for (i, line) in lines.iter().enumerate() {
        writeln!(files[i % n], "{line}").unwrap();
    }
}

/// What the contract covers, by file.
fn contract(out: &Path) -> Vec<(String, Hash)> {
    let covered =
        ["shards/", "plan/", "plan.", "ledger.json", "MANIFEST.json", "tokenizer.json", "token_bytes.u16"];
    let files =
        digests(out).into_iter().filter(|(name, _)| covered.iter().any(|prefix| name.starts_with(prefix)));
    let files: Vec<(String, Hash)> = files.collect();
    for prefix in covered {
        assert!(files.iter().any(|(name, _)| name.starts_with(prefix)), "{prefix} is missing");
    }
    files
}

fn build_and_mix(dir: &Path, threads: &str) {
    succeed("moe-data", dir, &["build", "--threads", threads]);
    succeed("moe-data", dir, &["mix", "--epochs", "4"]);
}

#[test]
fn threads_and_file_splits_do_not_change_a_byte() {
    let reference = project(1);
    build_and_mix(reference.path(), "1");
    let expected = contract(&reference.path().join("out"));
    for (files, threads) in [(1, "2"), (5, "2"), (3, "1")] {
        let other = project(files);
        build_and_mix(other.path(), threads);
        assert_eq!(contract(&other.path().join("out")), expected, "{files} files, {threads} threads");
    }
}

/// Twenty kills at random moments, each followed by the same command: in the end the same bytes.
#[test]
fn twenty_kills_during_build_and_mix_do_not_change_a_byte() {
    let reference = project(1);
    let started = Instant::now();
    succeed("moe-data", reference.path(), &["build", "--threads", "2"]);
    let build_time = started.elapsed();
    succeed("moe-data", reference.path(), &["mix", "--epochs", "4"]);
    let mix_time = started.elapsed() - build_time;
    let expected = contract(&reference.path().join("out"));

    let victim = project(4);
    let out = victim.path().join("out");
    let moment = |i: u64, whole: Duration| whole.mul_f64((mix64(i) % 1000) as f64 / 1000.0);
    let mut interrupted = 0;
    for i in 0..14u64 {
        // A continued build gets shorter and finally ends; now and then one starts from scratch.
        if i.is_multiple_of(5) && out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        let delay = moment(i, build_time).div_f64(1.0 + (i % 5) as f64);
        interrupted += u32::from(kill_after(command("moe-data", victim.path(), &["build"]), delay));
    }
    assert!(interrupted >= 3, "only {interrupted} of 14 kills of a build came in time");
    succeed("moe-data", victim.path(), &["build"]);
    for i in 14..20u64 {
        kill_after(command("moe-data", victim.path(), &["mix", "--epochs", "4"]), moment(i, mix_time));
    }
    succeed("moe-data", victim.path(), &["mix", "--epochs", "4"]);
    assert_eq!(contract(&out), expected);
    let leftovers: Vec<String> =
        digests(&out.join("shards")).into_keys().filter(|name| name.ends_with(".moe-tmp")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn a_finished_build_and_plan_are_left_alone() {
    let dir = project(1);
    build_and_mix(dir.path(), "2");
    let before = digests(&dir.path().join("out"));
    let said = e2e_stderr(dir.path(), &["build"]);
    assert!(said.contains("nothing changed"), "{said}");
    let said = e2e_stderr(dir.path(), &["mix", "--epochs", "4"]);
    assert!(said.contains("nothing changed"), "{said}");
    assert_eq!(digests(&dir.path().join("out")), before);
}

fn e2e_stderr(dir: &Path, args: &[&str]) -> String {
    let output = command("moe-data", dir, args).output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
