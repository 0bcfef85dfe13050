use std::collections::BTreeMap;
use std::fs;

use moe_shards::Shard;
use serde_json::{Value, json};

use crate::support::{Scratch, assert_same, line, lines, small_recipe, text};

fn record(value: Value) -> String {
    format!("{value}\n")
}

/// A text that the built-in rules keep.
fn long(n: usize) -> String {
    [0, 1000, 2000, 3000].map(|more| text(n + more)).join(" ")
}

/// Lines with such texts.
fn long_lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| record(json!({ "id": format!("doc-{n}"), "text": long(n) }))).collect()
}

/// An `id` in one file used to make it required in all: half of the records of a mixed folder were lost.
#[test]
fn an_id_in_one_file_is_not_asked_of_the_others() {
    let scratch = Scratch::new();
    scratch.write("in/a.jsonl", long_lines(0..20));
    scratch.write("in/b.jsonl", (20..40).map(|n| record(json!({ "text": long(n) }))).collect::<String>());
    scratch.write("in/c.csv", format!("text,n\n\"{}\",1\n", long(40)));
    scratch.write("in/d.txt", long(41));
    scratch.write("in/picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\0");
    let said = scratch.ok(&["build", "--input", "in", "--text-only"]).err;
    let source = scratch.ledger("out").sources["in"].clone();
    assert!(source.quarantined.is_empty(), "{source:?}");
    assert!(said.contains("1 file was skipped, such as picture.png: a picture"), "{said}");
    assert_eq!(source.read.docs, 43);
    // A recipe says so where it is meant, and a source without names has none that may be missing.
    let recipe = small_recipe("\"in/a.jsonl\"", "").replace("id = \"id\"\n", "id_optional = true\n");
    scratch.write("r.toml", recipe);
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2).err;
    assert!(said.contains("`source.id_optional`: needs `id`"), "{said}");
}

#[test]
fn bad_records_are_reported_by_cause_with_an_example_of_each() {
    let scratch = Scratch::new();
    let bad = "{\"id\":\"x\",\"text\":}\n{\"id\":\"y\",\"title\":\"no text\"}\n{\"id\":\"z\",\"text\":}\n";
    scratch.write("a.jsonl", format!("{}{bad}", lines(0..10)));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 3).err;
    assert!(said.contains("3 of 13 records are bad (the build will fail at its end)"), "{said}");
    assert!(said.contains("bad_json: 2, such as ") && said.contains("missing_text: 1, such as "), "{said}");
    // The recipe of the build is written although it failed.
    let lock = fs::read_to_string(scratch.path("out/recipe.lock.toml")).unwrap();
    assert!(lock.contains("name = \"length\"") && !scratch.path("out/MANIFEST.json").exists(), "{lock}");
}

#[test]
fn flags_choose_files_of_a_folder_and_how_much_is_read() {
    let scratch = Scratch::new();
    for i in 0..6 {
        scratch.write(&format!("in/{i}.jsonl"), long_lines(10 * i..10 * (i + 1)));
    }
    scratch.write("in/old/a.jsonl", long_lines(100..110));
    scratch.write("in/notes.md", long(200));
    scratch.write("in/.moeignore", "3.jsonl\n");
    let build = |args: &[&str]| {
        let args = [&["build", "--input", "in", "--text-only"], args].concat();
        let said = scratch.ok(&args);
        (scratch.ledger("out").sources["in"].clone(), said.err)
    };
    let (source, said) = build(&["--include", "*.jsonl", "--exclude", "old/"]);
    assert_eq!(source.read.docs, 50);
    assert!(said.contains("skipped a file that `exclude`, .moeignore or .gitignore names: "), "{said}");
    assert_eq!(source.skipped_files.values().sum::<u64>(), 3);
    scratch.write("in/.gitignore", "old/\n");
    assert_eq!(build(&["--include", "*.jsonl"]).0.read.docs, 60);
    assert_eq!(build(&["--include", "*.jsonl", "--gitignore"]).0.read.docs, 50);
    let (source, _) = build(&["--limit", "0.015K"]);
    assert_eq!(source.read.docs, 15);
    let said = scratch.fail(&["build", "--input", "in", "--include", "*.nothing"], 2).err;
    assert!(said.contains("none of its 8 files is left"), "{said}");
}

/// One task per file used to take 34 seconds for 400 files.
#[test]
fn small_files_are_read_together_and_give_the_bytes_of_one_file() {
    let scratch = Scratch::new();
    scratch.write("one/all.jsonl", lines(0..600));
    (0..600).for_each(|n| drop(scratch.write(&format!("many/{n:04}.jsonl"), line(n))));
    for (folder, threads) in [("one", "1"), ("many", "1"), ("many", "3")] {
        scratch.write("r.toml", small_recipe(&format!("\"{folder}\""), ""));
        let out = format!("{folder}{threads}");
        scratch.ok(&["build", "--recipe", "r.toml", "--out", &out, "--threads", threads]);
    }
    assert_same(&scratch.results("many1"), &scratch.results("one1"));
    assert_same(&scratch.results("many3"), &scratch.results("one1"));
    let tasks = fs::read_dir(scratch.path("many3/work/read")).unwrap().count();
    assert!(tasks < 10, "{tasks} tasks");
    // Of each document it is still known which file it came from.
    let why = scratch.ok(&["why", "doc-599", "--out", "many3"]).out;
    assert!(why.contains("many/0599.jsonl"), "{why}");
}

