use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int8Array, Int64Array, RecordBatch, StringArray};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use moe_data::document::DocumentId;
use parquet::arrow::ArrowWriter;

use crate::support::{Scratch, assert_same, dataset, lines, quarantine, small_recipe};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The members of the repository's WARC file.
fn members() -> Vec<Vec<u8>> {
    let bytes = fs::read(dataset("sqlite_docs_40.warc.gz")).unwrap();
    let (mut rest, mut members) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let before = rest;
        GzDecoder::new(&mut rest).read_to_end(&mut Vec::new()).unwrap();
        members.push(before[..before.len() - rest.len()].to_vec());
    }
    members
}

/// A recipe over a WARC file, which names its documents by itself.
fn recipe(path: &str, more: &str) -> String {
    small_recipe(&format!("{path:?}"), more).replace("id = \"id\"\n", "")
}

#[test]
fn pages_of_a_crawl_become_documents() {
    let scratch = Scratch::new();
    let path = dataset("sqlite_docs_40.warc.gz").to_string_lossy().into_owned();
    scratch.write("r.toml", recipe(&path, ""));
    scratch.ok(&["build", "--recipe", "r.toml", "--strict"]);
    let source = scratch.ledger("out").sources["a"].clone();
    assert_eq!((source.read.docs, source.kept.docs), (40, 40), "{source:?}");
    let shard = moe_shards::Shard::open(&scratch.path("out/shards/a-v0-00000.mdx")).unwrap();
    let ids: Vec<String> = (0..shard.n_docs()).map(|i| shard.id(i).unwrap().to_owned()).collect();
    let wanted = "<urn:uuid:043629f9-e7bf-4b17-adb8-3c7ad4f8e404>";
    assert!(ids.iter().any(|id| id == wanted), "{ids:?}");
    let said = scratch.ok(&["why", &format!("a/{wanted}"), "--json"]);
    assert!(said.out.contains("kept"), "{}", said.out);
    assert_ne!(DocumentId::new("a", wanted).0, 0);

    // Unpacked, and packed as one stream, the documents are the same.
    let plain: Vec<u8> = members()
        .iter()
        .flat_map(|member| {
            let mut out = Vec::new();
            GzDecoder::new(&member[..]).read_to_end(&mut out).unwrap();
            out
        })
        .collect();
    for (name, bytes) in [("plain.warc", plain.clone()), ("one.warc.gz", gzip(&plain))] {
        scratch.write(name, bytes);
        scratch.write("o.toml", recipe(name, ""));
        scratch.ok(&["build", "--recipe", "o.toml", "--out", "other"]);
        assert_same(&scratch.results("other"), &scratch.results("out"));
    }
}

