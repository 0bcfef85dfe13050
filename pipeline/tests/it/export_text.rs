use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int32Type};
use moe_data::tokenizer::{EOD, Encoder, EncoderOptions};
use moe_shards::{Manifest, Shard};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde_json::{Value, json};

use crate::support::{
    Scratch, assert_same, dataset_lines, lines, quickstart_recipe, recipe_over, small_recipe, text,
};

/// The files of an export by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// The records of an export as JSON Lines, in the order of the files' names.
fn records(folder: &Path) -> Vec<Value> {
    let mut text = String::new();
    for (name, bytes) in files(folder) {
        let mut reader: Box<dyn Read> = match name.rsplit_once('.').unwrap().1 {
            "zst" => Box::new(zstd::Decoder::new(&bytes[..]).unwrap()),
            "gz" => Box::new(flate2::read::GzDecoder::new(&bytes[..])),
            other => panic!("{other}"),
        };
        reader.read_to_string(&mut text).unwrap();
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The records of an export as Parquet, as JSON.
fn rows(folder: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    for name in files(folder).keys() {
        let reader = ParquetRecordBatchReader::try_new(File::open(folder.join(name)).unwrap(), 100).unwrap();
        for batch in reader.map(Result::unwrap) {
            let schema = batch.schema();
            for i in 0..batch.num_rows() {
                let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
                    let value = match field.name().as_str() {
                        _ if column.is_null(i) => Value::Null,
                        "variant" | "quality" => json!(column.as_primitive::<Int32Type>().value(i)),
                        "score" => json!(column.as_primitive::<Float64Type>().value(i)),
                        "tags" => {
                            let tags = column.as_list::<i32>().value(i);
                            json!(tags.as_string::<i32>().iter().collect::<Vec<_>>())
                        }
                        _ => json!(column.as_string::<i32>().value(i)),
                    };
                    (field.name().clone(), value)
                });
                rows.push(Value::Object(cells.collect()));
            }
        }
    }
    rows
}

/// Two documents of one family and variant, another one, and one that is too short; with all kinds of metadata.
fn mixed() -> Scratch {
    let scratch = Scratch::new();
    let record = |n: usize, family: &str, more: Value| {
        let mut record = json!({ "id": format!("d{n}"), "text": text(n), "f": family });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{record}\n")
    };
    let all =
        json!({ "q": 3, "l": "EN", "t": ["b", "a"], "s": 0.25, "d": "2024-05", "u": "http://a.example/" });
    let lines = [
        record(0, "x", all),
        record(1, "x", json!({})),
        record(2, "y", json!({ "t": "c" })),
        format!("{}\n", json!({ "id": "short", "text": "Too short.", "f": "z" })),
    ];
    scratch.write("a.jsonl", lines.concat());
    let fields = "family = \"f\"\nquality = \"q\"\nlanguage = \"l\"\ntags = \"t\"\nscore = \"s\"\ndate = \"d\"\nurl = \"u\"\n";
    let recipe = small_recipe("\"a.jsonl\"", "").replace("id = \"id\"\n", &format!("id = \"id\"\n{fields}"));
    scratch.write("r.toml", recipe);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch
}

#[test]
fn records_are_the_documents_of_the_shards_with_what_is_known_of_them() {
    let scratch = mixed();
    // Of the two texts of family x the one with the lower document id is in the shards, and that one is exported.
    let dropped = &scratch.ledger("out").sources["a"].dropped;
    assert_eq!((dropped["duplicate_variant"].docs, dropped["too_short"].docs), (1, 1));
    let shard = Shard::open(&Manifest::mdx_path(&scratch.path("out"), "a-v0-00000")).unwrap();
    let family = |id: &str| {
        let doc = (0..shard.n_docs()).find(|doc| shard.id(*doc).unwrap() == id).unwrap();
        format!("{:016x}", shard.family(doc).unwrap().0)
    };
    let expected = [
        json!({
            "id": "d0", "text": text(0), "source": "a", "family": family("d0"), "variant": 0, "quality": 3,
            "language": "en", "tags": ["a", "b"], "score": 0.25, "url": "http://a.example/", "date": "2024-05",
        }),
        json!({
            "id": "d2", "text": text(2), "source": "a", "family": family("d2"), "variant": 0, "quality": null,
            "language": null, "tags": ["c"], "score": null, "url": null, "date": null,
        }),
    ];
    scratch.ok(&["export", "--jsonl", "text", "--parquet", "table"]);
    assert_eq!(records(&scratch.path("text")), expected);
    assert_eq!(rows(&scratch.path("table")), expected);
    scratch.ok(&["export", "--jsonl", "gz", "--compression", "gzip"]);
    assert_eq!(records(&scratch.path("gz")), expected);
    assert_eq!(files(&scratch.path("gz")).into_keys().collect::<Vec<_>>(), ["a-00000.jsonl.gz"]);
}

