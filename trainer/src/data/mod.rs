//! From the plan to batches: prefetching, and a hash of the tokens that were read.

mod batch;
mod batches;
pub mod checked_plan;
mod corpus;
mod digest;
mod loader;
mod settings;

pub use batch::Batch;
pub use batches::Batches;
pub use corpus::{CHAT_FILES, ChatFile, Corpus, chat_files};
pub use digest::DataDigest;
pub use loader::{Loader, SampleSource};
pub use settings::DataSettings;
