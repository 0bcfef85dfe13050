//! An answer that shares few words with its source is about something else.

use std::collections::BTreeSet;

use super::{Pair, Rule};
use crate::rephrase::text::Text;

pub(super) const RULES: &[Rule] =
    &[Rule { name: "shared_words", limit: 0.25, is_least: true, measure: shared }];

/// Share of the answer's distinct content words that the source has, by stems.
fn shared(pair: &Pair<'_>) -> Option<f64> {
    let (source, answer) = (stems(&pair.source), stems(&pair.answer));
    (!answer.is_empty()).then(|| answer.intersection(&source).count() as f64 / answer.len() as f64)
}

fn stems<'t>(text: &'t Text<'_>) -> BTreeSet<&'t str> {
    text.words.iter().filter(|word| word.is_content).map(|word| word.stem.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_shared() {
        let pair = Pair::new("The walkers crossed a river.", "A walker crossing bridges.");
        assert_eq!(shared(&pair), Some(2.0 / 3.0));
        assert_eq!(shared(&Pair::new("x", "the of")), None);
    }
}
