use serde_json::{Value, json};

use crate::support::{Scratch, line, small_recipe, text};

const NOTICE: &str = "This notice stands at the end of many a document of this collection, word for word.";

/// Ten plain documents, three with a notice, a duplicate, a short one and a record that is no document.
fn build(scratch: &Scratch) {
    let mut lines: String = (0..10).map(line).collect();
    for n in 20..23 {
        let id = format!("doc-{n}");
        lines += &format!("{}\n", json!({ "id": id, "text": format!("{}\n{NOTICE}", text(n)) }));
    }
    lines += &format!("{}\n", json!({ "id": "copy", "text": text(3) }));
    lines += &format!("{}\n", json!({ "id": "tiny", "text": "too small" }));
    lines += "{\"id\":\"broken\",\"text\":7}\n";
    scratch.write("a.jsonl", lines);
    let more = "[dedup.paragraph]\n[limits]\nmax_bad_fraction = 0.5\n";
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", more));
    scratch.ok(&["build", "--recipe", "r.toml"]);
}

#[test]
fn why_tells_of_kept_cut_dropped_duplicate_and_quarantined_documents() {
    let scratch = Scratch::new();
    build(&scratch);
    let why = |id: &str| scratch.ok(&["why", id]).out;
    let expect = |id: &str, parts: &[&str]| {
        let said = why(id);
        for part in parts {
            assert!(said.contains(part), "{id}: no {part:?} in\n{said}");
        }
    };
    expect(
        "a/doc-5",
        &["a/doc-5: kept", "filter     length: lets it pass", "at least 50", "in shard a-v0-00000"],
    );
    expect("tiny", &["dropped, too_short", "drops it", "! too_short", "by filter: too_short (9, limit 50)"]);
    // Of the two, the one with the lower id stays; which that is depends on a hash.
    let both = why("copy") + &why("doc-3");
    for part in ["dropped, exact_duplicate", "of a/", "(exact, Jaccard 1.000)", "stands for a/", "kept"] {
        assert!(both.contains(part), "no {part:?} in\n{both}");
    }
    let three: Vec<String> = (20..23).map(|n| why(&format!("doc-{n}"))).collect();
    let cut: Vec<&String> = three.iter().filter(|said| said.contains("  cut  ")).collect();
    assert_eq!(cut.len(), 2, "{three:?}");
    assert!(
        cut.iter().all(|said| said.contains("(paragraph), as in a/doc-2") && said.contains("This notice"))
    );
    expect("broken", &["quarantined, text_not_a_string", "a.jsonl, offset"]);
    let said = scratch.fail(&["why", "nothing"], 2);
    assert!(said.err.contains("is called `nothing`"), "{}", said.err);

    let said = scratch.ok(&["why", "tiny", "--json"]).out;
    let value: Value = serde_json::from_str(&said).unwrap();
    let story = &value["documents"][0];
    assert_eq!((&story["fate"], &story["document"]["id"]), (&json!("too_short"), &json!("tiny")));
    assert_eq!(story["filters"][0]["rules"][0]["measured"], 9.0);
}

#[test]
fn dups_shows_clusters_and_their_texts() {
    let scratch = Scratch::new();
    build(&scratch);
    let said = scratch.ok(&["dups"]).out;
    assert!(said.starts_with("1 clusters, 1 documents removed\n"), "{said}");
    let value: Value = serde_json::from_str(&scratch.ok(&["dups", "--json"]).out).unwrap();
    let name = value["top"][0]["cluster"].as_str().unwrap();
    assert!(["a/copy", "a/doc-3"].contains(&name));
    let said = scratch.ok(&["dups", "--cluster", name]).out;
    assert!(
        said.contains("(exact, Jaccard 1.000)") && said.contains("document number 3") && said.contains(" | "),
        "{said}"
    );
    scratch.fail(&["dups", "--cluster", "a/none"], 2);
    scratch.fail(&["dups", "--out", "elsewhere"], 2);
}
