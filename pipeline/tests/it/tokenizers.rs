//! Tokenizers that are not byte-level BPE: special strings, unknown text, and text that they change.

use moe_shards::{Manifest, Shard};
use serde_json::{Value, json};

use crate::support::{Said, Scratch};

const RECIPE: &str =
    "[[source]]\nname = \"a\"\npaths = [\"a.jsonl\"]\nid = \"id\"\n[tokenizer]\nfile = \"t.json\"\n";

fn added(id: u32, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true
    })
}

/// A file with a model, its special tokens in the order of their ids from 0 on, and how text is split.
fn file(specials: &[&str], normalizer: Value, pre_tokenizer: Value, model: Value) -> Value {
    let added: Vec<Value> = (0..).zip(specials).map(|(id, content)| added(id, content)).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model
    })
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz</>[].";

fn metaspace() -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true })
}

fn unigram() -> Value {
    let mut vocab: Vec<Value> =
        ["<unk>", "<s>", "</s>", "<pad>", "<mask>"].iter().map(|name| json!([name, 0.0])).collect();
    vocab.extend(["▁river", "▁the", "▁"].iter().map(|piece| json!([piece, -3.0])));
    vocab.extend(LETTERS.chars().map(|letter| json!([letter.to_string(), -8.0])));
    let model = json!({ "type": "Unigram", "unk_id": 0, "vocab": vocab });
    file(&["<unk>", "<s>", "</s>", "<pad>", "<mask>"], Value::Null, metaspace(), model)
}

fn words_from<'w>(words: impl IntoIterator<Item = &'w str>) -> Value {
    words
        .into_iter()
        .enumerate()
        .map(|(id, word)| (word.to_owned(), Value::from(id)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Words by white space, so that `[CLS]` is a word.
fn word_piece() -> Value {
    let mut words: Vec<String> =
        ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "the", "river"].map(str::to_owned).into();
    words.extend(LETTERS.chars().flat_map(|letter| [letter.to_string(), format!("##{letter}")]));
    let model = json!({
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": words_from(words.iter().map(String::as_str))
    });
    let lower = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true });
    let mut file = file(&["[UNK]"], lower, json!({ "type": "WhitespaceSplit" }), model);
    // Words that only the post-processor treats as special.
    file["added_tokens"].as_array_mut().unwrap().push(added(2, "[SEP]"));
    file["post_processor"] = json!({ "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] });
    file
}

/// As SentencePiece's BPE: bytes for what has no token; the merges make `<s>` as converted files do.
fn byte_fallback() -> Value {
    let mut words: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    words.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    words.extend(LETTERS.chars().map(String::from));
    words.extend(["▁", "<s", "▁the", "th", "the"].map(str::to_owned));
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": true, "byte_fallback": true, "vocab": words_from(words.iter().map(String::as_str)),
        "merges": [["<", "s"], ["<s", ">"], ["t", "h"], ["th", "e"], ["▁", "the"]]
    });
    file(
        &["<unk>", "<s>", "</s>"],
        json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" }),
        Value::Null,
        model,
    )
}

fn word_level() -> Value {
    let model = json!({
        "type": "WordLevel", "unk_token": "<unk>", "vocab": words_from(["<unk>", "<s>", "</s>", "the", "river"])
    });
    file(&["<unk>", "<s>", "</s>"], Value::Null, json!({ "type": "WhitespaceSplit" }), model)
}

fn build(scratch: &Scratch, file: &Value, more: &str, texts: &[(&str, &str)]) -> Said {
    scratch.write("t.json", file.to_string());
    scratch.write("r.toml", format!("{RECIPE}{more}"));
    let lines: Vec<String> =
        texts.iter().map(|(id, text)| json!({ "id": id, "text": text }).to_string()).collect();
    scratch.write("a.jsonl", lines.join("\n"));
    scratch.ok(&["build", "--recipe", "r.toml", "--fresh"])
}

/// The ids of a document without its end.
fn ids(scratch: &Scratch, name: &str) -> Vec<u32> {
    let manifest = Manifest::read(&scratch.path("out")).unwrap();
    for info in &manifest.shards {
        let shard = Shard::open(&Manifest::mdx_path(&scratch.path("out"), &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            if shard.id(doc).unwrap() == name {
                let mut ids = shard.tokens(doc).unwrap().to_vec();
                ids.pop();
                return ids;
            }
        }
    }
    panic!("no document is called {name}");
}

#[test]
fn special_strings_in_text_are_characters_forevery_model() {
    let scratch = Scratch::new();
    // For each: the file, its keys, a text, and the ids that must not result from it.
    let cases: [(Value, &str, &str, &[u32]); 4] = [
        (unigram(), "eod = \"</s>\"\n", "the <s> and </s> and <pad> <mask> river", &[1, 2, 3, 4]),
        (word_piece(), "eod = \"[SEP]\"\n", "the [CLS] [SEP] river", &[1, 2]),
        (byte_fallback(), "eod = \"</s>\"\n", "the <s> and </s> of <unk>", &[0, 1, 2]),
        (word_level(), "eod = \"</s>\"\n", "the <s> and </s> river", &[1, 2]),
    ];
    for (file, keys, text, special) in cases {
        let kind = file["model"]["type"].to_string();
        build(&scratch, &file, keys, &[("odd", text), ("plain", "the river")]);
        let odd = ids(&scratch, "odd");
        assert!(odd.len() > 3 && !odd.iter().any(|id| special.contains(id)), "{kind}: {odd:?}");
        assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 2, "{kind}");
        scratch.ok(&["verify", "out"]);
        // One token of every document by the reference, too, which is the same here.
        scratch.ok(&["build", "--recipe", "r.toml", "--verify-every", "1"]);
    }
    // Matched if requested, but never as the end of a document.
    build(
        &scratch,
        &unigram(),
        "eod = \"</s>\"\nspecial_in_text = \"match\"\n",
        &[("odd", "the <s> and </s> and <pad>"), ("plain", "the river")],
    );
    let odd = ids(&scratch, "odd");
    assert!(odd.contains(&1) && odd.contains(&3) && !odd.contains(&2), "{odd:?}");
}

