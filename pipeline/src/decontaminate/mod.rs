//! Decontamination: finds text of evaluation sets in documents.
//!
//! A match starts at a seed, five words of an evaluation text in a row. From there it grows along both texts in both
//! directions over words that differ, a few at a time; pieces on either side of an inserted or missing word are
//! joined. What counts is the share of the evaluation text that was found, each word weighed by its inverse document
//! frequency among the evaluation texts, so that "which of the following is" weighs little. This follows
//! the published description of allenai/decon (seeds, growth with misses, weighted overlap); words instead of tokens
//! and every seed instead of a sample are ours.
//!
//! From the inside out: [`words`], [`index`] and [`scan`] compare texts, [`selftest`] plants canaries; [`config`] is the
//! section of the recipe, [`load`] reads evaluation sets, [`stage`] looks through a part, [`audit`] and [`report`] tell what
//! was found.
//!
//! [`docs/decontamination.md`](../../docs/decontamination.md) has the rules and what was measured.

pub mod audit;
pub mod config;
pub mod index;
pub mod load;
pub mod report;
pub mod scan;
pub mod selftest;
pub mod stage;
pub mod words;

use serde::{Deserialize, Serialize};

pub use self::index::{Index, IndexBuilder, TextId};
pub use self::scan::{Found, Scanner};

/// How to look for evaluation texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// An evaluation text with fewer words must be found whole; longer ones by their share.
    pub ngram: u32,
    /// Share of an evaluation text's weight that counts as a match, 0 to 1.
    pub threshold: f64,
    /// Words in a row that may differ inside a match.
    pub max_misses: u32,
    /// Evaluation texts with fewer words are not looked for.
    pub min_words: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { ngram: 13, threshold: 0.7, max_misses: 3, min_words: index::SEED_WORDS as u32 }
    }
}
