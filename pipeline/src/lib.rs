//! `moe-data`: raw text to curated, deduplicated, tokenized, memory-mapped shards.
//!
//! ```text
//! recipe + files -> read -> normalize -> filter -> exact dedup -> tokenizer -> tokens -> shards + MANIFEST.json
//!                     |                    |            |                                  |
//!                quarantine/            audit/       audit/                           ledger.json
//! ```
//!
//! [`commands::build`] is the only place that knows the order of the stages. A stage
//! ([`stage`]) is a pure, idempotent function of a [`stage::Task`]; an [`engine::Engine`] places
//! tasks. Every document that was read is in the [`ledger`] as kept, dropped or in quarantine,
//! and the same input and recipe give the same bytes for any number of threads, any split of the
//! input into files and any number of interruptions.

// From the bottom up: a module imports only from groups above its own.
pub mod error;
mod guard;
pub mod intact;
mod json;
pub mod listing;
pub mod lookup;
mod numbers;
pub mod printer;
pub mod strict_toml;
pub mod watch;

pub mod document;
pub mod objects;

pub mod chat;
pub mod classifier;
pub mod decontaminate;
mod spacy;

pub mod filter;
pub mod normalize;
pub mod read;
pub mod tokenizer;

pub mod recipe;

pub mod tables;

pub mod rephrase;

pub mod export;
pub mod grade;
pub mod mix;
pub mod plans;
pub mod stage;

pub mod cluster;
pub mod engine;

pub mod dedup;
pub mod ledger;
pub mod lock;
pub mod prepare;

pub mod import;
pub mod provenance;
pub mod publish;
pub mod reference;

pub mod report;

pub mod commands;

pub use error::{Error, Result};

/// Version of everything that decides the bytes of a build. It is part of every fingerprint, so a
/// program that would make different bytes does not continue this one's work.
pub const BUILD_VERSION: u32 = 3;

/// Version of the files that stages pass to each other. It is part of the fingerprints of tasks, but not of the
/// identity of a data set: another version makes the same shards.
pub const WORK_VERSION: u32 = 5;
