//! The model stopped on its own, and its answer starts with the style's sentinel. Refusals and preambles mostly lack
//! the sentinel, so this is the cheapest gate (Nemotron-CC, arXiv 2412.02595, appendix, asks for such a line too).

use super::Rule;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "finished",
        limit: 1.0,
        is_least: true,
        measure: |pair| Some(f64::from(u8::from(pair.finish_reason == "stop"))),
    },
    Rule {
        name: "sentinel",
        limit: 1.0,
        is_least: true,
        measure: |pair| Some(f64::from(u8::from(pair.has_sentinel))),
    },
];

#[cfg(test)]
mod tests {
    use super::super::Pair;
    use super::*;

    #[test]
    fn cut_answers_and_missing_sentinels_fail() {
        let whole = Pair::new("a", "b");
        let cut = Pair { finish_reason: "length", ..Pair::new("a", "b") };
        let bare = Pair { has_sentinel: false, ..Pair::new("a", "b") };
        let values = |pair: &Pair<'_>| RULES.iter().map(|rule| (rule.measure)(pair)).collect::<Vec<_>>();
        assert_eq!(values(&whole), [Some(1.0), Some(1.0)]);
        assert_eq!(values(&cut), [Some(0.0), Some(1.0)]);
        assert_eq!(values(&bare), [Some(1.0), Some(0.0)]);
    }
}
