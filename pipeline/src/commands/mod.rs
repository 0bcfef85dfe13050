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
pub mod slurm;
pub mod task;
pub mod tokenizer;
pub mod verify;
pub mod why;
