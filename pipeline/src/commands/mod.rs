//! What each verb of the program does.

pub mod diff;
pub mod export;
pub mod filters;
pub mod where_is;

pub mod build;
pub mod classifier;
pub mod config;
pub mod decontaminate;
mod documents;
pub mod dups;
pub mod executor;
pub mod explain;
pub mod grade;
pub mod import;
pub mod inspect;
pub mod label;
pub mod mix;
mod profile;
pub mod rephrase;
pub mod report;
pub mod server;
pub mod share;
pub mod slurm;
pub mod task;
pub mod tokenizer;
pub mod verify;
pub mod why;

use crate::engine::LocalEngine;
use crate::error::Result;
use crate::recipe::ByteSize;
use crate::tables::sort::MIN_MEMORY_BYTES;

/// A value of `--memory`.
fn parse_memory(text: &str) -> std::result::Result<ByteSize, String> {
    match text.parse::<ByteSize>().map_err(|e| e.to_string())? {
        memory if memory.0 < MIN_MEMORY_BYTES => {
            Err(format!("{memory} is too little; expected 1MiB or more"))
        }
        memory => Ok(memory),
    }
}

/// This machine as an engine: threads, one for each core unless given, and memory for what could also be on disk.
///
/// # Errors
/// Too little memory, or the threads cannot be started.
fn engine(threads: Option<u16>, memory: Option<ByteSize>) -> Result<LocalEngine> {
    let n_cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let engine = LocalEngine::new(threads.map_or_else(n_cores, usize::from))?;
    Ok(match memory {
        Some(memory) => engine.with_memory(memory.0),
        None => engine,
    })
}
