use moe_shards::{Manifest, Shard};
use serde_json::{Value, json};

use crate::support::{Scratch, assert_same, line, small_recipe, text};

/// Names of the tags of each document of a build, by id.
fn tags(scratch: &Scratch, out: &str) -> Vec<(String, Vec<String>)> {
    let out = scratch.path(out);
    let mut found = Vec::new();
    for info in Manifest::read(&out).unwrap().shards {
        let shard = Shard::open(&Manifest::mdx_path(&out, &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            let bits = shard.meta(doc).unwrap().tags;
            let names = shard.names().tags().iter().enumerate();
            let names = names.filter(|(i, _)| bits & (1 << i) != 0).map(|(_, name)| name.clone());
            found.push((shard.id(doc).unwrap().to_owned(), names.collect()));
        }
    }
    found.sort();
    found
}

#[test]
fn tags_of_filters_are_stored_in_the_shards_with_those_of_the_records() {
    let scratch = Scratch::new();
    let record =
        |id: &str, text: &str, tag: &str| format!("{}\n", json!({ "id": id, "text": text, "t": tag }));
    let lines =
        [record("a", &text(1), "web"), record("b", "too small", "web"), record("c", &text(2).repeat(9), "")];
    scratch.write("a.jsonl", lines.concat());
    let filters = "[[filter]]\nname = \"length\"\naction = \"tag\"\nmax_chars = 500\n\
                   [[filter]]\nname = \"length\"\naction = \"tag\"\ntag = \"long\"\nmax_chars = 500\nmin_chars = 1\n";
    let recipe = small_recipe("\"a.jsonl\"", filters)
        .replace("id = \"id\"\n[[filter]]\nname = \"length\"\n", "id = \"id\"\ntags = \"t\"\n");
    scratch.write("r.toml", &recipe);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let expected = [("a", &["web"][..]), ("b", &["too_short", "web"]), ("c", &["long", "too_long"])];
    let expected =
        expected.map(|(id, tags)| (id.to_owned(), tags.iter().map(|tag| (*tag).to_owned()).collect()));
    assert_eq!(tags(&scratch, "out"), expected);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 3);
    let said = scratch.ok(&["why", "b"]).out;
    assert!(said.contains("length: tags it") && said.contains("! too_short"), "{said}");
}

#[test]
fn a_ninth_tag_is_refused_with_all_names() {
    let scratch = Scratch::new();
    let record = |n: usize| {
        format!("{}\n", json!({ "id": n.to_string(), "text": text(n), "t": format!("t{}", n % 8) }))
    };
    scratch.write("a.jsonl", (0..20).map(record).collect::<String>());
    let recipe = small_recipe("\"a.jsonl\"", "").replace("id = \"id\"\n", "id = \"id\"\ntags = \"t\"\n");
    let recipe =
        recipe.replace("name = \"length\"\n", "name = \"length\"\naction = \"tag\"\nmax_chars = 60\n");
    scratch.write("r.toml", recipe);
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("more than 8 tags") && said.err.contains("`too_long`"), "{}", said.err);
}

#[test]
fn why_shows_all_that_was_measured_of_kept_and_dropped_documents() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", format!("{}{}\n", line(1), json!({ "id": "tiny", "text": "the and" })));
    let more = "[[filter]]\nname = \"gopher_quality\"\nmin_words = 3\n";
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", more));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    for (id, fate, words) in [("doc-1", "kept", 19.0), ("tiny", "too_short", 2.0)] {
        let value: Value = serde_json::from_str(&scratch.ok(&["why", id, "--json"]).out).unwrap();
        let story = &value["documents"][0];
        assert_eq!(story["fate"], fate);
        let filters = story["filters"].as_array().unwrap();
        assert_eq!((filters.len(), &filters[1]["rules"][0]["measured"]), (2, &json!(words)));
    }
    // A changed threshold takes effect at once, from the same measurements.
    let moved = small_recipe("\"a.jsonl\"", &more.replace("min_words = 3", "min_words = 2"));
    scratch.write("r.toml", moved.replace("name = \"length\"\n", "name = \"length\"\nmin_chars = 3\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let value: Value = serde_json::from_str(&scratch.ok(&["why", "tiny", "--json"]).out).unwrap();
    assert_eq!(value["documents"][0]["filters"][1]["rules"][0]["threshold"], 2.0);
}

#[test]
fn what_rules_cut_is_in_the_ledger_and_what_is_left_is_deduplicated() {
    let scratch = Scratch::new();
    let page =
        |n: usize| (0..6).map(|i| format!("This is sentence {i} of page number {n}.\n")).collect::<String>();
    let record = |id: &str, text: String| format!("{}\n", json!({ "id": id, "text": text }));
    let lines = [
        record("long", page(1) + "Please read our privacy policy as well.\n"),
        record("same", page(1)),
        record("other", page(2)),
        record("short", "One sentence stands here alone.\nEnable javascript to see the rest.\n".to_owned()),
        record("empty", "Enable javascript to see all of this page here.".to_owned()),
    ];
    scratch.write("a.jsonl", lines.concat());
    let more =
        |sentences: usize| format!("[[filter]]\nname = \"c4_quality\"\nmin_num_sentences = {sentences}\n");
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", &more(5)));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    // The ledger balances, in bytes too.
    let ledger = &scratch.ledger("out").sources["a"];
    assert_eq!((ledger.read.docs, ledger.kept.docs), (5, 2));
    assert_eq!(ledger.cut["c4_policy"].docs, 1);
    // Of the two that became equal one is left.
    assert_eq!(ledger.dropped["exact_duplicate"].docs, 1);
    let said = scratch.ok(&["why", "long"]).out;
    assert!(said.contains("c4_policy") && said.contains("bytes taken out"), "{said}");
    let value: Value = serde_json::from_str(&scratch.ok(&["why", "short", "--json"]).out).unwrap();
    let length = lines[3].len() as u64;
    assert!(value["documents"][0]["document"]["raw_bytes"].as_u64().unwrap() < length);

    // A threshold of a rewriting rule moves without measuring or rewriting again.
    let measured = || {
        let folders =
            std::fs::read_dir(scratch.path("out/work/measure")).unwrap().map(|entry| entry.unwrap().path());
        folders
            .map(|path| {
                (path.clone(), std::fs::metadata(path.join("report.json")).unwrap().modified().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let before = measured();
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", &more(1)));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert_eq!(measured(), before);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 3);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "fresh"]);
    assert_same(&scratch.results("out"), &scratch.results("fresh"));
}

#[test]
fn filters_shows_profiles_and_refuses_unknown_ones() {
    let scratch = Scratch::new();
    let said = scratch.ok(&["filters"]).out;
    for part in ["gopher_quality (drop)", "c4_quality (cut)", "fineweb ", "at least 50"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let value: Value =
        serde_json::from_str(&scratch.ok(&["filters", "--profile", "fineweb", "--json"]).out).unwrap();
    let names: Vec<&str> =
        value["filters"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["language", "gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality", "pii"]
    );
    let said = scratch.fail(&["filters", "--profile", "finweb"], 2);
    assert!(said.err.contains("did you mean `fineweb`"), "{}", said.err);
    for profile in ["none", "gopher", "gopher-dolma", "c4", "dclm", "dolma3", "code"] {
        scratch.ok(&["filters", "--profile", profile]);
    }
}
