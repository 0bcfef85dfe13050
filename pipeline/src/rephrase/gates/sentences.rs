//! Sentences of the source that the answer leaves out, and sentences that it adds. Sentences are aligned
//! ([`crate::rephrase::align`]); the value is the surprise of the worst one, in nats: how improbable it is that so few of its content words
//! are found at its place, given how many of the others' are, and that the other text is so short there. A loose rephrasing is thus held to a looser standard than a
//! close one.

use super::Rule;
use crate::rephrase::align::Coverage;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "sentence_dropped",
        limit: 4.0,
        is_least: false,
        measure: |pair| worst(&pair.alignment().source),
    },
    Rule {
        name: "sentence_added",
        limit: 4.0,
        is_least: false,
        measure: |pair| worst(&pair.alignment().answer),
    },
];

/// Weight of the evidence of lengths. Of 0, 1/2 and 1, a half catches most at the same loss of faithful passages.
const SHORTAGE: f64 = 0.5;

fn worst(sentences: &[Coverage]) -> Option<f64> {
    sentences.iter().map(|sentence| sentence.surprise + SHORTAGE * sentence.shortage).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::Pair;
    use super::*;

    #[test]
    fn the_worst_sentence_counts() {
        let kept =
            "The farmer sold seven brown cows at the market. Rain flooded the lower fields near the mill.";
        let less = "The farmer sold seven brown cows at the market.";
        let values = |a, b| RULES.iter().map(|rule| (rule.measure)(&Pair::new(a, b))).collect::<Vec<_>>();
        assert_eq!(values(kept, kept), [Some(0.0); 2]);
        let dropped = values(kept, less);
        assert!(dropped[0] > Some(4.0) && dropped[1] == Some(0.0), "{dropped:?}");
        let added = values(less, kept);
        assert!(added[0] == Some(0.0) && added[1] > Some(4.0), "{added:?}");
        assert_eq!(values("", "a b")[0], None);
    }
}
