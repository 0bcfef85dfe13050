//! Integration tests of the shard format and of reading plans.

/// Any world and batch size read the same sequence.
mod batch;
/// A committed version-1 shard opens forever.
mod compat;
/// Writing, reading, damage, arbitrary bytes.
mod format;