/// `[1][2]` after a sentence was six words without a letter; in spaCy, and so in datatrove, it belongs to the word before it.
#[test]
fn footnote_marks_after_sentences_do_not_drop_a_text() {
    let scratch = Scratch::new();
    let sentence = "the lamp of the tower was lit with oil and that was all that they had of it to see";
    let notes: String = (0..5).map(|i| format!("{sentence}.[{}][{}] ", 2 * i + 1, 2 * i + 2)).collect();
    let rows = [record(json!({ "id": "notes", "text": notes })), lines(0..3)].concat();
    scratch.write("a.jsonl", rows);
    let recipe =
        small_recipe("\"a.jsonl\"", "[[filter]]\nname = \"gopher_quality\"\nmin_words = 10\nWORDS\n");
    let mut kept = BTreeMap::new();
    for words in ["", "words = \"uax29\"", "words = \"spacy\""] {
        scratch.write("r.toml", recipe.replace("WORDS", words));
        scratch.ok(&["build", "--recipe", "r.toml", "--out", "out", "-q"]);
        let shard = Shard::open(&scratch.path("out/shards/a-v0-00000.mdx")).unwrap();
        kept.insert(words, (0..shard.n_docs()).any(|i| shard.id(i).unwrap() == "notes"));
    }
    assert_eq!(kept[""], kept["words = \"spacy\""]);
    assert!(kept[""] && !kept["words = \"uax29\""], "{kept:?}");
    scratch.write("r.toml", recipe.replace("WORDS", "definition = \"dolma\"\nwords = \"uax29\""));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2).err;
    assert!(said.contains("is for definition = \"datatrove\""), "{said}");
}

#[test]
fn every_key_is_explained_and_a_wrong_one_gets_the_nearest() {
    let scratch = Scratch::new();
    let said = scratch.ok(&["config", "--explain", "mix.epochs"]).out;
    assert!(
        said.starts_with("mix.epochs: Most passes over each family") && said.contains("default  4\n"),
        "{said}"
    );
    let all = scratch.ok(&["config"]).out;
    for key in
        ["[[source]]", "id_optional = false", "[mix]", "# variants =", "min_words = 50", "[dedup.minhash]"]
    {
        assert!(all.contains(key), "{key}");
    }
    let json = scratch.ok(&["config", "--json"]).out;
    let lines = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(
        lines.clone().count() > 150
            && lines.clone().all(|key| key["doc"].as_str().is_some_and(|doc| doc.len() > 8))
    );
    let said = scratch.fail(&["config", "--explain", "mix.epoch"], 2).err;
    assert!(said.contains("did you mean `mix.epochs`?"), "{said}");
}

#[test]
fn messages_are_colored_when_asked_for() {
    let scratch = Scratch::new();
    let said = |when: &str| scratch.run(&["build", "--recipe", "none.toml", "--color", when]).err;
    assert!(said("always").starts_with("\u{1b}[31merror:\u{1b}[0m "), "{:?}", said("always"));
    assert!(said("never").starts_with("error: ") && said("auto").starts_with("error: "));
}

#[test]
fn a_person_labels_documents_and_profiles_are_compared_with_the_labels() {
    let scratch = Scratch::new();
    let good = (0..6)
        .map(|n| record(json!({ "id": format!("good-{n}"), "text": format!("{} the and to of", long(n)) })));
    let bad = (0..6)
        .map(|n| record(json!({ "id": format!("bad-{n}"), "text": format!("buy now {n} cheap cheap") })));
    scratch.write("a.jsonl", good.chain(bad).collect::<String>());
    let label = |answers: &str, more: &[&str]| {
        let mut command = scratch.command(&[&["label", "a.jsonl", "--id", "id"], more].concat());
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), answers.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    // The order is unknown; the first requests show what was asked.
    let asked = label("what?\ng\nq\n", &[]);
    assert_eq!(asked.matches("[g/b/s/q]").count(), 3, "{asked}");
    fs::remove_file(scratch.path("labels.jsonl")).unwrap();
    let order: Vec<String> = label(&"s\n".repeat(12), &[])
        .lines()
        .filter(|line| line.starts_with('['))
        .map(|line| if line.contains("good-") { "g\n" } else { "b\n" }.to_owned())
        .collect();
    assert_eq!(order.len(), 12);
    label(&order[..5].concat(), &[]);
    label(&order[5..].concat(), &[]);
    let labels = fs::read_to_string(scratch.path("labels.jsonl")).unwrap();
    assert_eq!(labels.lines().count(), 12);
    let said: Value =
        serde_json::from_str(&scratch.ok(&["label", "--compare", "labels.jsonl", "--json"]).out).unwrap();
    assert_eq!((&said["good"], &said["bad"]), (&json!(6), &json!(6)));
    let judges = said["judges"].as_array().unwrap();
    let of = |name: &str| judges.iter().find(|judge| judge["name"] == name).unwrap();
    assert_eq!(
        (&of("length, best limit")["auc"], &of("profile gopher")["keeps_bad"]),
        (&json!(1.0), &json!(0.0))
    );
    let table = scratch.ok(&["label", "--compare", "labels.jsonl", "--page", "labels.html"]).out;
    let page = fs::read_to_string(scratch.path("labels.html")).unwrap();
    assert!(page.contains("length, best limit") && page.contains("Bad documents that each keeps"), "{page}");
    scratch.write("mine.html", "<p>not ours");
    scratch.fail(&["label", "--compare", "labels.jsonl", "--page", "mine.html"], 2);
    assert!(table.contains("6 good and 6 bad documents") && table.contains("profile fineweb"), "{table}");
    scratch.write("labels.jsonl", "{\"id\":1}\n");
    let said = scratch.fail(&["label", "--compare", "labels.jsonl"], 3).err;
    assert!(said.contains("line 1: is not a label"), "{said}");
}
