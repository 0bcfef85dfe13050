//! An answer that repeats its source is not a new text. Measured on lower-case words: the share of the answer's runs of
//! eight words that are also in the source, and the longest common run as a share of the answer.

use std::collections::HashSet;

use super::{Pair, Rule};
use crate::rephrase::text::Word;

pub(super) const RULES: &[Rule] = &[
    Rule { name: "copied_8grams", limit: 0.6, is_least: false, measure: copied },
    // Having nothing to copy is fine: half of the faithful passages of the table share less than 4 % of their runs. A style that
    // must stay close to its source may raise the limit.
    Rule { name: "copied_8grams_least", limit: 0.0, is_least: true, measure: copied },
    Rule { name: "longest_copy", limit: 0.6, is_least: false, measure: longest },
];

const RUN: usize = 8;

fn copied(pair: &Pair<'_>) -> Option<f64> {
    let runs = |words: &'_ [Word]| -> Vec<Vec<String>> {
        words.windows(RUN).map(|run| run.iter().map(|word| word.lower.clone()).collect()).collect()
    };
    let known: HashSet<Vec<String>> = runs(&pair.source.words).into_iter().collect();
    let found = runs(&pair.answer.words);
    let n_known = found.iter().filter(|run| known.contains(*run)).count();
    (!found.is_empty()).then(|| n_known as f64 / found.len() as f64)
}

/// Longest common run of words by the table of common suffixes, a row at a time.
fn longest(pair: &Pair<'_>) -> Option<f64> {
    let (source, answer) = (&pair.source.words, &pair.answer.words);
    if answer.len() < RUN {
        return None;
    }
    let mut row = vec![0u32; answer.len() + 1];
    let mut best = 0;
    for a in source {
        let mut diagonal = 0;
        for (j, b) in answer.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if a.lower == b.lower { diagonal + 1 } else { 0 };
            best = best.max(row[j + 1]);
            diagonal = above;
        }
    }
    Some(f64::from(best) / answer.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_copied_runs() {
        let source = "a b c d e f g h i j";
        assert_eq!(copied(&Pair::new(source, source)), Some(1.0));
        // Three runs: `b..i`, `c..j` and `d..j x`, of which two are known.
        assert_eq!(copied(&Pair::new(source, "B C d e f g h i j x")), Some(2.0 / 3.0));
        assert_eq!(copied(&Pair::new(source, "a b c")), None);
        assert_eq!(longest(&Pair::new(source, "B C d e f g h i j x")), Some(0.9));
        assert_eq!(longest(&Pair::new(source, "a x b x c x d x")), Some(1.0 / 8.0));
        assert_eq!(longest(&Pair::new("", "a x b x c x d x")), Some(0.0));
    }
}
