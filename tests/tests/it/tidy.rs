use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::repo;

use crate::imports::{Crate, Import};

/// Modules from the bottom up: a file imports from its own line and from lines above it. Modules that
/// do not know each other share a line with `|` between them and may not import each other. A file of a module
/// may have a line of its own, such as the stage of a subject: `decontaminate::stage`.
const SHARDS: &[&str] = &[
    "error",
    "hash atomic cache mmap ids permute names terminal file_names memory",
    "format variant",
    "plan_file reader writer",
    "manifest",
    "selection interleave pack",
    "family",
    "concat lock",
    "sample",
    "plan",
];
const PIPELINE: &[&str] = &[
    "error watch numbers json lock printer guard listing intact lookup",
    "strict_toml",
    "document objects",
    "classifier | decontaminate | spacy | chat",
    "normalize | filter | read | tokenizer | dedup::minhash::signature | decontaminate::config | dedup::cuts::config",
    "recipe",
    "tables",
    "rephrase",
    "stage::contract stage::inputs stage::report",
    "rephrase::stage rephrase::orphans",
    "dedup::rows dedup::audit dedup::cuts::cut_rows dedup::cuts::audit dedup::minhash::shingles",
    "dedup::minhash::estimate::figures",
    "dedup::cuts | dedup::exact::keys dedup::minhash::band_keys dedup::minhash::sketch dedup::minhash::candidate_shingles dedup::minhash::verify dedup::minhash::estimate::stage dedup::earlier::stage",
    "decontaminate::audit decontaminate::load",
    "decontaminate::stage decontaminate::report",
    "stage | mix | export | plans | grade",
    "engine ledger cluster",
    "dedup",
    "prepare publish reference provenance import",
    "report",
    "commands",
    "cli",
];
const BALLISTA: &[&str] = &["error", "tasks pairs cores", "driver", "executor"];
const DOMAINS: &[&str] = &[];
const LLM: &[&str] = &["error json", "completion request", "cache", "client", "batch"];
const TRAINER: &[&str] = &[
    "error exact",
    "device",
    "settings",
    "model",
    "data",
    "objective | optim | generate",
    "train | tasks",
    "config",
    "checkpoint | metrics | bench | report",
    "run | export | upcycle",
    "watch",
    "printer cli",
    "commands",
];

const REPORT: &[&str] = &[
    "number scale",
    "figure",
    "lines | heat | bars | histogram | shares | settings",
    "page | tensorboard | progress | words",
];

const CLI: &[&str] = &["lock | nearest | shell | signals | terminal"];

const KERNELS: &[&str] = &[
    "launch reduce",
    "norm | swiglu | rotary | attention | routing | cross_entropy | adamw",
    "grouped | rows | embedding",
];

const OPS: &[&str] = &[
    "random cpu",
    "flex",
    "matmul | swiglu | rotary | rms_norm | row_functions | adamw | global_norm | embedding",
    "linear newton_schulz | routing",
    "cross_entropy | attention | grouped | rows | delta_rule | short_conv",
    "native_sparse",
];

const CUDA: &[&str] = &[
    "float",
    "convert memory",
    "warp",
    "flow statement",
    "arithmetic matrix",
    "decode",
    "program",
    "launch",
    "driver",
];

pub fn rust_files(dir: &Path) -> Vec<PathBuf> {
    files_of(dir, "rs")
}

fn files_of(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == kind) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{} has no .{kind} files", dir.display());
    found
}

fn all_files() -> Vec<PathBuf> {
    ["shards", "report", "cli", "pipeline", "trainer", "tests", "python/src"]
        .iter()
        .flat_map(|dir| rust_files(&repo().join(dir)))
        .collect()
}

