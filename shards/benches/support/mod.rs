//! Shared by the benchmarks.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub mod synthetic;
pub mod timing;

/// The value of `--name VALUE` on the command line.
pub fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.next().and_then(|_| args.next())
}

/// Whether `--name` is on the command line.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|arg| arg == name)
}
