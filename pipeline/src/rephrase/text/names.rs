//! Proper names: words with a capital letter inside a sentence.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Word;

/// Capitalized words that are not names.
const NEVER: &[&str] = &["i", "i'm", "i'll", "i've", "i'd", "o", "oh"];

/// Positions of names among the words. The first word of a sentence is a name only where the same word is one
/// elsewhere in the text; stop words never are, since verse and direct speech begin inside sentences with a capital.
pub fn names(words: &[Word], sentences: &[Range<usize>]) -> Vec<usize> {
    let starts: BTreeSet<usize> = sentences.iter().map(|range| range.start).collect();
    let small: BTreeSet<&str> = words.iter().filter(|w| !w.is_capital).map(|w| w.lower.as_str()).collect();
    let could_be = |word: &Word| {
        word.is_capital
            && word.is_content
            && word.lower.chars().any(char::is_alphabetic)
            && !NEVER.contains(&word.lower.as_str())
            && !small.contains(word.lower.as_str())
    };
    let inside: BTreeSet<&str> = words
        .iter()
        .enumerate()
        .filter(|(i, word)| !starts.contains(i) && could_be(word))
        .map(|(_, word)| word.lower.as_str())
        .collect();
    (0..words.len()).filter(|&i| could_be(&words[i]) && inside.contains(words[i].lower.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Text;

    fn check(text: &str, expected: &[&str]) {
        let text = Text::new(text);
        let found: Vec<&str> = text.names.iter().map(|&i| text.words[i].lower.as_str()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn names_are_capitalized_inside_sentences() {
        check(
            "Then Moses spoke. Moses said, And Aaron came. Dogs bark at I and the Dogs. The dogs sleep.",
            &["moses", "moses", "aaron"],
        );
        check("All lower case here", &[]);
    }
}
