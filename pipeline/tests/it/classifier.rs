use std::fs;

use serde_json::Value;

use crate::support::{Scratch, assert_same, dataset, quickstart_recipe};

/// Trains on the repository's text: documentation against scripture.
fn trained(scratch: &Scratch, model: &str, more: &[&str]) {
    let (django, bible) = (dataset("django_docs_two_versions.jsonl.gz"), dataset("bible_kjv_web.jsonl.gz"));
    let (django, bible) = (django.to_string_lossy(), bible.to_string_lossy());
    let args = [
        "classifier",
        "train",
        "--positive",
        &django,
        "--negative",
        &bible,
        "--bits",
        "14",
        "--output",
        model,
    ];
    scratch.ok(&[&args[..], more].concat());
}

fn eval(scratch: &Scratch, model: &str, more: &[&str]) -> Value {
    let (django, bible) = (dataset("django_docs_two_versions.jsonl.gz"), dataset("bible_kjv_web.jsonl.gz"));
    let (django, bible) = (django.to_string_lossy(), bible.to_string_lossy());
    let args =
        ["classifier", "eval", "--model", model, "--positive", &django, "--negative", &bible, "--json"];
    serde_json::from_str(&scratch.ok(&[&args[..], more].concat()).out).unwrap()
}

#[test]
fn training_gives_the_same_bytes_and_the_held_out_documents_are_told_apart() {
    let scratch = Scratch::new();
    trained(&scratch, "a.moecls", &[]);
    trained(&scratch, "b.moecls", &[]);
    trained(&scratch, "c.moecls", &["--seed", "1"]);
    let bytes = |name: &str| fs::read(scratch.path(name)).unwrap();
    assert!(bytes("a.moecls") == bytes("b.moecls"), "two runs differ");
    assert!(bytes("a.moecls") != bytes("c.moecls"), "the seed changes nothing");
    let held_out = eval(&scratch, "a.moecls", &["--held-out"]);
    let all = eval(&scratch, "a.moecls", &[]);
    let n = |value: &Value| value["positive"].as_u64().unwrap() + value["negative"].as_u64().unwrap();
    assert!(n(&held_out) > 0 && n(&held_out) * 5 < n(&all), "{} of {}", n(&held_out), n(&all));
    assert!(held_out["auc"].as_f64().unwrap() > 0.99, "{held_out}");
    assert!(held_out["length_auc"].as_f64().unwrap() < 1.0);
    let said = scratch.fail(
        &[
            "classifier",
            "eval",
            "--model",
            "a.moecls",
            "--label",
            "x",
            "--positive",
            "a.moecls",
            "--negative",
            "b.moecls",
        ],
        2,
    );
    assert!(said.err.contains("has no label `x`"), "{}", said.err);
}

