//! Codes of languages: the three letters of ISO 639-3 become the two of ISO 639-1 where there are two, as RFC 5646 (BCP 47)
//! has it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The two letters of three: ISO 639-1 as ISO 639-3 refers to it, and individual languages whose macrolanguage is what
/// detectors and data sets mean by the two letters.
static TWO_LETTERS: LazyLock<BTreeMap<&str, &str>> =
    LazyLock::new(|| include_str!("iso.txt").lines().filter_map(|line| line.split_once(' ')).collect());

/// The code of a language as it is compared and stored: `eng`, `en-GB` and `eng_Latn` are all `en`.
pub(super) fn code(text: &str) -> String {
    let language = text.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    TWO_LETTERS.get(&*language).map_or(language, |two| (*two).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_short_as_they_can_be() {
        for (text, expected) in [
            ("eng", "en"),
            ("en-GB", "en"),
            ("eng_Latn", "en"),
            ("cmn", "zh"),
            ("ZH", "zh"),
            ("ceb", "ceb"),
            ("nob", "nb"),
            ("", ""),
        ] {
            assert_eq!(code(text), expected);
        }
        assert!(TWO_LETTERS.iter().all(|(three, two)| three.len() == 3 && two.len() == 2));
    }
}
