use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Scratch, lines, small_recipe};

/// A build of forty documents in `out`.
fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..40));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    scratch
}

const MIX: [&str; 6] = ["mix", "--epochs", "2", "--seq-len", "64", "-q"];

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_folder_of_others_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..40));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let precious =
        ["work/project/thesis.txt", "shards/raw.txt", "audit/2024.csv", "plan/trip/notes.md", "dedup/x"];
    for name in precious {
        scratch.write(&format!("home/{name}"), "precious");
    }
    for more in [&[][..], &["--fresh"], &["--dry-run"]] {
        let said = scratch.fail(&[&["build", "--recipe", "r.toml", "--out", "home"], more].concat(), 2);
        assert!(said.err.contains("holds other files, such as `audit`"), "{}", said.err);
    }
    assert_eq!(files_below(&scratch.path("home")).len(), precious.len());

    // In one of our folders, other files survive everything that replaces or removes files.
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    scratch.ok(&MIX);
    let precious = [
        &precious[..],
        &[
            "work/read/notes.txt",
            "quarantine/mine.jsonl",
            "plan/0123456789ab/notes.md",
            "export/mine.npy",
            "a.7.tmp",
        ],
    ]
    .concat();
    for name in &precious {
        scratch.write(&format!("out/{name}"), "precious");
    }
    scratch.write("a.jsonl", lines(0..50));
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    scratch.ok(&["mix", "--epochs", "3", "--seq-len", "64", "--force", "-q"]);
    scratch.ok(&["export", "--npy", "--megatron", "-q"]);
    scratch.ok(&["build", "--recipe", "r.toml", "-q", "--fresh"]);
    scratch.ok(&["mix", "--epochs", "3", "--seq-len", "64", "--force", "-q"]);
    for name in &precious {
        assert_eq!(fs::read(scratch.path(&format!("out/{name}"))).unwrap(), b"precious", "{name}");
    }
    scratch.ok(&["verify", "out"]);
}

#[test]
fn what_is_in_the_way_of_a_file_is_named_before_any_work() {
    let scratch = built();
    let old = fs::read(scratch.path("out/ledger.json")).unwrap();
    fs::remove_file(scratch.path("out/.moe-data/build.json")).unwrap();
    fs::remove_file(scratch.path("out/MANIFEST.json")).unwrap();
    fs::remove_dir_all(scratch.path("out/work")).unwrap();
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("holds other files"), "{}", said.err);
    assert_eq!(fs::read(scratch.path("out/ledger.json")).unwrap(), old);

    let scratch = built();
    scratch.write("out/plan.toml", "my plan of the week");
    let said = scratch.fail(&[&MIX[..], &["--force"]].concat(), 2);
    assert!(said.err.contains("plan.toml is in the way"), "{}", said.err);
    fs::remove_file(scratch.path("out/plan.toml")).unwrap();
    scratch.write("to/a-v0-00000.npy", "an array of mine");
    let said = scratch.fail(&["export", "--npy", "--to", "to"], 2);
    assert!(said.err.contains("a-v0-00000.npy is in the way"), "{}", said.err);
    assert_eq!(fs::read(scratch.path("to/a-v0-00000.npy")).unwrap(), b"an array of mine");
    scratch.ok(&["export", "--npy", "--to", "elsewhere", "-q"]);
    scratch.ok(&["export", "--npy", "--to", "elsewhere", "-q"]);
    scratch.ok(&["verify", "elsewhere"]);
}

#[test]
fn the_output_of_an_earlier_version_is_adopted_and_verify_says_what_no_digest_covers() {
    let scratch = built();
    scratch.ok(&MIX);
    let results = scratch.results("out");
    fs::remove_dir_all(scratch.path("out/.moe-data")).unwrap();
    let said = scratch.ok(&["verify", "out"]);
    assert!(said.err.contains("no digest covers") && said.err.contains("recipe.lock.toml"), "{}", said.err);
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    scratch.ok(&MIX);
    assert!(!scratch.ok(&["verify", "out"]).err.contains("no digest covers"));
    assert!(scratch.results("out") == results);
}

#[test]
fn an_output_folder_inside_the_input_is_not_read() {
    let scratch = Scratch::new();
    let record = |i: usize| lines(i..i + 1);
    for i in 0..3 {
        scratch.write(&format!("corpus/{i}.jsonl"), record(i));
    }
    let recipe = small_recipe("\"corpus\"", "");
    scratch.write("r.toml", &recipe);
    let read = |scratch: &Scratch, out: &str| scratch.ledger(out).sources["a"].read.docs;
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "corpus/deep/out", "-q"]);
    scratch.write("corpus/3.jsonl", record(3));
    let said = scratch.ok(&["build", "--recipe", "r.toml", "--out", "corpus/deep/out"]);
    assert!(said.err.contains("files in it are left out of the input"), "{}", said.err);
    assert_eq!(read(&scratch, "corpus/deep/out"), 4);
    // Nor is the command's own output file, which grows while files are read.
    let log = fs::File::create(scratch.path("corpus/log.txt")).unwrap();
    let args = ["build", "--recipe", "r.toml", "--out", "corpus/deep/out"];
    let status = scratch.command(&args).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert_eq!((status.code(), read(&scratch, "corpus/deep/out")), (Some(0), 4));
    fs::remove_file(scratch.path("corpus/log.txt")).unwrap();
    // The same from another build.
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "other", "-q"]);
    assert_eq!(read(&scratch, "other"), 4);
    let said = scratch.fail(&["build", "--input", "corpus/deep/out", "--out", "third"], 2);
    assert!(said.err.contains("written by this program"), "{}", said.err);
}

