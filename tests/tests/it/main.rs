//! End-to-end tests: through the binaries on the committed data.

/// User errors get a message with a remedy, never a panic.
mod bad_input;
/// Tasks that other processes do: shares, kills, attempts that live on, failures.
mod cluster;
/// Same bytes for any thread count and any split of the input, after any kill.
mod determinism;
/// Data that is added during a run: the past stays, the run continues.
mod growth;
/// What files import from each other.
mod imports;
/// Training: the data sequence and the parameters are the same after a kill.
mod resume;
/// The layout of the repository: imports, file sizes, links.
mod tidy;
/// Conversations: from records to a run that is tuned on the answers.
mod tuning;
