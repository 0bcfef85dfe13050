//! A server that answers by script, to test what a real one does rarely and unpredictably.
//!
//! A message may contain directives, `@@NAME ARGUMENTS@@`, that say how to answer; all others are answered by
//! the text of the last message, word pairs swapped, which is the same in every run. Everything that is sent
//! is counted, by body.
//!
//! | directive | answer |
//! | --- | --- |
//! | `refuse` | a refusal in words |
//! | `truncate` | half of the text, `finish_reason` `length` |
//! | `copy` | the text as it is |
//! | `numbers` | the text with other digits |
//! | `language` | in German |
//! | `status CODE N [AFTER]` | the first `N` times that status (0: always), with `Retry-After: AFTER`; `date` for a date two seconds ahead |
//! | `error200 CODE N` | the first `N` times status 200 with an error of that code in the body |
//! | `hang N` | the first `N` times nothing at all |
//! | `close N` | the first `N` times half a body, then the end of the connection |
//! | `malformed N` | the first `N` times half of the JSON as a whole body |
//! | `slow MS` | the whole body, a byte every `MS` milliseconds for the first hundred |
//! | `odd KIND` | what only odd servers send: see [`odd`] |
//! | `repeat-key` | the `Authorization` header as the text; `repeat-key 400`: in an error |

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};

/// How all requests are answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Time before every answer.
    pub delay: Duration,
    /// Requests at a time; more get status 429. 0: any number.
    pub capacity: u64,
    /// Whether bodies are counted one by one, which takes memory.
    pub count_bodies: bool,
}

/// Counts of requests.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests.
    pub requests: AtomicU64,
    /// Requests that were answered with a completion.
    pub answered: AtomicU64,
    /// Requests turned away because there were too many at a time.
    pub turned_away: AtomicU64,
    in_flight: AtomicU64,
    /// Requests at a time, at most.
    pub most_in_flight: AtomicU64,
    /// How often each body came.
    pub bodies: Mutex<HashMap<[u8; 32], u32>>,
}

impl Counts {
    /// Requests that had come before.
    pub fn repeated(&self) -> u64 {
        self.bodies.lock().unwrap().values().map(|&n| u64::from(n) - 1).sum()
    }

    /// Different requests.
    pub fn distinct(&self) -> u64 {
        self.bodies.lock().unwrap().len() as u64
    }
}

