//! Rules that look at lines and take some of them out.

pub mod c4;
pub mod c4_words;
pub mod newlines;
mod pieces;
pub mod refinedweb;
