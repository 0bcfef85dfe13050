//! The tokenizer verbs, and what a recipe says about encoding.

use std::fs;

use moe_shards::{Manifest, Shard};
use serde_json::Value;

use crate::support::{Scratch, assert_same, dataset_lines};

/// A recipe over `a.jsonl` with keys of its tokenizer section.
fn recipe(tokenizer: &str) -> String {
    format!("[[source]]\nname = \"a\"\npaths = [\"a.jsonl\"]\nid = \"id\"\n[tokenizer]\n{tokenizer}\n")
}

const TRAIN: &str = "train = { vocab_size = 400, special_tokens = [\"<|begin|>\"] }";

fn corpus(scratch: &Scratch) {
    let mut lines = dataset_lines("bible_kjv_web.jsonl.gz");
    lines.truncate(40);
    lines.push("{\"id\":\"nasty\",\"text\":\"a<|endoftext|>b <|begin|> c\"}".to_owned());
    scratch.write("a.jsonl", lines.join("\n"));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn tokens(scratch: &Scratch, out: &str) -> Vec<(String, Vec<u32>)> {
    let manifest = Manifest::read(&scratch.path(out)).unwrap();
    let mut all = Vec::new();
    for info in &manifest.shards {
        let shard = Shard::open(&Manifest::mdx_path(&scratch.path(out), &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            all.push((shard.id(doc).unwrap().to_owned(), shard.tokens(doc).unwrap().to_vec()));
        }
    }
    all
}

#[test]
fn the_engine_and_what_is_verified_do_not_change_a_byte() {
    let scratch = Scratch::new();
    corpus(&scratch);
    scratch.write("fast.toml", recipe(TRAIN));
    scratch.write("slow.toml", recipe(&format!("{TRAIN}\nengine = \"reference\"")));
    let said = scratch.ok(&["build", "--recipe", "fast.toml", "--out", "fast"]);
    assert!(said.err.contains("encoder: fastokens (gpt2 splits, "), "{}", said.err);
    let said = scratch.ok(&["build", "--recipe", "slow.toml", "--out", "slow"]);
    assert!(said.err.contains("encoder: tokenizers, because the recipe asks for it"), "{}", said.err);
    scratch.ok(&["build", "--recipe", "fast.toml", "--out", "verified", "--verify-every", "1"]);
    let engine = |out: &str| scratch.ledger(out).encoder.unwrap().engine;
    assert_eq!(["fast", "slow", "verified"].map(engine), ["fastokens", "tokenizers", "fastokens"]);
    let mut fast = scratch.results("fast");
    let mut slow = scratch.results("slow");
    assert_same(&scratch.results("verified"), &fast);
    // Only the ledger tells them apart.
    fast.remove("ledger.json");
    slow.remove("ledger.json");
    assert_same(&slow, &fast);
}

#[test]
fn documents_begin_and_end_by_the_recipe_and_never_by_their_text() {
    let scratch = Scratch::new();
    corpus(&scratch);
    scratch.write("r.toml", recipe(&format!("{TRAIN}\nbos = \"<|begin|>\"")));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let documents = tokens(&scratch, "out");
    assert_eq!(documents.len(), 41);
    for (id, ids) in &documents {
        assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&0)), "{id}");
        assert_eq!(ids.iter().filter(|id| **id < 2).count(), 2, "{id}");
    }
    scratch.ok(&["verify", "out"]);
    // With and without begin of document the texts have the same tokens.
    scratch.write("plain.toml", recipe(TRAIN));
    scratch.ok(&["build", "--recipe", "plain.toml", "--out", "plain"]);
    for ((id, ids), (plain_id, plain)) in documents.iter().zip(tokens(&scratch, "plain")) {
        assert_eq!((id, &ids[1..]), (&plain_id, &plain[..]));
    }
}

#[test]
fn wrong_keys_of_the_tokenizer_are_all_named() {
    let scratch = Scratch::new();
    corpus(&scratch);
    let wrong = "train = { vocab_size = 400 }\nbos = \"<s>\"\nengine = \"fast\"\nverify_ever = 3";
    scratch.write("r.toml", recipe(wrong));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("`tokenizer.bos`: `<s>` is not among `train.special_tokens`"), "{}", said.err);
    assert!(said.err.contains("`tokenizer.engine`: unknown value `fast`"), "{}", said.err);
    assert!(said.err.contains("did you mean `verify_every`?"), "{}", said.err);
}

