//! A build on executors of Apache Ballista (`moe-ballista`): tasks are handed to them one by one, and equal keys of all parts are
//! found by them. Orders and answers are JSON; executors share the file system with the driver, which is the build.

mod driver;
mod executor;
mod order;

pub use self::driver::BallistaEngine;
pub use self::executor::{Executor, execute};