#[test]
fn fields_that_the_recipe_keeps_are_carried_along() {
    let scratch = Scratch::new();
    let record = |n: usize, more: Value| {
        let mut record = json!({ "id": format!("doc-{n}"), "text": text(n) });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{record}\n")
    };
    let lines = [
        record(0, json!({ "group": "g", "m": { "n": 7, "other": 1 }, "list": ["a", 2] })),
        record(1, json!({ "group": null, "m": 3 })),
    ];
    scratch.write("a.jsonl", lines.concat());
    let keep = |names: &str| {
        let recipe = small_recipe("\"a.jsonl\"", "");
        scratch.write("r.toml", recipe.replace("id = \"id\"\n", &format!("id = \"id\"\n{names}")));
    };
    keep("");
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let expected = scratch.results("out");
    keep("keep_fields = [\"group\", \"m.n\", \"list\", \"none\"]\n");
    scratch.ok(&["build", "--recipe", "r.toml"]);
    // Carried fields are not part of the shards.
    let shards = |results: &BTreeMap<String, Vec<u8>>| {
        results
            .iter()
            .filter(|(name, _)| name.starts_with("shards/"))
            .map(|(n, b)| (n.clone(), b.clone()))
            .collect()
    };
    assert_same(&shards(&scratch.results("out")), &shards(&expected));
    scratch.ok(&["export", "--jsonl", "text", "--parquet", "table"]);
    let kept = |records: Vec<Value>| -> Vec<Value> {
        let keys = ["group", "list", "m.n"];
        assert!(records.iter().all(|record| record.get("none").is_none()));
        records.iter().map(|record| keys.iter().map(|key| record[key].clone()).collect()).collect()
    };
    assert_eq!(kept(records(&scratch.path("text"))), [json!(["g", ["a", 2], 7]), json!([null, null, null])]);
    assert_eq!(
        kept(rows(&scratch.path("table"))),
        [json!(["g", "[\"a\",2]", "7"]), json!([null, null, null])]
    );
    keep("keep_fields = [\"url\"]\n");
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(said.err.contains("`url` is a column of exported texts already"), "{}", said.err);
}

