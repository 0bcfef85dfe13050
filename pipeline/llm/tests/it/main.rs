//! Client and cache against a server that answers by script.

/// The server.
mod server;
/// What the tests share.
mod support;

/// Batches through files.
mod batches;
/// Files of the first version open forever.
mod compat;
/// One test for each thing that a server may do.
mod failures;
/// Runs that are killed end with the set of one that is not.
mod kills;
/// What runs guarantee when all goes well: no request is sent twice, order does not matter.
mod runs;
/// The API key appears nowhere.
mod secrecy;
