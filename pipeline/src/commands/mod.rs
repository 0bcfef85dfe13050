//! What each verb of the program does.

pub mod build;
pub mod dups;
pub mod explain;
pub mod inspect;
pub mod mix;
mod profile;
pub mod tokenizer;
pub mod verify;
pub mod why;
