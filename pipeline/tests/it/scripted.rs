//! A server of chat completions on loopback whose answers are a function of the request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Words that replace every fourth word of a rewritten text, by style, so that styles differ.
const FILLERS: [&str; 4] = ["indeed", "truly", "surely", "certainly"];

/// Runs until it is dropped.
pub struct Server {
    pub base_url: String,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl Server {
    /// Starts a server that answers after `delay`.
    pub fn start(delay: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (asked.clone(), stop.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let count = count.clone();
                // A client that was killed leaves a broken stream, which is not the server's fault.
                thread::spawn(move || stream.ok().and_then(|stream| serve(stream, &count, delay)));
            }
        });
        Server { base_url: format!("http://{address}/v1"), asked, stop, address }
    }

    /// Requests answered so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
    }
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, asked: &AtomicU64, delay: Duration) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut n_bytes, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                n_bytes = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; n_bytes];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        thread::sleep(delay);
        asked.fetch_add(1, Ordering::SeqCst);
        let reply = answer(&body).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            reply.len()
        );
        stream.write_all(format!("{head}{reply}").as_bytes()).ok()?;
    }
}

/// The response to a request: a faithful text, or a fault that depends on the passage's bytes.
pub fn answer(body: &Value) -> Value {
    let user = body["messages"][1]["content"].as_str().unwrap();
    let passage = user.rsplit("<passage>\n").next().unwrap().split("\n</passage>").next().unwrap();
    let sentinel = user.rsplit("line \"").next().unwrap().trim_end_matches("\".");
    let faithful = rewritten(passage, FILLERS[sentinel.len() % FILLERS.len()]);
    let (text, finish_reason) = match passage.bytes().map(u32::from).sum::<u32>() % 12 {
        0 => ("I'm sorry, but I cannot rewrite this.".to_owned(), "stop"),
        1 => (format!("{sentinel} {}", &faithful[..faithful.len() / 2]), "length"),
        2 => (format!("{sentinel} {passage}"), "stop"),
        3 => (format!("{sentinel} {faithful} It happened 4711 times."), "stop"),
        _ => (format!("{sentinel}\n{faithful}"), "stop"),
    };
    json!({
        "model": "scripted",
        "choices": [{ "message": { "role": "assistant", "content": text }, "finish_reason": finish_reason }],
        "usage": { "prompt_tokens": user.len() / 4, "completion_tokens": text.len() / 4 },
    })
}

/// The words of a passage with another one in every fourth place.
pub fn rewritten(passage: &str, filler: &str) -> String {
    let mut out = String::new();
    for (i, word) in passage.split_inclusive(char::is_whitespace).enumerate() {
        if i % 4 == 3 {
            out.push_str(filler);
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}
