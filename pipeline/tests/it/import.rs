use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use moe_data::tokenizer::Vocabulary;
use moe_shards::{Manifest, Shard};
use serde_json::json;

use crate::support::{Scratch, lines, small_recipe};

const DOCS: u64 = 60;

/// A build of some documents, two of them equal when one takes deduplication away, with its exports.
fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("a.jsonl", lines(0..DOCS as usize));
    scratch.write("r.toml", small_recipe("\"a.jsonl\"", ""));
    scratch.ok(&["build", "--recipe", "r.toml"]);
    scratch.ok(&["export", "--megatron", "--npy"]);
    scratch
}

/// Tokens of all documents by family.
fn documents(out: &Path) -> BTreeMap<u64, Vec<u32>> {
    let manifest = Manifest::read(out).unwrap();
    let mut found = BTreeMap::new();
    for info in &manifest.shards {
        let shard = Shard::open(&Manifest::mdx_path(out, &info.name)).unwrap();
        for doc in 0..shard.n_docs() {
            found.insert(shard.family(doc).unwrap().0, shard.tokens(doc).unwrap().to_vec());
        }
    }
    found
}

fn import<'a>(kind: &'a str, path: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["import", kind, path, "--tokenizer", "out/tokenizer.json", "--out", out]
}

/// Writes all tokens of the build as datatrove does.
fn write_datatrove(scratch: &Scratch) {
    write_ds(scratch, "ds/x_00000.ds", documents(&scratch.path("out")).values());
}

/// Writes `NAME.ds`, `NAME.ds.index`, `NAME.ds.metadata`.
fn write_ds<'a>(scratch: &Scratch, name: &str, documents: impl IntoIterator<Item = &'a Vec<u32>>) {
    let (mut tokens, mut index, mut n) = (Vec::new(), Vec::new(), 0u64);
    for ids in documents {
        tokens.extend(ids.iter().flat_map(|id| (*id as u16).to_le_bytes()));
        n += ids.len() as u64;
        index.extend(n.to_le_bytes());
    }
    scratch.write(name, tokens);
    scratch.write(&format!("{name}.index"), index);
    scratch.write(&format!("{name}.metadata"), format!("out/tokenizer.json|2\n{n}\n1.00 kT"));
}

#[test]
fn tokens_of_three_programs_become_the_shards_of_a_build() {
    let scratch = built();
    write_datatrove(&scratch);
    let expected = documents(&scratch.path("out"));
    assert_eq!(expected.len() as u64, DOCS);
    let name = Manifest::read(&scratch.path("out")).unwrap().shards[0].name.clone();
    let prefix = format!("out/shards/{name}");
    for (kind, path, to) in
        [("--megatron", prefix.as_str(), "m"), ("--npy", "out/export", "n"), ("--datatrove", "ds", "d")]
    {
        scratch.ok(&import(kind, path, to));
        // Families are those of the texts, so these are the same documents also for later builds.
        assert_eq!(documents(&scratch.path(to)), expected, "{kind}");
        let ledger = scratch.ledger(to);
        let (built, imported) = (scratch.ledger("out"), &ledger.sources["imported"]);
        let kept = built.sources.values().next().unwrap().kept;
        assert_eq!((imported.kept.docs, imported.kept.tokens), (kept.docs, kept.tokens), "{kind}");
        scratch.ok(&["verify", to]);
        scratch.ok(&["mix", "--out", to, "--epochs", "2", "--seq-len", "64"]);
        let said = scratch.ok(&["explain", "0", "--out", to]);
        assert!(said.out.contains("imported"), "{}", said.out);
        let said = scratch.fail(&import(kind, path, to), 2);
        assert!(said.err.contains("holds a data set already"), "{}", said.err);
    }
    // The same corpus twice is one corpus.
    let twice = [
        "import",
        "--datatrove",
        "ds/x_00000.ds",
        "ds/y.ds",
        "--tokenizer",
        "out/tokenizer.json",
        "--out",
        "t",
    ];
    for ending in ["", ".index", ".metadata"] {
        fs::copy(scratch.path(&format!("ds/x_00000.ds{ending}")), scratch.path(&format!("ds/y.ds{ending}")))
            .unwrap();
    }
    scratch.ok(&twice);
    assert_eq!(documents(&scratch.path("t")), expected);
    assert_eq!(scratch.ledger("t").sources["imported"].dropped["exact_duplicate"].docs, DOCS);
    // Small shards hold the same documents.
    let small = [&import("--datatrove", "ds/x_00000.ds", "s")[..], &["--shard-bytes", "2KiB"]].concat();
    scratch.ok(&small);
    assert_eq!(documents(&scratch.path("s")), expected);
    assert!(Manifest::read(&scratch.path("s")).unwrap().shards.len() > 2);
    scratch.ok(&["verify", "s"]);
}

