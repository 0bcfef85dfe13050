//! The cheapest sign of invention: numbers that the source does not have, or that the answer lost. As multisets of values,
//! whether written in digits or in words.

use std::collections::BTreeMap;

use super::Rule;
use crate::rephrase::text::Numbers;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "numbers_kept",
        limit: 0.95,
        is_least: true,
        measure: |pair| found(&pair.source.numbers, &pair.answer.numbers),
    },
    Rule {
        name: "numbers_known",
        limit: 0.95,
        is_least: true,
        measure: |pair| found(&pair.answer.numbers, &pair.source.numbers),
    },
];

fn found(of: &Numbers, by: &Numbers) -> Option<f64> {
    let by: Vec<&String> = by.values.iter().chain(&by.small).collect();
    recall(&of.values.iter().collect::<Vec<_>>(), &by)
}

/// Share of the occurrences in `of` that are also in `by`, counted with multiplicity.
fn recall<T: Ord>(of: &[T], by: &[T]) -> Option<f64> {
    let mut left: BTreeMap<&T, usize> = BTreeMap::new();
    by.iter().for_each(|value| *left.entry(value).or_default() += 1);
    let mut found = 0;
    for value in of {
        if let Some(n) = left.get_mut(value).filter(|n| **n > 0) {
            *n -= 1;
            found += 1;
        }
    }
    (!of.is_empty()).then(|| f64::from(found) / of.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::Pair;
    use super::*;

    #[test]
    fn multisets_are_compared() {
        assert_eq!(recall(&["1", "1", "2"], &["1", "3"]), Some(1.0 / 3.0));
        assert_eq!(recall::<&str>(&[], &["1"]), None);
        let pair =
            Pair::new("In 1912 twelve men went, and 5 came back.", "12 men left in 1912; four came back.");
        let values: Vec<_> = RULES.iter().map(|rule| (rule.measure)(&pair)).collect();
        assert_eq!(values, [Some(2.0 / 3.0); 2]);
    }
}