/// A model that has memorized its documents is overconfident on others: scores are calibrated on held-out
/// documents, and the model stores how.
#[test]
fn scores_are_calibrated_on_held_out_documents() {
    let scratch = Scratch::new();
    let lines = |kind: u64| -> String {
        let draw = |i: u64, k: u64| moe_shards::permute::mix64(kind << 40 | i << 8 | k) >> 8;
        // Words of one kind are a little more frequent in its documents.
        let word = |i, k| {
            format!(
                "w{}",
                draw(i, k) % 40 + if draw(i, 100 + k) % 10 < 6 { 40 * kind } else { 40 * (1 - kind) }
            )
        };
        let text = |i| (0..20).map(|k| word(i, k)).collect::<Vec<_>>().join(" ");
        (0..400).map(|i| format!("{{\"text\":\"{}\"}}\n", text(i))).collect()
    };
    scratch.write("a.jsonl", lines(0));
    scratch.write("b.jsonl", lines(1));
    let train = |model: &str, more: &[&str]| -> Value {
        let args = [
            "classifier",
            "train",
            "--positive",
            "a.jsonl",
            "--negative",
            "b.jsonl",
            "--bits",
            "14",
            "--json",
        ];
        let flags = ["--held-out", "0.5", "--epochs", "30", "--learning-rate", "5", "--output", model];
        serde_json::from_str(&scratch.ok(&[&args[..], &flags, more].concat()).out).unwrap()
    };
    let (raw, calibrated) = (train("raw.moecls", &["--no-calibration"]), train("a.moecls", &[]));
    let of = |told: &Value, key: &str| told["held_out"][key].as_f64().unwrap();
    assert!(of(&raw, "calibration_error") > 0.1, "{raw}");
    assert!(of(&calibrated, "calibration_error") < 0.5 * of(&raw, "calibration_error"), "{calibrated}");
    assert!((of(&raw, "auc") - of(&calibrated, "auc")).abs() < 1e-3, "the order of the documents stays");
    let fit = &calibrated["training"]["calibration"];
    assert!(
        fit["scale"].as_f64().unwrap() < 1.0 && fit["error_after"].as_f64() < fit["error_before"].as_f64()
    );
    assert!(raw["training"].get("calibration").is_none());
    // Classes that are told apart perfectly have nothing to gain.
    trained(&scratch, "apart.moecls", &["--held-out", "0.5"]);
    trained(&scratch, "same.moecls", &["--held-out", "0.5", "--no-calibration"]);
    let bytes = |name: &str| fs::read(scratch.path(name)).unwrap();
    assert!(bytes("apart.moecls") == bytes("same.moecls"));
}

/// Good texts and a corpus that contains them, too: they do not count as bad.
#[test]
fn the_rest_of_a_corpus_leaves_out_the_good_texts_and_its_order_does_not_matter() {
    let scratch = Scratch::new();
    let line = |i: usize, good: bool| {
        let word = if good { "plough" } else { "casino" };
        format!("{{\"text\":\"{word} number {i} stands in a sentence of some words\"}}\n")
    };
    let good: String = (0..40).map(|i| line(i, true)).collect();
    let bad: String = (0..400).map(|i| line(i, false)).collect();
    scratch.write("good.jsonl", &good);
    scratch.write("corpus.jsonl", format!("{good}{bad}"));
    scratch.write("turned.jsonl", format!("{bad}{good}"));
    let train = |corpus: &str, model: &str| {
        let args = ["classifier", "train", "--positive", "good.jsonl", "--rest", corpus, "--bits", "14"];
        scratch.ok(&[&args[..], &["--json", "--held-out", "0.2", "--output", model]].concat()).out
    };
    let told: Value = serde_json::from_str(&train("corpus.jsonl", "a.moecls")).unwrap();
    let n = |key: &str, i: usize| told["training"][key][i].as_u64().unwrap();
    assert_eq!((n("documents", 0) + n("held_out", 0), n("documents", 1) + n("held_out", 1)), (40, 160));
    assert_eq!(told["held_out"]["auc"], 1.0);
    train("turned.jsonl", "b.moecls");
    let bytes = |name: &str| fs::read(scratch.path(name)).unwrap();
    assert!(bytes("a.moecls") == bytes("b.moecls"));
    let said = scratch.fail(&["classifier", "train", "--positive", "good.jsonl"], 2).err;
    assert!(said.contains("--negative"), "{said}");
}

#[test]
fn scores_do_not_depend_on_threads_and_a_model_is_not_replaced_unasked() {
    let scratch = Scratch::new();
    trained(&scratch, "a.moecls", &[]);
    let django = dataset("django_docs_two_versions.jsonl.gz");
    let django = django.to_string_lossy();
    let apply = |threads: &str| {
        scratch
            .ok(&["classifier", "apply", "--model", "a.moecls", "--id", "id", "--threads", threads, &django])
            .out
    };
    let one = apply("1");
    assert_eq!(one, apply("3"));
    let first: Value = serde_json::from_str(one.lines().next().unwrap()).unwrap();
    assert!(first["id"].is_string() && first["score"].as_f64().unwrap() > 0.5, "{first}");
    let args = ["classifier", "train", "--positive", &django, "--negative", &django, "--output", "a.moecls"];
    assert!(scratch.fail(&args, 2).err.contains("--force"));
    let args = [
        "classifier",
        "train",
        "--positive",
        &django,
        "--negative",
        "none.jsonl",
        "--bits",
        "40",
        "--epochs",
        "0",
    ];
    let said = scratch.fail(&args, 2);
    assert!(said.err.contains("--bits is 40") && said.err.contains("--epochs is 0"), "{}", said.err);
}

