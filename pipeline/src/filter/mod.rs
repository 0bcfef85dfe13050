//! Filters decide whether a document is kept; rewriting rules decide what remains of its text. A rule is one
//! file here and one line of [`REGISTRY`]: its settings are a serde struct whose defaults are its known
//! keys, so the recipe reader, the error messages and the lock file know it without further code.
//!
//! A rule only measures. The measured values are compared with its limits later, by [`chain::Chain::judge`], from
//! a table of values and without the text, so that changing a threshold measures nothing again.

pub mod chain;
pub mod classifier;
mod code;
mod entry;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod language;
mod length;
mod lines;
mod lists;
pub mod ngrams;
pub mod pii;
mod rewriting;
mod sentences;
pub mod text;
mod urls;
pub mod words;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use self::chain::Chain;
use self::entry::decode;
pub use self::entry::{Built, Entry, FilterConfig, RuleFile, Settings, find};
use self::lines::{c4, c4_words, newlines, refinedweb};
pub use self::rewriting::Rewriting;
use self::text::Split;
pub use self::text::{Scratch, Text};
use crate::strict_toml::Fault;

/// Name of the rule that detects languages.
pub const LANGUAGE: &str = "language";

/// All rules, by name.
pub const REGISTRY: &[Entry] = &[
    Entry::filter::<length::Length>("length", "characters per document", length::THRESHOLDS),
    Entry::filter::<gopher_quality::GopherQuality>(
        "gopher_quality",
        "document statistics of the Gopher paper",
        gopher_quality::THRESHOLDS,
    ),
    Entry::filter::<gopher_repetition::GopherRepetition>(
        "gopher_repetition",
        "repeated lines, paragraphs and n-grams of the Gopher paper",
        gopher_repetition::THRESHOLDS,
    ),
    Entry::filter::<fineweb_quality::FinewebQuality>(
        "fineweb_quality",
        "lines that are not sentences, are short, repeated or a list",
        fineweb_quality::THRESHOLDS,
    ),
    Entry::rewrite::<c4::C4Quality>(
        "c4_quality",
        "lines and sentences of C4",
        REWRITES,
        c4::QUALITY_THRESHOLDS,
    ),
    Entry::filter::<c4::C4Paragraphs>("c4_paragraphs", "long lines of mC4", c4::PARAGRAPHS_THRESHOLDS),
    Entry::custom::<c4_words::C4Words>(
        "c4_words",
        "words of a list",
        MEASURES,
        c4_words::THRESHOLDS,
        c4_words::build,
    )
    .with_files(c4_words::FILES),
    Entry::rewrite::<refinedweb::RefinedwebLines>(
        "refinedweb_lines",
        "lines of RefinedWeb, DCLM and Dolma 3",
        REWRITES,
        refinedweb::THRESHOLDS,
    ),
    Entry::rewrite::<newlines::Newlines>("newlines", "line ends in a row", &[Action::Cut], &[]),
    Entry::custom::<urls::UrlLists>(
        "url_lists",
        "lists of domains, URLs and words in URLs",
        MEASURES,
        urls::THRESHOLDS,
        urls::build,
    )
    .with_files(urls::FILES),
    Entry::rewrite::<pii::Pii>("pii", "personal data and keys", REWRITES, pii::THRESHOLDS),
    Entry::custom::<language::Language>(
        LANGUAGE,
        "language of a text",
        MEASURES,
        language::THRESHOLDS,
        language::build,
    )
    .with_files(language::FILES),
    Entry::filter::<code::Code>("code", "source code", code::THRESHOLDS),
    classifier::ENTRY,
];

/// Actions of rules that do not change the text.
const MEASURES: &[Action] = &[Action::Drop, Action::Tag];

/// Actions of rules that rewrite texts.
const REWRITES: &[Action] = &[Action::Cut, Action::Drop, Action::Tag];

/// Name of a reason in the ledger and the audit.
pub type Reason = Cow<'static, str>;

/// A rule that measures a text without changing it.
pub trait Filter: Send + Sync {
    /// What it measures, in the order of the decisions. Reasons and their number do not depend on the
    /// settings that the registry lists as thresholds.
    fn limits(&self) -> Vec<Limit>;

    /// Appends one value per limit; values do not depend on thresholds.
    fn measure(&self, text: &Text<'_>, values: &mut Vec<f64>);
}

/// A rule that removes or replaces stretches of a text, or detects its language.
pub trait Rewrite: Send + Sync {
    /// Names, in the ledger's `cut`, of what it takes out.
    fn methods(&self) -> Vec<Reason>;

    /// As [`Filter::limits`]; they drop or tag the document. `action` is the recipe's: something merely
    /// taken out when the action is [`Action::Cut`] may be a reason to drop when it is [`Action::Drop`].
    fn limits(&self, action: Action) -> Vec<Limit>;

