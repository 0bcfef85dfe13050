use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use moe_shards::{Manifest, Shard};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::support::{Scratch, assert_same, quarantine, small_recipe, text};

const KEYS: &str = "language = \"meta.lang\"\ntags = \"tags\"\ndate = \"date\"\nscore = \"score\"\n";

fn recipe(paths: &str, quality: &str) -> String {
    small_recipe(paths, "").replacen("id = \"id\"\n", &format!("id = \"id\"\n{KEYS}{quality}\n"), 1)
}

/// Line `n`: every third without language, every fourth without tags, a score for all.
fn record(n: usize) -> Value {
    let mut record =
        json!({ "id": format!("doc-{n}"), "text": text(n), "date": "2024-05-17", "score": n as f64 / 40.0 });
    if !n.is_multiple_of(3) {
        record["meta"] = json!({ "lang": (["", "de", "EN_us"][n % 3]) });
    }
    if !n.is_multiple_of(4) {
        record["tags"] = json!([(["", "web", "faq", "math"][n % 4]), "all"]);
    }
    record
}

fn lines(numbers: impl Iterator<Item = usize>) -> String {
    numbers.map(|n| format!("{}\n", record(n))).collect()
}

fn is_even(n: usize) -> bool {
    n.is_multiple_of(2)
}

/// Quality, language and tags.
type Said = (Option<u8>, Option<String>, Vec<String>);

