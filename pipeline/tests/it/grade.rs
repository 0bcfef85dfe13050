use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};

use crate::support::Scratch;

/// A judge that scores by the number of times that a text says "good"; it answers in words first where a text says "mumble", and
/// always where it says "babble".
struct Server {
    url: String,
    asked: Arc<AtomicU64>,
    bodies: Arc<Mutex<Vec<Value>>>,
    _runtime: tokio::runtime::Runtime,
}

type Shared = (Arc<AtomicU64>, Arc<Mutex<Vec<Value>>>);

async fn answer(State((asked, bodies)): State<Shared>, body: Bytes) -> String {
    asked.fetch_add(1, Relaxed);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    let text = messages[1]["content"].as_str().unwrap();
    let said = match messages.len() {
        2 if text.contains("mumble") => "I should say four.".to_owned(),
        _ if text.contains("babble") => "{\"score\": 17}".to_owned(),
        _ => json!({ "reason": "counted", "score": text.matches("good").count() }).to_string(),
    };
    bodies.lock().unwrap().push(body);
    json!({ "choices": [{ "message": { "content": said }, "finish_reason": "stop" }] }).to_string()
}

impl Server {
    fn start() -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (asked, bodies) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<Value>>>::default());
        let app = Router::new().route("/v1/chat/completions", post(answer));
        let app = app.with_state((asked.clone(), bodies.clone()));
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { url, asked, bodies, _runtime: runtime }
    }
}

fn corpus(scratch: &Scratch) {
    let texts =
        ["nothing here", "good", "good good good mumble", "babble", "good good good good good", "good good"];
    let lines =
        texts.iter().enumerate().map(|(i, text)| json!({ "id": format!("d{i}"), "text": text }).to_string());
    scratch.write("corpus.jsonl", lines.collect::<Vec<_>>().join("\n") + "\n{broken\n");
}

fn grades(text: &str) -> Vec<(String, Option<u64>, Option<u64>)> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| {
            (line["id"].as_str().unwrap().to_owned(), line["score"].as_u64(), line["attempts"].as_u64())
        })
        .collect()
}

#[test]
fn documents_are_graded_once_and_compared_with_scores() {
    let (scratch, server) = (Scratch::new(), Server::start());
    corpus(&scratch);
    let base = ["grade", "corpus.jsonl", "--id", "id", "--model", "judge"];
    let url = ["--base-url", server.url.as_str()];
    let said = scratch.ok(&[&base[..], &url].concat());
    let expected = [
        ("d0", Some(0), 1),
        ("d1", Some(1), 1),
        ("d2", Some(3), 2),
        ("d3", None, 3),
        ("d4", Some(5), 1),
        ("d5", Some(2), 1),
    ];
    let expected = expected.map(|(id, score, attempts)| (id.to_owned(), score, Some(attempts)));
    assert_eq!(grades(&said.out), expected);
    assert_eq!(server.asked.load(Relaxed), 9);
    assert!(
        said.err.contains("5 of 6 documents graded; by score 0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 1"),
        "{}",
        said.err
    );
    assert!(said.err.contains("2 were asked again, 1 gave no readable answer"), "{}", said.err);
    assert!(
        said.err.contains("1 records are not documents") && said.err.contains("bad_json"),
        "{}",
        said.err
    );
    let body = server.bodies.lock().unwrap()[0].clone();
    assert_eq!(body["response_format"]["type"], "json_object");

    // Again, without a server: the cache has everything, and the grades are the same.
    let scores = [("d0", 0.1), ("d1", 0.3), ("d2", 0.7), ("d4", 0.9), ("d5", 0.2), ("other", 0.5)];
    let scores = scores.map(|(id, score)| json!({ "id": id, "score": score }).to_string());
    scratch.write("scores.jsonl", scores.join("\n"));
    let more = ["--scores", "scores.jsonl", "--output", "grades.jsonl", "--json", "--with-text"];
    let again = scratch.ok(&[&base[..], &more].concat());
    let written = std::fs::read_to_string(scratch.path("grades.jsonl")).unwrap();
    assert_eq!(grades(&written), expected);
    assert!(written.contains("good good good mumble"));
    assert_eq!(server.asked.load(Relaxed), 9);
    let summary: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(summary["scored"], json!([1, 1, 1, 1, 0, 1]));
    // Ranks of the grades 1 2 4 5 3, of the scores 1 3 4 5 2: 1 - 6 * 2 / (5 * 24).
    assert!((summary["agreement"]["spearman"].as_f64().unwrap() - 0.9).abs() < 1e-12);
    assert_eq!(summary["agreement"]["auc"], 1.0);
}