    /// Passes every byte of the text to [`Rewriting::keep`] or [`Rewriting::take`], once, and one value for
    /// each limit to [`Rewriting::value`]. If the recipe's action is not [`Action::Cut`], only the values
    /// and [`Rewriting::language`] are used.
    fn rewrite(&self, text: &Text<'_>, out: &mut Rewriting);
}

/// A rule of either kind.
pub enum Rule {
    /// It measures.
    Filter(Box<dyn Filter>),
    /// It measures and rewrites.
    Rewrite(Box<dyn Rewrite>),
}

/// A program whose way of counting a rule follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Definition {
    /// datatrove 0.10.1, which made FineWeb.
    #[default]
    Datatrove,
    /// The mappers of DCLM (`baselines/mappers/filters/content_filters.py`), which datamap-rs follows.
    Dclm,
    /// The tagger `gopher_v1` of dolma (`python/dolma/taggers/gopher.py`).
    Dolma,
}

impl Definition {
    /// Problem of a choice of words, which only one definition supports.
    fn split_fault(self, words: Split) -> Vec<Fault> {
        let is_wrong = self != Definition::Datatrove && words != Split::default();
        let message = || "is for definition = \"datatrove\"; the others have words of their own".to_owned();
        is_wrong.then(|| ("words", message())).into_iter().collect()
    }
}

/// A recipe's action on a rule's findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Drops the document.
    #[default]
    Drop,
    /// Keeps the document and gives it a tag.
    Tag,
    /// Takes out the findings, and drops the document if a limit of the rule says so.
    Cut,
}

impl Action {
    /// Name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Action::Drop => "drop",
            Action::Tag => "tag",
            Action::Cut => "cut",
        }
    }
}

/// A limit of a measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Name of the reason to drop a document that misses the threshold.
    pub reason: Reason,
    /// The threshold; without one the value is only recorded.
    pub threshold: Option<f64>,
    /// Whether the threshold is the lowest passing value, or else the highest.
    pub is_least: bool,
}

impl Limit {
    /// The least value that passes.
    pub fn least(reason: &'static str, threshold: f64) -> Limit {
        Limit { reason: reason.into(), threshold: Some(threshold), is_least: true }
    }

    /// The highest passing value.
    pub fn most(reason: &'static str, threshold: f64) -> Limit {
        Limit { reason: reason.into(), threshold: Some(threshold), is_least: false }
    }

    /// A value with this limit.
    pub fn measured(&self, measured: f64) -> Measured {
        let Limit { reason, threshold, is_least } = self.clone();
        Measured { reason, measured, threshold, is_least }
    }
}

/// Why a document is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Name in the ledger and the audit.
    pub reason: Reason,
    /// What was measured.
    pub measured: f64,
    /// The limit that it missed.
    pub threshold: f64,
}

/// A value with its threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Name of the reason to drop a document that misses the threshold.
    pub reason: Reason,
    /// The value.
    pub measured: f64,
    /// The limit, if there is one.
    pub threshold: Option<f64>,
    /// Whether the threshold is the lowest passing value, or else the highest.
    pub is_least: bool,
}

impl Measured {
    /// Whether the value is within the limit.
    pub fn passes(&self) -> bool {
        match self.threshold {
            None => true,
            Some(threshold) if self.is_least => self.measured >= threshold,
            Some(threshold) => self.measured <= threshold,
        }
    }

    /// Why the document is dropped, if it is.
    pub fn rejection(&self) -> Option<Rejection> {
        let threshold = self.threshold.filter(|_| !self.passes())?;
        Some(Rejection { reason: self.reason.clone(), measured: self.measured, threshold })
    }
}

/// The first limit that a text misses; for tests of single filters.
#[cfg(test)]
pub(crate) fn judge(filter: &dyn Filter, text: &str) -> Option<Rejection> {
    let mut values = Vec::new();
    filter.measure(&Text::new(text), &mut values);
    let limits = filter.limits();
    assert_eq!(values.len(), limits.len());
    limits.iter().zip(values).find_map(|(limit, value)| limit.measured(value).rejection())
}

/// The text that a rule leaves, and why it would drop the document all the same; for tests of single rules.
#[cfg(test)]
pub(crate) fn rewritten(rule: &dyn Rewrite, text: &str) -> (String, Option<Rejection>) {
    let mut out = Rewriting::default();
    out.start(rule.methods().len());
    rule.rewrite(&Text::new(text), &mut out);
    assert!(out.taken(text.len()).is_some(), "bytes are lost or counted twice: {text:?}");
    let limits = rule.limits(Action::Cut);
    assert_eq!(out.values().len(), limits.len());
    let missed =
        limits.iter().zip(out.values()).find_map(|(limit, value)| limit.measured(*value).rejection());
    (out.text().to_owned(), missed)
}
