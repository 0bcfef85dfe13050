//! What filters look at: a text, and statistics of its words that are computed once, when the
//! first filter asks for them.
//!
//! Words are those of UAX #29 (`split_word_bounds`), punctuation included and white space left
//! out, with one change: a run of dots or of hyphens is one word. That is what spaCy's English
//! tokenizer does, which datatrove's rules are applied with; other symbols, such as the `=` of an
//! underlined heading, are a word each in both.

use std::cell::OnceCell;

use unicode_segmentation::UnicodeSegmentation;

/// The stop words of the Gopher rules, in the order of the bits of [`WordStats::stop_words`].
pub const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

/// A normalised text under judgement.
#[derive(Debug)]
pub struct Text<'a> {
    text: &'a str,
    n_chars: OnceCell<u64>,
    words: OnceCell<WordStats>,
}

/// Statistics of the words of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordStats {
    /// All words, punctuation included.
    pub n_words: u64,
    /// Words with at least one letter or digit.
    pub n_non_symbol: u64,
    /// Characters of those.
    pub non_symbol_chars: u64,
    /// Words with at least one letter.
    pub n_alphabetic: u64,
    /// Bit `i` is set when [`STOP_WORDS`]`[i]` occurs, in lower case as written there.
    pub stop_words: u8,
}

impl<'a> Text<'a> {
    /// A text of which nothing is known yet.
    pub fn new(text: &'a str) -> Text<'a> {
        Text { text, n_chars: OnceCell::new(), words: OnceCell::new() }
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Unicode characters.
    pub fn n_chars(&self) -> u64 {
        *self.n_chars.get_or_init(|| self.text.chars().count() as u64)
    }

    /// Statistics of the words.
    pub fn words(&self) -> &WordStats {
        self.words.get_or_init(|| WordStats::of(self.text))
    }
}

impl WordStats {
    fn of(text: &str) -> WordStats {
        let mut stats = WordStats::default();
        // The dot or hyphen that the previous word was a run of; anything else ends the run.
        let mut run: Option<char> = None;
        for word in text.split_word_bounds() {
            let mut chars = word.chars();
            let first = chars.next().unwrap_or(' ');
            if first.is_whitespace() {
                run = None;
                continue;
            }
            let runs = matches!(first, '.' | '-') && chars.next().is_none();
            if runs && run == Some(first) {
                continue;
            }
            run = runs.then_some(first);
            stats.add(word);
        }
        stats
    }

    fn add(&mut self, word: &str) {
        self.n_words += 1;
        let (mut n_chars, mut has_letter, mut has_digit) = (0, false, false);
        for c in word.chars() {
            n_chars += 1;
            has_letter |= c.is_alphabetic();
            has_digit |= c.is_numeric();
        }
        if has_letter || has_digit {
            self.n_non_symbol += 1;
            self.non_symbol_chars += n_chars;
        }
        self.n_alphabetic += u64::from(has_letter);
        if let Some(i) = STOP_WORDS.iter().position(|stop| *stop == word) {
            self.stop_words |= 1 << i;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_by_kind() {
        // The, cat, ,, and, the, 12, dogs, . and the run of hyphens.
        let stats = WordStats::of("The cat, and the 12 dogs.\n----");
        let expected = WordStats {
            n_words: 9,
            n_non_symbol: 6,
            non_symbol_chars: 3 + 3 + 3 + 3 + 2 + 4,
            n_alphabetic: 5,
            stop_words: 0b0001_0001, // `the` and `and`; `The` is not `the`
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn only_runs_of_dots_and_hyphens_are_one_word() {
        let n = |text| WordStats::of(text).n_words;
        assert_eq!(n("...."), 1);
        assert_eq!(n("---- --"), 2);
        assert_eq!(n(".-.-"), 4);
        assert_eq!(n("===="), 4);
        assert_eq!(n("11 11"), 2);
        assert_eq!(n(""), 0);
    }
}
