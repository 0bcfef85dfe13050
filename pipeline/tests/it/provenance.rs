use serde_json::{Value, json};

use crate::support::{Scratch, line, small_recipe, text};

const NOTICE: &str = "This notice stands at the end of many a document of this collection, word for word.";

/// Ten plain documents, three with a notice, a duplicate, a short one and a record that is not a document.
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
fn why_explains_kept_cut_dropped_duplicate_and_quarantined_documents() {
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

/// The fate of one document used to be reported for another with the same name, and names matched by prefix.
#[test]
fn documents_of_one_name_are_told_apart() {
    let scratch = Scratch::new();
    let doc = |id: &str, text: &str| format!("{}\n", json!({ "id": id, "text": text }));
    let first = doc("page", &text(1)) + &doc("page", "too small") + &(10..30).map(line).collect::<String>();
    scratch.write("2023/a.jsonl", first);
    scratch
        .write("2024/b.jsonl", doc("page", &format!("{} And more of it.", text(2))) + &doc("twin", &text(1)));
    scratch.write("2024/c.jsonl", "{\"id\":\"page-9\",\"text\":7}\n");
    let more = "[limits]\nmax_bad_fraction = 0.5\n";
    scratch.write("r.toml", small_recipe("\"2023\", \"2024\"", more));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["mix", "--epochs", "1", "--seq-len", "64"]);

    let said = scratch.ok(&["why", "page", "--json"]).out;
    let value: Value = serde_json::from_str(&said).unwrap();
    let stories = value["documents"].as_array().unwrap();
    assert!(stories.iter().all(|story| story["document"]["alike"] == 2));
    let fates: Vec<(&str, usize)> = (stories.iter())
        .map(|story| (story["fate"].as_str().unwrap(), story["shards"].as_array().unwrap().len()))
        .collect();
    // `page` of 2023 or its copy stays, depending on a hash.
    let is_kept = fates[0] == ("kept", 1);
    assert!(is_kept || fates[0] == ("exact_duplicate", 0), "{fates:?}");
    assert_eq!(fates[1..], [("too_short", 0), ("kept", 1)]);
    assert!(stories[2]["dropped"].as_array().unwrap().is_empty());
    assert!(stories[2]["duplicate_of"].as_array().unwrap().is_empty());
    assert_eq!(stories[1]["dropped"].as_array().unwrap().len(), 1);
    let said = scratch.ok(&["why", "page"]).out;
    assert!(said.contains("the name   is that of 3 documents of a; this one is number 1 of "), "{said}");
    assert!(said.contains("2024/b.jsonl"), "{said}");
    // Only the record with this name, not those whose names begin with it.
    let said = scratch.fail(&["why", "pag"], 2).err;
    assert!(said.contains("is called `pag`"), "{said}");
    assert!(scratch.ok(&["why", "page-9"]).out.contains("that holds `page-9`: quarantined"));

    // In the plan: each with its own samples, and none is hidden for another.
    let place = |story: &Value| {
        let shard = &story["shards"][0];
        format!("{}:{}", shard["shard"].as_str().unwrap(), shard["document"])
    };
    let exact = place(&stories[2]);
    let said = scratch.ok(&["where", &exact]).out;
    assert!(said.starts_with("page: source a"), "{said}");
    assert!(scratch.ok(&["where", "a/page"]).out.contains(&exact));
    scratch.write("gone.txt", "page\n");
    let takedown = ["mix", "--extend", "--from", "1", "--takedown", "gone.txt"];
    if is_kept {
        assert!(scratch.ok(&["where", "page"]).out.contains("2 documents of source a have this name"));
        let said = scratch.fail(&takedown, 2).err;
        assert!(
            said.contains("2 documents of one source are called `page`") && said.contains(&exact),
            "{said}"
        );
    }
    scratch.write("gone.txt", format!("{exact}\n"));
    scratch.ok(&takedown);
    let lock = moe_shards::PlanLock::read(&scratch.path("out")).unwrap();
    let hidden: Vec<u32> =
        lock.takedowns.iter().flat_map(|t| &t.shards).flat_map(|s| s.docs.clone()).collect();
    assert_eq!(hidden, [stories[2]["shards"][0]["document"].as_u64().unwrap() as u32]);
}
