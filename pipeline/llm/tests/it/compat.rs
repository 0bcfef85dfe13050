//! `tests/compat/cache-v1` was written by the first version; this test keeps it readable.

use std::path::{Path, PathBuf};

use moe_llm::{Cache, CacheOptions, Completion, Poisoned, Usage};

use crate::support::request;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/cache-v1")
}

fn completion(i: u64) -> Completion {
    Completion {
        text: format!("Answer {i}: \"größer\",\nsecond line {}", "and so on ".repeat(i as usize)),
        finish_reason: if i == 2 { "length" } else { "stop" }.into(),
        usage: Usage { prompt_tokens: 10 + i, completion_tokens: 7 * i },
        model: "SmolLM2-135M-Instruct".into(),
        time: 1_763_800_000 + i,
    }
}

fn poisoned() -> Poisoned {
    let reason = "status 400: the context is too long".into();
    Poisoned { key: request("question 9").key(), reason, tries: 1, time: 1_763_800_009 }
}

/// Writes what the committed folder holds; with `MOE_TEST_WRITE_COMPAT` into it.
fn write(dir: &Path) {
    let mut cache = Cache::open_with(dir, CacheOptions::default()).unwrap();
    for i in 0..6 {
        cache.append(&request(&format!("question {i}")).key(), &completion(i)).unwrap();
        if i == 3 {
            cache.seal().unwrap();
        }
    }
    cache.poison(poisoned()).unwrap();
}

#[test]
fn a_cache_of_version_1_opens_forever() {
    if std::env::var("MOE_TEST_WRITE_COMPAT").is_ok() && !committed().exists() {
        write(&committed());
    }
    let cache = Cache::open_read_only(&committed()).unwrap();
    assert_eq!((cache.len(), cache.opened().sealed_segments, cache.opened().torn_bytes), (6, 1, 0));
    for i in 0..6 {
        let found = cache.get(&request(&format!("question {i}")).key()).unwrap();
        assert_eq!(found, Some(completion(i)));
    }
    assert_eq!(cache.all_poisoned().cloned().collect::<Vec<_>>(), [poisoned()]);
    let digest = "af23b8275df27047f2cdd3640ece2c29c3f751831f5f475a4a20a140c4f01e5f";
    assert_eq!(cache.digest().unwrap().to_string(), digest);
    assert_eq!(Cache::verify(&committed()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn this_version_still_writes_version_1() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    for name in ["completions-00001.jsonl", "poisoned.jsonl"] {
        let written = std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(written, std::fs::read(committed().join(name)).unwrap(), "{name}");
    }
    let lines = |dir: &Path| {
        let file = std::fs::File::open(dir.join("completions-00000.jsonl.zst")).unwrap();
        zstd::decode_all(file).unwrap()
    };
    assert_eq!(lines(dir.path()), lines(&committed()));
}
