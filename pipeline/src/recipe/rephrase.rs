//! `[rephrase]`: variants that `moe-data rephrase` made of an earlier build of the recipe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SourceConfig;
use crate::strict_toml::{Docs, Fault, Section, documented};

documented! {
    /// `[rephrase]`. Without it a build has no such variants, whatever its output folder holds: the recipe alone decides
    /// what is made.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct RephraseConfig {
        /// Folder with `accepted-SOURCE.jsonl`, relative to the recipe's folder.
        pub from: PathBuf,
        /// Names of the styles, in the order of their variant numbers. Append new ones, so that existing numbers stay.
        pub styles: Vec<String>,
    }
}

impl Section for RephraseConfig {
    fn docs() -> Docs {
        RephraseConfig::DOCS
    }

    fn check(&self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if self.from.as_os_str().is_empty() {
            wrong.push((
                "from",
                "is missing; name the folder of moe-data rephrase, such as \"../out/rephrase\"".to_owned(),
            ));
        }
        if self.styles.is_empty() {
            wrong.push((
                "styles",
                "is missing; list the styles to take up, as moe-data rephrase printed them".to_owned(),
            ));
        }
        if let Some(twice) =
            self.styles.iter().enumerate().find(|(i, style)| self.styles[..*i].contains(style))
        {
            wrong.push(("styles", format!("names `{}` twice", twice.1)));
        }
        wrong
    }
}

impl RephraseConfig {
    /// Names of the variants of a source: its own, the original first, then the styles.
    pub fn variants(&self, source: &SourceConfig) -> Vec<String> {
        let original = [super::ORIGINAL.to_owned()];
        let own = if source.variants.is_empty() { &original[..] } else { &source.variants[..] };
        own.iter().chain(&self.styles).cloned().collect()
    }

    /// What is wrong with the styles as variants of a source.
    pub fn conflict(&self, source: &SourceConfig) -> Option<String> {
        let variants = self.variants(source);
        let name = &source.name;
        if let Some(style) = self.styles.iter().find(|style| source.variants.contains(style)) {
            return Some(format!(
                "`{style}` is a variant of source `{name}` already; rename the style or the variant"
            ));
        }
        (variants.len() > super::source::MAX_VARIANTS).then(|| {
            format!(
                "source `{name}` would have {} variants, at most {} are possible",
                variants.len(),
                super::source::MAX_VARIANTS
            )
        })
    }
}