#[test]
fn a_damaged_member_of_a_crawl_costs_one_page() {
    let scratch = Scratch::new();
    let mut members = members();
    let at: usize = members[..7].iter().map(Vec::len).sum();
    let middle = members[7].len() / 2;
    members[7][middle..middle + 20].fill(0xff);
    let record =
        |kind: &str| format!("WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: 4\r\n\r\ntext\r\n\r\n");
    members.insert(0, gzip(record("warcinfo").as_bytes()));
    members.push(gzip(record("request").as_bytes()));
    let first = members[0].len();
    scratch.write("a.warc.gz", members.concat());
    scratch.write("r.toml", recipe("a.warc.gz", "[limits]\nmax_bad_fraction = 1.0\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let source = scratch.ledger("out").sources["a"].clone();
    assert_eq!((source.read.docs, source.kept.docs), (42, 39));
    assert_eq!(source.quarantined["corrupt_stream"].docs, 1);
    assert_eq!(source.dropped["warc_warcinfo"].docs, 1);
    assert_eq!(source.dropped["warc_request"].docs, 1);
    // The place is that of the member in the file, as an index of the crawl has it.
    let rows = quarantine(&scratch.path("out/quarantine/a-00000.jsonl"));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["offset"], first + at);
    assert_eq!(rows[0]["unit"], "file byte");
}

#[test]
fn a_bomb_is_one_bad_record() {
    let scratch = Scratch::new();
    let bomb = [lines(0..20).into_bytes(), vec![b' '; 100 << 20], lines(20..40).into_bytes()].concat();
    scratch.write("a.jsonl.gz", gzip(&bomb));
    scratch.write("r.toml", small_recipe("\"a.jsonl.gz\"", "[limits]\nmax_bad_fraction = 1.0\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let source = scratch.ledger("out").sources["a"].clone();
    assert_eq!((source.read.docs, source.kept.docs), (21, 20));
    assert_eq!(source.quarantined["too_much_expansion"].docs, 1);
    // With a higher limit it is read to its end; the line of spaces is too long.
    let limits = "[limits]\nmax_bad_fraction = 1.0\nmax_expansion = 2000\n";
    scratch.write("r.toml", small_recipe("\"a.jsonl.gz\"", limits));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert_eq!(scratch.ledger("out").sources["a"].kept.docs, 39);
}

/// Two thousand rows of a few bytes each, all referring to one long text: 200 MB from a hundred kilobytes.
fn dictionary_bomb() -> RecordBatch {
    let texts = StringArray::from(vec!["word ".repeat(20_000)]);
    let text = DictionaryArray::new(Int8Array::from(vec![0; 2_000]), Arc::new(texts));
    let ids = Int64Array::from_iter_values(0..2_000);
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("text", Arc::new(text) as ArrayRef)])
        .unwrap()
}

#[test]
fn dictionaries_of_parquet_and_arrow_that_expand_without_end_stop_at_the_limit() {
    let batch = dictionary_bomb();
    let mut parquet = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    let mut arrow = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    arrow.write(&batch).unwrap();
    for (name, bytes) in
        [("a.parquet", parquet.into_inner().unwrap()), ("a.arrow", arrow.into_inner().unwrap())]
    {
        assert!(bytes.len() < 300_000, "{name} has {} bytes", bytes.len());
        let scratch = Scratch::new();
        scratch.write(name, bytes);
        let limits = |more: &str| format!("[limits]\nmax_bad_fraction = 1.0\n{more}");
        scratch.write("r.toml", small_recipe(&format!("{name:?}, \"b.jsonl\""), &limits("")));
        scratch.write("b.jsonl", lines(0..10));
        scratch.ok(&["build", "--recipe", "r.toml"]);
        let source = scratch.ledger("out").sources["a"].clone();
        assert_eq!(source.read.docs, 2_010, "{name}");
        assert!(source.quarantined["too_much_expansion"].docs > 1_000, "{name}: {source:?}");
        assert!(source.read.bytes < 100_000_000, "{name}: {source:?}");
        // If requested, it is read.
        scratch.write(
            "r.toml",
            small_recipe(&format!("{name:?}, \"b.jsonl\""), &limits("max_expansion = 20000\n")),
        );
        scratch.ok(&["build", "--recipe", "r.toml"]);
        assert_eq!(scratch.ledger("out").sources["a"].quarantined.len(), 0, "{name}");
    }
}

#[test]
fn a_damaged_member_of_jsonl_costs_its_lines() {
    let scratch = Scratch::new();
    let mut members: Vec<Vec<u8>> = (0..5).map(|n| gzip(lines(n * 10..n * 10 + 10).as_bytes())).collect();
    let middle = members[2].len() / 2;
    members[2][middle..middle + 8].fill(0xff);
    scratch.write("a.jsonl.gz", members.concat());
    scratch.write("r.toml", small_recipe("\"a.jsonl.gz\"", "[limits]\nmax_bad_fraction = 1.0\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let source = scratch.ledger("out").sources["a"].clone();
    assert!((40..50).contains(&source.kept.docs), "{source:?}");
    assert_eq!(source.quarantined["corrupt_stream"].docs, 1);
}

#[test]
fn pages_in_a_folder_are_extracted() {
    let scratch = Scratch::new();
    let text =
        "<p>A paragraph with enough words that it is certainly the content of this page, and no menu.</p>";
    for n in 0..3 {
        let page = format!(
            "<!DOCTYPE html><html><head><title>{n}</title></head><body>{}{n}</body></html>",
            text.repeat(5)
        );
        scratch.write(&format!("pages/{n}.html"), page);
    }
    let deep = format!("<!DOCTYPE html><html><body>{}{text}", "<div>".repeat(100_000));
    scratch.write("pages/deep.html", deep);
    scratch.write("r.toml", recipe("pages", "[limits]\nmax_bad_fraction = 1.0\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let source = scratch.ledger("out").sources["a"].clone();
    assert_eq!((source.read.docs, source.quarantined["html_failed"].docs), (4, 1));
    assert!(source.kept.docs >= 1, "{source:?}");
}
