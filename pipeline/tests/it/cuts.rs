use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use moe_data::provenance::audit::{self, str_of};
use moe_data::tables::documents::{Columns, DocumentBatches};
use moe_data::tables::parts::Parts;

use crate::support::{Random, Scratch, assert_same, dataset_lines, quickstart_recipe, recipe_over};

/// The quickstart with both cutting methods, set to find much.
fn with_cuts(recipe: &str) -> String {
    let methods =
        "[dedup]\n[dedup.paragraph]\nmin_chars = 30\nmin_documents = 2\n[dedup.substring]\nmin_bytes = 60\n";
    let recipe = recipe.replace("vocab_size = 4096", "vocab_size = 400");
    assert!(recipe.contains("[dedup]\nexact = true\n"));
    recipe.replace("[dedup]\n", methods).replace("min_bytes = 60\nexact = true\n", "min_bytes = 60\n")
}

#[test]
fn cuts_are_the_same_for_any_threads_memory_and_split_and_add_up() {
    let scratch = Scratch::new();
    scratch.write("r.toml", with_cuts(&quickstart_recipe()));
    let build = ["build", "--recipe", "r.toml", "--threads"];
    scratch.ok(&[&build[..], &["1", "--out", "one", "--memory", "1GiB"]].concat());
    scratch.ok(&[&build[..], &["3", "--out", "three", "--memory", "8MiB"]].concat());
    let expected = scratch.results("one");
    assert_same(&scratch.results("three"), &expected);

    let mut django = dataset_lines("django_docs_two_versions.jsonl.gz");
    Random(3).shuffle(&mut django);
    scratch.write("split/a.jsonl", django[..20].join("\n"));
    scratch.write("split/b.jsonl", django[20..].join("\n"));
    scratch.write("bible.jsonl", dataset_lines("bible_kjv_web.jsonl.gz").join("\n"));
    scratch.write("split.toml", with_cuts(&recipe_over("\"bible.jsonl\"", "\"split\"")));
    scratch.ok(&["build", "--recipe", "split.toml", "--out", "split-out"]);
    assert_same(&scratch.results("split-out"), &expected);
    scratch.ok(&["verify", "one"]);

    let ledger = scratch.ledger("one");
    let django = &ledger.sources["django"];
    assert!(django.cut["paragraph"].bytes > 1000, "{:?}", django.cut);
    assert!(django.cut["substring"].bytes > 1000, "{:?}", django.cut);
    let audit = fs::read_dir(scratch.path("one/audit")).unwrap().map(|e| e.unwrap().file_name());
    let audit: Vec<String> = audit.map(|name| name.to_string_lossy().into_owned()).collect();
    for method in ["paragraph", "substring"] {
        assert!(audit.iter().any(|name| name.starts_with(&format!("cuts-{method}-"))), "{audit:?}");
    }
}

/// Texts of all documents of a build as rewriting rules left them, by source and name.
fn texts(out: &Path) -> BTreeMap<(String, String), String> {
    let work = out.join("work");
    let mut texts = BTreeMap::new();
    for part in Parts::read(&work).unwrap().parts {
        for batch in DocumentBatches::open(&work.join(&part.documents), Columns::All).unwrap() {
            for (_, document) in batch.unwrap().documents() {
                texts.insert((part.source.clone(), document.id.to_owned()), document.text.to_owned());
            }
        }
    }
    texts
}

/// Most rows used to name the byte before the ends were moved to words or, for text with several copies, only
/// the first.
#[test]
fn every_row_of_the_audit_of_cuts_leads_to_the_copy_that_stays() {
    let scratch = Scratch::new();
    scratch.write("r.toml", with_cuts(&quickstart_recipe()));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let texts = texts(&scratch.path("out"));
    let rows = audit::rows(&scratch.path("out"), "cuts-", &[]).unwrap();
    let mut n_rows = BTreeMap::<String, usize>::new();
    for row in &rows {
        let text = |source: &str, id: &str| {
            texts[&(str_of(row, source).to_owned(), str_of(row, id).to_owned())].as_str()
        };
        let place = |key: &str| row[key].as_u64().unwrap() as usize;
        let cut = &text("source", "id")[place("start")..place("end")];
        assert!(cut.starts_with(str_of(row, "text")) && !cut.is_empty());
        let copy = &text("kept_source", "kept")[place("kept_start")..];
        let method = str_of(row, "method");
        match method {
            "substring" => assert!(copy.starts_with(cut), "{row:?}"),
            // Paragraphs are compared in lower case with white space collapsed.
            _ => {
                let words = |text: &str| -> Vec<String> {
                    text.to_lowercase().split_whitespace().map(str::to_owned).collect()
                };
                assert!(words(copy).starts_with(&words(cut)), "{row:?}");
            }
        }
        *n_rows.entry(method.to_owned()).or_default() += 1;
    }
    assert!(n_rows["substring"] > 50 && n_rows["paragraph"] > 10, "{n_rows:?}");
}

#[test]
fn kills_between_and_in_the_stages_that_cut_leave_the_same_bytes() {
    let scratch = Scratch::new();
    scratch.write("r.toml", with_cuts(&quickstart_recipe()));
    let start = Instant::now();
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "calm"]);
    let whole = start.elapsed();
    let expected = scratch.results("calm");
    let args = ["build", "--recipe", "r.toml", "--out", "killed"];
    let stages = ["paragraph_matches", "anchors", "segments", "substring_matches", "apply_cuts"];
    let mut random = Random(6);
    for stage in stages {
        let mut child = scratch.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From the moment at which the stage has begun, a short while.
        let folder = scratch.path("killed/work").join(stage);
        while !folder.exists() && start.elapsed() < whole * 20 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(random.below(4000)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    scratch.ok(&args);
    assert_same(&scratch.results("killed"), &expected);
    scratch.ok(&["verify", "killed"]);
}

#[test]
fn wrong_values_of_the_tables_are_named() {
    let scratch = Scratch::new();
    let tables =
        "[dedup.paragraph]\nmin_documents = 1\nsplit = \"word\"\n[dedup.substring]\nmin_bytes = 5\nmax = 1\n";
    scratch.write("r.toml", quickstart_recipe().replace("[tokenizer]", &format!("{tables}[tokenizer]")));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    for part in [
        "dedup.paragraph.min_documents",
        "dedup.paragraph.split",
        "dedup.substring.min_bytes",
        "dedup.substring.max",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}
