use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use moe_data::ledger::SourceLedger;
use moe_data::tables::documents::{Columns, DocumentBatches};
use serde_json::json;

use crate::support::{Said, Scratch, line, lines, quarantine, small_recipe, text};

const ALL_BAD: &str = "[limits]\nmax_bad_fraction = 1.0\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, *bytes).unwrap();
    }
    out.into_inner().unwrap()
}

/// Builds the folder `in/` without record ids, and returns output and ledger.
fn build(scratch: &Scratch, keys: &str) -> (Said, SourceLedger) {
    let recipe = small_recipe("\"in\"", ALL_BAD).replace("id = \"id\"\n", keys);
    scratch.write("r.toml", recipe);
    let said = scratch.ok(&["build", "--recipe", "r.toml"]);
    let source = scratch.ledger("out").sources["a"].clone();
    (said, source)
}

fn ids(scratch: &Scratch) -> Vec<String> {
    let shard = moe_shards::Shard::open(&scratch.path("out/shards/a-v0-00000.mdx")).unwrap();
    let mut ids: Vec<String> = (0..shard.n_docs()).map(|i| shard.id(i).unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// The normalized text of a document.
fn text_of(scratch: &Scratch, id: &str) -> String {
    for part in fs::read_dir(scratch.path("out/work/read")).unwrap() {
        let path = part.unwrap().path().join("documents.parquet");
        for batch in DocumentBatches::open(&path, Columns::All).unwrap() {
            let batch = batch.unwrap();
            if let Some((_, document)) = batch.documents().find(|(_, document)| document.id == id) {
                return document.text.to_owned();
            }
        }
    }
    panic!("no document is called {id}")
}

#[test]
fn archives_become_documents_of_their_files_and_not_of_header_bytes() {
    let scratch = Scratch::new();
    scratch.write("in/a.tar", tar(&[("x.jsonl", lines(0..3).as_bytes()), ("y/z.txt", text(3).as_bytes())]));
    scratch.write("in/b.tar.gz", gzip(&tar(&[("x.jsonl", lines(4..6).as_bytes())])));
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(line(6).as_bytes()).unwrap();
    scratch.write("in/c.jsonl.bz2", bzip2.finish().unwrap());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(line(7).as_bytes()).unwrap();
    scratch.write("in/d.jsonl.xz", xz.finish().unwrap());
    scratch.write("in/e.json", json!([{ "text": text(8) }, { "text": text(9) }]).to_string());
    scratch.write("in/f.json", format!("{:#}", json!({ "text": text(10) })));
    scratch.write("in/g.csv", format!("n,text\n1,\"{}\n\"\n", text(11)));
    scratch.write("in/h.tsv", format!("text\tn\n{}\t1\n", text(12)));
    let (_, source) = build(&scratch, "");
    assert_eq!((source.read.docs, source.kept.docs), (13, 13), "{source:?}");
    assert!(ids(&scratch).contains(&"a.tar/y/z.txt".to_owned()), "{:?}", ids(&scratch));
}

#[test]
fn files_without_text_are_skipped_by_name_and_refused_when_named() {
    let scratch = Scratch::new();
    scratch.write("in/a.txt", text(1));
    scratch.write("in/b.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj");
    scratch.write("in/c.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    scratch.write("in/d.bin", (0..400u16).flat_map(|id| (id * 37).to_le_bytes()).collect::<Vec<u8>>());
    scratch.write("in/e.jsonl.gz", gzip(b"7z\xbc\xaf\x27\x1c\0\x04"));
    let (said, source) = build(&scratch, "");
    assert_eq!((source.read.docs, source.kept.docs), (5, 1), "{source:?}");
    assert_eq!(source.dropped["unreadable_format"].docs, 4);
    assert!(source.quarantined.is_empty());
    assert_eq!(source.skipped_files["a PDF document"], 1, "{:?}", source.skipped_files);
    assert!(said.err.contains("such as b.pdf: a PDF document; extract its text first"), "{}", said.err);
    let why = scratch.ok(&["why", "b.pdf"]);
    assert!(why.out.contains("a/b.pdf: left out while reading, unreadable_format"), "{}", why.out);

    scratch.write("r.toml", small_recipe("\"in/b.pdf\"", ALL_BAD));
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "other"], 2);
    assert!(said.err.contains("in/b.pdf is a PDF document; extract its text first"), "{}", said.err);
}

#[test]
fn records_that_are_almost_json_are_read_or_say_column_and_cause() {
    let scratch = Scratch::new();
    let record = |id: &str, more: &str| format!("{{\"id\":\"{id}\",\"text\":\"{} {id}{more}}}\n", text(1));
    let good = [
        record("bom", "\""),
        format!("\u{feff}{}", record("joined", "\"")),
        record("nan", "\",\"x\":NaN,\"y\":[-Infinity]"),
        record("half", " \\ud83d\""),
        record("halves", " \\ude00\\ud83d\""),
    ];
    let bad = [
        ("python", "\",\"x\":None", "`None`"),
        ("comma", "\",", "trailing comma"),
        ("twice", "\",\"id\":\"again\"", "the key `id` is there twice"),
        ("score", "\",\"score\":NaN", "JSON has no NaN"),
    ];
    let bad_lines = bad.map(|(id, more, _)| record(id, more));
    let scored = record("scored", "\",\"score\":1");
    scratch.write("in/a.jsonl", [&good[..], &bad_lines, &[scored]].concat().concat());
    build(&scratch, "id = \"id\"\nscore = \"score\"\n");
    assert_eq!(ids(&scratch), ["bom", "half", "halves", "joined", "nan", "scored"]);
    assert!(text_of(&scratch, "halves").ends_with("halves \u{fffd}\u{fffd}"));
    let rows = quarantine(&scratch.path("out/quarantine/a-00000.jsonl"));
    assert_eq!(rows.len(), bad.len());
    for (row, (id, _, cause)) in rows.iter().zip(bad) {
        let detail = row["detail"].as_str().unwrap();
        assert!(detail.starts_with("column ") && detail.contains(cause), "{id}: {row}");
    }
}

#[test]
fn separators_of_lines_and_pages_join_no_words_of_a_document() {
    let scratch = Scratch::new();
    let text = format!("{} page\u{c}Next\u{b}line\u{2028}words\u{1f}apart", text(1));
    scratch.write("in/a.jsonl", format!("{}\n", json!({ "id": "a", "text": text })));
    build(&scratch, "id = \"id\"\n");
    assert!(text_of(&scratch, "a").ends_with(" page\nNext\nline\nwords apart"));
}

#[test]
fn numbers_that_are_ids_stay_as_they_were_written() {
    let scratch = Scratch::new();
    let numbers = ["12345678901234567890123", "12345678901234567890124", "1e3", "1.0", "-0", "7"];
    let lines = numbers.map(|number| format!("{{\"id\":{number},\"text\":\"{} {number}\"}}\n", text(1)));
    scratch.write("in/a.jsonl", lines.concat());
    let (said, source) = build(&scratch, "id = \"id\"\n");
    let mut expected = numbers.map(str::to_owned);
    expected.sort();
    assert_eq!(ids(&scratch), expected);
    assert!(source.repeated_ids.is_none() && !said.err.contains("not unique"), "{}", said.err);
}

#[test]
fn duplicate_ids_are_reported_and_counted() {
    let scratch = Scratch::new();
    for year in ["2023", "2024", "2025"] {
        scratch.write(&format!("{year}/page.txt"), format!("{} {year}", text(1)));
        scratch.write(&format!("{year}/{year}.txt"), format!("{} {year}", text(2)));
    }
    let recipe = small_recipe("\"2023/\", \"2024/\", \"2025/\"", "").replace("id = \"id\"\n", "");
    scratch.write("r.toml", recipe);
    let said = scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(
        said.err.contains("1 ids are not unique: 3 documents share them, such as `page.txt`"),
        "{}",
        said.err
    );
    let repeated = scratch.ledger("out").sources["a"].repeated_ids.clone().unwrap();
    assert_eq!((repeated.ids, repeated.documents), (1, 3));
    assert_eq!(repeated.examples, ["page.txt"]);
}

#[test]
fn a_field_that_only_late_records_have_is_accepted() {
    let scratch = Scratch::new();
    let late = json!({ "id": "late", "text": text(99), "lang": "en" });
    scratch.write("in/a.jsonl", format!("{}{late}\n", lines(0..60)));
    let (_, source) = build(&scratch, "id = \"id\"\nlanguage = \"lang\"\n");
    assert_eq!(source.kept.docs, 61);
    // A field that no record of the source has is named, with the closest one.
    scratch.write("r.toml", small_recipe("\"in\"", "").replace("id = ", "language = \"langs\"\nid = "));
    scratch.write("in/a.jsonl", format!("{late}\n{}", lines(0..60)));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 2);
    assert!(
        said.err.contains("`source.a.language`: no record of the source has a field `langs`"),
        "{}",
        said.err
    );
    assert!(said.err.contains("did you mean `lang`?"), "{}", said.err);
}

