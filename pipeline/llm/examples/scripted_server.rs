//! A server on the loopback that answers by script, as in the tests (`tests/it/server.rs` has the
//! directives).
//!
//! ```text
//! scripted_server [--port N] [--delay-ms N] [--capacity N] [--no-bodies]
//! ```
//!
//! Prints its address as the first line of stdout and runs until it is killed. `GET /stats` returns counts of
//! the requests.

// The tests read the counts; here `GET /stats` does.
#[allow(dead_code)]
#[path = "../tests/it/server.rs"]
mod server;

use std::io::Write;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut port, mut options) = (0, server::Options { count_bodies: true, ..Default::default() });
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().unwrap_or_default().parse::<u64>().map_err(|e| format!("{arg}: {e}"));
        match arg.as_str() {
            "--port" => port = u16::try_from(number()?)?,
            "--delay-ms" => options.delay = Duration::from_millis(number()?),
            "--capacity" => options.capacity = number()?,
            "--no-bodies" => options.count_bodies = false,
            other => return Err(format!("unknown argument `{other}`").into()),
        }
    }
    let server = server::Server::start(port, options)?;
    println!("{}", server.url);
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
