use serde_json::Value;

use crate::support::{Scratch, small_recipe, text};

fn line(id: &str, text: &str) -> String {
    format!("{}\n", serde_json::json!({ "id": id, "text": text }))
}

/// Fate before, fate after, documents, their ids.
type Pair = (String, String, u64, Vec<String>);

/// (before, after) -> (documents, names) of `diff --json`.
fn pairs(scratch: &Scratch, limit: &str) -> (Value, Vec<Pair>) {
    let out = scratch.ok(&["diff", "a", "b", "--limit", limit, "--json"]).out;
    let found: Value = serde_json::from_str(&out).unwrap();
    let changes = found["builds"]["changes"].as_array().unwrap().iter();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = changes.map(|change| {
        let names = change["examples"].as_array().unwrap().iter().map(word).collect();
        (word(&change["before"]), word(&change["after"]), change["documents"].as_u64().unwrap(), names)
    });
    (found["builds"].clone(), pairs.collect())
}

#[test]
fn every_document_that_fared_differently_is_counted_by_outcome() {
    let scratch = Scratch::new();
    // Numbers 0 to 9 stay; what happens to the others is in their names.
    let same: String = (0..10).map(|n| line(&format!("same-{n}"), &text(n))).collect();
    let long: String = (0..40).map(|n| format!("word{n} ")).collect();
    let a = [
        same.clone(),
        line("shortened", &text(20)),
        line("lengthened", "short"),
        line("edited", &text(21)),
        line("gone", &text(22)),
        line("copied", &text(23)),
        line("other-rule", "short, too"),
        line("like", &long),
    ];
    let b = [
        same,
        line("shortened", "short"),
        line("lengthened", &text(24)),
        line("edited", &text(25)),
        line("come", &text(26)),
        // Equal to a text that stays; the lower document id survives, whichever it is.
        line("copied", &text(0)),
        line("other-rule", &text(1)),
        line("like", &long),
    ];
    scratch.write("a.jsonl", a.concat());
    scratch.write("b.jsonl", b.concat());
    scratch.write("a.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.write("b.toml", small_recipe("\"b.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "a.toml", "--out", "a"]);
    scratch.ok(&["build", "--recipe", "b.toml", "--out", "b"]);
    let (builds, found) = pairs(&scratch, "3");
    assert_eq!(builds["documents"].as_array().unwrap(), &[17, 17]);
    let of = |before: &str, after: &str| {
        let names = found.iter().find(|pair| (pair.0.as_str(), pair.1.as_str()) == (before, after));
        names.map(|pair| (pair.2, pair.3.clone())).unwrap_or_default()
    };
    let one = |name: &str| (1, vec![format!("a/{name}")]);
    assert_eq!(of("kept", "too_short"), one("shortened"));
    assert_eq!(of("too_short", "kept").0 + of("too_short", "exact_duplicate").0, 2);
    assert_eq!(
        of("kept", "kept, other text").0,
        1 + u64::from(!of("kept", "exact_duplicate").1.contains(&"a/copied".to_owned()))
    );
    assert_eq!(of("kept", "absent"), one("gone"));
    assert_eq!(of("absent", "kept"), one("come"));
    // Of two equal texts one goes: all documents of B but these two are kept.
    let to_duplicate: u64 = found.iter().filter(|pair| pair.1 == "exact_duplicate").map(|pair| pair.2).sum();
    assert_eq!(to_duplicate, 2);
    let changed: u64 = found.iter().map(|pair| pair.2).sum();
    // A name that only one side has counts once, all others are on both sides.
    assert_eq!(builds["unchanged"].as_u64().unwrap() + changed, 18);

    // Nothing is listed, everything is counted.
    let (_, none) = pairs(&scratch, "0");
    assert_eq!(none.iter().map(|pair| pair.2).sum::<u64>(), changed);
    assert!(none.iter().all(|pair| pair.3.is_empty()));
    let words = scratch.ok(&["diff", "a", "b"]).out;
    assert!(words.contains("         1  kept -> too_short\n            a/shortened\n"), "{words}");
    assert!(words.contains("why: moe-data why NAME --out b"), "{words}");

    // The page has the same numbers, and what differs in the recipes.
    let json = scratch.ok(&["report", "--compare", "a", "b", "--figures", "figures", "--json"]).out;
    let made: Value = serde_json::from_str(&json).unwrap();
    let figure = made["figures"].as_array().unwrap().iter().find(|f| f["id"] == "changes-of-fate").unwrap();
    let rows = figure["table"]["rows"].as_array().unwrap();
    let of_page: u64 = rows.iter().map(|row| row[1].as_u64().unwrap()).sum();
    assert_eq!((rows.len(), of_page), (found.len(), changed));
    let page = std::fs::read_to_string(scratch.path("compare.html")).unwrap();
    assert!(page.contains("a/shortened") && page.contains("source.0.paths"), "{page}");
    assert!(scratch.path("figures/changes-of-fate.svg").exists());
    scratch.write("mine.html", "mine");
    assert!(scratch.fail(&["report", "--compare", "a", "b", "-o", "mine.html"], 2).err.contains("mine.html"));
    assert!(scratch.fail(&["report", "--compare", "a", "nowhere"], 2).err.contains("nowhere holds no"));
    scratch.fail(&["report", "--compare", "a"], 2);
    scratch.fail(&["report", "a", "--compare", "a", "b"], 2);
}

#[test]
fn cuts_and_equal_builds_are_told_apart_from_other_texts() {
    let scratch = Scratch::new();
    let shared = "This line stands in each of the documents of this test, word by word.";
    let lines: String =
        (0..6).map(|n| line(&format!("doc-{n}"), &format!("{}\n{shared}", text(n)))).collect();
    scratch.write("docs.jsonl", lines);
    // The same tokenizer for both, so that tokens can be compared.
    scratch.write("a.toml", small_recipe("\"docs.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "a.toml", "--out", "a"]);
    std::fs::copy(scratch.path("a/tokenizer.json"), scratch.path("tokenizer.json")).unwrap();
    let with_file = |more: &str| {
        small_recipe("\"docs.jsonl\"", more)
            .replace("train = { vocab_size = 300 }", "file = \"tokenizer.json\"")
    };
    scratch.write("a.toml", with_file(""));
    scratch.write(
        "b.toml",
        with_file("[dedup.paragraph]\nmin_documents = 2\nmin_chars = 40\nmin_chars_left = 10\n"),
    );
    scratch.ok(&["build", "--recipe", "a.toml", "--out", "a"]);
    scratch.ok(&["build", "--recipe", "b.toml", "--out", "b"]);
    let (_, found) = pairs(&scratch, "9");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].1.as_str(), found[0].2), ("kept, other cuts or tokens", 5));
    let said = scratch.ok(&["diff", "a", "a"]);
    assert!(said.out.is_empty() && said.err.contains("both are data set"), "{}{}", said.out, said.err);
    let said = scratch.fail(&["diff", "a", "nowhere"], 2);
    assert!(said.err.contains("nowhere holds no finished build"), "{}", said.err);
}