#[test]
fn records_left_out_while_reading_are_known_to_why() {
    let scratch = Scratch::new();
    let record = |id: &str, kind: &str, block: &str| {
        format!(
            "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:{id}>\r\nWARC-Target-URI: http://a/{id}\r\n\
             Content-Type: application/http; msgtype=response\r\nContent-Length: {}\r\n\r\n{block}\r\n\r\n",
            block.len()
        )
    };
    let response = |status: &str, kind: &str, body: &str| {
        format!("HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\n\r\n{body}")
    };
    let page =
        format!("<html><body><article><p>{}</p></article></body></html>", format!("{} ", text(1)).repeat(5));
    let warc = [
        record("good", "response", &response("200", "text/html", &page)),
        record("gone", "response", &response("404", "text/html", &page)),
        record("picture", "response", &response("200", "image/png", "x")),
    ];
    scratch.write("in/a.warc", warc.concat());
    let (_, source) = build(&scratch, "");
    assert_eq!(
        (source.kept.docs, source.dropped["http_status"].docs, source.dropped["not_html"].docs),
        (1, 1, 1)
    );
    let why = scratch.ok(&["why", "<urn:gone>"]);
    assert!(why.out.contains("left out while reading, http_status (404)"), "{}", why.out);
    assert!(scratch.ok(&["why", "a/<urn:picture>"]).out.contains("left out while reading, not_html"));
}

