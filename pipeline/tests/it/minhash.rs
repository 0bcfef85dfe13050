use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::support::{Random, Scratch, assert_same, dataset_lines};

/// A document in the audit: source and name.
type Name = (String, String);

/// A row of the audit table.
struct Pair {
    removed: Name,
    kept: Name,
    method: String,
    jaccard: Option<f64>,
    cluster: Option<u64>,
}

fn audit(scratch: &Scratch, out: &str) -> Vec<Pair> {
    let file = fs::File::open(scratch.path(out).join("audit/dups-minhash.parquet")).unwrap();
    let mut pairs = Vec::new();
    for batch in ParquetRecordBatchReader::try_new(file, 1000).unwrap() {
        let batch = batch.unwrap();
        let text =
            |name: &str, i: usize| batch.column_by_name(name).unwrap().as_string::<i32>().value(i).to_owned();
        let jaccard = batch.column_by_name("jaccard").unwrap().as_primitive::<Float64Type>();
        let cluster = batch.column_by_name("cluster").unwrap().as_primitive::<UInt64Type>();
        for i in 0..batch.num_rows() {
            pairs.push(Pair {
                removed: (text("removed_source", i), text("removed", i)),
                kept: (text("kept_source", i), text("kept", i)),
                method: text("method", i),
                jaccard: jaccard.iter().nth(i).unwrap(),
                cluster: cluster.iter().nth(i).unwrap(),
            });
        }
    }
    pairs
}

/// Pages of two versions of one manual, and chapters, none with a declared family. Some pages occur a third
/// and fourth time with a few words changed.
fn corpus() -> Vec<String> {
    let mut lines = dataset_lines("django_docs_two_versions.jsonl.gz");
    lines.extend(dataset_lines("bible_kjv_web.jsonl.gz").into_iter().take(60));
    let mut random = Random(3);
    for n in 0..40 {
        let mut document: serde_json::Value = serde_json::from_str(&lines[n % 20]).unwrap();
        let text = document["text"].as_str().unwrap();
        let words = text.split(' ').map(|word| if random.below(60) == 0 { "changed" } else { word });
        let text = words.collect::<Vec<_>>().join(" ");
        document["text"] = text.into();
        document["id"] = format!("copy-{n}").into();
        lines.push(document.to_string());
    }
    lines
}

fn recipe(paths: &str, more: &str) -> String {
    format!(
        "[[source]]\nname = \"docs\"\npaths = [{paths}]\nid = \"id\"\n[tokenizer]\ntrain = {{ vocab_size = 300 }}\n\
         [dedup.minhash]\nmax_source_removed = 0.9\n{more}"
    )
}

fn whole(scratch: &Scratch, more: &str) -> String {
    scratch.write("whole.jsonl", corpus().join("\n"));
    recipe("\"whole.jsonl\"", more)
}

#[test]
fn threads_splits_and_memory_change_nothing_in_fuzzy_deduplication() {
    let scratch = Scratch::new();
    scratch.write("whole.toml", whole(&scratch, ""));
    scratch.ok(&["build", "--recipe", "whole.toml", "--out", "whole", "--threads", "1"]);
    let expected = scratch.results("whole");
    let table = |out: &str| fs::read(scratch.path(out).join("audit/dups-minhash.parquet")).unwrap();
    assert!(audit(&scratch, "whole").len() > 40);

    let mut lines = corpus();
    Random(5).shuffle(&mut lines);
    for (i, part) in lines.chunks(23).enumerate() {
        scratch.write(&format!("parts/{i}.jsonl"), part.join("\n"));
    }
    scratch.write("split.toml", recipe("\"parts\"", ""));
    for (recipe, threads, memory) in
        [("split", "2", "1MiB"), ("split", "4", "64MiB"), ("whole", "2", "1MiB"), ("split", "1", "1MiB")]
    {
        let out = format!("{recipe}-{threads}-{memory}");
        let file = format!("{recipe}.toml");
        scratch.ok(&["build", "--recipe", &file, "--out", &out, "--threads", threads, "--memory", memory]);
        assert_same(&scratch.results(&out), &expected);
        assert!(table(&out) == table("whole"), "the audit of {out} differs");
    }
}

