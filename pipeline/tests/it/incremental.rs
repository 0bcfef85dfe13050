use std::collections::BTreeMap;
use std::fs;
use std::time::{Instant, SystemTime};

use crate::support::{Scratch, assert_same, line, quickstart_recipe, small_recipe};

/// When each task's report was written, by `stage/fingerprint`.
fn reports(scratch: &Scratch) -> BTreeMap<String, SystemTime> {
    let mut found = BTreeMap::new();
    for stage in ["read", "measure", "filter", "dedup", "train", "tokenize", "shard"] {
        for entry in fs::read_dir(scratch.path("out/work").join(stage)).unwrap() {
            let folder = entry.unwrap().path();
            let changed = fs::metadata(folder.join("report.json")).unwrap().modified().unwrap();
            found.insert(format!("{stage}/{}", folder.file_name().unwrap().to_string_lossy()), changed);
        }
    }
    found
}

/// Stages of which at least one task is new.
fn rerun(before: &BTreeMap<String, SystemTime>, after: &BTreeMap<String, SystemTime>) -> Vec<String> {
    let new = after.iter().filter(|(task, changed)| before.get(*task) != Some(changed));
    let mut stages: Vec<String> = new.map(|(task, _)| task.split('/').next().unwrap().to_owned()).collect();
    stages.dedup();
    stages.sort();
    stages
}

#[test]
fn a_finished_build_does_nothing_again_and_at_once() {
    let scratch = Scratch::new();
    scratch.write("r.toml", quickstart_recipe());
    let first = scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(first.err.contains("next: moe-data mix --epochs 4\n"), "{}", first.err);
    let (before, results) = (reports(&scratch), scratch.results("out"));
    let start = Instant::now();
    let said = scratch.ok(&["build", "--recipe", "r.toml", "--threads", "1"]);
    assert!(said.err.starts_with("nothing changed"), "{}", said.err);
    assert!(start.elapsed().as_millis() < 1000, "it took {:?}", start.elapsed());
    assert_eq!(reports(&scratch), before);
    assert_same(&scratch.results("out"), &results);
}

#[test]
fn a_moved_threshold_runs_only_what_depends_on_it() {
    let scratch = Scratch::new();
    let recipe = quickstart_recipe();
    scratch.write("r.toml", &recipe);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let before = reports(&scratch);
    // Drops six pages of Django; the chapters of the Bible have the same filters as before, and what was
    // measured of the pages is the same.
    scratch.write("r.toml", recipe.replace("min_alphabetic_words = 0.36", "min_alphabetic_words = 0.43"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let after = reports(&scratch);
    assert_eq!(rerun(&before, &after), ["dedup", "filter", "shard", "tokenize", "train"]);
    let same = after
        .keys()
        .filter(|task| before.contains_key(*task))
        .filter(|task| task.starts_with("filter/"))
        .count();
    assert_eq!(same, 1, "the other source was not filtered again");
    assert_eq!(after.len(), before.len(), "work that no build needs is deleted");
    assert!(scratch.ledger("out").sources["django"].dropped["gopher_below_alpha_threshold"].docs > 2);

    // Back again: the shards are those of the first time.
    scratch.write("r.toml", &recipe);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "fresh"]);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert_same(&scratch.results("out"), &scratch.results("fresh"));
}

#[test]
fn a_new_file_leaves_the_others_unread() {
    let scratch = Scratch::new();
    // Small files are read together.
    scratch.write("in/b.jsonl", (60..10_000).map(line).collect::<String>());
    scratch.write("r.toml", small_recipe("\"in\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let before = reports(&scratch);
    scratch.write("in/a.jsonl", (40..50).map(line).collect::<String>());
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let after = reports(&scratch);
    let new = |stage: &str| {
        after.keys().filter(|task| task.starts_with(stage) && !before.contains_key(*task)).count()
    };
    assert_eq!((new("read/"), new("filter/")), (1, 1));
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 9_950);
}

#[test]
fn damaged_output_is_made_again() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", (0..40).map(line).collect::<String>());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let expected = scratch.results("out");
    fs::remove_file(scratch.path("out/shards/a-v0-00000.bin")).unwrap();
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert_same(&scratch.results("out"), &expected);
    scratch.ok(&["build", "--recipe", "r.toml", "--fresh"]);
    assert_same(&scratch.results("out"), &expected);
}

#[test]
fn a_second_process_is_refused() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", line(1));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let _held = moe_data::lock::OutputLock::acquire(&scratch.path("out")).unwrap();
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("another moe-data is running"), "{}", said.err);
}
