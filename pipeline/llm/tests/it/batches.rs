use std::collections::HashSet;
use std::fs;
use std::path::Path;

use moe_llm::batch::{self, ExportLimits};
use moe_llm::{Cache, Key};
use serde_json::{Value, json};

use crate::support::{Chain, ask, config, request, server};

/// Stands in for the host: answers every request of a file, in the opposite order.
fn host(requests: &Path, answers: &Path, mut change: impl FnMut(usize, Value) -> Option<Value>) {
    let requests = fs::read_to_string(requests).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for (i, line) in requests.lines().enumerate() {
        let request: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (request["method"].as_str(), request["url"].as_str()),
            (Some("POST"), Some("/v1/chat/completions"))
        );
        let messages = request["body"]["messages"].as_array().unwrap();
        let contents: Vec<&str> =
            messages.iter().map(|message| message["content"].as_str().unwrap()).collect();
        let words: Vec<&str> = contents.last().unwrap().split(' ').rev().collect();
        let prompt_tokens: usize = contents.iter().map(|content| content.split(' ').count()).sum();
        let body = json!({
            "model": "scripted",
            "choices": [{ "message": { "content": words.join(" ") }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": words.len() },
        });
        let response = json!({ "status_code": 200, "request_id": "r", "body": body });
        let line =
            json!({ "id": "b", "custom_id": request["custom_id"], "response": response, "error": null });
        lines.extend(change(i, line).map(|line| line.to_string()));
    }
    lines.reverse();
    fs::write(answers, lines.join("\n")).unwrap();
}

fn chains() -> Vec<Chain> {
    (0..10).map(|i| Chain::new(&[&format!("a{i} b"), &format!("c{i} d")])).collect()
}

#[test]
fn two_rounds_of_files_give_what_a_server_gives() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let (requests, answers) = (dir.path().join("requests.jsonl"), dir.path().join("answers.jsonl"));
    let mut cache = Cache::open(&dir.path().join("cache")).unwrap();
    for round in 0..3 {
        let exported = batch::export(chains(), &cache, &requests, ExportLimits::default(), false).unwrap();
        let expected = [(10, 0, 0), (10, 10, 0), (0, 20, 10)][round];
        assert_eq!((exported.requests, exported.cached, exported.done), expected);
        if exported.requests == 0 {
            assert!(exported.files.is_empty());
            break;
        }
        assert_eq!(exported.files, std::slice::from_ref(&requests));
        host(&requests, &answers, |_, line| Some(line));
        let keys = batch::exported_keys(&requests).unwrap();
        let imported = batch::import(&answers, &keys, &mut cache).unwrap();
        assert_eq!((imported.matched, imported.lines, imported.unmatched), (10, 10, 0));
        let again = batch::import(&answers, &keys, &mut cache).unwrap();
        assert_eq!((again.matched, again.already_cached), (0, 10));
    }
    let asked = tempfile::tempdir().unwrap();
    let mut other = Cache::open(asked.path()).unwrap();
    let client = moe_llm::Client::new(config(&server.url)).unwrap();
    client.run(chains(), &mut other, &mut |_| (), &Default::default()).unwrap();
    assert_eq!(cache.digest().unwrap(), other.digest().unwrap());
}

#[test]
fn every_line_of_an_import_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (requests, answers) = (dir.path().join("requests.jsonl"), dir.path().join("answers.jsonl"));
    let mut cache = Cache::open(&dir.path().join("cache")).unwrap();
    let prompts: Vec<Chain> = (0..10).map(|i| Chain::new(&[&format!("a{i} b")])).collect();
    batch::export(prompts, &cache, &requests, ExportLimits::default(), false).unwrap();
    let failed = |line: &Value, status: u16, message: &str| {
        let body = json!({ "error": { "message": message } });
        let response = json!({ "status_code": status, "body": body });
        json!({ "custom_id": line["custom_id"], "response": response })
    };
    host(&requests, &answers, |i, mut line| match i {
        0 => None,
        1 => Some(failed(&line, 400, "too long")),
        2 => Some(failed(&line, 429, "busy")),
        3 => Some(json!({
            "custom_id": line["custom_id"], "response": null,
            "error": { "code": "batch_expired", "message": "late" },
        })),
        4 => {
            line["custom_id"] = "somebody else's".into();
            Some(line)
        }
        5 => {
            line["response"]["body"] = json!({});
            Some(line)
        }
        _ => Some(line),
    });
    let mut bytes = fs::read(&answers).unwrap();
    bytes.extend(b"\n\n{\"custom_id\":\n\xff\xfe\n{}\n");
    fs::write(&answers, bytes).unwrap();
    let keys = batch::exported_keys(&requests).unwrap();
    let imported = batch::import(&answers, &keys, &mut cache).unwrap();
    let counts = |map: &std::collections::BTreeMap<String, u64>| {
        map.iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>().join("; ")
    };
    assert_eq!((imported.matched, imported.unknown, imported.unmatched), (4, 1, 2));
    assert_eq!(counts(&imported.given_up), "1 status 400: too long");
    assert_eq!(counts(&imported.failed), "1 status 429: busy; 1 the connection broke: batch_expired: late");
    assert_eq!(counts(&imported.malformed), "1 no `choices[0]`; 1 no `custom_id`; 1 not JSON; 1 not UTF-8");
    assert_eq!(imported.lines, 4 + 1 + 1 + 2 + 4);

    // What may be answered another time is exported again; what never will be is not.
    let prompts: Vec<Chain> = (0..10).map(|i| Chain::new(&[&format!("a{i} b")])).collect();
    let exported = batch::export(prompts, &cache, &requests, ExportLimits::default(), false).unwrap();
    assert_eq!((exported.done, exported.requests, exported.poisoned), (4, 5, 1));
}

#[test]
fn large_exports_are_split_and_equal_requests_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests.jsonl");
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let chains = || (0..25).map(|i| Chain::new(&[&format!("number {}", i % 20)]));
    let limits = ExportLimits { requests: 8, bytes: 1 << 20 };
    let exported = batch::export(chains(), &cache, &path, limits, false).unwrap();
    let names = ["requests.jsonl", "requests-00001.jsonl", "requests-00002.jsonl"];
    assert_eq!(exported.files, names.map(|name| dir.path().join(name)));
    assert_eq!((exported.requests, exported.waiting), (20, 25));
    let sizes: Vec<HashSet<Key>> =
        exported.files.iter().map(|file| batch::exported_keys(file).unwrap()).collect();
    assert_eq!(sizes.iter().map(HashSet::len).collect::<Vec<_>>(), [8, 8, 4]);
    let all: HashSet<Key> = sizes.into_iter().flatten().collect();
    assert_eq!(all, (0..20).map(|i| request(&format!("number {i}")).key()).collect());

    let limits = ExportLimits { requests: 100, bytes: 50 };
    let error = batch::export(chains(), &cache, &path, limits, false).unwrap_err().to_string();
    assert!(error.contains("larger than a whole file may be"), "{error}");
}

#[test]
fn a_file_that_was_not_exported_is_refused() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let path = dir.path().join("other.jsonl");
    fs::write(&path, "{\"custom_id\":\"request-1\"}\n").unwrap();
    let error = batch::exported_keys(&path).unwrap_err().to_string();
    assert!(error.contains("other.jsonl: line 1") && error.contains("is this an exported file?"), "{error}");
    let mut cache = Cache::open(&dir.path().join("cache")).unwrap();
    ask(config(&server.url), &mut cache, &["x"]).unwrap();
}