#[test]
fn kills_during_fuzzy_deduplication_leave_the_same_bytes() {
    let scratch = Scratch::new();
    scratch.write("r.toml", whole(&scratch, ""));
    let start = Instant::now();
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "calm"]);
    let whole_micros = start.elapsed().as_micros() as u64;
    let expected = scratch.results("calm");
    let args = ["build", "--recipe", "r.toml", "--out", "killed", "--threads", "2", "--memory", "1MiB"];
    let wait_for = ["sketch", "minhash", "members", "verify", "removed"];
    let mut random = Random(11);
    for round in 0..15 {
        let mut child = scratch.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // In turn: at the start of each stage, where its folder appears, and at any moment.
        match wait_for.get(round % 6) {
            Some(stage) => {
                let folder = scratch.path("killed/work").join(stage);
                while !folder.exists() && child.try_wait().unwrap().is_none() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            None => std::thread::sleep(Duration::from_micros(random.below(whole_micros))),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 3 == 2 {
            scratch.ok(&args);
            assert_same(&scratch.results("killed"), &expected);
            fs::remove_dir_all(scratch.path("killed")).unwrap();
        }
    }
    scratch.ok(&args);
    assert_same(&scratch.results("killed"), &expected);
}

/// The rule of the cluster, from the outside.
#[test]
fn every_cluster_keeps_exactly_one_document() {
    let scratch = Scratch::new();
    scratch.write("r.toml", whole(&scratch, ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let pairs = audit(&scratch, "out");
    let mut survivors: BTreeMap<u64, &Name> = BTreeMap::new();
    let removed: BTreeSet<&Name> = pairs.iter().map(|pair| &pair.removed).collect();
    assert_eq!(removed.len(), pairs.len());
    for pair in &pairs {
        assert_eq!(pair.method, "minhash");
        assert!(pair.jaccard.unwrap() >= 0.7, "{:?}", pair.removed);
        assert!(!removed.contains(&pair.kept), "{:?} is kept and removed", pair.kept);
        let survivor = survivors.entry(pair.cluster.unwrap()).or_insert(&pair.kept);
        assert_eq!(*survivor, &pair.kept);
    }
    assert_eq!(
        survivors.keys().copied().collect::<Vec<_>>(),
        (0..survivors.len() as u64).collect::<Vec<_>>()
    );
    let ledger = scratch.ledger("out");
    let source = &ledger.sources["docs"];
    assert_eq!(source.dropped["near_duplicate"].docs, pairs.len() as u64);
    let n_dropped = pairs.len() as u64 + source.dropped["exact_duplicate"].docs;
    assert_eq!(source.kept.docs, corpus().len() as u64 - n_dropped);

    // Without comparing, everything that bands connect is one cluster; none of it may stay.
    scratch.write("none.toml", whole(&scratch, "verify = \"off\"\nkeep = \"none\"\n"));
    scratch.ok(&["build", "--recipe", "none.toml", "--out", "none"]);
    let all = audit(&scratch, "none");
    assert!(all.len() > pairs.len());
    assert!(all.iter().all(|pair| pair.jaccard.is_none()));
    let alone = all.iter().filter(|pair| pair.kept.1.is_empty()).count() as u64;
    assert_eq!(alone, all.iter().filter_map(|pair| pair.cluster).max().unwrap() + 1);
}

#[test]
fn the_survivor_is_the_one_that_keep_names() {
    let scratch = Scratch::new();
    let words: Vec<String> = (0..200).map(|n| format!("word{n}")).collect();
    let text = |n: usize| words[..n].join(" ");
    let line = |id: &str, n: usize, date: &str, score: f64| {
        serde_json::json!({ "id": id, "text": text(n), "date": date, "score": score }).to_string()
    };
    let lines = [
        line("short-new", 180, "2024-05-01", 0.5),
        line("long-old", 200, "2019-01-01", 0.1),
        line("middle-good", 190, "2020-01-01", 0.9),
        serde_json::json!({ "id": "unlike", "text": "five other words stand here alone", "score": 1.0 })
            .to_string(),
    ];
    scratch.write("docs.jsonl", lines.join("\n"));
    for (keep, survivor) in [("longest", "long-old"), ("newest", "short-new"), ("best-score", "middle-good")]
    {
        let recipe = recipe("\"docs.jsonl\"", &format!("keep = \"{keep}\"\n"));
        let recipe = recipe.replace("id = \"id\"", "id = \"id\"\ndate = \"date\"\nscore = \"score\"");
        scratch.write("r.toml", recipe);
        scratch.ok(&["build", "--recipe", "r.toml", "--out", keep]);
        let pairs = audit(&scratch, keep);
        assert_eq!(pairs.len(), 2, "{keep}");
        assert!(pairs.iter().all(|pair| pair.kept.1 == survivor), "{keep}");
    }
    let said = {
        scratch.write("r.toml", recipe("\"docs.jsonl\"", "keep = \"newest\"\n"));
        scratch.fail(&["build", "--recipe", "r.toml", "--out", "x"], 2)
    };
    assert!(said.err.contains("add `date` to a [[source]]"), "{}", said.err);
}

#[test]
fn guards_stop_the_build_and_a_higher_limit_continues() {
    let scratch = Scratch::new();
    let strict =
        whole(&scratch, "max_cluster = 2\n").replace("max_source_removed = 0.9", "max_source_removed = 0.1");
    scratch.write("r.toml", &strict);
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 1);
    for part in ["source `docs`", "max_source_removed", "the cluster of `docs/", "max_cluster", "rerun"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!scratch.path("out/MANIFEST.json").exists());
    scratch.write("r.toml", whole(&scratch, ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    // The guards are not part of a data set's identity.
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "straight"]);
    assert_same(&scratch.results("out"), &scratch.results("straight"));
}

#[test]
fn declared_families_keep_their_texts_and_copies_are_counted() {
    let scratch = Scratch::new();
    let quickstart = crate::support::quickstart_recipe();
    scratch.write("plain.toml", &quickstart);
    scratch.write("fuzzy.toml", format!("{quickstart}\n[dedup.minhash]\n"));
    scratch.ok(&["build", "--recipe", "plain.toml", "--out", "plain"]);
    scratch.ok(&["build", "--recipe", "fuzzy.toml", "--out", "fuzzy"]);
    let (plain, fuzzy) = (scratch.ledger("plain"), scratch.ledger("fuzzy"));
    for (name, source) in &fuzzy.sources {
        assert_eq!(source.kept, plain.sources[name].kept, "{name}");
        let variants = source.variants.unwrap();
        assert!(variants.documents > 0 && variants.copies <= variants.documents);
    }
    // Versions of the manual differ little, translations of the Bible much.
    assert_eq!(fuzzy.sources["bible"].variants.unwrap().copies, 0);
    assert!(fuzzy.sources["django"].variants.unwrap().copies > 10);
    assert!(audit(&scratch, "fuzzy").iter().all(|pair| pair.method == "variant_copy"));
}

#[test]
fn wrong_keys_of_fuzzy_deduplication_are_named() {
    let scratch = Scratch::new();
    scratch.write("docs.jsonl", "");
    let base =
        "[[source]]\nname = \"a\"\npaths = [\"docs.jsonl\"]\n[tokenizer]\ntrain = { vocab_size = 300 }\n";
    let more = "[dedup]\nexakt = true\n[dedup.minhash]\nband = 3\nverify = { jacard = 0.5 }\nkeep = \"oldest\"\nrows = 0\n";
    scratch.write("r.toml", format!("{base}{more}"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    for part in [
        "r.toml:7: `dedup.exakt`: unknown key; did you mean `exact`?",
        "r.toml:9: `dedup.minhash.band`: unknown key; did you mean `bands`?",
        "r.toml:10: `dedup.minhash.verify`: unknown value `jacard`",
        "r.toml:11: `dedup.minhash.keep`: unknown value `oldest`",
        "r.toml:12: `dedup.minhash.rows`: is 0; expected 1 to 64",
    ] {
        assert!(said.err.contains(part), "{part}\n{}", said.err);
    }
}

#[test]
fn the_ledger_estimates_recall_and_precision() {
    let scratch = Scratch::new();
    // All documents are in the sample, so the figures are exact.
    scratch.write("r.toml", whole(&scratch, "estimate = 1000\n"));
    let said = scratch.ok(&["build", "--recipe", "r.toml", "--out", "all"]);
    // The summary has one line about it, and the table is printed on request.
    assert!(said.err.contains("near-duplicates: ") && !said.err.contains("S-curve"), "{}", said.err);
    assert!(scratch.ok(&["inspect", "all/ledger.json"]).out.contains("S-curve"));
    let ledger = scratch.ledger("all");
    let removed = ledger.sources["docs"].dropped["near_duplicate"].docs;
    let estimate = ledger.minhash_estimate.unwrap();
    assert_eq!(estimate.sampled, estimate.documents);
    assert_eq!((estimate.removed, estimate.removed_like_kept), (removed, removed));
    // Equal texts went before, and 1 - (1 - 0.7^8)^14 = 0.56 is the minimum that the S-curve predicts.
    assert!(estimate.pairs >= removed);
    assert!(estimate.recall.unwrap() > 0.8 && estimate.expected_recall.unwrap() > 0.56, "{estimate}");
    // Of candidates that are alike, not both are kept.
    for bin in estimate.bins.iter().filter(|bin| bin.from >= 0.7) {
        assert!(bin.both_kept <= bin.pairs - bin.candidates, "{estimate}");
    }

    scratch.write("none.toml", whole(&scratch, "estimate = 0\n"));
    scratch.ok(&["build", "--recipe", "none.toml", "--out", "none"]);
    assert!(scratch.ledger("none").minhash_estimate.is_none());
    assert_same(&shards(&scratch, "none"), &shards(&scratch, "all"));
}

/// All results except the ledger.
fn shards(scratch: &Scratch, out: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = scratch.results(out);
    files.remove("ledger.json");
    files
}
