use std::collections::BTreeSet;
use std::fs;

use arrow::array::{Array, AsArray};
use moe_data::tables::texts::{self, Texts};
use moe_shards::{Manifest, Shard};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::support::{Random, Scratch, assert_same, dataset_lines};

/// Pages of two releases of a manual: the newer release is an earlier crawl, the other one, with some pages of the
/// newer as they are, a later one.
fn crawls() -> [Vec<String>; 2] {
    let lines = dataset_lines("django_docs_two_versions.jsonl.gz");
    let parsed: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |version: &str| parsed.iter().filter(|page| page["version"] == version).cloned().collect::<Vec<_>>();
    let (newer, older) = (of("5.2"), of("4.2"));
    assert!(newer.len() >= 30 && older.len() >= 30);
    let mut later = older;
    later.extend(newer.iter().take(9).map(|page| {
        let mut page = page.clone();
        page["id"] = format!("again/{}", page["id"].as_str().unwrap()).into();
        page
    }));
    // A page that is new, twice.
    for id in ["new-1", "new-2"] {
        let text = (0..300).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ");
        later.push(serde_json::json!({ "id": id, "text": text }));
    }
    [newer, later].map(|pages| pages.iter().map(serde_json::Value::to_string).collect())
}

fn source(name: &str, paths: &str) -> String {
    format!("[[source]]\nname = \"{name}\"\npaths = [{paths}]\nid = \"id\"\n")
}

const REST: &str = "[tokenizer]\ntrain = { vocab_size = 400 }\n[dedup.minhash]\nmax_source_removed = 1.0\n";
/// Cuts much out of the pages, so that their tokens do not decode to their texts.
const CUTS: &str = "[dedup.paragraph]\nmin_chars = 10\nmin_documents = 2\nmin_chars_left = 0\n";

fn kept(scratch: &Scratch, out: &str, source: &str) -> BTreeSet<String> {
    let out = scratch.path(out);
    let manifest = Manifest::read(&out).unwrap();
    let mut ids = BTreeSet::new();
    for info in manifest.shards.iter().filter(|info| manifest.sources[info.source as usize].name == source) {
        let shard = Shard::open(&Manifest::mdx_path(&out, &info.name)).unwrap();
        ids.extend((0..shard.n_docs()).map(|doc| shard.id(doc).unwrap().to_owned()));
    }
    ids
}

/// Writes the two crawls and builds the earlier one into `old`.
fn prepare(scratch: &Scratch) {
    let [earlier, later] = crawls();
    scratch.write("earlier.jsonl", earlier.join("\n"));
    scratch.write("later.jsonl", later.join("\n"));
    scratch.write("old.toml", source("manual", "\"earlier.jsonl\"") + REST + CUTS);
    scratch.write("new.toml", source("crawl", "\"later.jsonl\"") + REST + "[dedup]\nagainst = [\"old\"]\n");
    scratch.ok(&["build", "--recipe", "old.toml", "--out", "old"]);
}

#[test]
fn what_another_build_has_is_not_added_again() {
    let scratch = Scratch::new();
    prepare(&scratch);
    scratch.ok(&["verify", "old"]);
    let said = scratch.ok(&["build", "--recipe", "new.toml", "--out", "new"]);
    assert!(said.err.contains("that other builds have"), "{}", said.err);

    // As if both crawls were built together, the earlier one first.
    let both = source("manual", "\"earlier.jsonl\"") + &source("crawl", "\"later.jsonl\"") + REST + CUTS;
    scratch.write("both.toml", both);
    scratch.ok(&["build", "--recipe", "both.toml", "--out", "both"]);
    let expected = kept(&scratch, "both", "crawl");
    assert_eq!(kept(&scratch, "new", "crawl"), expected);
    assert!(expected.contains("new-1") != expected.contains("new-2"));

    let ledger = scratch.ledger("new");
    let dropped = &ledger.sources["crawl"].dropped;
    assert_eq!(dropped["duplicate_in_against"].docs, 9 + same_pages());
    assert_eq!(dropped["exact_duplicate"].docs, 1);
    let near = dropped["near_duplicate_in_against"].docs;
    assert!(near > 5, "{near}");

    // The audit names the other build, and `why` says it.
    let rows = audit(&scratch, "new", "dups-minhash.parquet");
    assert_eq!(rows.iter().filter(|row| row.3 == "old").count() as u64, near);
    let (removed, kept_source, kept, _) = rows.iter().find(|row| row.3 == "old").unwrap();
    assert_eq!(kept_source, "manual");
    let why = scratch.ok(&["why", removed, "--out", "new"]).out;
    assert!(why.contains("dropped, near_duplicate_in_against"), "{why}");
    assert!(why.contains(&format!("manual/{kept} of the build old (minhash, Jaccard 0.")), "{why}");
    let rows = audit(&scratch, "new", "dups-exact.parquet");
    let again = rows.iter().find(|row| row.0.starts_with("again/") && row.3 == "old").unwrap();
    let why = scratch.ok(&["why", &again.0, "--out", "new"]);
    assert!(why.out.contains("dropped, duplicate_in_against"), "{}", why.out);
    scratch.ok(&["dups", "--out", "new"]);
}

