use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::support::{Random, Scratch, assert_same, dataset_lines, quickstart_recipe, recipe_over};

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let scratch = Scratch::new();
    scratch.write("r.toml", quickstart_recipe());
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "one", "--threads", "1"]);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "two", "--threads", "2"]);
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "many", "--threads", "7"]);
    let expected = scratch.results("one");
    assert_same(&scratch.results("two"), &expected);
    assert_same(&scratch.results("many"), &expected);
}

#[test]
fn any_split_order_and_format_of_the_input_gives_the_same_bytes() {
    let scratch = Scratch::new();
    scratch.write("whole.toml", quickstart_recipe());
    scratch.ok(&["build", "--recipe", "whole.toml", "--out", "whole"]);

    let mut bible = dataset_lines("bible_kjv_web.jsonl.gz");
    Random(7).shuffle(&mut bible);
    let text = |lines: &[String]| lines.join("\n") + "\n";
    scratch.write("bible/z.jsonl", text(&bible[..30]));
    let frames = [&bible[30..90], &bible[90..200]];
    let frames = frames.map(|lines| zstd::encode_all(text(lines).as_bytes(), 1).unwrap());
    scratch.write("bible/sub/a.jsonl.zst", frames.concat());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text(&bible[200..]).as_bytes()).unwrap();
    scratch.write("bible/m.jsonl.gz", gzip.finish().unwrap());
    let mut django = dataset_lines("django_docs_two_versions.jsonl.gz");
    Random(8).shuffle(&mut django);
    scratch.write("django-1.parquet", to_parquet(&django[..50], &["id", "path", "version", "text"]));
    scratch.write("django-2.parquet", to_parquet(&django[50..], &["text", "version", "id", "path"]));
    scratch.write("split.toml", recipe_over("\"bible\"", "\"django-*.parquet\""));
    scratch.ok(&["build", "--recipe", "split.toml", "--out", "split", "--threads", "2"]);
    assert_same(&scratch.results("split"), &scratch.results("whole"));
}

#[test]
fn slices_of_a_file_give_the_bytes_of_the_whole_file() {
    let scratch = Scratch::new();
    let mut bible = dataset_lines("bible_kjv_web.jsonl.gz");
    for (at, bad) in [(3, "not json"), (90, "{\"id\":\"x\"}"), (91, ""), (200, "[]"), (270, "{")] {
        bible.insert(at, bad.to_owned());
    }
    scratch.write("bible.jsonl", bible.join("\n"));
    let django = dataset_lines("django_docs_two_versions.jsonl.gz");
    scratch.write("django.parquet", to_parquet(&django, &["id", "path", "version", "text"]));
    let file = fs::File::create(scratch.path("django.arrow")).unwrap();
    let batch = to_batch(&django, &["id", "path", "version", "text"]);
    let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    (0..batch.num_rows()).for_each(|row| writer.write(&batch.slice(row, 1)).unwrap());
    writer.finish().unwrap();
    for (out, slice_bytes, threads, input) in [
        ("whole", "1GB", "1", "django.parquet"),
        ("cut", "300kB", "2", "django.parquet"),
        ("fine", "30kB", "3", "django.parquet"),
        ("batches", "100kB", "2", "django.arrow"),
    ] {
        let recipe = recipe_over("\"bible.jsonl\"", &format!("\"{input}\""));
        let recipe = recipe.replace("max_bad_fraction = 0.001", "max_bad_fraction = 1.0");
        let recipe =
            recipe.replace("\"64MB\"                             #", &format!("\"{slice_bytes}\" #"));
        scratch.write(&format!("{out}.toml"), recipe);
        let said =
            scratch.ok(&["build", "--recipe", &format!("{out}.toml"), "--out", out, "--threads", threads]);
        assert_eq!(said.err.contains(" slices, "), out != "whole", "{}", said.err);
        assert_same(&scratch.results(out), &scratch.results("whole"));
        let quarantine =
            |out: &str| fs::read(scratch.path(out).join("quarantine/bible-00000.jsonl")).unwrap();
        assert!(quarantine(out) == quarantine("whole"), "the quarantine of {out} differs");
    }
    let n_lines =
        fs::read_to_string(scratch.path("fine/quarantine/bible-00000.jsonl")).unwrap().lines().count();
    assert_eq!(n_lines, 4);
}

fn to_batch(lines: &[String], columns: &[&str]) -> RecordBatch {
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let column = |name: &&str| {
        let values = records.iter().map(|record| record[*name].as_str());
        ((*name).to_owned(), Arc::new(StringArray::from_iter(values)) as ArrayRef)
    };
    RecordBatch::try_from_iter(columns.iter().map(column)).unwrap()
}

