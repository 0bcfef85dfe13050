//! Scratch folders with corpora, and the binary run in them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use moe_data::ledger::Ledger;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A scratch folder.
pub struct Scratch {
    dir: TempDir,
}

/// The output of a run of the binary.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moe-data"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, Some(0), "{args:?}\n{}{}", said.out, said.err);
        said
    }

    /// Runs a command that must end with an exit code.
    pub fn fail(&self, args: &[&str], code: i32) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, Some(code), "{args:?}\n{}{}", said.out, said.err);
        assert!(said.err.starts_with("error: ") || said.err.contains("\nerror: "), "{}", said.err);
        said
    }

    pub fn ledger(&self, out: &str) -> Ledger {
        let ledger = Ledger::read(&self.path(out)).unwrap();
        ledger.check().unwrap();
        ledger
    }

    /// Every file that must not depend on the course of a build, by name.
    pub fn results(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let out = self.path(out);
        let mut files = BTreeMap::new();
        for name in ["MANIFEST.json", "ledger.json", "tokenizer.json", "token_bytes.u16"] {
            files.insert(name.to_owned(), fs::read(out.join(name)).unwrap());
        }
        for entry in fs::read_dir(out.join("shards")).unwrap() {
            let path = entry.unwrap().path();
            files.insert(
                format!("shards/{}", path.file_name().unwrap().to_string_lossy()),
                fs::read(path).unwrap(),
            );
        }
        assert!(files.len() > 4, "there are no shards");
        files
    }
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked"), "{}", said.err);
        said
    }
}

/// Panics with the names of the files that differ, not with their bytes.
pub fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let differ: Vec<&String> =
        found.iter().filter(|(name, bytes)| expected[*name] != **bytes).map(|(n, _)| n).collect();
    assert!(differ.is_empty(), "these differ: {differ:?}");
}

/// A file of the repository's text.
pub fn dataset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets").join(name)
}

/// The lines of a gzipped file of the repository's text.
pub fn dataset_lines(name: &str) -> Vec<String> {
    let mut text = String::new();
    let file = fs::File::open(dataset(name)).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The recipe of the quickstart over other files.
pub fn recipe_over(bible: &str, django: &str) -> String {
    let recipe =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/build.toml")).unwrap();
    let recipe = recipe.replace("\"../datasets/bible_kjv_web.jsonl.gz\"", bible);
    recipe.replace("\"../datasets/django_docs_two_versions.jsonl.gz\"", django)
}

/// The recipe of the quickstart over the repository's own files.
pub fn quickstart_recipe() -> String {
    let path = |name| format!("{:?}", dataset(name));
    recipe_over(&path("bible_kjv_web.jsonl.gz"), &path("django_docs_two_versions.jsonl.gz"))
}

/// A text of at least 50 characters that differs for every number.
pub fn text(n: usize) -> String {
    format!("This is the text of document number {n}, and it is long enough to be kept by the filters.")
}

/// A line of JSONL.
pub fn line(n: usize) -> String {
    format!("{}\n", json!({ "id": format!("doc-{n}"), "text": text(n) }))
}

/// Lines `numbers` of JSONL.
pub fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

/// A recipe over one source with a length filter and a small tokenizer.
pub fn small_recipe(paths: &str, more: &str) -> String {
    format!(
        "[[source]]\nname = \"a\"\npaths = [{paths}]\nid = \"id\"\n[[filter]]\nname = \"length\"\n\
         [tokenizer]\ntrain = {{ vocab_size = 300 }}\n{more}"
    )
}

/// Lines of a quarantine file.
pub fn quarantine(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A seeded generator: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
