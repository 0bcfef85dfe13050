//! Models for and from other programs: folders of Hugging Face's transformers, and GGUF files of llama.cpp.
//!
//! ```text
//! checkpoint -> class (what it is there) -> mapped tensors -> folder | gguf
//!                                                               |
//!                       model <- mapped tensors <- class <- read
//! ```

mod card;
pub mod class;
mod folder;
pub mod gguf;
mod mapping;
mod read;
mod tokenizer;
mod verify;

pub use class::{CLASSES, Class, Facts};
pub use folder::{Exported, SHARD_BYTES, export};
pub use mapping::Mapped;
pub use read::Folder;
pub use tokenizer::same_tokens;
pub use verify::{Difference, apart, verify};
