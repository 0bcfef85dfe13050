//! Figures, pages and progress for people, used by `moe-data report`, `moe-train report` and `moe-data
//! rephrase report`.
//!
//! A page is one HTML file that needs nothing else: no network, no other file, and no script, which its
//! content security policy forbids. Texts of corpora are untrusted input; all text goes through [`maud`],
//! which escapes it. Figures are SVG with a table of their numbers next to them, so a page can be printed,
//! read aloud, and searched, and a figure can be taken out for a paper.
//!
//! The crate knows nothing about builds or runs; programs fill its structs with numbers.

pub mod bars;
pub mod figure;
pub mod heat;
pub mod histogram;
pub mod lines;
pub mod number;
pub mod page;
pub mod progress;
mod scale;
pub mod settings;
pub mod shares;
pub mod tensorboard;
pub mod words;

pub use self::bars::{Bar, Bars};
pub use self::figure::{Cell, Figure, Table};
pub use self::heat::Heat;
pub use self::histogram::{Histogram, Limit};
pub use self::lines::{Axis, Lines, Series};
pub use self::page::{Page, Section};
pub use self::shares::Shares;