/// A document that an earlier build removed is not in its shards, so it can no longer connect a new one to what was kept: the
/// sentence \"as if both were built together\" is true except for that. Each base text has a near copy in the earlier crawl, and
/// a near copy of the copy in the later one.
#[test]
fn what_only_a_removed_document_connects_is_added_again() {
    let scratch = Scratch::new();
    let mut random = Random(5);
    let mut words =
        |n: usize| -> Vec<String> { (0..n).map(|_| format!("w{}", random.below(5000))).collect() };
    let (mut old, mut new) = (String::new(), String::new());
    for n in 0..60 {
        let base = words(300);
        // Five words replaced, each of which changes five shingles: an index of 0.84 a step, of 0.71 in two.
        let mut changed = |text: &[String], from: usize| {
            let mut text = text.to_vec();
            for (i, word) in words(5).into_iter().enumerate() {
                text[from + 40 * i] = word;
            }
            text
        };
        let copy = changed(&base, 10);
        let far = changed(&copy, 30);
        let line = |id: String, text: &[String]| {
            format!("{}\n", serde_json::json!({ "id": id, "text": text.join(" ") }))
        };
        old += &line(format!("base-{n}"), &base);
        old += &line(format!("copy-{n}"), &copy);
        new += &line(format!("far-{n}"), &far);
    }
    scratch.write("old.jsonl", old);
    scratch.write("new.jsonl", new);
    // Few bands, so that many pairs above the threshold shdo not count.
    let rest = REST.to_owned() + "bands = 3\nrows = 8\nverify = { jaccard = 0.6 }\n";
    scratch.write("old.toml", source("manual", "\"old.jsonl\"") + &rest);
    scratch.write("new.toml", source("crawl", "\"new.jsonl\"") + &rest + "[dedup]\nagainst = [\"old\"]\n");
    let both = source("manual", "\"old.jsonl\"") + &source("crawl", "\"new.jsonl\"") + &rest;
    scratch.write("both.toml", both);
    scratch.ok(&["build", "--recipe", "old.toml", "--out", "old"]);
    scratch.ok(&["build", "--recipe", "new.toml", "--out", "new"]);
    scratch.ok(&["build", "--recipe", "both.toml", "--out", "both"]);
    let (against, together) = (kept(&scratch, "new", "crawl"), kept(&scratch, "both", "crawl"));
    assert!(against.is_superset(&together));
    let bridged = against.difference(&together).count();
    assert!(bridged > 0 && bridged < 60, "{bridged} of {} and {}", against.len(), together.len());
}

/// Pages that are the same in both releases.
fn same_pages() -> u64 {
    let [earlier, later] = crawls();
    let text = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].to_string();
    let earlier: BTreeSet<String> = earlier.iter().map(text).collect();
    later.iter().filter(|line| !line.contains("again/") && earlier.contains(&text(line))).count() as u64
}

/// Removed id, kept source, kept id and other build of each row.
fn audit(scratch: &Scratch, out: &str, table: &str) -> Vec<(String, String, String, String)> {
    let file = fs::File::open(scratch.path(out).join("audit").join(table)).unwrap();
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReader::try_new(file, 1000).unwrap() {
        let batch = batch.unwrap();
        let text = |name: &str, i: usize| {
            let column = batch.column_by_name(name).unwrap().as_string::<i32>();
            if column.is_null(i) { String::new() } else { column.value(i).to_owned() }
        };
        rows.extend(
            (0..batch.num_rows())
                .map(|i| (text("removed", i), text("kept_source", i), text("kept", i), text("against", i))),
        );
    }
    rows
}

