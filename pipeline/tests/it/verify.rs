use std::fs;

use serde_json::Value;

use crate::support::{Scratch, line, quickstart_recipe, small_recipe};

fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", (0..40).map(line).collect::<String>());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["verify", "out"]);
    scratch
}

/// Changes a file without touching the one in `work`, which is the same file.
fn change(scratch: &Scratch, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let path = scratch.path(name);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_is_found_in_every_file() {
    let scratch = built();
    scratch
        .write("a.jsonl", (0..40).map(line).chain([line(3), "no record\n".to_owned()]).collect::<String>());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[limits]\nmax_bad_fraction = 0.5\n"));
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    scratch.ok(&["mix", "--epochs", "2", "--seq-len", "64", "-q"]);
    scratch.ok(&["export", "--megatron", "--npy", "--plan-npy", "-q"]);
    let said = scratch.ok(&["verify", "out"]);
    assert!(!said.err.contains("no digest covers"), "{}", said.err);
    let mut names = Vec::new();
    let mut folders = vec![scratch.path("out")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => names.push(path),
            }
        }
    }
    names.retain(|path| !path.starts_with(scratch.path("out/work")) && !path.ends_with(".lock"));
    assert!(names.len() > 20, "{names:?}");
    for path in names {
        let name = path.strip_prefix(scratch.path("")).unwrap().to_str().unwrap().to_owned();
        for part in [2, 3] {
            change(&scratch, &name, |bytes| {
                let at = bytes.len() / part;
                bytes[at] ^= 1;
            });
            let said = scratch.run(&["verify", "out"]);
            assert!(matches!(said.code, Some(1 | 3)), "{name}: {:?}", said.code);
            let file = path.file_name().unwrap().to_str().unwrap();
            assert!(said.err.contains(file) || name.contains(".moe-data"), "{name}: {}", said.err);
            change(&scratch, &name, |bytes| {
                let at = bytes.len() / part;
                bytes[at] ^= 1;
            });
        }
    }
    scratch.ok(&["verify", "out"]);
}

#[test]
fn a_missing_shard_and_an_unbalanced_ledger_are_both_named() {
    let scratch = built();
    fs::remove_file(scratch.path("out/shards/a-v0-00000.bin")).unwrap();
    let ledger = scratch.path("out/ledger.json");
    fs::write(&ledger, fs::read_to_string(&ledger).unwrap().replace("\"docs\": 40", "\"docs\": 41")).unwrap();
    let said = scratch.fail(&["verify", "out"], 1);
    assert!(said.err.contains("a-v0-00000.bin"), "{}", said.err);
    assert!(said.err.contains("has 41 documents"), "{}", said.err);
    let said = scratch.run(&["verify", "out", "--json"]);
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &value["ok"]), (Some(1), &Value::Bool(false)));
    assert!(value["problems"].as_array().unwrap().len() >= 2);
}

#[test]
fn a_path_without_a_build_is_an_error() {
    let scratch = Scratch::new();
    scratch.fail(&["verify", "nowhere"], 2);
    scratch.fail(&["inspect", "nowhere"], 2);
    scratch.write("x.txt", "x");
    scratch.fail(&["inspect", "x.txt"], 2);
}

#[test]
fn inspect_shows_sources_variants_and_shards() {
    let scratch = Scratch::new();
    scratch.write("r.toml", quickstart_recipe());
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    let tree = scratch.ok(&["inspect", "out"]).out;
    for part in [
        "bible  278 documents",
        "v0 WEB  139 documents",
        "v1 4.2  ",
        "django-v1-00000",
        "total  350 documents",
    ] {
        assert!(tree.contains(part), "{part} in\n{tree}");
    }
    let value: Value = serde_json::from_str(&scratch.ok(&["inspect", "out", "--json"]).out).unwrap();
    assert_eq!(value["sources"][1]["variants"][0]["name"], "5.2");
    assert_eq!(value["total"]["docs"], 350);
    let shard: Value =
        serde_json::from_str(&scratch.ok(&["inspect", "out/shards/bible-v1-00000.mdx", "--json"]).out)
            .unwrap();
    assert_eq!((&shard["docs"], &shard["variant"]), (&139.into(), &1.into()));
    assert!(scratch.ok(&["inspect", "out/ledger.json"]).out.contains("exact_duplicate: 6"));
}
