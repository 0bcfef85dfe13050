//! What a server may do, and how the client reacts (docs/llm-client.md).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use moe_llm::{Cache, ClientConfig, Error};

use crate::server::Options;
use crate::support::{answer, ask, config, request, server, server_with};

/// Sends a prompt that fails and some that do not.
fn with_others(prompt: &str) -> Vec<&str> {
    vec!["first", prompt, "second", "third"]
}

/// The prompt is answered after some tries.
fn recovers(prompt: &str, requests: u64, change: impl FnOnce(&mut ClientConfig)) {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let mut config = config(&server.url);
    change(&mut config);
    let summary = ask(config, &mut cache, &[prompt]).unwrap();
    assert_eq!((summary.answered, summary.resent), (1, requests - 1), "{prompt}");
    assert_eq!(server.counts.requests.load(Relaxed), requests, "{prompt}");
    assert_eq!(answer(&cache, prompt), ("there hello".into(), "stop".into()));
}

/// The prompt is given up after some tries, is on the poison list, and the others are answered.
fn given_up(prompt: &str, tries: u32, reason: &str, change: impl Fn(&mut ClientConfig)) {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let mut config = config(&server.url);
    change(&mut config);
    let summary = ask(config.clone(), &mut cache, &with_others(prompt)).unwrap();
    assert_eq!((summary.answered, summary.given_up), (3, 1), "{prompt}");
    assert_eq!((summary.conversations_done, summary.conversations_failed), (3, 1));
    let poisoned = cache.poisoned(&request(prompt).key()).unwrap();
    assert_eq!(poisoned.tries, tries, "{prompt}");
    assert!(poisoned.reason.contains(reason), "{}", poisoned.reason);

    // The next run does not ask again, not even after the cache was opened again.
    drop(cache);
    let mut cache = Cache::open(dir.path()).unwrap();
    let before = server.counts.requests.load(Relaxed);
    let summary = ask(config.clone(), &mut cache, &with_others(prompt)).unwrap();
    assert_eq!((summary.cached, summary.poisoned, summary.answered), (3, 1, 0));
    assert_eq!(server.counts.requests.load(Relaxed), before);
}

#[test]
fn answers_of_a_model_are_stored_unchanged() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let cases = [
        ("the year 1984 was hot", "year the was 1984 hot", "stop"),
        ("@@refuse@@ a", "I'm sorry, but I cannot help with that.", "stop"),
        ("@@copy@@the year 1984", "the year 1984", "stop"),
        ("@@numbers@@the year 1984", "the year 4217", "stop"),
        ("@@truncate@@ one two", "two", "length"),
        ("@@language@@", "Das ist eine Antwort in einer anderen Sprache, als verlangt war.", "stop"),
    ];
    let prompts: Vec<&str> = cases.iter().map(|case| case.0).collect();
    let summary = ask(config(&server.url), &mut cache, &prompts).unwrap();
    assert_eq!((summary.answered, summary.conversations_done), (6, 6));
    for (prompt, text, finish_reason) in cases {
        let (found, reason) = answer(&cache, prompt);
        assert_eq!((found.trim(), reason.as_str()), (text, finish_reason));
    }
    let completion = cache.get(&request("the year 1984 was hot").key()).unwrap().unwrap();
    assert_eq!((completion.usage.prompt_tokens, completion.usage.completion_tokens), (9, 5));
    assert_eq!(completion.model, "scripted");
    assert_eq!(summary.completion_tokens, 5 + 8 + 3 + 3 + 1 + 11);
}

#[test]
fn too_many_requests_are_sent_again() {
    recovers("@@status 429 3@@hello there", 4, |_| ());
}

