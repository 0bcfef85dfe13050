use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::support::{Scratch, line, quarantine, small_recipe, text};

/// A gzip file of three lines, cut inside the third.
fn cut_gzip() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    for n in 200..203 {
        encoder.write_all(line(n).as_bytes()).unwrap();
        // Ends a block, so that the lines before the cut are whole.
        encoder.flush().unwrap();
    }
    let mut bytes = encoder.finish().unwrap();
    bytes.truncate(bytes.len() - 40);
    bytes
}

fn planted(scratch: &Scratch) {
    let mut lines: Vec<Vec<u8>> = (0..20).map(|n| line(n).into_bytes()).collect();
    lines.push(b"{\"id\":\"x\",\"text\":\"unfinished\n".to_vec());
    lines.push(b"{\"id\":\"x\",\"text\":\"\xff\xfe not UTF-8\"}\n".to_vec());
    lines.push(b"{\"id\":\"x\"}\n".to_vec());
    lines.push(b"{\"id\":\"x\",\"text\":[1]}\n".to_vec());
    lines.push(b"{\"id\":\"x\",\"text\":\"\"}\n".to_vec());
    lines.push(b"{\"id\":\"x\",\"text\":\" \\u0000\\r\\n \"}\n".to_vec());
    lines.push(b"{\"text\":\"no id\"}\n".to_vec());
    lines.push(b"\n  \n".to_vec());
    // NUL bytes, escaped and raw: normalized away, not bad.
    lines.push(format!("{}\n", json!({ "id": "nul", "text": format!("{}\0", text(90)) })).into_bytes());
    lines.push(format!("{{\"id\":\"raw\",\"text\":\"{}\0\"}}\n", text(91)).into_bytes());
    // 50 MB.
    lines.push([&b"{\"id\":\"long\",\"text\":\""[..], &vec![b'a'; 50_000_000], b"\"}\n"].concat());
    lines.push(format!("{}\n", json!({ "id": "short", "text": "Too short." })).into_bytes());
    lines.push(format!("{}\n", json!({ "id": "again", "text": text(3) })).into_bytes());
    scratch.write("a.jsonl", lines.concat());
    scratch.write("b.jsonl.gz", cut_gzip());
    scratch.write("c.jsonl", "");
    scratch.write("d.jsonl.zst", &zstd::encode_all(line(300).as_bytes(), 3).unwrap()[..20]);
    scratch.write("e.parquet", b"PAR1 and then nothing of the kind PAR1");
    scratch.write("f.jsonl.gz", [gzip(&line(400)), gzip(&line(401))].concat());
    scratch.write("g.jsonl", format!("\u{feff}{}", line(402)));
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const FILES: &str =
    "\"a.jsonl\", \"b.jsonl.gz\", \"c.jsonl\", \"d.jsonl.zst\", \"e.parquet\", \"f.jsonl.gz\", \"g.jsonl\"";

#[test]
fn planted_garbage_is_counted_to_the_record() {
    let scratch = Scratch::new();
    planted(&scratch);
    scratch.write("r.toml", small_recipe(FILES, "[limits]\nmax_bad_fraction = 1.0\n"));
    let said = scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(said.err.contains("records are bad (within the limit)"), "{}", said.err);

    let ledger = scratch.ledger("out");
    let source = &ledger.sources["a"];
    let quarantined: Vec<(&str, u64)> =
        source.quarantined.iter().map(|(k, v)| (k.as_str(), v.docs)).collect();
    let expected = [
        ("bad_json", 1),
        ("corrupt_parquet", 1),
        ("empty_file", 1),
        ("empty_text", 2),
        ("invalid_utf8", 1),
        ("missing_id", 1),
        ("missing_text", 1),
        ("text_not_a_string", 1),
        ("too_long", 1),
        ("truncated_stream", 2),
    ];
    assert_eq!(quarantined, expected);
    let dropped: Vec<(&str, u64)> = source.dropped.iter().map(|(k, v)| (k.as_str(), v.docs)).collect();
    assert_eq!(dropped, [("exact_duplicate", 1), ("too_short", 1)]);
    // 20 plain, 2 with NUL, 2 whole lines of the cut file, 2 of two gzip members, 1 after a byte order mark.
    assert_eq!(source.kept.docs, 27);
    assert_eq!(source.read.docs, 12 + 2 + 27);
    assert_eq!(source.quarantined["too_long"].bytes, 50_000_000 + 23);
    assert_eq!(source.quarantined["corrupt_parquet"].bytes, 38);
    assert_eq!(source.dropped["too_short"].bytes, 10);
    assert_eq!(source.dropped["exact_duplicate"].bytes, text(3).len() as u64);
}

#[test]
fn the_quarantine_gives_place_cause_and_first_bytes() {
    let scratch = Scratch::new();
    planted(&scratch);
    scratch.write("r.toml", small_recipe(FILES, "[limits]\nmax_bad_fraction = 1.0\n"));
    scratch.ok(&["build", "--recipe", "r.toml", "-q"]);
    let rows = quarantine(&scratch.path("out/quarantine/a-00000.jsonl"));
    let bytes = fs::read(scratch.path("a.jsonl")).unwrap();
    for row in &rows {
        let offset = row["offset"].as_u64().unwrap() as usize;
        assert!(offset == 0 || bytes[offset - 1] == b'\n', "{row}");
        let first = row["first_bytes"].as_str().unwrap().as_bytes();
        let n_ascii = first.iter().take_while(|b| b.is_ascii()).count();
        // If the text could be read, it is shown instead of the line around it.
        if row["cause"] != "empty_text" || !first.is_empty() && first[0] == b'{' {
            assert_eq!(bytes[offset..offset + n_ascii], first[..n_ascii], "{row}");
        }
        assert!(row["file"].as_str().unwrap().ends_with("a.jsonl"), "{row}");
    }
    let causes: Vec<&str> = rows.iter().map(|row| row["cause"].as_str().unwrap()).collect();
    let expected = [
        "bad_json",
        "invalid_utf8",
        "missing_text",
        "text_not_a_string",
        "empty_text",
        "empty_text",
        "missing_id",
        "too_long",
    ];
    assert_eq!(causes, expected);
    // The offset in a compressed file is that of the decompressed bytes.
    let cut = quarantine(&scratch.path("out/quarantine/a-00001.jsonl"));
    assert_eq!(cut[0]["offset"], line(200).len() + line(201).len());
}

#[test]
fn more_bad_records_than_allowed_are_exit_3_and_leave_no_manifest() {
    let scratch = Scratch::new();
    let mut lines: String = (0..1999).map(line).collect();
    lines.push_str("not json\n");
    scratch.write("a.jsonl", &lines);
    // 1 of 2000 is within the default of 0.001, 3 of 2002 are not.
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--strict"], 3);
    assert!(said.err.contains("1 of 2000 records are bad"), "{}", said.err);

    scratch.write("a.jsonl", lines.clone() + "nor this\nnor that\n");
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 3);
    assert!(said.err.contains("3 of 2002 records are bad"), "{}", said.err);
    assert!(said.err.contains("bad_json in ") && said.err.contains("a.jsonl, byte "), "{}", said.err);
    assert!(said.err.contains("max_bad_fraction"), "{}", said.err);
    assert!(!scratch.path("out/MANIFEST.json").exists());
    assert_eq!(scratch.ledger("out").sources["a"].quarantined["bad_json"].docs, 3);
    assert_eq!(quarantine(&scratch.path("out/quarantine/a-00000.jsonl")).len(), 3);

    // If allowed, it continues with the finished work.
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", "[limits]\nmax_bad_fraction = 0.01\n"));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    assert!(scratch.path("out/MANIFEST.json").exists());
}