#[test]
fn texts_are_those_that_were_tokenized_for_any_threads_and_split() {
    let scratch = Scratch::new();
    let cuts = "[dedup]\n[dedup.paragraph]\nmin_chars = 30\nmin_documents = 2\n";
    let with_cuts = |recipe: String| {
        assert!(recipe.contains("[dedup]\nexact = true\n"));
        recipe.replace("vocab_size = 4096", "vocab_size = 400").replace("[dedup]\nexact = true\n", cuts)
    };
    scratch.write("r.toml", with_cuts(quickstart_recipe()));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(scratch.ledger("out").sources["django"].cut["paragraph"].bytes > 1000);
    let export = |out: &str, to: &str, threads: &str| {
        scratch.ok(&["export", "--out", out, "--jsonl", to, "--file-size", "300KiB", "--threads", threads]);
        files(&scratch.path(to))
    };
    let expected = export("out", "one", "1");
    assert!(expected.len() > 6, "{:?}", expected.keys());
    assert_same(&export("out", "three", "3"), &expected);

    let django = dataset_lines("django_docs_two_versions.jsonl.gz");
    scratch.write("split/a.jsonl", django[..20].join("\n"));
    scratch.write("split/b.jsonl", django[20..].join("\n"));
    scratch.write("bible.jsonl", dataset_lines("bible_kjv_web.jsonl.gz").join("\n"));
    scratch.write("split.toml", with_cuts(recipe_over("\"bible.jsonl\"", "\"split\"")));
    scratch.ok(&["build", "--recipe", "split.toml", "--out", "split-out"]);
    assert_same(&export("split-out", "split-text", "2"), &expected);

    let out = scratch.path("out");
    let options = EncoderOptions { eod: Some(EOD.to_owned()), ..EncoderOptions::default() };
    let encoder = Encoder::shared(&out.join("tokenizer.json"), &options).unwrap();
    let mut documents = BTreeMap::new();
    for info in Manifest::read(&out).unwrap().shards {
        let shard = Shard::open(&Manifest::mdx_path(&out, &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            let meta = shard.meta(doc).unwrap();
            let what = (format!("{:016x}", meta.family.0), meta.variant, shard.tokens(doc).unwrap().to_vec());
            documents.insert(shard.id(doc).unwrap().to_owned(), what);
        }
    }
    let records = records(&scratch.path("one"));
    assert_eq!(records.len(), documents.len());
    for record in records {
        let (family, variant, tokens) = &documents[record["id"].as_str().unwrap()];
        assert_eq!((&record["family"], &record["variant"]), (&json!(family), &json!(variant)));
        let mut ids = encoder.encode(record["text"].as_str().unwrap()).unwrap();
        ids.push(encoder.eod().0);
        assert_eq!(&ids, tokens, "{}", record["id"]);
    }
}

#[test]
fn a_build_of_an_export_gives_the_same_shards() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", [lines(0..60), lines(20..40)].concat());
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[shard]\ntarget_bytes = \"2KiB\"\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["export", "--jsonl", "text", "--file-size", "1KiB"]);
    assert!(files(&scratch.path("text")).len() > 3);
    scratch.ok(&["verify", "text"]);
    scratch.write("again.toml", small_recipe("\"text\"", "[shard]\ntarget_bytes = \"2KiB\"\n"));
    scratch.ok(&["build", "--recipe", "again.toml", "--out", "again"]);
    let shards = |out: &str| {
        let mut results = scratch.results(out);
        results.retain(|name, _| name.starts_with("shards/"));
        results
    };
    assert_same(&shards("again"), &shards("out"));
    assert_eq!(scratch.ledger("again").sources["a"].kept.docs, 60);
}

#[test]
fn finished_exports_and_folders_of_others_are_left_alone() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..40));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let export = ["export", "--jsonl", "text", "--file-size", "1KiB"];
    scratch.ok(&export);
    let expected = files(&scratch.path("text"));
    let time = || fs::metadata(scratch.path("text/a-00000.jsonl.zst")).unwrap().modified().unwrap();
    let written = time();
    assert!(scratch.ok(&export).err.contains("nothing changed"));
    assert_eq!(time(), written);
    let said = scratch.fail(&["export", "--parquet", "text"], 2);
    assert!(said.err.contains("holds another export"), "{}", said.err);
    assert_same(&files(&scratch.path("text")), &expected);

    scratch.write("mine/thesis.txt", "precious");
    for folder in ["mine", "out", "a.jsonl"] {
        scratch.fail(&["export", "--jsonl", folder], 2);
    }
    assert_eq!(fs::read(scratch.path("mine/thesis.txt")).unwrap(), b"precious");

    // As a kill leaves it: some files whole, some missing, none noted.
    let list = scratch.path("text/.moe-data/text.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    value["files"].as_object_mut().unwrap().values_mut().for_each(|entry| *entry = Value::Null);
    fs::write(&list, format!("{value:#}\n")).unwrap();
    fs::remove_file(scratch.path("text/.moe-data/text-export.json")).unwrap();
    fs::remove_file(scratch.path("text/a-00001.jsonl.zst")).unwrap();
    scratch.ok(&export);
    assert_same(&files(&scratch.path("text")), &expected);
    assert!(scratch.ok(&export).err.contains("nothing changed"));
}

