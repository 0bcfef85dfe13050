//! The answer is in the language and the scripts of its source.

use whatlang::Lang;

use super::{Pair, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule { name: "same_scripts", limit: 0.8, is_least: true, measure: same_scripts },
    Rule { name: "same_language", limit: 1.0, is_least: true, measure: same_language },
];

/// Overlap of the two texts' histograms of letters over scripts.
fn same_scripts(pair: &Pair<'_>) -> Option<f64> {
    let (source, answer) = (histogram(pair.source.text)?, histogram(pair.answer.text)?);
    Some(source.iter().zip(answer).map(|(a, b)| a.min(b)).sum())
}

/// 1 if the detected languages are equal or one detection is unsure.
fn same_language(pair: &Pair<'_>) -> Option<f64> {
    let (source, answer) = (sure_language(pair.source.text)?, sure_language(pair.answer.text)?);
    Some(f64::from(u8::from(source == answer)))
}

fn sure_language(text: &str) -> Option<Lang> {
    whatlang::detect(text).filter(whatlang::Info::is_reliable).map(|info| info.lang())
}

/// Shares of Latin, Greek, Cyrillic, Hebrew, Arabic, Indic, Thai, Hangul, kana, Han and other letters.
fn histogram(text: &str) -> Option<[f64; 11]> {
    let mut counts = [0u32; 11];
    for c in text.chars().filter(|c| c.is_alphabetic()) {
        counts[match u32::from(c) {
            0x41..=0x24f | 0x1e00..=0x1eff => 0,
            0x370..=0x3ff | 0x1f00..=0x1fff => 1,
            0x400..=0x52f => 2,
            0x590..=0x5ff => 3,
            0x600..=0x6ff | 0x750..=0x77f => 4,
            0x900..=0xdff => 5,
            0xe00..=0xe7f => 6,
            0x1100..=0x11ff | 0xac00..=0xd7af => 7,
            0x3040..=0x30ff => 8,
            0x3400..=0x9fff | 0x20000..=0x2ffff => 9,
            _ => 10,
        }] += 1;
    }
    let total: u32 = counts.iter().sum();
    (total > 0).then(|| counts.map(|n| f64::from(n) / f64::from(total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str =
        "The king went up to the city with all his people, and they stayed there for many years.";
    const GERMAN: &str =
        "Der König zog mit seinem ganzen Volk hinauf in die Stadt, und sie blieben dort viele Jahre lang.";

    #[test]
    fn another_language_or_script_is_noticed() {
        assert_eq!(same_language(&Pair::new(ENGLISH, ENGLISH)), Some(1.0));
        assert_eq!(same_language(&Pair::new(ENGLISH, GERMAN)), Some(0.0));
        assert_eq!(same_language(&Pair::new(ENGLISH, "ok")), None);
        assert_eq!(same_scripts(&Pair::new("abcd", "ab вг")), Some(0.5));
        assert_eq!(same_scripts(&Pair::new("1", "a")), None);
    }
}
