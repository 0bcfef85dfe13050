//! Words of the answer for each word of the source. Styles set the range: a paraphrase is about as long as its source, a
//! summary shorter, questions with answers may be longer.

use super::{Pair, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule { name: "length_least", limit: 0.7, is_least: true, measure: ratio },
    Rule { name: "length_most", limit: 1.6, is_least: false, measure: ratio },
];

fn ratio(pair: &Pair<'_>) -> Option<f64> {
    Some(pair.answer.words.len() as f64 / pair.source.words.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_in_words() {
        assert_eq!(ratio(&Pair::new("one two three four", "1 2")), Some(0.5));
        assert_eq!(ratio(&Pair::new("", "1 2")), Some(2.0));
    }
}
