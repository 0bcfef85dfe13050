//! Causal self-attention inside the documents of a packed sample.

mod grouped_query;

pub use grouped_query::GroupedQuery;