/// A text as another program may tokenize it: a token for each byte.
fn by_bytes(tokenizer: &Path, text: &str) -> Vec<u32> {
    let vocabulary = Vocabulary::read(tokenizer).unwrap();
    let id = |byte| vocabulary.tokens().iter().position(|token| token.bytes == [byte]).unwrap() as u32;
    text.bytes().map(id).collect()
}

#[test]
fn texts_are_those_that_a_build_would_have_had() {
    // A byte-level vocabulary, and one that puts a space before every text.
    let letters = "abcdefghijklmnopqrstuvwxyz.";
    let mut vocab = vec![json!(["<unk>", 0.0]), json!(["</s>", 0.0]), json!(["▁", -3.0])];
    vocab.extend(letters.chars().map(|letter| json!([letter.to_string(), -8.0])));
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true
        })
    };
    let unigram = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<unk>"), special(1, "</s>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }
        ] },
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "Unigram", "unk_id": 0, "vocab": vocab }
    });
    let prepending =
        small_recipe("\"a.jsonl\"", "").replace("train = { vocab_size = 300 }", "file = \"t.json\"");
    let long = "a river that is long enough to pass the filter of lengths";
    for (recipe, raw, before) in [
        (small_recipe("\"a.jsonl\"", ""), [format!("{long}\r\ne\u{301}\0nd"), format!(" {long}.")], ""),
        (prepending, [long.to_owned(), format!(" {long}.")], " "),
    ] {
        let scratch = Scratch::new();
        scratch.write("t.json", unigram.to_string());
        let line =
            |(i, text): (usize, &String)| format!("{}\n", json!({ "id": i.to_string(), "text": text }));
        scratch.write("a.jsonl", raw.iter().enumerate().map(line).collect::<String>());
        scratch.write("r.toml", recipe);
        scratch.ok(&["build", "--recipe", "r.toml"]);
        let tokenizer = scratch.path("out/tokenizer.json");
        let ids: Vec<Vec<u32>> =
            raw.iter().map(|text| by_bytes(&tokenizer, &format!("{before}{text}"))).collect();
        write_ds(&scratch, "ds/x.ds", &ids);
        scratch.ok(&import("--datatrove", "ds", "d"));
        let (built, imported) = (documents(&scratch.path("out")), documents(&scratch.path("d")));
        assert_eq!(built.len(), 2);
        assert_eq!(imported.keys().collect::<Vec<_>>(), built.keys().collect::<Vec<_>>(), "{before:?}");
        // The tokens stay as they are; the texts are still known.
        assert!(ids.iter().all(|ids| imported.values().any(|found| found.starts_with(ids))));
        scratch.ok(&["verify", "d"]);
    }
}

#[test]
fn an_import_touches_nothing_of_one_that_runs_in_the_same_folder() {
    let scratch = built();
    write_datatrove(&scratch);
    scratch.ok(&import("--datatrove", "ds", "d"));
    let shard = scratch.path("d/shards/imported-v0-00000.bin");
    // As shortly before the end of an import: all shards are there, the manifest is not.
    fs::remove_file(scratch.path("d/MANIFEST.json")).unwrap();
    let lock = fs::File::create(scratch.path("d/.lock")).unwrap();
    lock.try_lock().unwrap();
    let said = scratch.fail(&import("--datatrove", "ds", "d"), 2);
    assert!(said.err.contains("another moe-data is running here"), "{}", said.err);
    assert!(shard.exists());
    drop(lock);
    scratch.ok(&import("--datatrove", "ds", "d"));
    assert_eq!(documents(&scratch.path("d")), documents(&scratch.path("out")));
}

#[test]
fn documents_of_files_of_one_name_are_named_by_their_folders() {
    let scratch = built();
    let all: Vec<Vec<u32>> = documents(&scratch.path("out")).into_values().collect();
    write_ds(&scratch, "a/dump/x.ds", &all[..2]);
    write_ds(&scratch, "b/dump/x.ds", &all[2..4]);
    write_ds(&scratch, "b/y.ds", &all[4..5]);
    let args = ["import", "--datatrove", "a", "b", "--tokenizer", "out/tokenizer.json", "--out", "d"];
    scratch.ok(&args);
    let info = &Manifest::read(&scratch.path("d")).unwrap().shards[0];
    let shard = Shard::open(&Manifest::mdx_path(&scratch.path("d"), &info.name)).unwrap();
    let names: BTreeSet<String> = (0..shard.n_docs()).map(|doc| shard.id(doc).unwrap().to_owned()).collect();
    let expected = ["a/dump/x.ds:0", "a/dump/x.ds:1", "b/dump/x.ds:0", "b/dump/x.ds:1", "y.ds:0"];
    assert_eq!(names, expected.map(str::to_owned).into());
}

