//! Input of the gates: a text as words, sentences, numbers, names and literal spans, computed once.

mod literals;
mod names;
mod numbers;
mod sentences;
pub mod stem;

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

pub use self::literals::literals;
pub use self::names::names;
pub use self::numbers::{Numbers, numbers};
pub use self::sentences::sentences;

/// A word (UAX #29) of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its bytes in the text.
    pub bytes: Range<usize>,
    /// In lower case.
    pub lower: String,
    /// Without the most common English endings; other languages lose little.
    pub stem: String,
    /// Whether it starts with a capital letter.
    pub is_capital: bool,
    /// Whether it is a content word: neither a stop word nor a single letter.
    pub is_content: bool,
}

/// A text, taken apart.
#[derive(Clone, Debug)]
pub struct Text<'t> {
    /// The text itself.
    pub text: &'t str,
    /// Its words.
    pub words: Vec<Word>,
    /// Its sentences, as ranges of words that cover them all.
    pub sentences: Vec<Range<usize>>,
    /// Its numbers, written as digits or as English words.
    pub numbers: Numbers,
    /// Positions of names in `words`.
    pub names: Vec<usize>,
    /// URLs, addresses and code spans, verbatim.
    pub literals: Vec<&'t str>,
}

impl<'t> Text<'t> {
    /// Takes a text apart.
    pub fn new(text: &'t str) -> Text<'t> {
        let words: Vec<Word> = text
            .unicode_word_indices()
            .map(|(start, word)| {
                let lower = word.to_lowercase().replace('\u{2019}', "'");
                let stem = stem::stem(&lower);
                let is_content = !stem::is_stop_word(&lower) && is_long(word);
                let is_capital = word.chars().next().is_some_and(char::is_uppercase);
                Word { bytes: start..start + word.len(), lower, stem, is_capital, is_content }
            })
            .collect();
        let sentences = sentences(text, &words);
        let numbers = numbers(text, &words);
        let names = names(&words, &sentences);
        Text { text, numbers, names, literals: literals(text), words, sentences }
    }

    /// The text of a sentence, from its first word to its last.
    pub fn sentence(&self, number: usize) -> &'t str {
        let Some(words) = self.sentences.get(number).and_then(|range| self.words.get(range.clone())) else {
            return "";
        };
        match (words.first(), words.last()) {
            (Some(first), Some(last)) => &self.text[first.bytes.start..last.bytes.end],
            _ => "",
        }
    }
}

/// Two letters, or one of a script in which single characters are words.
fn is_long(word: &str) -> bool {
    let mut chars = word.chars();
    match (chars.next(), chars.next()) {
        (Some(_), Some(_)) => true,
        (Some(c), None) => !c.is_ascii() && c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart() {
        let text = Text::new("In 1912 Scott’s party walked. Two hundred and five dogs, see `run()`.");
        let words: Vec<&str> = text.words.iter().map(|word| word.lower.as_str()).collect();
        assert_eq!(words[..5], ["in", "1912", "scott's", "party", "walked"]);
        assert_eq!(text.sentences, [0..5, 5..12]);
        assert_eq!(text.sentence(0), "In 1912 Scott’s party walked");
        assert_eq!(text.numbers.values, ["1912", "205"]);
        assert_eq!(text.names, [2]);
        assert_eq!(text.literals, ["run()"]);
    }

    #[test]
    fn odd_texts_are_texts() {
        for odd in ["", "\n\n", "...", "\u{feff}", "中文没有空格。第二句。", "a\u{0}b"] {
            let text = Text::new(odd);
            assert_eq!(text.sentences.iter().map(ExactSizeIterator::len).sum::<usize>(), text.words.len());
        }
    }
}
