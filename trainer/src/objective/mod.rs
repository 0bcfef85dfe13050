//! What is minimized in addition to the losses of routers.

mod cross_entropy;

pub use cross_entropy::{CrossEntropy, Targets, bits_per_byte, cross_entropy, token_losses, token_ranks};
