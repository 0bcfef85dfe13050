//! Integration tests of the shard format.

/// A committed version-1 shard opens for ever.
mod compat;
/// Writing, reading, damage, arbitrary bytes.
mod format;