#[test]
fn what_killed_commands_left_is_cleaned_up_by_the_next_one() {
    let scratch = built();
    scratch.ok(&MIX);
    let plan = scratch.path("out/plan");
    let folder = fs::read_dir(plan).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let left = [
        "MANIFEST.json.77.0.moe-tmp".to_owned(),
        "shards/a-v0-00000.idx.77.0.moe-tmp".to_owned(),
        "export/samples.npy.77.0.moe-tmp".to_owned(),
        ".moe-data/export.json.77.0.moe-tmp".to_owned(),
        format!("plan/{folder}/a-p000.pack.77.0.moe-tmp"),
    ];
    for name in &left {
        scratch.write(&format!("out/{name}"), "half");
    }
    scratch.write("out/notes.tmp", "mine");
    scratch.ok(&["export", "--npy", "-q"]);
    let still: Vec<_> =
        files_below(&scratch.path("out")).into_iter().filter(|name| name.ends_with("tmp")).collect();
    assert_eq!(still, ["notes.tmp"]);
}

#[test]
fn a_damaged_ledger_says_what_to_do_and_is_written_again() {
    let scratch = built();
    let path = scratch.path("out/ledger.json");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let said = scratch.fail(&["verify", "out"], 1);
    assert!(
        said.err.contains("ledger.json: is damaged") && said.err.contains("run moe-data build"),
        "{}",
        said.err
    );
    scratch.fail(&["inspect", "out/ledger.json"], 3);
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused_for_reading_and_writing() {
    let scratch = built();
    scratch.ok(&MIX);
    scratch.write("thesis.bin", "precious");
    let change = |name: &str, edit: &dyn Fn(&mut Value)| {
        let path = scratch.path(&format!("out/{name}"));
        let whole = fs::read(&path).unwrap();
        let mut value: Value = serde_json::from_slice(&whole).unwrap();
        edit(&mut value);
        fs::write(&path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        whole
    };
    for bad in ["../thesis", "/tmp/x", "a\\b", "c:x", "..", "a\u{0}b", "nul"] {
        let whole = change("MANIFEST.json", &|value| value["shards"][0]["name"] = bad.into());
        for args in
            [&["export", "--megatron"][..], &["inspect", "out"], &["explain", "0"], &["verify", "out"]]
        {
            let said = scratch.fail(args, 3);
            assert!(said.err.contains("name of a shard"), "{args:?} {}", said.err);
        }
        fs::write(scratch.path("out/MANIFEST.json"), whole).unwrap();
        let edit: &dyn Fn(&mut Value) = &|value| value["pools"][0]["validation"]["pack"]["file"] = bad.into();
        let whole = change("plan.lock", edit);
        assert!(scratch.fail(&["explain", "0"], 3).err.contains("pack index"));
        fs::write(scratch.path("out/plan.lock"), whole).unwrap();
    }
    assert_eq!(fs::read(scratch.path("thesis.bin")).unwrap(), b"precious");
    scratch.ok(&["explain", "0"]);
}

#[test]
fn output_that_cannot_be_written_ends_in_exit_code_7() {
    let scratch = built();
    scratch.ok(&MIX);
    for args in [
        &["inspect", "out"][..],
        &["filters"],
        &["why", "a/doc-1"],
        &["explain", "0"],
        &["mix", "--epochs", "2", "--seq-len", "64", "--json"],
        &["dups"],
        &["where", "doc-1"],
        &["diff", "out", "out", "--json"],
        &["verify", "out", "--json"],
        &["build", "--recipe", "r.toml", "--json"],
        &["export", "--megatron"],
        &["--help"],
        &["inspect", "--help"],
        &["--version"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = scratch.command(args).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{args:?} {said}");
        assert!(said.contains("error: cannot write to standard output"), "{args:?} {said}");

        // A closed pipe needs no message.
        let mut child = scratch.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked") && !said.contains("standard output"), "{args:?} {said}");
    }
}

/// The one document needs more memory than there is.
#[cfg(target_os = "linux")]
#[test]
fn running_out_of_memory_ends_in_exit_code_5() {
    let scratch = Scratch::new();
    scratch.write("a.txt", "a text of many words ".repeat(12 << 20));
    scratch.write(
        "r.toml",
        "[[source]]\nname = \"a\"\npaths = [\"a.txt\"]\n[limits]\nmax_doc_bytes = \"300MB\"\n\
         [tokenizer]\ntrain = { vocab_size = 300 }\n",
    );
    let script = format!(
        "ulimit -v 450000; exec {} build --recipe r.toml --threads 1",
        env!("CARGO_BIN_EXE_moe-data")
    );
    let command =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(scratch.path(".")).output();
    let output = command.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("memory"), "{said}");
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--memory", "1000000TB"], 5);
    assert!(said.err.contains("--memory is") && said.err.contains("this machine"), "{}", said.err);
}

/// Files are limited to 50 kB, which looks like a full disk to the program.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_in_exit_code_7() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..2000));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let script = format!("ulimit -f 100; exec {} build --recipe r.toml", env!("CARGO_BIN_EXE_moe-data"));
    let output =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(scratch.path(".")).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("out/work/") && said.contains("cannot write"), "{said}");
    // With room again, the same command continues.
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
}

#[test]
fn a_folder_without_permission_ends_in_exit_code_7() {
    let scratch = built();
    // Nobody can create folders here, not even root.
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "/sys/moe-data-out"], 7);
    assert!(said.err.contains("/sys/moe-data-out: cannot create folder"), "{}", said.err);
}