#[test]
fn threads_splits_and_memory_change_nothing_against_another_build() {
    let scratch = Scratch::new();
    prepare(&scratch);
    scratch.ok(&["build", "--recipe", "new.toml", "--out", "whole", "--threads", "1"]);
    let expected = scratch.results("whole");
    let tables = |out: &str| {
        ["dups-exact.parquet", "dups-minhash.parquet"]
            .map(|name| fs::read(scratch.path(out).join("audit").join(name)).unwrap())
    };
    let mut lines = crawls()[1].clone();
    Random(8).shuffle(&mut lines);
    for (i, part) in lines.chunks(7).enumerate() {
        scratch.write(&format!("parts/{i}.jsonl"), part.join("\n"));
    }
    scratch.write("split.toml", source("crawl", "\"parts\"") + REST + "[dedup]\nagainst = [\"old\"]\n");
    scratch.ok(&["build", "--recipe", "split.toml", "--out", "split", "--threads", "3", "--memory", "1MiB"]);
    assert_same(&scratch.results("split"), &expected);
    assert!(tables("split") == tables("whole"), "the audit differs");

    // By a flag, and cut by a kill: the same data.
    let plain = source("crawl", "\"later.jsonl\"") + REST;
    scratch.write("plain.toml", plain);
    let args = ["build", "--recipe", "plain.toml", "--out", "flag", "--against", "old"];
    for folder in ["against_keys", "against_members", "shard"] {
        let mut child = scratch.command(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
        let place = scratch.path("flag/work").join(folder);
        while !place.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    scratch.ok(&args);
    assert_same(&scratch.results("flag"), &expected);
    // Without the other build it is another data set.
    scratch.ok(&["build", "--recipe", "plain.toml", "--out", "plain"]);
    assert_ne!(scratch.results("plain")["MANIFEST.json"], expected["MANIFEST.json"]);
    assert!(
        scratch.ledger("plain").sources["crawl"].kept.docs
            > scratch.ledger("flag").sources["crawl"].kept.docs
    );
}

#[test]
fn a_build_that_changes_makes_the_next_one_look_again() {
    let scratch = Scratch::new();
    prepare(&scratch);
    let args = ["build", "--recipe", "new.toml", "--out", "new"];
    scratch.ok(&args);
    assert!(scratch.ok(&args).err.contains("nothing changed"));
    let earlier = crawls()[0].clone();
    scratch.write("earlier.jsonl", earlier[..20].join("\n"));
    scratch.ok(&["build", "--recipe", "old.toml", "--out", "old"]);
    let before = scratch.ledger("new").sources["crawl"].kept.docs;
    assert!(!scratch.ok(&args).err.contains("nothing changed"));
    assert!(scratch.ledger("new").sources["crawl"].kept.docs > before);
}

#[test]
fn all_builds_that_cannot_be_compared_are_named() {
    let scratch = Scratch::new();
    prepare(&scratch);
    let recipe = source("crawl", "\"later.jsonl\"") + REST;
    scratch.write("bare/x", "");
    scratch.write("r.toml", format!("{recipe}[dedup]\nagainst = [\"none\", \"bare\", \"old\", \"./old\"]\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "x"], 2);
    for part in [
        "`dedup.against`: `none` is not a folder",
        "`bare` is not a finished build: it has no MANIFEST.json",
        "`./old` is named twice",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    scratch
        .write("r.toml", format!("{recipe}[dedup]\nagainst = [\"old\"]\n[normalize]\nunicode = \"none\"\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "x"], 2);
    assert!(said.err.contains("normalize.unicode"), "{}", said.err);
    let said = scratch.fail(&["build", "--recipe", "old.toml", "--out", "old", "--against", "old"], 2);
    assert!(said.err.contains("is the output folder of this build"), "{}", said.err);
    let alone = source("crawl", "\"later.jsonl\"") + "[tokenizer]\ntrain = { vocab_size = 400 }\n";
    scratch.write("r.toml", format!("{alone}[dedup]\nexact = false\nagainst = [\"old\"]\n"));
    let said = scratch.fail(&["build", "--recipe", "r.toml", "--out", "x"], 2);
    assert!(said.err.contains("nothing would be compared"), "{}", said.err);

    // A file of another version, a damaged one, and a missing one.
    let path = scratch.path("old/dedup/manual-v0-00000.texts");
    let good = fs::read(&path).unwrap();
    let table = Texts::open(&path).unwrap();
    assert!(table.n_stored() > 10, "cuts leave texts that tokens do not give back");
    assert_eq!(path, texts::path(&scratch.path("old"), "manual-v0-00000"));
    let try_with = |bytes: Option<&[u8]>| {
        fs::remove_file(&path).unwrap();
        bytes.into_iter().for_each(|bytes| fs::write(&path, bytes).unwrap());
        let args = ["build", "--recipe", "new.toml", "--out", "x"];
        let said = scratch.run(&args);
        fs::write(&path, &good).unwrap();
        assert!(matches!(said.code, Some(2 | 3)), "{}", said.err);
        said.err
    };
    let mut version = good.clone();
    let at = good.len() - 88 + 64;
    version[at] = 9;
    assert!(try_with(Some(&version)).contains("has version 9; this program reads 1"));
    let mut damaged = good.clone();
    damaged[10] ^= 0xff;
    let said = try_with(Some(&damaged));
    assert!(said.contains("damaged") || said.contains("another text"), "{said}");
    assert!(try_with(None).contains("kept no texts for later builds"));
}
