use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use moe_llm::{Cache, Client, ClientConfig, Error, Progress};

use crate::server::Options;
use crate::support::{Chain, answer, ask, config, request, server, server_with};

#[test]
fn conversations_continue_with_what_was_answered() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let client = Client::new(config(&server.url)).unwrap();
    let chains = || {
        let chains: Vec<Chain> = (0..20)
            .map(|i| {
                let texts = [format!("a{i} b"), format!("c{i} d"), format!("e{i} f")];
                Chain::new(&texts.each_ref().map(String::as_str))
            })
            .collect();
        let ended: Vec<_> = chains.iter().map(|chain| chain.ended.clone()).collect();
        (chains, ended)
    };
    let (first, ended) = chains();
    let summary = client.run(first, &mut cache, &mut |_| (), &AtomicBool::new(false)).unwrap();
    assert_eq!((summary.conversations_done, summary.answered, summary.cached), (20, 60, 0));
    for (i, ended) in ended.iter().enumerate() {
        assert_eq!(*ended.borrow(), [Ok(format!("f e{i}"))]);
    }
    // The second request contains the answer to the first, so its key could not be known before.
    let mut second = request("c7 d");
    second.messages.insert(1, moe_llm::Message::assistant("b a7"));
    assert!(cache.contains(&second.key()));

    let (again, ended) = chains();
    let summary = client.run(again, &mut cache, &mut |_| (), &AtomicBool::new(false)).unwrap();
    assert_eq!((summary.conversations_done, summary.answered, summary.cached), (20, 0, 60));
    assert!(ended.iter().all(|ended| ended.borrow().len() == 1));
    assert_eq!(server.counts.requests.load(Relaxed), 60);
}

#[test]
fn equal_requests_are_asked_once() {
    let options = Options { delay: Duration::from_millis(20), ..Options::default() };
    let (server, dir) = (server_with(options), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let prompts = ["one", "two", "one", "one", "two", "three"];
    let summary = ask(config(&server.url), &mut cache, &prompts).unwrap();
    assert_eq!((summary.answered, summary.shared + summary.cached), (3, 3));
    assert_eq!(summary.conversations_done, 6);
    assert_eq!(server.counts.requests.load(Relaxed), 3);
}

#[test]
fn the_set_does_not_depend_on_order_or_concurrency() {
    let server = server();
    let prompts: Vec<String> = (0..200)
        .map(|i| match i % 10 {
            3 => format!("@@status 500 1@@ number {i}"),
            7 => format!("@@malformed 1@@ number {i}"),
            _ => format!("number {i} of many"),
        })
        .collect();
    let mut prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let mut digests = Vec::new();
    for concurrency in [1, 7, 64] {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        let config = ClientConfig { concurrency, max_concurrency: concurrency, ..config(&server.url) };
        assert_eq!(ask(config, &mut cache, &prompts).unwrap().answered, 200);
        digests.push(cache.digest().unwrap());
        prompts.reverse();
        prompts.rotate_left(31);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

#[test]
fn stopping_keeps_what_is_on_its_way() {
    let options = Options { delay: Duration::from_millis(50), ..Options::default() };
    let (server, dir) = (server_with(options), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, counts) = (stop.clone(), server.counts.clone());
    let user = std::thread::spawn(move || {
        while counts.answered.load(Relaxed) < 10 {
            std::thread::sleep(Duration::from_millis(2));
        }
        flag.store(true, Relaxed);
    });
    let client = Client::new(config(&server.url)).unwrap();
    let prompts: Vec<String> = (0..5000).map(|i| format!("number {i}")).collect();
    let chains = prompts.iter().map(|prompt| Chain::new(&[prompt]));
    let error = client.run(chains, &mut cache, &mut |_| (), &stop).unwrap_err();
    user.join().unwrap();
    assert!(matches!(error, Error::Interrupted));
    assert!(cache.len() >= 10 && cache.len() < 5000);
    assert_eq!(cache.len(), server.counts.answered.load(Relaxed));
}

#[test]
fn progress_counts_everything_once() {
    let options = Options { delay: Duration::from_millis(30), ..Options::default() };
    let (server, dir) = (server_with(options), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let client = Client::new(ClientConfig { max_concurrency: 8, ..config(&server.url) }).unwrap();
    let prompts: Vec<String> = (0..100).map(|i| format!("number {i}")).collect();
    let mut seen: Vec<Progress> = Vec::new();
    let chains = prompts.iter().map(|prompt| Chain::new(&[prompt]));
    let summary = client
        .run(chains, &mut cache, &mut |progress| seen.push(*progress), &AtomicBool::new(false))
        .unwrap();
    assert!(seen.len() >= 2 && seen.last() == Some(&summary));
    assert!(seen.windows(2).all(|pair| pair[0].answered <= pair[1].answered));
    assert!(seen.iter().all(|progress| progress.in_flight <= 8));
    assert!(seen.iter().any(|progress| progress.in_flight > 0));
    assert_eq!((summary.in_flight, summary.completion_tokens), (0, 200));
    assert!(summary.tokens_per_second() > 0.0);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |change: fn(&mut ClientConfig), part: &str| {
        let mut config = config("http://127.0.0.1:1/v1");
        change(&mut config);
        let error = Client::new(config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(|config| config.concurrency = 0, "`concurrency` is 0");
    refused(|config| config.max_tries = 0, "`max_tries` is 0");
    refused(|config| config.concurrency = 1000, "more than `max_concurrency`");
    refused(|config| config.base_url = "localhost".into(), "base URL `localhost`");
    refused(|config| config.api_key_env = Some("MOE_LLM_NOT_SET".into()), "`MOE_LLM_NOT_SET` is not set");
}

#[test]
fn requests_may_not_change_what_the_client_decides() {
    struct Streaming;
    impl moe_llm::Conversation for Streaming {
        fn next(&mut self, _: Option<&moe_llm::Completion>) -> moe_llm::Step {
            let mut request = request("a");
            request.extra.insert("stream".into(), true.into());
            moe_llm::Step::Ask(request)
        }
    }
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let mut cache = Cache::open(dir.path()).unwrap();
    let client = Client::new(config(&server.url)).unwrap();
    let error = client.run([Streaming], &mut cache, &mut |_| (), &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("`stream`"), "{error}");
    assert_eq!(server.counts.requests.load(Relaxed), 0);
    ask(config(&server.url), &mut cache, &["still usable"]).unwrap();
    assert_eq!(answer(&cache, "still usable").0, "usable still");
}