#[test]
fn a_tokenizer_is_trained_checked_and_measured() {
    let scratch = Scratch::new();
    corpus(&scratch);
    let train = ["tokenizer", "train", "a.jsonl", "--vocab-size", "500", "--special", "<|begin|>"];
    scratch.ok(&train);
    let said = scratch.fail(&train, 2);
    assert!(said.err.contains("tokenizer.json already exists; give --force"), "{}", said.err);
    let trained = fs::read(scratch.path("tokenizer.json")).unwrap();
    scratch.ok(&[&train[..], &["--force"]].concat());
    assert_eq!(fs::read(scratch.path("tokenizer.json")).unwrap(), trained);

    let said = scratch.ok(&["tokenizer", "check", "tokenizer.json", "--data", "a.jsonl", "--json"]);
    let check = json(&said.out);
    assert_eq!((check["engine"].as_str(), check["family"].as_str()), (Some("fastokens"), Some("gpt2")));
    assert_eq!((&check["data"]["documents"], &check["data"]["different"]), (&41.into(), &0.into()));
    let said = scratch.ok(&["tokenizer", "check", "tokenizer.json", "--reference"]);
    assert!(said.out.contains("tokenizers, because"), "{}", said.out);

    let stats = ["tokenizer", "stats", "--tokenizer", "tokenizer.json", "a.jsonl", "--json"];
    let of_file = json(&scratch.ok(&stats).out);
    assert_eq!(of_file["total"]["documents"], 41);
    assert_eq!(of_file["groups"]["a.jsonl"]["tokens"], check["data"]["tokens"]);
    assert_eq!((&of_file["vocabulary"], &of_file["text_tokens"]), (&500.into(), &498.into()));
    let by_id = json(&scratch.ok(&[&stats[..], &["--group", "id"]].concat()).out);
    assert_eq!(by_id["groups"].as_object().unwrap().len(), 41);
    assert_eq!(by_id["total"], of_file["total"]);
}

#[test]
fn a_build_gives_its_texts_back_to_train_and_measure() {
    let scratch = Scratch::new();
    corpus(&scratch);
    scratch.write("r.toml", recipe(TRAIN));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let stats = json(&scratch.ok(&["tokenizer", "stats", "--json"]).out);
    let ledger = scratch.ledger("out");
    // One token of each document is its end.
    let kept = ledger.sources["a"].kept;
    assert_eq!(stats["total"]["tokens"], kept.tokens - kept.docs);
    let words = scratch.ok(&["tokenizer", "stats"]).out;
    assert!(words.contains("unused: ") && words.contains("longest:"), "{words}");

    // The texts come back from their tokens: training on them or on the file gives the same.
    let train = ["tokenizer", "train", "--vocab-size", "450"];
    scratch.ok(&[&train[..], &["--out", "out", "--output", "from_build.json"]].concat());
    scratch.ok(&[&train[..], &["a.jsonl", "--output", "from_file.json"]].concat());
    let read = |name: &str| fs::read(scratch.path(name)).unwrap();
    assert!(read("from_build.json") == read("from_file.json"));
    scratch.fail(&["tokenizer", "train"], 2);
    let said = scratch.fail(&["tokenizer", "train", "a.jsonl", "--vocab-size", "9", "--output", "x.json"], 2);
    assert!(said.err.contains("--vocab-size is 9; expected 257"), "{}", said.err);
}

#[test]
fn ranks_become_a_tokenizer_of_the_fast_path() {
    let scratch = Scratch::new();
    // Base64 of single bytes: 6 bits, 2 bits, padding.
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: usize| char::from(DIGITS[bits]);
    let mut ranks: String =
        (0..256).map(|b: usize| format!("{}{}== {b}\n", digit(b >> 2), digit((b & 3) << 4))).collect();
    ranks.push_str("dGhl 256\nIHRo 257\ndGg= 258\n");
    scratch.write("x.tiktoken", &ranks);
    let import =
        ["tokenizer", "import", "x.tiktoken", "--pattern", "cl100k", "--special", "<|endoftext|>=300"];
    scratch.ok(&import);
    let check = json(&scratch.ok(&["tokenizer", "check", "tokenizer.json", "--json"]).out);
    assert_eq!((check["engine"].as_str(), check["family"].as_str()), (Some("fastokens"), Some("cl100k")));
    assert_eq!((&check["vocab_size"], &check["eod"]), (&301.into(), &300.into()));
    scratch.write("y.tiktoken", ranks.replace("== 7\n", "== 8\n"));
    let said = scratch.fail(&["tokenizer", "import", "y.tiktoken", "--pattern", "gpt2", "--force"], 2);
    assert!(said.err.contains("line 9: rank 8 is already that of line 8"), "{}", said.err);
    let said = scratch.run(&["tokenizer", "import", "x.tiktoken", "--pattern", "gpt3"]);
    assert!(said.code == Some(2) && said.err.contains("expected one of gpt2, cl100k"), "{}", said.err);
}