/// The shards' metadata of each document.
fn found(scratch: &Scratch, out: &str) -> BTreeMap<String, Said> {
    let dir = scratch.path(out);
    let mut found = BTreeMap::new();
    for info in Manifest::read(&dir).unwrap().shards {
        let shard = Shard::open(&Manifest::mdx_path(&dir, &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            let tags = shard.tags(doc).unwrap().map(str::to_owned).collect();
            let language = shard.language(doc).unwrap().map(str::to_owned);
            found.insert(
                shard.id(doc).unwrap().to_owned(),
                (shard.meta(doc).unwrap().quality, language, tags),
            );
        }
    }
    found
}

fn expected(n: usize) -> Said {
    let quality = [0.25, 0.5, 0.75].iter().filter(|edge| **edge <= n as f64 / 40.0).count();
    let language = [None, Some("de"), Some("en-US")][n % 3];
    let tags: &[&str] = [&[][..], &["all", "web"], &["all", "faq"], &["all", "math"]][n % 4];
    (Some(quality as u8), language.map(str::to_owned), tags.iter().map(|tag| (*tag).to_owned()).collect())
}

const EDGES: &str = "quality = \"score\"\nquality_edges = [0.25, 0.5, 0.75]";

#[test]
fn metadata_reaches_the_shards_for_any_split() {
    let scratch = Scratch::new();
    scratch.write("one/a.jsonl", lines(0..40));
    scratch.write("two/a.jsonl", lines((0..40).filter(|n| !is_even(*n))));
    scratch.write("two/b.jsonl", lines((0..40).rev().filter(|n| is_even(*n))));
    scratch.write("one.toml", recipe("\"one\"", EDGES));
    scratch.write("two.toml", recipe("\"two\"", EDGES));
    scratch.ok(&["build", "--recipe", "one.toml", "--out", "out"]);
    scratch.ok(&["build", "--recipe", "two.toml", "--out", "out2", "--threads", "1"]);
    assert_same(&scratch.results("out2"), &scratch.results("out"));
    let found = found(&scratch, "out");
    assert_eq!(found.len(), 40);
    for (id, found) in found {
        assert_eq!(found, expected(id["doc-".len()..].parse().unwrap()), "{id}");
    }
    let manifest = Manifest::read(&scratch.path("out")).unwrap();
    assert_eq!(manifest.languages, ["de", "en-US"]);
    assert_eq!(manifest.tags, ["all", "faq", "math", "web"]);
    scratch.ok(&["verify", "out"]);

    let said = scratch.ok(&["inspect", "out"]).out;
    assert!(said.contains("quality   0 10 (25.0 %), 1 10 (25.0 %), 2 10 (25.0 %), 3 10 (25.0 %)"), "{said}");
    assert!(said.contains("language  de 13 (32.5 %), en-US 13 (32.5 %), unknown 14 (35.0 %)"), "{said}");
    assert!(said.contains("tags      all 30 (75.0 %), faq 10 (25.0 %)"), "{said}");
    let value: Value = serde_json::from_str(&scratch.ok(&["inspect", "out", "--json"]).out).unwrap();
    assert_eq!(value["metadata"]["quality"]["3"]["docs"], 10);
    assert_eq!(value["metadata"]["language"]["unknown"]["docs"], 14);
}

#[test]
fn parquet_and_jsonl_give_the_same_shards() {
    let scratch = Scratch::new();
    let keys = "language = \"lang\"\ntags = \"tags\"\nquality = \"q\"\n";
    let recipe =
        |paths| small_recipe(paths, "").replacen("id = \"id\"\n", &format!("id = \"id\"\n{keys}"), 1);
    let jsonl = (0..20).map(|n| {
        let lang = if is_even(n) { json!("fr") } else { Value::Null };
        format!(
            "{}\n",
            json!({ "id": format!("doc-{n}"), "text": text(n), "lang": lang, "tags": ["x"], "q": n })
        )
    });
    scratch.write("a.jsonl", jsonl.collect::<String>());
    let mut tags = ListBuilder::new(StringBuilder::new());
    (0..20).for_each(|_| tags.append_value([Some("x")]));
    let strings = |f: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new((0..20).map(f).collect::<StringArray>())
    };
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("id", strings(&|n| Some(format!("doc-{n}"))), true),
        ("text", strings(&|n| Some(text(n))), true),
        ("lang", strings(&|n| (is_even(n)).then(|| "fr".to_owned())), true),
        ("tags", Arc::new(tags.finish()), true),
        ("q", Arc::new((0..20).map(|n| Some(f64::from(n))).collect::<Float64Array>()), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    scratch.write("a.parquet", writer.into_inner().unwrap());
    scratch.write("j.toml", recipe("\"a.jsonl\""));
    scratch.write("p.toml", recipe("\"a.parquet\""));
    scratch.ok(&["build", "--recipe", "j.toml", "--out", "j"]);
    scratch.ok(&["build", "--recipe", "p.toml", "--out", "p"]);
    assert_same(&scratch.results("p"), &scratch.results("j"));
    assert_eq!(found(&scratch, "p")["doc-7"], (Some(7), None, vec!["x".to_owned()]));
}

#[test]
fn wrong_metadata_goes_to_quarantine_with_its_cause() {
    let scratch = Scratch::new();
    let mut all = lines(1..30);
    for (key, value) in [
        ("date", json!("tomorrow")),
        ("score", json!("high")),
        ("tags", json!([1])),
        ("meta", json!({ "lang": 1 })),
    ] {
        let mut record = record(31);
        record[key] = value;
        all.push_str(&format!("{record}\n"));
    }
    scratch.write("a.jsonl", all);
    scratch.write("r.toml", recipe("\"a.jsonl\"", EDGES) + "[limits]\nmax_bad_fraction = 1.0\n");
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let ledger = scratch.ledger("out");
    let causes: Vec<(&str, u64)> =
        ledger.sources["a"].quarantined.iter().map(|(cause, count)| (cause.as_str(), count.docs)).collect();
    // The quality is asked for first, and it is made of the same field as the score.
    assert_eq!(causes, [("bad_date", 1), ("bad_language", 1), ("bad_quality", 1), ("bad_tags", 1)]);
    assert_eq!(quarantine(&scratch.path("out/quarantine/a-00000.jsonl")).len(), 4);
}

#[test]
fn a_ninth_tag_ends_the_build_and_a_misspelled_field_is_named() {
    let scratch = Scratch::new();
    let nine = (0..9).map(|n| format!("{}\n", json!({ "id": n, "text": text(n), "tags": format!("t{n}") })));
    scratch.write("a.jsonl", nine.collect::<String>());
    let keys = |tags: &str| {
        small_recipe("\"a.jsonl\"", "").replacen(
            "id = \"id\"\n",
            &format!("id = \"id\"\ntags = \"{tags}\"\n"),
            1,
        )
    };
    scratch.write("r.toml", keys("tags"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2).err;
    assert!(said.contains("source `a`: more than 8 tags in the data set (`t0`, `t1`"), "{said}");
    scratch.write("r.toml", keys("tag"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2).err;
    assert!(said.contains("has a field `tag`; did you mean `tags`?"), "{said}");
}

/// Two records with one id and one text, that differ only in their metadata: which of them stays must not
/// depend on the order of the files.
#[test]
fn equal_documents_with_other_metadata_do_not_bring_back_the_order_of_the_input() {
    for dedup in ["exact = true", "exact = false"] {
        let scratch = Scratch::new();
        let twin = |quality: u8| {
            let record = json!({ "id": "twin", "text": text(1000), "q": quality });
            lines(0..20) + &format!("{record}\n")
        };
        scratch.write("up/a.jsonl", twin(1));
        scratch.write("up/b.jsonl", twin(2));
        scratch.write("down/a.jsonl", twin(2));
        scratch.write("down/b.jsonl", twin(1));
        let recipe = |folder: &str| {
            small_recipe(folder, &format!("[dedup]\n{dedup}\n")).replacen(
                "id = \"id\"\n",
                "id = \"id\"\nquality = \"q\"\n",
                1,
            )
        };
        scratch.write("up.toml", recipe("\"up\""));
        scratch.write("down.toml", recipe("\"down\""));
        scratch.ok(&["build", "--recipe", "up.toml", "--out", "up-out"]);
        scratch.ok(&["build", "--recipe", "down.toml", "--out", "down-out"]);
        assert_same(&scratch.results("up-out"), &scratch.results("down-out"));
    }
}