#[test]
fn a_document_without_end_is_refused_before_it_is_read() {
    let scratch = built();
    let n = (1u64 << 30) + 1;
    // Without blocks on the disk.
    fs::File::create(scratch.path("x.ds")).unwrap().set_len(2 * n).unwrap();
    scratch.write("x.ds.index", n.to_le_bytes());
    scratch.write("x.ds.metadata", format!("gpt2|2\n{n}\n1 GT"));
    let said = scratch.fail(&import("--datatrove", "x.ds", "d"), 3);
    assert!(
        said.err.contains("document 0 has 1073741825 tokens, expected at most 1073741824"),
        "{}",
        said.err
    );
}

#[test]
fn counts_and_ids_that_do_not_fit_are_refused() {
    let scratch = built();
    write_datatrove(&scratch);
    let whole = fs::read(scratch.path("ds/x_00000.ds")).unwrap();
    let mut wrong = whole.clone();
    wrong[6..8].copy_from_slice(&60_000u16.to_le_bytes());
    scratch.write("ds/x_00000.ds", &wrong);
    let said = scratch.fail(&import("--datatrove", "ds", "d"), 3);
    assert!(
        said.err.contains("token 3 of document 0 is 60000, the tokenizer has the ids 0 to"),
        "{}",
        said.err
    );
    scratch.write("ds/x_00000.ds", &whole[..whole.len() - 2]);
    let said = scratch.fail(&import("--datatrove", "ds", "d"), 3);
    assert!(said.err.contains("bytes, expected"), "{}", said.err);
    scratch.write("ds/x_00000.ds", &whole);
    scratch.write("ds/x_00000.ds.metadata", "gpt2|2\n17\n17 T");
    let said = scratch.fail(&import("--datatrove", "ds", "d"), 3);
    assert!(said.err.contains("line 2 has another number of tokens"), "{}", said.err);
    scratch.write("ds/x_00000.ds.metadata", "gpt2\n17\n17 T");
    let said = scratch.fail(&import("--datatrove", "ds", "d"), 3);
    assert!(said.err.contains("expected 2 or 4 bytes of a token"), "{}", said.err);

    // Every header of an index that is cut short or changed is refused or read; nothing panics.
    let name = Manifest::read(&scratch.path("out")).unwrap().shards[0].name.clone();
    let idx = fs::read(scratch.path(&format!("out/shards/{name}.idx"))).unwrap();
    fs::copy(scratch.path(&format!("out/shards/{name}.bin")), scratch.path("x.bin")).unwrap();
    for (at, byte) in
        [(0, 0), (9, 2), (17, 6), (18, 9), (25, 255), (26, 1), (33, 255), (34, 255), (37, 255), (300, 7)]
    {
        let mut changed = idx.clone();
        changed[at] = byte;
        scratch.write("x.idx", &changed);
        let said = scratch.fail(&import("--megatron", "x", "d"), 3);
        assert!(said.err.contains("x.idx") || said.err.contains("x.bin"), "{at}: {}", said.err);
    }
    scratch.write("x.idx", &idx[..20]);
    scratch.fail(&import("--megatron", "x", "d"), 3);

    let npy = fs::read(scratch.path(&format!("out/export/{name}.npy"))).unwrap();
    for (text, expected) in [
        ("'<u2'", "'<f4'"),
        ("'shape': (", "'shape': (1, "),
        ("'shape': (", "'shape': (9"),
        ("NUMPY", "NUMBY"),
    ] {
        let at = npy.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let mut changed = npy[..at].to_vec();
        changed.extend_from_slice(expected.as_bytes());
        changed.extend_from_slice(&npy[at + text.len()..]);
        scratch.write("x.npy", changed);
        let said = scratch.fail(&import("--npy", "x.npy", "d"), 3);
        assert!(said.err.contains("x.npy"), "{}", said.err);
    }
    for n in [3, 11, 100, npy.len() - 1] {
        scratch.write("x.npy", &npy[..n]);
        let said = scratch.fail(&import("--npy", "x.npy", "d"), 3);
        assert!(said.err.contains("x.npy"), "{}", said.err);
    }
    assert!(scratch.fail(&import("--npy", "ds", "d"), 2).err.contains("has no files NAME.npy"));
    assert!(!scratch.path("d/MANIFEST.json").exists());
}