/// A running server; it stops when this is dropped.
pub struct Server {
    /// Address up to `/v1`.
    pub url: String,
    /// Counts of requests so far.
    pub counts: Arc<Counts>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server on the loopback; port 0 takes a free one.
    pub fn start(port: u16, options: Options) -> std::io::Result<Server> {
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let counts = Arc::new(Counts::default());
        let app = Router::new()
            .route("/v1/chat/completions", post(answer))
            .route("/stats", get(stats))
            .with_state((options, counts.clone()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = axum::serve(listener, app) => served.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Server { url, counts, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

type Shared = (Options, Arc<Counts>);

async fn stats(State((_, counts)): State<Shared>) -> String {
    let value = json!({
        "requests": counts.requests.load(Relaxed),
        "answered": counts.answered.load(Relaxed),
        "turned_away": counts.turned_away.load(Relaxed),
        "most_in_flight": counts.most_in_flight.load(Relaxed),
        "distinct": counts.distinct(),
        "repeated": counts.repeated(),
    });
    format!("{value}\n")
}

async fn answer(State((options, counts)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    counts.requests.fetch_add(1, Relaxed);
    let in_flight = counts.in_flight.fetch_add(1, Relaxed) + 1;
    let _leaving = Leaving(counts.clone());
    counts.most_in_flight.fetch_max(in_flight, Relaxed);
    let n = match options.count_bodies {
        true => {
            let mut bodies = counts.bodies.lock().unwrap();
            let n = bodies.entry(*blake3::hash(&body).as_bytes()).or_default();
            *n += 1;
            *n
        }
        false => 1,
    };
    if options.capacity > 0 && in_flight > options.capacity {
        counts.turned_away.fetch_add(1, Relaxed);
        return error(429, "too many requests", None);
    }
    if !options.delay.is_zero() {
        tokio::time::sleep(options.delay).await;
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return error(400, "the body is not JSON", None);
    };
    let last = request["messages"].as_array().and_then(|messages| messages.last());
    let Some(text) = last.and_then(|message| message["content"].as_str()) else {
        return error(400, "no message", None);
    };
    let (directives, text) = directives(text);
    let mut reply = (swapped(&text), "stop");
    for directive in &directives {
        let word = |i: usize| directive.get(i).map_or("", String::as_str);
        let number = |i: usize| word(i).parse::<u32>().unwrap_or(0);
        let first = |i: usize| number(i) == 0 || n <= number(i);
        match word(0) {
            "refuse" => reply.0 = "I'm sorry, but I cannot help with that.".into(),
            "truncate" => reply = (reply.0.chars().take(reply.0.chars().count() / 2).collect(), "length"),
            "copy" => reply.0 = text.clone(),
            "numbers" => reply.0 = text.chars().map(other_digit).collect(),
            "language" => reply.0 = "Das ist eine Antwort in einer anderen Sprache, als verlangt war.".into(),
            "status" if first(2) => {
                let after = match word(3) {
                    "" => None,
                    "date" => Some(httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2))),
                    seconds => Some(seconds.to_owned()),
                };
                return error(number(1) as u16, "as the script says", after);
            }
            "error200" if first(2) => {
                let body = json!({ "error": { "code": number(1), "message": "as the script says" } });
                return Response::new(Body::from(body.to_string()));
            }
            "hang" if first(1) => std::future::pending().await,
            "close" if first(1) => {
                let half = whole(&request, &reply);
                let half = Bytes::from(half[..half.len() / 2].to_owned());
                let parts = stream::iter([Ok(half), Err(std::io::Error::other("as the script says"))]);
                // The pause sends the half before the end.
                let parts = parts.then(|part| async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    part
                });
                return Response::new(Body::from_stream(parts));
            }
            "malformed" if first(1) => {
                let half = whole(&request, &reply);
                return Response::new(Body::from(half[..half.len() / 2].to_owned()));
            }
            "slow" => {
                let bytes = whole(&request, &reply).into_bytes();
                let pause = Duration::from_millis(u64::from(number(1)));
                let mut parts: Vec<Bytes> =
                    bytes.iter().take(100).map(|&byte| Bytes::copy_from_slice(&[byte])).collect();
                parts.push(Bytes::copy_from_slice(&bytes[100.min(bytes.len())..]));
                counts.answered.fetch_add(1, Relaxed);
                return Response::new(Body::from_stream(stream::iter(parts).then(move |part| async move {
                    tokio::time::sleep(pause).await;
                    Ok::<_, std::io::Error>(part)
                })));
            }
            "odd" => {
                counts.answered.fetch_add(1, Relaxed);
                return Response::new(odd(word(1), &whole(&request, &reply)));
            }
            "repeat-key" => {
                let key = headers.get("authorization").and_then(|key| key.to_str().ok()).unwrap_or("none");
                match number(1) {
                    0 => reply.0 = format!("you said {key}"),
                    status => return error(status as u16, &format!("wrong key: {key}"), None),
                }
            }
            _ => {}
        }
    }
    counts.answered.fetch_add(1, Relaxed);
    Response::new(Body::from(whole(&request, &reply)))
}

struct Leaving(Arc<Counts>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The directives of a text, each as words, and the text without them.
fn directives(text: &str) -> (Vec<Vec<String>>, String) {
    let parts: Vec<&str> = text.split("@@").collect();
    let odd = parts.iter().skip(1).step_by(2);
    let directives = odd.map(|part| part.split_whitespace().map(str::to_owned).collect()).collect();
    (directives, parts.iter().step_by(2).copied().collect())
}

/// The words of a text, every two of them swapped.
fn swapped(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let swapped = words.chunks(2).flat_map(|pair| pair.iter().rev().copied());
    swapped.collect::<Vec<_>>().join(" ")
}

fn other_digit(c: char) -> char {
    match c.to_digit(10) {
        Some(digit) => char::from(b'0' + ((digit + 3) % 10) as u8),
        None => c,
    }
}

fn whole(request: &Value, (text, finish_reason): &(String, &str)) -> String {
    let words = |text: &str| text.split_whitespace().count();
    let prompt_tokens: usize = request["messages"]
        .as_array()
        .map_or(0, |all| all.iter().map(|message| words(message["content"].as_str().unwrap_or(""))).sum());
    let completion_tokens = words(text);
    json!({
        "id": "scripted",
        "object": "chat.completion",
        "model": request["model"],
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "finish_reason": finish_reason,
        }],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    })
    .to_string()
}

/// What only odd servers send.
fn odd(kind: &str, whole: &str) -> Body {
    let mut answer: Value = serde_json::from_str(whole).unwrap();
    let choice = &mut answer["choices"][0];
    match kind {
        "null" => {
            choice["message"]["content"] = Value::Null;
            choice["message"]["reasoning_content"] = "Let me think about it.".into();
            choice["finish_reason"] = "length".into();
        }
        "parts" => choice["message"]["content"] = json!([{ "type": "text", "text": "in parts" }]),
        "model" => answer["model"] = "another".into(),
        "long" => choice["message"]["content"] = "word ".repeat(2_000_000).into(),
        "choices" => answer["choices"] = json!([]),
        "page" => return Body::from("<!DOCTYPE html><html><body>Please log in</body></html>"),
        "endless" => {
            let parts = stream::repeat(Bytes::from_static(b" ")).then(|part| async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok::<_, std::io::Error>(part)
            });
            return Body::from_stream(parts);
        }
        "flood" => {
            let part = Bytes::from(vec![b' '; 1 << 20]);
            return Body::from_stream(stream::repeat(part).map(Ok::<_, std::io::Error>));
        }
        other => panic!("the script knows no `{other}`"),
    }
    Body::from(answer.to_string())
}

fn error(status: u16, message: &str, retry_after: Option<String>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    if let Some(after) = retry_after {
        response = response.header("retry-after", after);
    }
    response.body(Body::from(json!({ "error": { "message": message } }).to_string())).unwrap()
}