#[test]
fn a_draw_grows_and_asks_only_for_what_is_new() {
    let (scratch, server) = (Scratch::new(), Server::start());
    let lines: Vec<String> = (0..40)
        .map(|i| json!({ "text": format!("text {i} {}", "good ".repeat(i % 6)) }).to_string())
        .collect();
    scratch.write("corpus.jsonl", lines.join("\n"));
    let run = |n: &str| {
        scratch
            .ok(&["grade", "corpus.jsonl", "--model", "judge", "--base-url", &server.url, "--max-docs", n])
            .out
    };
    let (few, more) = (grades(&run("10")), grades(&run("25")));
    assert_eq!((few.len(), more.len()), (10, 25));
    assert!(few.iter().all(|grade| more.contains(grade)));
    assert_eq!(server.asked.load(Relaxed), 25);
}

#[test]
fn shares_that_are_asked_at_once_give_the_grades_of_one_process() {
    let (scratch, server) = (Scratch::new(), Server::start());
    corpus(&scratch);
    let base = ["grade", "corpus.jsonl", "--id", "id", "--model", "judge"];
    let url = ["--base-url", server.url.as_str()];
    let expected = scratch.ok(&[&base[..], &url, &["--cache", "single"]].concat()).out;
    let n_questions = server.asked.load(Relaxed);
    for share in ["0/2", "1/2", "0/2"] {
        let said = scratch.ok(&[&base[..], &url, &["--array", share]].concat());
        assert_eq!(said.out, "", "a share has no grades to print");
    }
    assert_eq!(server.asked.load(Relaxed), 2 * n_questions);
    let said = scratch.fail(&base, 1);
    assert!(said.err.contains("answers of 2 shares"), "{}", said.err);
    let said = scratch.ok(&[&base[..], &["--collect"]].concat());
    assert_eq!(said.out, expected);
    assert_eq!(scratch.ok(&base).out, expected);
    assert_eq!(server.asked.load(Relaxed), 2 * n_questions);
}

#[test]
fn wrong_usage_is_reported_before_any_request() {
    let (scratch, server) = (Scratch::new(), Server::start());
    corpus(&scratch);
    let url = server.url.as_str();
    let base = ["grade", "corpus.jsonl", "--model", "judge", "--base-url", url];
    scratch.write("rubric.toml", "[rubric]\nname = \"x\"\ninstructions = \"y\"\n");
    let said = scratch.fail(&[&base[..], &["--rubric", "rubric.toml"]].concat(), 2);
    assert!(said.err.contains("unknown key; did you mean `instruction`?"), "{}", said.err);
    scratch.write("scores.jsonl", "{\"id\":\"a\",\"score\":1}\n{\"id\":\"b\"}\n");
    let said = scratch.fail(&[&base[..], &["--scores", "scores.jsonl"]].concat(), 3);
    assert!(said.err.contains("scores.jsonl: line 2"), "{}", said.err);
    let said = scratch.fail(&[&base[..], &["--api-key-env", "NO_SUCH_KEY"]].concat(), 2);
    assert!(said.err.contains("`NO_SUCH_KEY` is not set"), "{}", said.err);
    let said = scratch.fail(&["grade", "nowhere/", "--model", "judge", "--base-url", url], 2);
    assert!(said.err.contains("nowhere"), "{}", said.err);
    let said = scratch.fail(&["grade", "corpus.jsonl", "--model", "judge"], 2);
    assert!(said.err.contains("out/grade/cache"), "{}", said.err);
    assert_eq!(server.asked.load(Relaxed), 0);
}
