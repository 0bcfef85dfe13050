use std::fs;

use serde_json::Value;

use crate::support::{Scratch, lines, small_recipe, text};

fn figure<'a>(report: &'a Value, id: &str) -> &'a Value {
    let figures = report["figures"].as_array().unwrap();
    figures.iter().find(|figure| figure["id"] == id).unwrap_or_else(|| panic!("no figure {id}"))
}

fn report(scratch: &Scratch) -> Value {
    serde_json::from_str(&scratch.ok(&["report", "--json"]).out).unwrap()
}

#[test]
fn a_page_shows_what_is_found_what_passes_are_worth_and_texts_of_what_was_dropped() {
    let scratch = Scratch::new();
    let short = serde_json::json!({ "id": "<b>short</b>", "text": "too <i>short" }).to_string();
    let near = serde_json::json!({ "id": "near", "text": format!("{} And one more.", text(3)) }).to_string();
    scratch.write("docs.jsonl", format!("{}{short}\n{near}\n", lines(0..60)));
    scratch.write("r.toml", small_recipe("\"docs.jsonl\"", "[dedup.minhash]\nestimate = 50\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["mix", "--epochs", "3", "--seq-len", "64"]);
    let made = report(&scratch);
    let ledger = scratch.ledger("out");
    let estimate = ledger.minhash_estimate.unwrap();
    let curve = &figure(&made, "s-curve")["table"];
    let promised = format!("{} bands of {} rows", estimate.bands, estimate.rows);
    assert_eq!(curve["columns"][1], promised);
    let measured = curve["rows"].as_array().unwrap().iter().filter(|row| !row[2].is_null()).count();
    assert_eq!(measured, estimate.bins.iter().filter(|bin| bin.pairs > 0).count());

    // Three passes over one pool, each worth a little less; every text as often as there are passes.
    let worth: Vec<f64> = figure(&made, "worth")["table"]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[1].as_f64().unwrap())
        .collect();
    assert_eq!(worth.len(), 3);
    assert!((worth[0] - 1.0).abs() < 1e-9 && worth[0] > worth[1] && worth[1] > worth[2], "{worth:?}");
    assert_eq!(figure(&made, "sightings")["table"]["rows"][0][0], "a: 3 times");
    let page = fs::read_to_string(scratch.path("out/report.html")).unwrap();
    assert!(page.contains("too &lt;i&gt;short") && !page.contains("<i>"), "the text of what was dropped");
    scratch.ok(&["verify"]);

    // A plan of an earlier version has no file of its worth; a file of another plan is ignored.
    let path = scratch.path("out/plan.worth.json");
    let other = fs::read_to_string(&path).unwrap();
    let id = serde_json::from_str::<Value>(&other).unwrap()["plan"].as_str().unwrap().to_owned();
    fs::write(&path, other.replace(&id, &"0".repeat(id.len()))).unwrap();
    let without = report(&scratch);
    assert!(!without["figures"].as_array().unwrap().iter().any(|figure| figure["id"] == "worth"));
    assert!(scratch.fail(&["verify"], 1).err.contains("plan.worth.json"));
    fs::write(&path, "{").unwrap();
    assert!(scratch.fail(&["report"], 3).err.contains("plan.worth.json: is damaged"));
    fs::remove_file(&path).unwrap();
    report(&scratch);
}

#[test]
fn shells_and_manuals_know_every_verb() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = scratch.ok(&["completions", shell]).out;
        for word in ["build", "report", "compare", "import-batch"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let page = scratch.ok(&["man"]).out;
    assert!(page.contains(".TH moe-data 1") && page.contains("moe\\-data\\-build(1)"), "{page}");
    let page = scratch.ok(&["man", "tokenizer", "train"]).out;
    assert!(page.contains("vocab\\-size"), "{page}");
    let said = scratch.fail(&["man", "biuld"], 2);
    assert!(said.err.contains("there are: build, "), "{}", said.err);
}
