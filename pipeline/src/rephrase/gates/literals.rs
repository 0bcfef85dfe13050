//! URLs, email addresses and code stay unchanged.

use std::collections::BTreeSet;

use super::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "literals_kept",
        limit: 0.9,
        is_least: true,
        measure: |pair| share(&pair.source.literals, &pair.answer.literals, pair.answer.text),
    },
    Rule {
        name: "literals_known",
        limit: 0.9,
        is_least: true,
        measure: |pair| share(&pair.answer.literals, &pair.source.literals, pair.source.text),
    },
];

/// Share of the distinct literals in `of` that are in `by` or occur in its text without their marks.
fn share(of: &[&str], by: &[&str], text: &str) -> Option<f64> {
    let of: BTreeSet<&str> = of.iter().copied().collect();
    let found = of.iter().filter(|literal| by.contains(literal) || text.contains(**literal)).count();
    (!of.is_empty()).then(|| found as f64 / of.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::Pair;
    use super::*;

    #[test]
    fn literals_may_lose_their_marks_but_not_change() {
        let source = "Call `open()` of https://a.org/x or ``read_all`` twice: `open()`.";
        let same = Pair::new(source, "You can call open() twice, or use read_all; see https://a.org/x.");
        let other = Pair::new(source, "You can call `close()`; see https://a.org/y.");
        let values = |pair: &Pair<'_>| RULES.iter().map(|rule| (rule.measure)(pair)).collect::<Vec<_>>();
        assert_eq!(values(&same), [Some(1.0); 2]);
        assert_eq!(values(&other), [Some(0.0); 2]);
        assert_eq!(values(&Pair::new("plain", "words")), [None; 2]);
    }
}