#[test]
fn retry_after_in_seconds_is_waited_for() {
    let start = Instant::now();
    recovers("@@status 429 1 1@@hello there", 2, |_| ());
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn retry_after_as_a_date_is_waited_for() {
    let start = Instant::now();
    recovers("@@status 503 1 date@@hello there", 2, |_| ());
    // The date has whole seconds, so it is one to two seconds ahead.
    assert!(start.elapsed() >= Duration::from_millis(950));
}

#[test]
fn errors_of_the_server_are_tried_again() {
    for status in [408, 409, 500, 502, 503] {
        recovers(&format!("@@status {status} 2@@hello there"), 3, |_| ());
    }
    recovers("@@error200 503 2@@hello there", 3, |_| ());
}

#[test]
fn errors_of_the_server_that_do_not_pass_are_given_up() {
    given_up("@@status 500 0@@x", 5, "status 500: as the script says", |_| ());
    given_up("@@status 503 0@@x", 2, "status 503", |config| config.max_tries = 2);
    // A server that says that it is busy is asked more often.
    given_up("@@status 429 0@@x", 8, "status 429", |config| config.max_postponed = 7);
}

#[test]
fn errors_of_the_request_are_given_up_at_once() {
    for status in [400, 404, 413, 422] {
        given_up(&format!("@@status {status} 0@@x"), 1, &format!("status {status}"), |_| ());
    }
    // A redirection would carry the API key elsewhere.
    given_up("@@status 307 0@@x", 1, "status 307", |_| ());
}

#[test]
fn an_answer_that_does_not_come_is_given_up_at_the_deadline() {
    let soon = |config: &mut ClientConfig| config.deadline = Duration::from_millis(300);
    recovers("@@hang 2@@hello there", 3, soon);
    let few = |config: &mut ClientConfig| {
        soon(config);
        config.max_tries = 2;
    };
    given_up("@@hang 0@@x", 2, "no complete answer within 0.3 s", few);
    // Bytes that arrive too slowly are not an answer either: about a second for the first hundred. They would
    // be just as slow the next time.
    given_up("@@slow 10@@x", 1, "no end within 0.3 s", few);
}

#[test]
fn an_answer_without_text_in_parts_or_too_long_is_asked_for_once_and_kept() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let prompts = ["@@odd null@@a", "@@odd parts@@b", "@@odd model@@c d", "@@odd long@@e", "f"];
    let summary = ask(config(&server.url), &mut cache, &prompts).unwrap();
    assert_eq!((summary.answered, summary.resent, summary.given_up), (5, 0, 0));
    assert_eq!((summary.unfinished, summary.other_model), (2, 1));
    assert_eq!(server.counts.requests.load(Relaxed), 5);
    assert_eq!(answer(&cache, prompts[0]), (String::new(), "length".into()));
    assert_eq!(answer(&cache, prompts[1]), ("in parts".into(), "stop".into()));
    assert_eq!(answer(&cache, prompts[2]), ("d c".into(), "stop".into()));
    let (text, reason) = answer(&cache, prompts[3]);
    assert_eq!((text.len(), reason.as_str()), (moe_llm::MAX_TEXT_BYTES, moe_llm::TOO_LONG));
    // The next run asks nothing.
    assert_eq!(ask(config(&server.url), &mut cache, &prompts).unwrap().cached, 5);
}

#[test]
fn a_page_no_choice_and_a_body_without_end_are_asked_for_once() {
    let soon = |config: &mut ClientConfig| config.deadline = Duration::from_millis(500);
    given_up("@@odd page@@x", 1, "not a completion: a web page", |_| ());
    given_up("@@odd choices@@x", 1, "not a completion: no `choices[0]`", |_| ());
    given_up("@@odd endless@@x", 1, "not a completion: no end within 0.5 s", soon);
    given_up("@@odd flood@@x", 1, "not a completion: longer than 16777216 bytes", |_| ());
}

#[test]
fn stopping_does_not_wait_for_a_server_that_does_not_answer() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let client = moe_llm::Client::new(config(&server.url)).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while server.counts.requests.load(Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Relaxed);
        });
        let chain = crate::support::Chain::new(&["@@hang 0@@x"]);
        let error = client.run([chain], &mut cache, &mut |_| (), &stop).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
    });
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn slow_bytes_within_the_deadline_are_an_answer() {
    recovers("@@slow 3@@hello there", 1, |_| ());
}

#[test]
fn a_broken_connection_and_half_an_answer_are_tried_again() {
    recovers("@@close 2@@hello there", 3, |_| ());
    recovers("@@malformed 2@@hello there", 3, |_| ());
    given_up("@@close 0@@x", 5, "the connection broke", |_| ());
    given_up("@@malformed 0@@x", 5, "the answer is not a completion: not JSON", |_| ());
}

#[test]
fn poisoned_requests_are_sent_again_on_request() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let few = ClientConfig { max_tries: 2, ..config(&server.url) };
    let prompts = with_others("@@status 500 3@@hello there");
    assert_eq!(ask(few.clone(), &mut cache, &prompts).unwrap().given_up, 1);
    let again = ClientConfig { retry_poisoned: true, ..few };
    let summary = ask(again, &mut cache, &prompts).unwrap();
    assert_eq!((summary.cached, summary.answered, summary.resent), (3, 1, 1));
    assert_eq!(cache.all_poisoned().count(), 0);
}