/// The quickstart with the classifier, whose score becomes the quality.
fn recipe(min_score: &str, quality: &str) -> String {
    let recipe = quickstart_recipe().replace("vocab_size = 4096", "vocab_size = 400");
    format!(
        "{recipe}\n[[filter]]\nname = \"classifier\"\nmodel = \"a.moecls\"\nmin_score = {min_score}\n[quality]\n{quality}\n"
    )
}

#[test]
fn a_threshold_moves_without_scoring_again_and_scores_become_buckets() {
    let scratch = Scratch::new();
    trained(&scratch, "a.moecls", &[]);
    scratch.write("r.toml", recipe("0.0", "buckets = 4"));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "out", "--threads", "1"]);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "three", "--threads", "3"]);
    assert_same(&scratch.results("three"), &scratch.results("out"));
    let ledger = scratch.ledger("out");
    let quality = ledger.quality.unwrap();
    assert_eq!((quality.edges.len(), quality.buckets.len()), (3, 4));
    let bytes: Vec<u64> = quality.buckets.iter().map(|bucket| bucket.bytes).collect();
    let total: u64 = bytes.iter().sum();
    // A bucket is off by no more than the longest documents.
    assert!(bytes.iter().all(|n| n.abs_diff(total / 4) < total / 8), "{bytes:?}");
    let inspected: Value = serde_json::from_str(&scratch.ok(&["inspect", "out", "--json"]).out).unwrap();
    assert!(inspected.is_object());

    // The curve of a mixture sees the buckets.
    scratch.write(
        "mix.toml",
        "[mix]\nseq_len = 64\nholdout = 0.0\n[[pool]]\nsource = \"django\"\nrepeat = 2.0\ncurve = { discard = 0.4, max_factor = 6.0 }\n",
    );
    let mix = scratch.run(&["mix", "--mixture", "mix.toml", "--out", "out"]);
    assert_eq!(mix.code, Some(0), "{}", mix.err);

    let folders = |stage: &str| {
        let folder = scratch.path("three/work").join(stage);
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (folders("read"), folders("measure"), folders("filter"));
    scratch.write("r.toml", recipe("0.5", "edges = [0.9]"));
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "three"]);
    assert_eq!((folders("read"), folders("measure")), (before.0, before.1));
    assert_ne!(folders("filter"), before.2);
    let ledger = scratch.ledger("three");
    // Scripture is the other class.
    let bible = &ledger.sources["bible"];
    assert!(bible.dropped["classifier_score"].docs > bible.read.docs / 2, "{bible:?}");
    scratch.ok(&["verify", "three"]);
    let story = scratch.ok(&["why", "bible/KJV/Gen.1", "--out", "three"]);
    assert!(story.out.contains("classifier_score"), "{}", story.out);
}

#[test]
fn quality_needs_a_classifier_and_a_model_that_is_there() {
    let scratch = Scratch::new();
    let recipe = quickstart_recipe();
    scratch.write("r.toml", format!("{recipe}\n[quality]\nbuckets = 1\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("add a [[filter]]") && said.err.contains("`quality.buckets`"), "{}", said.err);
    scratch
        .write("r.toml", format!("{recipe}\n[[filter]]\nname = \"classifier\"\nmodel = \"none.moecls\"\n"));
    assert!(scratch.fail(&["build", "--recipe", "r.toml"], 2).err.contains("none.moecls"));
    scratch.write("none.moecls", "moecls\0\nwhat");
    assert!(scratch.fail(&["build", "--recipe", "r.toml"], 2).err.contains("none.moecls"));
}
