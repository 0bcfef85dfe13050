use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use moe_data::rephrase::record::{self, Ledger};
use moe_shards::Manifest;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::scripted::rewritten;
use crate::support::{Scratch, dataset_lines};

const N: usize = 12;
const RECIPE: &str = "[[source]]\nname = \"a\"\npaths = [\"corpus.jsonl\"]\nid = \"id\"\n[[source]]\nname = \"b\"\npaths = [\"other.jsonl\"]\n\
                      id = \"id\"\n[tokenizer]\ntrain = { vocab_size = 400 }\n";

/// Name and text of some chapters, and a build of them.
fn built() -> (Scratch, Vec<(String, String)>) {
    let scratch = Scratch::new();
    let lines = dataset_lines("bible_kjv_web.jsonl.gz");
    let records = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let web = records.filter(|record| record["version"] == "WEB").take(N);
    let chapters: Vec<(String, String)> = web
        .map(|record| {
            let text: Vec<&str> = record["text"].as_str().unwrap().lines().take(8).collect();
            (record["group"].as_str().unwrap().to_owned(), text.join("\n"))
        })
        .collect();
    let line = |(id, text): &(String, String)| format!("{}\n", json!({ "id": id, "text": text }));
    scratch.write("corpus.jsonl", chapters.iter().map(line).collect::<String>());
    let other = json!({ "id": chapters[0].0, "text": "Another text of the same name, in another source." });
    scratch.write("other.jsonl", format!("{other}\n"));
    scratch.write("r.toml", RECIPE);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    (scratch, chapters)
}

fn import<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["rephrase", "import", "--styles-dir", "styles"], more].concat()
}

fn made(scratch: &Scratch) -> BTreeMap<String, Vec<u8>> {
    ["accepted-a.jsonl", "rejected.jsonl", "ledger.json"]
        .map(|name| (name.to_owned(), fs::read(scratch.path("out/rephrase-import").join(name)).unwrap()))
        .into()
}

#[test]
fn records_of_other_programs_pass_the_gates_and_become_variants() {
    let (scratch, chapters) = built();
    let record = |id: &str, style: &str, text: &str| json!({ "id": id, "source": "a", "style": style, "text": text, "model": "m" });
    let mut records: Vec<Value> =
        chapters.iter().map(|(id, text)| record(id, "indeed", &rewritten(text, "indeed"))).collect();
    // The text again, the text of another chapter, an unknown chapter, and a second text in the same style.
    records.push(record(&chapters[0].0, "copy", &chapters[0].1));
    records.push(record(&chapters[1].0, "other", &chapters[2].1));
    records.push(record("nobody", "indeed", "A text."));
    records.push(record(&chapters[3].0, "indeed", &rewritten(&chapters[3].1, "truly")));
    let lines = |records: &[Value]| records.iter().map(|record| format!("{record}\n")).collect::<String>();
    scratch.write("records.jsonl", lines(&records));
    let said = scratch.ok(&import(&["records.jsonl", "--license", "CC0"]));
    assert!(said.err.contains("the default limits count"), "{}", said.err);
    let ledger = Ledger::read(&scratch.path("out/rephrase-import")).unwrap();
    ledger.check().unwrap();
    let [indeed, copy, other] = ["indeed", "copy", "other"].map(|name| &ledger.styles[name]);
    // In one chapter the word came between the words of a number.
    assert_eq!((indeed.asked, indeed.accepted), (N as u64 + 2, N as u64 - 1), "{}", ledger.table());
    assert_eq!(indeed.rejected, BTreeMap::from([("numbers_kept".to_owned(), 1)]));
    assert_eq!(
        indeed.poisoned,
        BTreeMap::from([("unknown_document".to_owned(), 1), ("repeated".to_owned(), 1)])
    );
    assert_eq!((copy.accepted, other.accepted), (0, 0), "{}", ledger.table());
    assert!(copy.rejected.contains_key("copied_8grams"), "{}", ledger.table());
    let first = made(&scratch);

    // Neither the order nor the split nor the format of the files matters.
    records.reverse();
    scratch.write("x.jsonl", lines(&records[..5]));
    let column = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            records[5..].iter().map(|record| record[name].as_str().unwrap()),
        ))
    };
    let names = ["id", "source", "style", "text", "model"];
    let batch = RecordBatch::try_from_iter(names.map(|name| (name, column(name)))).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    scratch.write("w.parquet", writer.into_inner().unwrap());
    scratch.ok(&import(&["x.jsonl", "w.parquet", "--licence", "CC0"]));
    assert_eq!(made(&scratch), first);

    for accepted in record::accepted(&scratch.path("out/rephrase-import/accepted-a.jsonl")).unwrap() {
        let accepted = accepted.unwrap();
        assert_eq!((accepted.model.as_str(), accepted.licence.as_deref()), ("m", Some("CC0")));
        assert!(accepted.text.contains("indeed") || accepted.text.contains("truly"), "{}", accepted.text);
    }
    scratch.write(
        "r.toml",
        format!("{RECIPE}[rephrase]\nfrom = \"out/rephrase-import\"\nstyles = [\"indeed\"]\n"),
    );
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let manifest = Manifest::read(&scratch.path("out")).unwrap();
    assert_eq!(manifest.sources[0].variants, ["original", "indeed"]);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 2 * N as u64 - 1);
    scratch.ok(&["verify", "out"]);
    assert_eq!(temporary(&scratch.path("out/rephrase-import")), [""; 0]);
    let rejected = scratch.path("out/rephrase-import/rejected.jsonl");
    fs::write(&rejected, [&fs::read(&rejected).unwrap()[..], b"\n"].concat()).unwrap();
    let said = scratch.fail(&["verify", "out"], 1);
    assert!(said.err.contains("rephrase-import/rejected.jsonl"), "{}", said.err);
}

