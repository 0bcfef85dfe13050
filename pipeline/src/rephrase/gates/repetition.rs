//! Loops: a model that repeats itself. Both measures are compared with the source, which may itself be a litany.

use std::collections::HashMap;

use super::{Pair, Rule};
use crate::rephrase::text::Word;

pub(super) const RULES: &[Rule] = &[
    Rule { name: "repeated_words", limit: 0.2, is_least: false, measure: repeated },
    Rule { name: "compression", limit: 1.6, is_least: false, measure: compression },
];

/// Words in a run that counts as repeated.
const RUN: usize = 6;
/// Fewest bytes for which compression is meaningful.
const LEAST_BYTES: usize = 200;

/// Share of the answer's words in runs of six that occur earlier in the answer, minus the same share of the source.
fn repeated(pair: &Pair<'_>) -> Option<f64> {
    let more = repeated_share(&pair.answer.words)? - repeated_share(&pair.source.words).unwrap_or(0.0);
    Some(more.max(0.0))
}

fn repeated_share(words: &[Word]) -> Option<f64> {
    let mut seen: HashMap<Vec<&str>, usize> = HashMap::new();
    let mut is_repeated = vec![false; words.len()];
    for (i, run) in words.windows(RUN).enumerate() {
        let run: Vec<&str> = run.iter().map(|word| word.lower.as_str()).collect();
        let times = seen.entry(run).or_default();
        if *times > 0 {
            is_repeated[i..i + RUN].fill(true);
        }
        *times += 1;
    }
    let n_repeated = is_repeated.iter().filter(|is| **is).count();
    (!words.is_empty()).then(|| n_repeated as f64 / words.len() as f64)
}

/// How many times better the answer compresses than the source (zstd).
fn compression(pair: &Pair<'_>) -> Option<f64> {
    Some(ratio(pair.answer.text)? / ratio(pair.source.text)?)
}

fn ratio(text: &str) -> Option<f64> {
    if text.len() < LEAST_BYTES {
        return None;
    }
    let compressed = zstd::bulk::compress(text.as_bytes(), 3).ok()?;
    Some(text.len() as f64 / compressed.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_noticed() {
        let plain: String = (0..60).map(|i| format!("word{i} ")).collect();
        let looped = "the dog went to the house and ".repeat(9);
        assert_eq!(repeated(&Pair::new(&plain, &plain)), Some(0.0));
        // 63 words, of which the first 7 are not repeated.
        assert_eq!(repeated(&Pair::new(&plain, &looped)), Some(56.0 / 63.0));
        assert_eq!(repeated(&Pair::new(&looped, &looped)), Some(0.0));
        assert!(compression(&Pair::new(&plain, &looped)) > Some(1.6));
        assert_eq!(compression(&Pair::new(&plain, "short")), None);
    }
}