fn to_parquet(lines: &[String], columns: &[&str]) -> Vec<u8> {
    let batch = to_batch(lines, columns);
    // Several row groups, so that the file can be cut.
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn many_shards_hold_the_same_documents_as_one() {
    let scratch = Scratch::new();
    scratch.write("one.toml", quickstart_recipe());
    scratch.write("many.toml", quickstart_recipe().replace("\"1GiB\"", "\"50kB\""));
    scratch.ok(&["build", "--recipe", "one.toml", "--out", "one"]);
    scratch.ok(&["build", "--recipe", "many.toml", "--out", "many"]);
    let docs = |out: &str, stem: &str| {
        let mut docs = Vec::new();
        let mut names: Vec<_> =
            fs::read_dir(scratch.path(out).join("shards")).unwrap().map(|e| e.unwrap().path()).collect();
        names.retain(|path| path.extension().unwrap() == "mdx" && path.to_string_lossy().contains(stem));
        names.sort();
        for path in &names {
            assert!(
                out == "one" || fs::metadata(path.with_extension("bin")).unwrap().len() < 80_000,
                "{path:?}"
            );
            let shard = moe_shards::Shard::open(path).unwrap();
            for doc in 0..shard.n_docs() {
                docs.push((shard.id(doc).unwrap().to_owned(), shard.tokens(doc).unwrap().to_vec()));
            }
        }
        (names.len(), docs)
    };
    for stem in ["bible-v0", "bible-v1", "django-v0", "django-v1"] {
        let (n_one, one) = docs("one", stem);
        let (n_many, many) = docs("many", stem);
        assert!(n_one == 1 && n_many > 2, "{stem}: {n_many} shards");
        assert_eq!(many, one, "{stem}: shards in order of their names are in order of the families");
    }
}

#[test]
fn twenty_kills_at_random_moments_leave_the_same_bytes() {
    let scratch = Scratch::new();
    // A smaller vocabulary, so that every stage gets its share of the kills.
    scratch.write("r.toml", quickstart_recipe().replace("vocab_size = 4096", "vocab_size = 512"));
    let start = Instant::now();
    scratch.ok(&["build", "--recipe", "r.toml", "--out", "calm"]);
    let whole_micros = start.elapsed().as_micros() as u64;
    let expected = scratch.results("calm");

    let args = ["build", "--recipe", "r.toml", "--out", "killed", "--threads", "2"];
    let mut random = Random(20);
    let mut kills = 0;
    while kills < 20 {
        let mut child = scratch.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(whole_micros)));
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        kills += u64::from(!finished);
        // Every third time the build may end, and everything starts over.
        if finished || random.below(3) == 0 {
            scratch.ok(&args);
            assert_same(&scratch.results("killed"), &expected);
            let said = scratch.ok(&args);
            assert!(said.err.contains("nothing changed"), "{}", said.err);
            fs::remove_dir_all(scratch.path("killed")).unwrap();
        }
    }
    scratch.ok(&args);
    assert_same(&scratch.results("killed"), &expected);
    scratch.ok(&["verify", "killed"]);
}

#[test]
fn the_first_signal_ends_training_within_a_second() {
    let scratch = Scratch::new();
    // Words with few repeated letters: training looks for pairs for many seconds, inside a library.
    let mut random = Random(7);
    let mut word = || (0..9).map(|_| char::from(b'a' + random.below(26) as u8)).collect::<String>();
    let words: Vec<String> = (0..300_000).map(|_| word()).collect();
    let texts = words.chunks(3_000).enumerate().map(|(i, words)| {
        let text = format!("{0} {0}", words.join(" "));
        format!("{}\n", serde_json::json!({ "id": format!("d{i}"), "text": text }))
    });
    scratch.write("a.jsonl", texts.collect::<String>());
    let recipe = crate::support::small_recipe("\"a.jsonl\"", "");
    scratch.write("r.toml", recipe.replace("vocab_size = 300", "vocab_size = 65000"));
    let args = ["build", "--recipe", "r.toml"];
    let mut child = scratch.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !scratch.path("out/work/train").exists() {
        std::thread::sleep(Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "the build ended before it trained");
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let start = Instant::now();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    // A busy machine may be late, but training would take far longer.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn ctrl_c_says_how_to_continue() {
    let scratch = Scratch::new();
    scratch.write("r.toml", quickstart_recipe());
    let args = ["build", "--recipe", "r.toml", "--threads", "1"];
    let child = scratch.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The folder appears after the signal handlers and before most of the work.
    while !scratch.path("out/work/read").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("run the same command to continue"), "{err}");
    assert!(!scratch.path("out/MANIFEST.json").exists());
    scratch.ok(&args);
    scratch.ok(&["verify", "out"]);
}
