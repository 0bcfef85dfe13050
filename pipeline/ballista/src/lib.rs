//! Apache Ballista as a place for work: a `Driver`, which is Ballista's scheduler within this process, and executors
//! (`execute`), which are processes anywhere. Executors do two things: opaque tasks, a text in and a text out, and the search
//! for equal keys in tables of numbers. Nothing here knows what tasks do or what keys stand for.
//!
//! Ballista gives a task to another executor when one is lost, does the part of a shuffle again whose files are lost, and tries a
//! task four times that fails for a reason that may pass. So tasks must be idempotent.

#[cfg(feature = "engine")]
mod cores;
#[cfg(feature = "engine")]
mod driver;
#[cfg(feature = "engine")]
mod error;
#[cfg(feature = "engine")]
mod executor;
#[cfg(feature = "engine")]
mod pairs;
#[cfg(feature = "engine")]
mod tasks;

#[cfg(feature = "engine")]
pub use self::{
    driver::{Driver, DriverConfig},
    error::Error,
    executor::{ExecutorConfig, MIN_MEMORY_BYTES, execute},
    tasks::{TaskError, TaskFn},
};
