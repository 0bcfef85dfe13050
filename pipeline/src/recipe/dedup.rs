//! `[dedup]`: which documents are removed because another one says the same. One table for each
//! method; a method whose table is absent is switched off.

use serde::{Deserialize, Serialize};

use super::cuts::{ParagraphConfig, SubstringConfig};
use crate::strict_toml::Section;

/// `[dedup]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DedupConfig {
    /// Whether of documents with equal normalised text only one is kept.
    pub exact: bool,
    /// `[dedup.paragraph]`.
    pub paragraph: Option<ParagraphConfig>,
    /// `[dedup.substring]`.
    pub substring: Option<SubstringConfig>,
}

impl Default for DedupConfig {
    fn default() -> DedupConfig {
        DedupConfig { exact: true, paragraph: None, substring: None }
    }
}

impl Section for DedupConfig {}
