//! Rephrasing: alternative texts of documents, written by a language model, that later passes show instead of the same text
//! again. This module knows styles, chunks and gates; asking is up to `moe-llm`, the order of events to `commands::rephrase`.
//!
//! ```text
//! kept documents -> choice of styles -> chunks -> prompts -> completions (cache) -> gates -> accepted | rejected
//! ```
//!
//! Everything after the cache is a pure function of it, so limits may change without asking the server again.

pub mod orphans;
pub mod stage;
pub mod text;

pub mod align;
pub mod distance;
mod heap;

pub mod gates;

pub mod chunk;
pub mod style;

pub mod prompt;

pub mod choice;
pub mod parents;

pub mod job;
pub mod judge;

pub mod record;
pub mod settings;

pub mod assemble;
pub mod import;
pub mod report;
