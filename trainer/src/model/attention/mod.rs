//! Causal self-attention inside the documents of a packed sample.

mod grouped_query;
mod placement;

pub use grouped_query::GroupedQuery;
pub use placement::Placement;
