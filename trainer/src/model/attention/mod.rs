//! Causal self-attention inside the documents of a packed sample.

mod grouped_query;
mod mask;

pub use grouped_query::GroupedQuery;
pub use mask::DocumentMask;
