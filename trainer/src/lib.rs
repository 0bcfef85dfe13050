//! Trains mixture-of-experts language models from the shards and the plan of `moe-data`.
//!
//! ```text
//! plan -> data (batches) -> model -> objective -> optim   train: one step of these
//!                           ops (a crate)                run: steps, validations, checkpoints
//!                           tasks: how well a model answers questions
//!                           checkpoint, metrics, export: the only writers of files
//! ```

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod error;
pub mod exact;
pub mod export;
pub mod generate;
pub mod metrics;
pub mod model;
pub mod objective;
pub mod optim;
pub mod printer;
pub mod report;
pub mod run;
pub mod settings;
pub mod tasks;
pub mod train;
pub mod upcycle;
pub mod watch;

pub use error::{Error, Result};
pub use moe_ops::random;
pub use moe_ops::{self as ops, gradient_of_two};
