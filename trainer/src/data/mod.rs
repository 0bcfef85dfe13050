//! From the plan to batches: reading ahead, and proving which tokens were read.

mod batch;
mod digest;
mod loader;

pub use batch::Batch;
pub use digest::DataDigest;
pub use loader::{Loader, SampleSource};