#[test]
fn unknown_tokens_are_counted_and_shown() {
    let scratch = Scratch::new();
    let texts = [("known", "the river"), ("unknown", "Ω ☃ Ж"), ("mixed", "The River Ω")];
    let said = build(&scratch, &word_piece(), "eod = \"[SEP]\"\n", &texts);
    assert!(said.err.contains("4 of") && said.err.contains("are unknown tokens"), "{}", said.err);
    assert!(said.err.contains("the tokenizer does not give back 3 of 3 texts"), "{}", said.err);
    let source = &scratch.ledger("out").sources["a"];
    assert_eq!((source.unknown_tokens, source.not_given_back), (4, 3));
    scratch.write("m.toml", "[mix]\nseq_len = 64\nholdout = 0.0\n");
    scratch.ok(&["mix", "--mixture", "m.toml"]);
    let said = scratch.ok(&["explain", "0"]).out;
    assert!(said.contains("tokens: [UNK] [UNK] [UNK] [SEP]"), "{said}");
    let value: Value = serde_json::from_str(&scratch.ok(&["explain", "0", "--json"]).out).unwrap();
    let pieces = value["pieces"].as_array().unwrap();
    assert!(pieces.iter().any(|piece| piece["tokens"][0] == "[UNK]"), "{pieces:?}");
    assert!(pieces.iter().any(|piece| piece.get("tokens").is_none()), "{pieces:?}");
}

#[test]
fn a_tokenizer_that_gives_texts_back_is_not_warned_of() {
    let scratch = Scratch::new();
    let said = build(&scratch, &unigram(), "eod = \"</s>\"\n", &[("a", "the river"), ("b", "a river")]);
    assert!(!said.err.contains("warning"), "{}", said.err);
    assert_eq!(scratch.ledger("out").sources["a"].not_given_back, 0);
}

#[test]
fn one_text_does_not_end_a_build() {
    let scratch = Scratch::new();
    // Without an unknown token the library refuses unknown text.
    let mut no_unknown = unigram();
    no_unknown["model"]["unk_id"] = Value::Null;
    let said = build(&scratch, &no_unknown, "eod = \"</s>\"\n", &[("good", "the river"), ("bad", "Ω")]);
    assert!(
        said.err.contains("1 documents cannot be encoded") && said.err.contains("document `bad`"),
        "{}",
        said.err
    );
    let source = &scratch.ledger("out").sources["a"];
    assert_eq!((source.kept.docs, source.dropped["not_encodable"].docs), (1, 1));
    assert!(scratch.ok(&["why", "bad"]).out.contains("dropped, not_encodable"));
    // The unknown token is the end of document.
    let mut same = word_level();
    same["model"]["unk_token"] = "</s>".into();
    build(&scratch, &same, "eod = \"</s>\"\n", &[("good", "the river"), ("bad", "the mountain")]);
    assert_eq!(scratch.ledger("out").sources["a"].dropped["not_encodable"].docs, 1);
    // A regular expression without end.
    let mut endless = unigram();
    endless["pre_tokenizer"] = json!({
        "type": "Split", "pattern": { "Regex": "(a+)+$" }, "behavior": "Isolated", "invert": false
    });
    let long = format!("{}b", "a".repeat(40));
    let said = build(&scratch, &endless, "eod = \"</s>\"\n", &[("good", "river"), ("bad", &long)]);
    assert!(said.err.contains("regular expression"), "{}", said.err);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 1);
}

#[test]
fn files_that_cannot_be_used_are_refused_before_any_work() {
    let scratch = Scratch::new();
    let mut huge = word_level();
    huge["model"]["vocab"]["river"] = Value::from(u32::MAX);
    let mut dropout = byte_fallback();
    dropout["model"]["dropout"] = Value::from(0.1);
    for (file, said) in [(huge, "the id 4294967295, but ids must be below"), (dropout, "`model.dropout`")] {
        scratch.write("t.json", file.to_string());
        scratch.write("r.toml", format!("{RECIPE}eod = \"</s>\"\n"));
        scratch.write("a.jsonl", "{\"id\":\"a\",\"text\":\"the river\"}\n");
        for args in [&["build", "--recipe", "r.toml"][..], &["tokenizer", "check", "t.json"]] {
            let error = scratch.fail(args, 2).err;
            assert!(error.contains(said), "{args:?}: {error}");
        }
    }
}
