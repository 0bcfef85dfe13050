//! Names that the answer lost, invented, or swapped for others. A name counts as found if a
//! word of the other text is similar (a common beginning, or one letter different in six), so that `Esaias` needs an alias for `Isaiah`, but
//! `Hanani's` needs none.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Pair, Rule};
use crate::rephrase::text::{Text, stem};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "names_kept",
        limit: 0.5,
        is_least: true,
        measure: |pair| share(pair, &pair.source, &pair.answer),
    },
    Rule {
        name: "names_known",
        limit: 0.5,
        is_least: true,
        measure: |pair| share(pair, &pair.answer, &pair.source),
    },
    Rule { name: "names_swapped", limit: 0.0, is_least: false, measure: |pair| exchanged(pair, true) },
    Rule { name: "names_replaced", limit: 0.0, is_least: false, measure: |pair| exchanged(pair, false) },
];

/// Share of the distinct names of `of` that `by` has anywhere.
fn share(pair: &Pair<'_>, of: &Text<'_>, by: &Text<'_>) -> Option<f64> {
    let names = counts(pair, of);
    let found =
        names.keys().filter(|name| by.words.iter().any(|word| is_same(pair, name, &word.lower))).count();
    (!names.is_empty()).then(|| found as f64 / names.len() as f64)
}

/// Names swapped for others: in every group of aligned sentences, the smaller of the numbers of missing and
/// extra occurrences, summed up; extra names count only if the source has them elsewhere, or only if it does not
/// have them. A pronoun for a name only removes, a name for a pronoun only adds.
fn exchanged(pair: &Pair<'_>, known: bool) -> Option<f64> {
    if pair.source.names.is_empty() && pair.answer.names.is_empty() {
        return None;
    }
    let mut sum = 0;
    for (mine, theirs) in &pair.alignment().groups {
        let (mine, theirs) = (words_of(&pair.source, mine), words_of(&pair.answer, theirs));
        let missing = excess(pair, &pair.source, &mine, &pair.answer, &theirs).len();
        let mut extra = excess(pair, &pair.answer, &theirs, &pair.source, &mine);
        let has = |name: &String| {
            pair.source.words.iter().any(|word| word.is_capital && is_same(pair, name, &word.lower))
        };
        extra.retain(|name| has(name) == known);
        sum += missing.min(extra.len());
    }
    Some(sum as f64)
}

/// Words of some sentences.
fn words_of(text: &Text<'_>, sentences: &Range<usize>) -> Range<usize> {
    match (text.sentences.get(sentences.start), text.sentences.get(sentences.end.wrapping_sub(1))) {
        (Some(first), Some(last)) if !sentences.is_empty() => first.start..last.end,
        _ => 0..0,
    }
}

/// Occurrences of names in `mine` without a matching word in `theirs`.
fn excess(
    pair: &Pair<'_>,
    own: &Text<'_>,
    mine: &Range<usize>,
    other: &Text<'_>,
    theirs: &Range<usize>,
) -> Vec<String> {
    let capitals = other.words[theirs.clone()].iter().filter(|word| word.is_capital);
    let mut free: Vec<&str> = capitals.map(|word| word.lower.as_str()).collect();
    let mut excess = Vec::new();
    for &position in own.names.iter().filter(|position| mine.contains(position)) {
        let name = resolved(pair, &own.words[position].lower);
        match free.iter().position(|word| is_same(pair, &name, word)) {
            Some(place) => {
                free.swap_remove(place);
            }
            None => excess.push(name),
        }
    }
    excess
}

/// Occurrences by name, in lower case and with aliases resolved.
fn counts(pair: &Pair<'_>, text: &Text<'_>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for &position in &text.names {
        *counts.entry(resolved(pair, &text.words[position].lower)).or_default() += 1;
    }
    counts
}

fn resolved(pair: &Pair<'_>, lower: &str) -> String {
    let plain = lower.strip_suffix("'s").or_else(|| lower.strip_suffix('\'')).unwrap_or(lower);
    pair.aliases.get(plain).map_or_else(|| plain.to_owned(), Clone::clone)
}

fn is_same(pair: &Pair<'_>, name: &str, word: &str) -> bool {
    let word = resolved(pair, word);
    if *name == *word {
        return true;
    }
    let n_chars = name.chars().count();
    stem::are_alike(name, &word)
        || (n_chars >= 6
            && word.chars().count().abs_diff(n_chars) <= 1
            && strsim::damerau_levenshtein(name, &word) * 6 <= n_chars)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(source: &str, answer: &str, aliases: &BTreeMap<String, String>) -> Vec<Option<f64>> {
        let pair = Pair { aliases, ..Pair::new(source, answer) };
        RULES.iter().map(|rule| (rule.measure)(&pair)).collect()
    }

    #[test]
    fn names_are_kept_and_known() {
        let none = BTreeMap::new();
        let source = "Then Moses spoke to Aaron, and Moses wept.";
        let check = |answer: &str, expected: [f64; 4]| {
            assert_eq!(values(source, answer, &none), expected.map(Some), "{answer}");
        };
        check("There Moses talked to Aaron; and Moses was sad.", [1.0, 1.0, 0.0, 0.0]);
        check("There Joshua talked to Aaron; and Joshua was sad.", [0.5, 0.5, 0.0, 2.0]);
        // Aaron in place of Moses: both are known, but one is missing and the other is extra.
        check("There Moses talked to Aaron; and Aaron was sad.", [1.0, 1.0, 1.0, 0.0]);
        // A pronoun, and a name for one, are not an exchange.
        check("There Moses talked to Aaron; and he was sad.", [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(values("no names", "none here", &none), [None; 4]);
    }

    #[test]
    fn spellings_and_aliases_count_as_the_same() {
        let none = BTreeMap::new();
        assert_eq!(values("To Nebuchadnezzar he came.", "He came to Nebuchadrezzar.", &none)[0], Some(1.0));
        assert_eq!(values("He saw Esaias.", "There he saw Isaiah.", &none)[0], Some(0.0));
        let alias = BTreeMap::from([("esaias".to_owned(), "isaiah".to_owned())]);
        let found = values("He saw Esaias.", "There he saw Isaiah's.", &alias);
        assert_eq!(found, [1.0, 1.0, 0.0, 0.0].map(Some));
    }
}
