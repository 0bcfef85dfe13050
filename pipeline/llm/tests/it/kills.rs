//! `MOE_TEST_KILLS=50` makes it fifty kills (scripts/kills.sh client).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use moe_llm::{Cache, CacheOptions, Client, ClientConfig};

use crate::server::Options;
use crate::support::{Chain, child, config, server_with};

/// Requests in flight at most, and completions between two flushes.
const WINDOW: u32 = 32;

fn chains(n: u32) -> impl Iterator<Item = Chain> {
    (0..n).map(|i| {
        let words = "and some more words ".repeat(i as usize % 40);
        Chain::new(&[&format!("question {i} {words}"), &format!("go on {i}")])
    })
}

fn run(url: &str, dir: &std::path::Path, n: u32) -> moe_llm::Result<Cache> {
    // Segments of a few dozen completions, so that kills also hit sealing.
    let options = CacheOptions { fsync_every: WINDOW, segment_bytes: 40_000, ..CacheOptions::default() };
    let mut cache = Cache::open_with(dir, options)?;
    let config = ClientConfig { concurrency: WINDOW, max_concurrency: WINDOW, ..config(url) };
    Client::new(config)?.run(chains(n), &mut cache, &mut |_| (), &AtomicBool::new(false))?;
    Ok(cache)
}

#[test]
fn killed_runs_end_with_the_same_set_and_ask_little_twice() {
    let kills: u32 = std::env::var("MOE_TEST_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let n = 700 * kills;
    let options = Options { delay: Duration::from_millis(8), ..Options::default() };
    let server = server_with(options);
    let dir = tempfile::tempdir().unwrap();
    let variables = [
        ("MOE_TEST_RUN_URL", server.url.as_str()),
        ("MOE_TEST_RUN_DIR", dir.path().to_str().unwrap()),
        ("MOE_TEST_RUN_N", &n.to_string()),
    ];
    let mut torn = 0;
    for kill in 0..kills {
        let before = server.counts.answered.load(Relaxed);
        let mut process = child("kills::child_that_runs", &variables);
        let process = process.stdout(std::process::Stdio::null()).spawn();
        let mut process = process.unwrap();
        // Not before it has begun; then after a time that differs from kill to kill.
        while server.counts.answered.load(Relaxed) < before + 5 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(u64::from(kill * 37 % 90)));
        assert!(process.try_wait().unwrap().is_none(), "the run ended before kill {kill}");
        process.kill().unwrap();
        process.wait().unwrap();
        torn += Cache::open_read_only(dir.path()).unwrap().opened().torn_bytes;
        // What the killed process had asked is answered, or forgotten, by now.
        std::thread::sleep(Duration::from_millis(15));
    }
    let killed = run(&server.url, dir.path(), n).unwrap();
    let (asked, distinct) = (server.counts.requests.load(Relaxed), server.counts.distinct());
    assert_eq!((killed.len(), distinct), (u64::from(2 * n), u64::from(2 * n)));
    let twice = server.counts.repeated();
    println!(
        "{kills} kills: {asked} requests for {distinct} answers, {twice} asked twice, {torn} torn bytes"
    );
    assert!(twice <= u64::from(kills * WINDOW), "{twice} asked twice in {kills} kills");

    let straight = tempfile::tempdir().unwrap();
    let straight = run(&server.url, straight.path(), n).unwrap();
    assert_eq!(killed.digest().unwrap(), straight.digest().unwrap());
    drop(killed);
    assert_eq!(Cache::verify(dir.path()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn child_that_runs() {
    let variable = |name: &str| std::env::var(format!("MOE_TEST_RUN_{name}"));
    let (Ok(url), Ok(dir), Ok(n)) = (variable("URL"), variable("DIR"), variable("N")) else { return };
    run(&url, dir.as_ref(), n.parse().unwrap()).unwrap();
}
