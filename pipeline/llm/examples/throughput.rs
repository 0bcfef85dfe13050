//! Requests a second and memory of the client.
//!
//! ```text
//! scripted_server --no-bodies &
//! throughput URL REQUESTS CONCURRENCY [PROMPT_BYTES] [CACHE_FOLDER]
//! ```
//!
//! Prints one line of JSON. Without a folder the cache goes to a temporary one.

use std::sync::atomic::AtomicBool;

use moe_llm::{Cache, Client, ClientConfig, Completion, Conversation, Message, Request, Step};

/// One question.
struct Ask(Option<Request>);

impl Conversation for Ask {
    fn next(&mut self, _: Option<&Completion>) -> Step {
        self.0.take().map_or(Step::Done, Step::Ask)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, n, concurrency, rest @ ..] = args.as_slice() else {
        return Err("usage: throughput URL REQUESTS CONCURRENCY [PROMPT_BYTES] [CACHE_FOLDER]".into());
    };
    let (n, concurrency): (u64, u32) = (n.parse()?, concurrency.parse()?);
    let prompt_bytes: usize = rest.first().map_or(Ok(2000), |bytes| bytes.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = rest.get(1).map_or(temporary.path(), |dir| dir.as_ref());

    let mut cache = Cache::open(dir)?;
    let config = ClientConfig { concurrency, max_concurrency: concurrency, ..ClientConfig::new(url) };
    let client = Client::new(config)?;
    let filler = "some words of a page ".repeat(prompt_bytes / 21);
    let asks = (0..n).map(|i| {
        let message = Message::user(format!("page {i}: {filler}"));
        Ask(Some(Request::new("scripted", vec![message])))
    });
    let summary = client.run(asks, &mut cache, &mut |_| (), &AtomicBool::new(false))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    println!(
        "{{\"answered\":{},\"cached\":{},\"seconds\":{:.2},\"requests_per_second\":{:.0},\"peak_memory\":\"{peak}\"}}",
        summary.answered,
        summary.cached,
        summary.seconds,
        (summary.answered + summary.cached) as f64 / summary.seconds
    );
    Ok(())
}
