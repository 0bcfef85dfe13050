//! Rephrasing: other texts of documents, written by a language model, that later passes show instead of the same text
//! again. This module knows styles, chunks and gates; asking is `moe-llm`'s, the order of events `commands::rephrase`'s.
//!
//! ```text
//! kept documents -> choice of styles -> chunks -> prompts -> completions (cache) -> gates -> accepted | rejected
//! ```
//!
//! Everything behind the cache is a pure function of it: limits may change without asking the server again.

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
