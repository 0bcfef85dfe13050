use serde_json::{Value, json};

use crate::support::{Random, Scratch, small_recipe};

/// Documents of two sources: some short ones, every fifth a copy of an earlier one.
fn corpus(n_docs: usize, short_of: u64, seed: u64) -> String {
    let mut random = Random(seed);
    let mut texts: Vec<String> = Vec::new();
    let mut lines = String::new();
    for n in 0..n_docs {
        let n_words = if random.below(short_of) == 0 { 2 } else { 20 + random.below(60) };
        let text = match n % 5 {
            4 => texts[random.below(texts.len() as u64) as usize].clone(),
            _ => (0..n_words).map(|_| format!("word{}", random.below(3000))).collect::<Vec<_>>().join(" "),
        };
        lines.push_str(&format!("{}\n", json!({ "id": format!("doc-{n}"), "text": text })));
        texts.push(text);
    }
    lines
}

fn recipe(more: &str) -> String {
    let second = "[[source]]\nname = \"b\"\npaths = [\"b.jsonl\"]\nid = \"id\"\n";
    format!("{}{second}", small_recipe("\"a.jsonl\"", more))
}

#[test]
fn a_sample_predicts_what_the_build_keeps() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", corpus(6000, 4, 1) + "no json\n");
    scratch.write("b.jsonl", corpus(4000, 10, 2));
    scratch.write("r.toml", recipe("[limits]\nmax_bad_fraction = 0.1\n"));
    let said = scratch.ok(&["build", "--recipe", "r.toml", "--dry-run", "--sample", "0.2", "--json"]);
    let predicted: Value = serde_json::from_str(&said.out).unwrap();
    let again = scratch.ok(&[
        "build",
        "--recipe",
        "r.toml",
        "--dry-run",
        "--sample",
        "0.2",
        "--json",
        "--threads",
        "1",
    ]);
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(again["sources"], predicted["sources"], "the sample depends on the texts alone");

    let said = scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(said.err.contains("predicted / real"), "{}", said.err);
    let ledger = scratch.ledger("out");
    for (name, real) in &ledger.sources {
        let source = &predicted["sources"][name];
        // Records are counted, not estimated.
        assert_eq!(source["read"]["docs"], json!(real.read.docs));
        assert_eq!(source["bad"]["docs"], json!(real.quarantined.values().map(|c| c.docs).sum::<u64>()));
        let near = |key: &str, real: u64| {
            let predicted = source[key].as_u64().unwrap() as f64;
            assert!((predicted / real as f64 - 1.0).abs() < 0.1, "{name}.{key}: {predicted} for {real}");
        };
        near("kept_docs", real.kept.docs);
        near("kept_bytes", real.kept.bytes);
        near("tokens", real.kept.tokens);
        // Texts are sampled whole, so copies are as frequent in the sample as in all documents.
        for reason in ["exact_duplicate", "too_short"] {
            let real = real.dropped[reason].docs as f64 / real.read.docs as f64;
            let share = source["dropped"][reason].as_f64().unwrap();
            assert!((share - real).abs() < 0.05, "{name}.{reason}: {share} for {real}");
        }
    }
    // Another recipe, another build: the old prediction says nothing.
    scratch.write("r.toml", recipe("[limits]\nmax_bad_fraction = 0.1\n[normalize]\nunicode = \"none\"\n"));
    assert!(!scratch.ok(&["build", "--recipe", "r.toml"]).err.contains("predicted / real"));
}

#[test]
fn a_sample_of_everything_predicts_everything() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", corpus(100, 4, 1));
    scratch.write("b.jsonl", corpus(50, 4, 2));
    // Too few documents for a share: all are taken, and fuzzy deduplication is predicted, too.
    scratch.write("r.toml", recipe("[dedup.minhash]\n"));
    let predicted = scratch.ok(&["build", "--recipe", "r.toml", "--dry-run", "--json"]).out;
    let predicted: Value = serde_json::from_str(&predicted).unwrap();
    assert_eq!((&predicted["per_million"], &predicted["not_predicted"]), (&json!(1_000_000), &json!([])));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    for (name, real) in &scratch.ledger("out").sources {
        let source = &predicted["sources"][name];
        assert_eq!(source["kept_docs"], json!(real.kept.docs));
        assert_eq!(source["kept_bytes"], json!(real.kept.bytes));
        assert_eq!(source["tokens"], json!(real.kept.tokens));
    }
    let text = scratch.ok(&["build", "--recipe", "r.toml", "--dry-run", "--out", "other"]).out;
    assert!(text.contains("sample of 150 documents, 100.00 % by hash of the text"), "{text}");
}