#[test]
fn variants_and_families_that_are_not_there_are_named() {
    let scratch = Scratch::new();
    let record = |id: &str, family: Option<&str>, variant: Option<&str>, n| {
        format!("{}\n", json!({ "id": id, "page": family, "release": variant, "text": text(n) }))
    };
    let lines = [
        record("1", Some("p"), Some("new"), 1),
        record("2", Some("p"), Some("old"), 2),
        record("3", Some("p"), Some("other"), 3),
        record("4", None, Some("new"), 4),
        record("5", Some("q"), None, 5),
        // A second original of `p`: the lower document id stays.
        record("6", Some("p"), Some("new"), 6),
    ];
    scratch.write("a.jsonl", lines.concat());
    let fields = "family = \"page\"\nvariant = \"release\"\nvariants = [\"new\", \"old\"]\n";
    let recipe = small_recipe("\"a.jsonl\"", "[limits]\nmax_bad_fraction = 1.0\n")
        .replace("[[filter]]", &format!("{fields}[[filter]]"));
    scratch.write("r.toml", recipe);
    scratch.ok(&["build", "--recipe", "r.toml"]);
    let ledger = scratch.ledger("out");
    let source = &ledger.sources["a"];
    let bad: Vec<(&str, u64)> = source.quarantined.iter().map(|(k, v)| (k.as_str(), v.docs)).collect();
    assert_eq!(bad, [("missing_family", 1), ("missing_variant", 1), ("unknown_variant", 1)]);
    assert_eq!(source.dropped["duplicate_variant"].docs, 1);
    assert_eq!(source.kept.docs, 2);
    let ids = |id: &str| moe_data::document::DocumentId::new("a", id);
    let shard = moe_shards::Shard::open(&scratch.path("out/shards/a-v0-00000.mdx")).unwrap();
    assert_eq!(shard.id(0).unwrap(), if ids("1") < ids("6") { "1" } else { "6" });
    assert!(scratch.path("out/audit/drops-shard-a-v0-00000.parquet").exists());
}

#[test]
fn nothing_left_says_why() {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", "{\"id\":\"1\",\"text\":\"short\"}\n");
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    let said = scratch.fail(&["build", "--recipe", "r.toml"], 3);
    assert!(said.err.contains("no document is left") && said.err.contains("too_short: 1"), "{}", said.err);
    assert!(scratch.path("out/audit/drops-filter-00000.parquet").exists());
    assert_eq!(scratch.ledger("out").sources["a"].dropped["too_short"].docs, 1);
}