#[test]
fn only_a_finished_build_is_exported() {
    let scratch = Scratch::new();
    let said = scratch.fail(&["export", "--jsonl", "text"], 2);
    assert!(said.err.contains("run moe-data build first"), "{}", said.err);
    assert!(!scratch.path("out").exists());
    scratch.write("a.jsonl", lines(0..10));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    // As a build of other files writes it before it is killed.
    let parts = scratch.path("out/work/parts.json");
    let text = fs::read_to_string(&parts).unwrap();
    fs::write(&parts, text.replace("a.jsonl", "b.jsonl")).unwrap();
    let said = scratch.fail(&["export", "--jsonl", "text"], 2);
    assert!(said.err.contains("run moe-data build again"), "{}", said.err);
    let said = scratch.run(&["export", "--jsonl", "text", "--file-size", "3"]);
    assert!(said.code == Some(2) && said.err.contains("at least 1KiB"), "{}", said.err);
}

#[test]
fn a_build_of_text_alone_needs_no_tokenizer_and_exports_the_same_texts() {
    let scratch = mixed();
    scratch.ok(&["export", "--jsonl", "text"]);
    let recipe = fs::read_to_string(scratch.path("r.toml")).unwrap();
    let (without, tokenizer) = recipe.split_once("[tokenizer]").unwrap();
    scratch.write("text.toml", without);
    let said = scratch.fail(&["build", "--recipe", "text.toml", "--out", "curated"], 2);
    assert!(said.err.contains("[tokenizer]"), "{}", said.err);
    let build = ["build", "--text-only", "--recipe", "text.toml", "--out", "curated"];
    let said = scratch.ok(&build);
    assert!(said.err.contains("next: moe-data export --jsonl text/ --out curated"), "{}", said.err);
    let ledger = scratch.ledger("curated");
    let (found, mut expected) = (&ledger.sources["a"], scratch.ledger("out").sources["a"].clone());
    assert!(expected.kept.tokens > 0);
    expected.kept.tokens = 0;
    assert_eq!(found, &expected);
    for name in ["MANIFEST.json", "shards", "tokenizer.json", "work/tokenize"] {
        assert!(!scratch.path("curated").join(name).exists(), "{name}");
    }
    assert!(scratch.ok(&build).err.contains("nothing changed"));
    scratch.ok(&["export", "--jsonl", "curated-text", "--out", "curated"]);
    assert_same(&files(&scratch.path("curated-text")), &files(&scratch.path("text")));

    scratch.ok(&["verify", "curated"]);
    assert!(scratch.ok(&["inspect", "curated"]).out.contains("duplicate_variant: 1"));
    assert!(scratch.ok(&["why", "d1", "--out", "curated"]).out.contains("duplicate_variant"));
    let said = scratch.fail(&["mix", "--out", "curated"], 2);
    assert!(said.err.contains("--text-only"), "{}", said.err);

    // A build with shards is not removed; one without gets them.
    let said = scratch.fail(&["build", "--text-only", "--recipe", "text.toml"], 2);
    assert!(said.err.contains("has shards"), "{}", said.err);
    scratch.write("full.toml", format!("{without}[tokenizer]{tokenizer}"));
    scratch.ok(&["build", "--recipe", "full.toml", "--out", "curated"]);
    assert_same(&scratch.results("curated"), &scratch.results("out"));
    scratch.ok(&["build", "--text-only", "--fresh", "--recipe", "text.toml", "--out", "curated"]);
    assert!(!scratch.path("curated/shards").exists());
}

#[test]
fn what_is_cut_is_counted_without_tokens_too() {
    let scratch = Scratch::new();
    let paragraph = "This paragraph stands in every document of the corpus, word for word.";
    let lines: String = (0..20)
        .map(|n| {
            format!(
                "{}\n",
                json!({ "id": format!("doc-{n}"), "text": format!("{}\n\n{paragraph}", text(n)) })
            )
        })
        .collect();
    scratch.write("a.jsonl", lines);
    let cuts = "[dedup]\n[dedup.paragraph]\nmin_chars = 30\nmin_documents = 2\n";
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", cuts));
    scratch.ok(&["build", "--text-only", "--recipe", "r.toml"]);
    assert!(scratch.ledger("out").sources["a"].cut["paragraph"].docs >= 19);
    scratch.ok(&["export", "--jsonl", "text"]);
    let texts = records(&scratch.path("text"));
    assert_eq!(texts.len(), 20);
    let n_whole = texts.iter().filter(|record| record["text"].as_str().unwrap().contains(paragraph)).count();
    assert!(n_whole <= 1, "{n_whole}");
}
