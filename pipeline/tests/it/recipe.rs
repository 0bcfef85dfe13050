use std::fs;

use crate::support::{Scratch, line, small_recipe};

#[test]
fn a_wrong_key_is_named_with_the_nearest_right_one() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", line(1));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[limits]\nmax_doc_byte = \"1MB\"\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert_eq!(
        said.err,
        "error: r.toml:10: `limits.max_doc_byte`: unknown key; did you mean `max_doc_bytes`?\n"
    );
    assert!(!scratch.path("out").exists(), "nothing is made before the recipe is right");
}

#[test]
fn missing_files_are_all_named() {
    let scratch = Scratch::new();
    scratch.write("r.toml", small_recipe("\"none.jsonl\", \"no/*.gz\"", ""));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("r.toml: `source.a.paths`: `none.jsonl`: does not exist"), "{}", said.err);
    assert!(said.err.contains("`no/*.gz`: no file is there"), "{}", said.err);
}

#[test]
fn a_field_that_no_record_has_is_a_mistake_of_the_recipe() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", "{\"id\":\"1\",\"body\":\"x\"}\n");
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "").replace("id = ", "text = \"bdy\"\nid = "));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("has a field `bdy`; did you mean `body`?"), "{}", said.err);
}

#[test]
fn no_recipe_and_no_input_say_what_to_do() {
    let scratch = Scratch::new();
    let said = scratch.fail(&["build"], 2);
    assert!(said.err.contains("configs/build.toml") && said.err.contains("--input"), "{}", said.err);
    scratch.fail(&["build", "--recipe", "none.toml"], 2);
    scratch.fail(&["build", "--input", "none.jsonl"], 2);
}

#[test]
fn unknown_flags_are_usage_errors() {
    let said = Scratch::new().run(&["build", "--recipes", "x"]);
    assert_eq!(said.code, Some(2));
}

#[test]
fn input_alone_builds_with_defaults_one_source_each() {
    let scratch = Scratch::new();
    let texts: String = (0..40).map(line).collect();
    scratch.write("My News.jsonl", &texts);
    let page =
        "The page and its words are to be read with care, and that is what they have to be.\n".repeat(8);
    scratch.write("notes/one.txt", format!("First. {page}"));
    scratch.write("notes/deep/two.md", format!("Second. {page}"));
    let said = scratch.ok(&["build", "--input", "My News.jsonl", "--input", "notes", "--json"]);
    assert!(said.err.contains("the built-in recipe"), "{}", said.err);
    let ledger = scratch.ledger("out");
    assert_eq!(ledger.sources.keys().collect::<Vec<_>>(), ["my_news", "notes"]);
    assert_eq!(ledger.sources["notes"].kept.docs, 2);
    // The Gopher rules of the built-in recipe require 50 words.
    assert_eq!(ledger.sources["my_news"].dropped["gopher_short_doc"].docs, 40);
    let summary: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&summary["status"], &summary["sources"]["notes"]["kept"]["docs"]),
        (&"built".into(), &2.into())
    );
}

#[test]
fn a_dry_run_checks_and_makes_no_data() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", line(1));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let said = scratch.ok(&["build", "--recipe", "r.toml", "--dry-run"]);
    assert!(said.out.contains("1 files") && said.out.contains("filters: length"), "{}", said.out);
    // Only its prediction stays.
    assert!(!scratch.path("out/MANIFEST.json").exists() && !scratch.path("out/work/dry-run").exists());
    assert!(scratch.path("out/work/prediction.json").exists());
    let said = scratch.run(&["build", "--recipe", "r.toml", "--dry-run", "--sample", "2"]);
    assert!(said.code == Some(2) && said.err.contains("expected more than 0, up to 1"), "{}", said.err);
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", line(1));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let precious = scratch.write("home/shards/mine", "x");
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "home"], 2);
    assert!(said.err.contains("holds other files"), "{}", said.err);
    assert_eq!(fs::read(precious).unwrap(), b"x");
}

#[test]
fn a_given_tokenizer_is_used_and_its_end_of_document_found() {
    let scratch = Scratch::new();
    let texts: String = (0..40).map(line).collect();
    scratch.write("a.jsonl", texts);
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "one"]);
    fs::copy(scratch.path("one/tokenizer.json"), scratch.path("t.json")).unwrap();
    let given = small_recipe("\"a.jsonl\"", "").replace("train = { vocab_size = 300 }", "file = \"t.json\"");
    scratch.write("given.toml", &given);
    scratch.ok(&["build", "--recipe", "given.toml", "--out", "two"]);
    // Another recipe, so another fingerprint in the index; the tokens are the same.
    let bin = |out: &str| fs::read(scratch.path(out).join("shards/a-v0-00000.bin")).unwrap();
    assert_eq!(bin("one"), bin("two"));

    scratch.write("wrong.toml", given.replace("file = ", "eod = \"<end>\"\nfile = "));
    let said = scratch.fail(&["build", "--recipe", "wrong.toml", "--out", "three"], 2);
    assert!(said.err.contains("`<end>`") && said.err.contains("`<|endoftext|>`"), "{}", said.err);
}