/// (layer, group in the layer) of each module.
fn layers(table: &[&'static str]) -> BTreeMap<&'static str, (usize, usize)> {
    let mut layers = BTreeMap::new();
    for (layer, line) in table.iter().enumerate() {
        for (group, modules) in line.split('|').enumerate() {
            layers.extend(modules.split_whitespace().map(|module| (module, (layer, group))));
        }
    }
    layers
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (name, table) in [
        ("shards", SHARDS),
        ("report", REPORT),
        ("cli", CLI),
        ("pipeline/ballista", BALLISTA),
        ("pipeline/domains", DOMAINS),
        ("pipeline/llm", LLM),
        ("pipeline", PIPELINE),
        ("trainer/kernels", KERNELS),
        ("trainer/ops", OPS),
        ("trainer", TRAINER),
        ("tests/cuda", CUDA),
    ] {
        let layers = layers(table);
        let layer_of = |file: &[String]| {
            (1..=file.len()).rev().find_map(|n| layers.get_key_value(file[..n].join("::").as_str()))
        };
        let files = Crate::read(&repo().join(name).join("src"));
        for (file, imports) in files.files().filter(|(file, _)| !file.is_empty()) {
            let place = file.join("::");
            let Some((module, &(layer, group))) = layer_of(file) else {
                wrong.push(format!("{name}: `{place}` is in no layer"));
                continue;
            };
            for Import { line, path } in imports {
                let Some((used, &(used_layer, used_group))) = layer_of(files.file_of(path)) else { continue };
                if used != module && (used_layer > layer || (used_layer == layer && used_group != group)) {
                    wrong.push(format!("{name}: {place}, line {line}: `{module}` may not import `{used}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Nor do files of one layer or of one module import each other.
#[test]
fn files_do_not_import_in_circles() {
    for name in [
        "shards",
        "report",
        "cli",
        "pipeline/ballista",
        "pipeline/domains",
        "pipeline/llm",
        "pipeline",
        "trainer/kernels",
        "trainer/ops",
        "trainer",
        "tests/cuda",
    ] {
        let circles = Crate::read(&repo().join(name).join("src")).circles();
        assert!(circles.is_empty(), "{name}: files import each other in circles:\n{}", circles.join("\n"));
    }
}

#[test]
fn crates_know_only_what_they_may() {
    for (name, forbidden) in [
        ("shards", &["moe-report", "moe-cli", "moe-data", "moe-llm", "moe-train"][..]),
        ("report", &["moe-shards", "moe-cli", "moe-data", "moe-llm", "moe-train"]),
        ("cli", &["moe-data", "moe-llm", "moe-train"]),
        ("pipeline/ballista", &["moe-shards", "moe-report", "moe-cli", "moe-data", "moe-llm", "moe-train"]),
        ("pipeline/domains", &["moe-shards", "moe-report", "moe-cli", "moe-data", "moe-llm", "moe-train"]),
        ("pipeline/llm", &["moe-data", "moe-train"]),
        ("pipeline", &["moe-train"]),
        ("trainer/kernels", &["moe-shards", "moe-data", "moe-llm", "moe-train"]),
        ("trainer/ops", &["moe-data", "moe-llm", "moe-train"]),
        ("trainer", &["moe-data", "moe-llm"]),
        ("python", &["moe-data", "moe-llm", "moe-train"]),
    ] {
        let manifest = fs::read_to_string(repo().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        for other in forbidden {
            assert!(!dependencies.contains(other), "{name} depends on {other}");
        }
    }
}

#[test]
fn files_have_one_subject() {
    for file in all_files() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{}: {lines} lines; 500 are enough for one subject", file.display());
    }
}

#[test]
fn unsafe_stays_where_it_is() {
    for file in all_files() {
        let name = file.strip_prefix(repo()).unwrap().to_string_lossy().into_owned();
        let emulator = ["driver", "memory", "warp"].map(|module| format!("tests/cuda/src/{module}.rs"));
        let allowed = ["shards/src/memory.rs", "shards/src/mmap.rs"].contains(&name.as_str())
            || emulator.contains(&name);
        let text = fs::read_to_string(&file).unwrap();
        // Written in two parts so that this file does not find itself.
        let word = ["unsafe", " {"].concat();
        assert!(allowed || !text.contains(&word), "{name} has an unsafe block");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md"]
            .iter()
            .map(|name| repo().join(name))
            .collect();
    documents.extend(files_of(&repo().join("docs"), "md"));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            assert!(document.parent().unwrap().join(target).exists(), "{}: {link}", document.display());
        }
    }
}

/// A guarantee in a document names the test that checks it; the test must exist.
#[test]
fn promised_tests_exist() {
    let sources: String = all_files().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for name in [
        "docs/determinism.md",
        "docs/shard-format.md",
        "docs/benchmarks/faults.md",
        "ARCHITECTURE.md",
        "README.md",
    ] {
        let text = fs::read_to_string(repo().join(name)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let is_test_name = word.len() > 20
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let present = sources.contains(&format!("fn {word}("));
            assert!(!is_test_name || present, "{name} promises the test `{word}`, which is not there");
        }
    }
}

/// The commands that the README shows are those that the quickstart runs.
#[test]
fn the_readme_shows_what_the_quickstart_runs() {
    let readme = fs::read_to_string(repo().join("README.md")).unwrap();
    let script = fs::read_to_string(repo().join("scripts/quickstart.sh")).unwrap();
    let block = readme.split("```\n").find(|block| block.starts_with("moe-data build\n")).unwrap();
    let commands: Vec<&str> = block.lines().collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        assert!(script.contains(&format!("step {command}")), "the quickstart does not run `{command}`");
    }
}
