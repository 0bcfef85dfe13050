//! `[dedup.paragraph]` and `[dedup.substring]`: text that is cut from documents because it occurs in other
//! places too, and `dedup.against`.

use serde::{Deserialize, Serialize};

use crate::strict_toml::{Docs, Fault, Section, documented};

/// Where a paragraph ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// At every line end.
    #[default]
    Line,
    /// At a line that is empty or white space.
    BlankLine,
}

/// How many copies of a repeated paragraph stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepCopy {
    /// The one in the first document.
    #[default]
    First,
    /// None.
    None,
}

documented! {
    /// `[dedup.paragraph]`: paragraphs that many documents share.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct ParagraphConfig {
        /// Where a paragraph ends.
        pub split: Split,
        /// Fewest characters of a paragraph that is looked at, white space collapsed.
        pub min_chars: u64,
        /// Documents that must hold the paragraph, counting those of one declared family once.
        pub min_documents: u32,
        /// Which copy stays.
        pub keep: KeepCopy,
        /// Fewest characters that must be left of a document; with fewer it is dropped.
        pub min_chars_left: u64,
    }
}

/// Documents with fewer characters left than this are dropped, unless the recipe says otherwise: the least that
/// the `length` filter lets pass.
const MIN_CHARS_LEFT: u64 = 50;

impl Default for ParagraphConfig {
    fn default() -> ParagraphConfig {
        ParagraphConfig {
            split: Split::Line,
            min_chars: 80,
            min_documents: 3,
            keep: KeepCopy::First,
            min_chars_left: MIN_CHARS_LEFT,
        }
    }
}

impl Section for ParagraphConfig {
    fn docs() -> Docs {
        ParagraphConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.min_chars == 0 {
            wrong.push(("min_chars", "is 0; expected at least 1".to_owned()));
        }
        if self.min_documents < 2 {
            let message =
                format!("is {}; a repeated paragraph is in at least 2 documents", self.min_documents);
            wrong.push(("min_documents", message));
        }
        wrong
    }
}

documented! {
    /// `[dedup.substring]`: repeated bytes, found by comparing windows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SubstringConfig {
        /// Fewest bytes of a match. 500 is what Dolma 3 uses; Lee et al. (arXiv 2107.06499) use 50 tokens.
        pub min_bytes: u32,
        /// Fewest characters that must be left of a document; with fewer it is dropped.
        pub min_chars_left: u64,
    }
}

/// Shortest match that can be asked for: below it, common phrases are duplicates.
pub const LEAST_MIN_BYTES: u32 = 32;

impl Default for SubstringConfig {
    fn default() -> SubstringConfig {
        SubstringConfig { min_bytes: 500, min_chars_left: MIN_CHARS_LEFT }
    }
}

impl Section for SubstringConfig {
    fn docs() -> Docs {
        SubstringConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        match self.min_bytes {
            LEAST_MIN_BYTES..=1_000_000 => Vec::new(),
            n => vec![("min_bytes", format!("is {n}; expected {LEAST_MIN_BYTES} to 1000000"))],
        }
    }
}
