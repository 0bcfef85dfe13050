//! Gates decide whether an answer is accepted as another text of its source. A gate is one file here, with its rules and
//! tests, and one line of [`REGISTRY`]. A rule measures one number and compares it with a limit; styles change limits and
//! switch rules off by name. Measuring is pure, so limits may change without asking a model again.
//!
//! The default limits were chosen from the table in docs/benchmarks/rephrase.md: faithful rephrasings by people next to
//! texts with planted faults.

mod copied;
mod finish;
mod language;
mod length;
mod literals;
mod names;
mod numbers;
mod preamble;
mod related;
mod repetition;
mod sentences;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::align::Alignment;
use super::text::Text;

/// All gates, in the order in which they give the reason.
pub const REGISTRY: &[Gate] = &[
    Gate { name: "finish", summary: "the answer is complete and in the asked form", rules: finish::RULES },
    Gate { name: "preamble", summary: "no talk about the answer, no refusal", rules: preamble::RULES },
    Gate { name: "length", summary: "words relative to the source", rules: length::RULES },
    Gate { name: "language", summary: "the language and scripts of the source", rules: language::RULES },
    Gate { name: "repetition", summary: "no loops", rules: repetition::RULES },
    Gate { name: "copied", summary: "not the source again", rules: copied::RULES },
    Gate { name: "related", summary: "is about the same", rules: related::RULES },
    Gate { name: "numbers", summary: "the numbers of the source and no others", rules: numbers::RULES },
    Gate { name: "names", summary: "the names of the source and no others", rules: names::RULES },
    Gate { name: "literals", summary: "URLs and code unchanged", rules: literals::RULES },
    Gate { name: "sentences", summary: "nothing left out, nothing added", rules: sentences::RULES },
];

/// The rule that compares whole variants with each other; see [`super::distance`].
pub const VARIANT_RULE: &str = "variant_jaccard";

/// A line of the registry.
#[derive(Clone, Copy)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// A few words on what it measures.
    pub summary: &'static str,
    /// What it measures.
    pub rules: &'static [Rule],
}

/// One number and its limit.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Name in styles, ledgers and reports.
    pub name: &'static str,
    /// The default limit.
    pub limit: f64,
    /// Whether the limit is the lowest passing value, or else the highest.
    pub is_least: bool,
    /// Measures a pair; `None` if there is nothing to measure, which passes.
    pub measure: fn(&Pair<'_>) -> Option<f64>,
}

/// A source and an answer, with everything that several gates need computed once.
pub struct Pair<'a> {
    /// The text that was to be rephrased.
    pub source: Text<'a>,
    /// The answer without its sentinel.
    pub answer: Text<'a>,
    /// Why the model stopped, according to the server.
    pub finish_reason: &'a str,
    /// Whether the answer began with the sentinel.
    pub has_sentinel: bool,
    /// Whether the style keeps the order of the source.
    pub in_order: bool,
    /// Names that stand for another, in lower case, from `[aliases]` of a style.
    pub aliases: &'a BTreeMap<String, String>,
    alignment: OnceLock<Alignment>,
}

impl<'a> Pair<'a> {
    /// A pair of plain texts, complete and with a sentinel.
    pub fn new(source: &'a str, answer: &'a str) -> Pair<'a> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        Pair {
            source: Text::new(source),
            answer: Text::new(answer),
            finish_reason: "stop",
            has_sentinel: true,
            in_order: true,
            aliases: &NONE,
            alignment: OnceLock::new(),
        }
    }

    /// The same with the ending and the beginning of the answer.
    pub fn with_finish(self, finish_reason: &'a str, has_sentinel: bool) -> Pair<'a> {
        Pair { finish_reason, has_sentinel, ..self }
    }

    /// The same for a style that keeps, or does not keep, the order of its source.
    pub fn with_order(self, in_order: bool) -> Pair<'a> {
        Pair { in_order, ..self }
    }

    /// The same with aliases.
    pub fn with_aliases(self, aliases: &'a BTreeMap<String, String>) -> Pair<'a> {
        Pair { aliases, ..self }
    }

    /// The alignment of their sentences.
    pub fn alignment(&self) -> &Alignment {
        self.alignment.get_or_init(|| Alignment::new(&self.source, &self.answer, self.in_order))
    }
}

/// Limits of all rules, as a style sets them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// By name of the rule.
    pub limits: BTreeMap<String, f64>,
    /// Rules that are not asked.
    pub off: BTreeSet<String>,
}

impl Default for Limits {
    fn default() -> Limits {
        let mut limits: BTreeMap<String, f64> =
            rules().map(|rule| (rule.name.to_owned(), rule.limit)).collect();
        limits.insert(VARIANT_RULE.to_owned(), super::distance::DEFAULT_LIMIT);
        Limits { limits, off: BTreeSet::new() }
    }
}

/// A value with its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the rule.
    pub rule: String,
    /// The measured value; absent if there was nothing to measure.
    pub value: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Whether the limit is the lowest passing value.
    pub is_least: bool,
}

impl Verdict {
    /// Whether the value is within the limit.
    pub fn passes(&self) -> bool {
        self.value.is_none_or(|value| match self.is_least {
            true => value >= self.limit,
            false => value <= self.limit,
        })
    }
}

/// All rules in the order of the registry.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    REGISTRY.iter().flat_map(|gate| gate.rules)
}

/// Measures a pair by every active rule, in the order of the registry.
pub fn judge(pair: &Pair<'_>, limits: &Limits) -> Vec<Verdict> {
    let asked = rules().filter(|rule| !limits.off.contains(rule.name));
    asked
        .map(|rule| Verdict {
            rule: rule.name.to_owned(),
            value: (rule.measure)(pair).map(rounded),
            limit: limits.limits.get(rule.name).copied().unwrap_or(rule.limit),
            is_least: rule.is_least,
        })
        .collect()
}

/// Six decimals: enough for every limit, and the written value is the compared one.
fn rounded(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_rule_measures_every_text() {
        let names: BTreeSet<&str> = rules().map(|rule| rule.name).collect();
        assert_eq!(names.len(), rules().count());
        for (source, answer) in
            [("", ""), ("", "x"), ("x", ""), ("a b. C d!", "12 `x` Äö"), ("一二三。", "四五")]
        {
            let verdicts = judge(&Pair::new(source, answer), &Limits::default());
            assert_eq!(verdicts.len(), names.len());
            assert!(verdicts.iter().all(|v| v.value.is_none_or(f64::is_finite)), "{verdicts:?}");
        }
    }

    #[test]
    fn limits_change_and_rules_go_by_name() {
        let mut limits = Limits::default();
        limits.limits.insert("length_most".into(), 9.0);
        limits.off.insert("copied_8grams".into());
        let text = "one two three four five six seven eight nine ten";
        let verdicts = judge(&Pair::new(text, text), &limits);
        assert!(verdicts.iter().all(|v| v.rule != "copied_8grams"));
        let length = verdicts.iter().find(|v| v.rule == "length_most").unwrap();
        assert_eq!((length.value, length.limit, length.passes()), (Some(1.0), 9.0, true));
    }
}