#[test]
fn the_order_of_records_does_not_decide_between_styles_and_models() {
    let (scratch, chapters) = built();
    let (id, text) = &chapters[1];
    let record = |style: &str, text: &str, model: &str| {
        format!("{}\n", json!({ "id": id, "source": "a", "style": style, "text": text, "model": model }))
    };
    let one = rewritten(text, "indeed");
    // Nearly the same text in two styles, of which one is taken; and the same text of two models.
    let records =
        [record("b", &one, "m"), record("a", &format!("{one} "), "m"), record("a", &format!("{one} "), "l")];
    let mut found = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        scratch.write("records.jsonl", order.map(|i| &records[i][..]).concat());
        scratch.ok(&import(&["records.jsonl"]));
        found.push(made(&scratch));
    }
    assert!(found.iter().all(|made| *made == found[0]));
    let accepted: Vec<_> =
        record::accepted(&scratch.path("out/rephrase-import/accepted-a.jsonl")).unwrap().collect();
    let accepted = accepted[0].as_ref().unwrap();
    assert_eq!((accepted.style.as_str(), accepted.model.as_str()), ("a", "l"));
}

/// Temporary files in a folder.
fn temporary(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".moe-tmp")).collect()
}

/// As distilabel 1.5 and datatrove 0.10 write them.
#[test]
fn distilabel_and_datatrove_are_read_as_they_write() {
    let (scratch, chapters) = built();
    let (id, text) = &chapters[5];
    let usage = json!({ "prompt_tokens": 300, "completion_tokens": 200, "total_tokens": 500 });
    let rollouts = json!([
        { "text": "I cannot do that.", "finish_reason": "stop", "usage": usage, "reasoning": "" },
        { "text": rewritten(text, "truly"), "finish_reason": "stop", "usage": usage, "reasoning": "" },
        { "text": rewritten(text, "surely"), "finish_reason": "length", "usage": usage, "reasoning": "" },
    ]);
    let datatrove = json!({ "text": text, "id": id, "metadata": { "source": "a", "rollout_results": rollouts, "file_path": "a.jsonl" } });
    let empty = json!({ "text": text, "id": id, "metadata": { "source": "a", "rollout_results": [] } });
    scratch.write("datatrove.jsonl", format!("{datatrove}\n{empty}\n"));
    let flags =
        ["datatrove.jsonl", "--layout", "datatrove", "--style", "plain", "--model", "m", "--to", "made"];
    let said = scratch.ok(&import(&flags));
    assert!(said.err.contains("1 records have no text") && said.err.contains(id), "{}", said.err);
    let ledger = Ledger::read(&scratch.path("made")).unwrap();
    assert_eq!(ledger.unreadable, 1);
    let plain = &ledger.styles["plain"];
    assert_eq!((plain.asked, plain.accepted), (3, 1), "{}", ledger.table());
    let only: Vec<_> = record::accepted(&scratch.path("made/accepted-a.jsonl")).unwrap().collect();
    let only = only[0].as_ref().unwrap();
    assert_eq!((only.text.as_str(), only.completion_tokens), (rewritten(text, "truly").as_str(), 200));

    let metadata = json!({ "raw_output_text_generation_0": "..." });
    let row = |id: &str, generation: Value| {
        format!(
            "{}\n",
            json!({ "id": id, "source": "a", "instruction": "Rewrite.", "generation": generation, "distilabel_metadata": metadata, "model_name": "q" })
        )
    };
    let rows = row(id, rewritten(text, "truly").into()) + &row(&chapters[6].0, Value::Null);
    scratch.write("distilabel.jsonl", rows);
    let flags = ["distilabel.jsonl", "--layout", "distilabel", "--style", "plain", "--to", "made"];
    let said = scratch.ok(&import(&flags));
    assert!(said.err.contains("1 records have no text"), "{}", said.err);
    let ledger = Ledger::read(&scratch.path("made")).unwrap();
    assert_eq!((ledger.unreadable, ledger.styles["plain"].accepted), (1, 1));
}

#[test]
fn missing_fields_of_a_record_are_named() {
    let (scratch, chapters) = built();
    let record = |value: Value| scratch.write("records.jsonl", format!("{value}\n"));
    let (id, text) = (&chapters[0].0, rewritten(&chapters[0].1, "indeed"));
    record(json!({ "id": id, "text": text, "model": "m" }));
    assert!(
        scratch.fail(&import(&["records.jsonl"]), 2).err.contains("names no style; give one with --style")
    );
    record(json!({ "id": id, "text": text, "style": "Plain!", "model": "m" }));
    assert!(scratch.fail(&import(&["records.jsonl"]), 2).err.contains("style `Plain!`: expected"));
    record(json!({ "id": id, "text": text, "style": "plain" }));
    assert!(
        scratch.fail(&import(&["records.jsonl"]), 2).err.contains("names no model; give one with --model")
    );
    record(json!({ "id": id, "text": text, "style": "plain", "model": "m" }));
    let said = scratch.fail(&import(&["records.jsonl"]), 2);
    assert!(said.err.contains("both have a document") && said.err.contains("`source`"), "{}", said.err);
    let said = scratch.fail(&import(&["records.jsonl", "--layout", "datatrove", "--model", "m"]), 2);
    assert!(said.err.contains("no list `metadata.rollout_results`"), "{}", said.err);
    scratch.write("asked/settings.json", "{}");
    assert!(
        scratch
            .fail(&import(&["records.jsonl", "--to", "asked"]), 2)
            .err
            .contains("give another folder with --to")
    );
    assert!(!scratch.path("out/rephrase-import/ledger.json").exists());
    assert_eq!(temporary(&scratch.path("out/rephrase-import")), [""; 0]);
}
