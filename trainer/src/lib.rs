//! Trains mixture-of-experts language models from the shards and the plan of `moe-data`.
//!
//! ```text
//! plan -> data (batches) -> model -> loss -> optim      train: one step of these
//!                           kernel                      run: steps, validations, checkpoints
//!                           checkpoint, metrics: the only writers of files
//! ```

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data;
pub mod device;
pub mod error;
pub mod generate;
pub mod kernel;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod optim;
pub mod printer;
pub mod random;
pub mod run;
pub mod train;

pub use error::{Error, Result};
