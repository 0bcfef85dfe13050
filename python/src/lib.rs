//! The compiled part of the Python package `moe_shards`: the readers of `moe-shards`, with arrays of NumPy.
//!
//! Everything that can be written in Python is (`moe_shards/`); here are the classes that read. No rule of
//! the format is repeated: each method calls the crate that `moe-train` reads with. Calls let other Python
//! threads run while they read.

mod arrays;
mod error;
mod plan;
mod sample;
mod shard;

use pyo3::prelude::*;

/// Readers of moe-data's shards and plans.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::plan::{PlanReader, ShardInfo};
    #[pymodule_export]
    use super::sample::{PieceView, SampleView};
    #[pymodule_export]
    use super::shard::{DocumentIter, DocumentView, ShardReader};
}