#[test]
fn a_server_that_refuses_access_stops_the_run() {
    for status in [401, 403] {
        let (server, dir) = (server(), tempfile::tempdir().unwrap());
        let mut cache = Cache::open(dir.path()).unwrap();
        let prompt = format!("@@status {status} 0@@x");
        let error = ask(config(&server.url), &mut cache, &[&prompt]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Unauthorized { .. }), "{text}");
        assert!(text.contains(&format!("status {status}")) && text.contains("--api-key-env"), "{text}");
        assert_eq!(cache.all_poisoned().count(), 0);
    }
}

#[test]
fn an_unreachable_address_is_one_clear_error() {
    // A port that was free a moment ago.
    let url = server().url.clone();
    let dir = tempfile::tempdir().unwrap();
    let error = ask(config(&url), &mut Cache::open(dir.path()).unwrap(), &["a", "b"]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Connect { .. }), "{text}");
    assert!(text.contains(&url) && text.contains("refused") && text.contains("--base-url"), "{text}");
    assert_eq!(text.lines().count(), 2);
}

/// All requests fail: the server is at fault, not a document.
#[test]
fn a_server_that_answers_nothing_stops_the_run_and_poisons_nothing() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    for n in [3, 200] {
        let prompts: Vec<String> = (0..n).map(|i| format!("@@status 404 0@@ {i}")).collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let error = ask(config(&server.url), &mut cache, &prompts).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Server { .. }) && text.contains("status 404"), "{text}");
        assert_eq!(cache.all_poisoned().count(), 0);
    }
    assert!(server.counts.requests.load(Relaxed) < 100);
}

#[test]
fn a_server_that_asks_for_too_long_a_wait_stops_the_run() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let error = ask(config(&server.url), &mut cache, &["a", "@@status 429 0 86400@@x"]).unwrap_err();
    assert!(error.to_string().contains("asks for a wait of 86400 s"), "{error}");
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(dir.path()).unwrap();
    let first = server_with(Options { delay: Duration::from_millis(20), ..Options::default() });
    let (url, port) = (first.url.clone(), first.url.split([':', '/']).nth(4).unwrap().parse().unwrap());
    let prompts: Vec<String> = (0..300).map(|i| format!("number {i}")).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let restart = std::thread::spawn(move || {
        while first.counts.answered.load(Relaxed) < 40 {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(first);
        std::thread::sleep(Duration::from_millis(300));
        crate::server::Server::start(port, Options { count_bodies: true, ..Options::default() }).unwrap()
    });
    let summary = ask(config(&url), &mut cache, &prompts).unwrap();
    assert_eq!((summary.answered, summary.given_up), (300, 0));
    drop(restart.join().unwrap());

    let impatient = ClientConfig { patience: Duration::from_millis(200), ..config(&url) };
    let first = crate::server::Server::start(port, Options::default()).unwrap();
    let more: Vec<String> = (300..3000).map(|i| format!("number {i}")).collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let gone = std::thread::spawn(move || {
        while first.counts.answered.load(Relaxed) < 40 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(first);
    });
    let error = ask(impatient, &mut cache, &more).unwrap_err();
    gone.join().unwrap();
    assert!(
        error.to_string().contains("unreachable for") && error.to_string().contains("continues from here"),
        "{error}"
    );
    assert_eq!(cache.all_poisoned().count(), 0);
    assert!(cache.len() >= 340);
}

/// A server with room for eight: the window finds that out, and all requests are answered.
#[test]
fn the_window_adapts_to_the_room_that_the_server_has() {
    let options = Options { delay: Duration::from_millis(5), capacity: 8, ..Options::default() };
    let (server, dir) = (server_with(options), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let prompts: Vec<String> = (0..600).map(|i| format!("number {i}")).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let start = ClientConfig { concurrency: 4, max_concurrency: 512, ..config(&server.url) };
    let summary = ask(start, &mut cache, &prompts).unwrap();
    assert_eq!((summary.answered, summary.given_up), (600, 0));
    let turned_away = server.counts.turned_away.load(Relaxed);
    assert!(turned_away > 0 && turned_away < 150, "{turned_away} of 600 turned away");
    assert!(summary.window < 32, "{}", summary.window);
    assert!(server.counts.most_in_flight.load(Relaxed) <= 64);
}