#[test]
fn pipes_loops_and_dangling_links_are_skipped() {
    let scratch = Scratch::new();
    scratch.write("in/a.txt", text(1));
    scratch.write("in/sub/b.txt", text(2));
    let status = std::process::Command::new("mkfifo").arg(scratch.path("in/pipe")).status().unwrap();
    assert!(status.success());
    symlink(".", scratch.path("in/loop")).unwrap();
    symlink("nowhere", scratch.path("in/dangling")).unwrap();
    fs::write(scratch.path("in").join(std::ffi::OsStr::from_bytes(b"latin-\xe9.txt")), text(3)).unwrap();
    let (said, source) = build(&scratch, "");
    assert_eq!(source.kept.docs, 3);
    assert_eq!(ids(&scratch), ["a.txt", "latin-\\xE9.txt", "sub/b.txt"]);
    for kind in ["named pipe", "link that leads nowhere", "link to a folder that is read already"] {
        assert_eq!(source.skipped_files[kind], 1, "{:?}", source.skipped_files);
        assert!(said.err.contains(&format!("skipped a {kind}")), "{}", said.err);
    }
    scratch.write("r.toml", small_recipe("\"in/pipe\"", ""));
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "other"], 2);
    assert!(said.err.contains("is a named pipe; expected a file or a folder"), "{}", said.err);
}

#[test]
fn text_in_other_encodings_is_read_counted_and_named() {
    let scratch = Scratch::new();
    let french = format!("{} Où vas-tu, dit l'hôte naïf au café ? L'été, répondit-elle.", text(1));
    let latin1: Vec<u8> = french.chars().map(|c| c as u8).collect();
    let wide = |text: &str| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    scratch.write("in/latin1.txt", &latin1);
    scratch.write("in/wide.txt", wide(&text(2)));
    scratch.write("in/wide.jsonl", wide(&line(3)));
    scratch.write("in/json.txt", format!("{{\"a quoted beginning\" of a text}}\n{}", text(4)));
    scratch.write("in/html.txt", format!("<!DOCTYPE html> is how pages start. {}", text(5)));
    let (said, source) = build(&scratch, "");
    assert_eq!((source.read.docs, source.kept.docs), (5, 5), "{source:?}");
    assert_eq!(source.guessed_encodings["windows-1252"], 1);
    assert!(said.err.contains("such as one of latin1.txt; they were taken for windows-1252"), "{}", said.err);
    assert_eq!(text_of(&scratch, "latin1.txt"), french);
    assert!(text_of(&scratch, "html.txt").starts_with("<!DOCTYPE html> is how"));

    // Lines that are not UTF-8 are bad, with what to do about it; by then they are read.
    fs::remove_dir_all(scratch.path("in")).unwrap();
    let line = [&b"{\"id\":\"l\",\"text\":\""[..], &latin1, b"\"}\n"].concat();
    scratch.write("in/a.jsonl", [&line[..], lines(0..3).as_bytes()].concat());
    build(&scratch, "id = \"id\"\n");
    let rows = quarantine(&scratch.path("out/quarantine/a-00000.jsonl"));
    assert!(
        rows[0]["detail"].as_str().unwrap().contains("if the text is windows-1252, say so by `encoding`"),
        "{rows:?}"
    );
    let (_, source) = build(&scratch, "id = \"id\"\nencoding = \"latin1\"\n");
    assert_eq!(source.kept.docs, 4);
    assert_eq!(text_of(&scratch, "l"), french);
}

#[test]
fn the_first_signal_ends_a_build_within_a_moment() {
    let scratch = Scratch::new();
    scratch.write("in/a.jsonl", lines(0..400_000));
    scratch.write("r.toml", small_recipe("\"in\"", ""));
    let mut child = scratch.command(&["build", "--recipe", "r.toml", "-q"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code() == Some(130) || status.success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
