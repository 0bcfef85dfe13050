//! `moe-data tokenizer ...`: train, import, check and measure tokenizers.

pub mod check;
pub mod import;
mod sample;
pub mod stats;
mod texts;
pub mod train;

pub use self::texts::TextArgs;
