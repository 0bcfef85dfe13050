//! The words of a text, split once for all rules.
//!
//! Words are those of UAX #29 (`split_word_bounds`), punctuation included and white space left
//! out, with one change: a run of dots or of hyphens is one word. That is what spaCy's English
//! tokenizer does, which datatrove's rules are applied with; other symbols, such as the `=` of an
//! underlined heading, are a word each in both.

use std::cell::OnceCell;

use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

/// A word by its place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// First byte. A normalised text has less than 2^32 of them.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// What it consists of.
    pub kind: Kind,
}

/// What a word consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Neither letter nor digit.
    Symbols,
    /// A digit and no letter.
    Digits,
    /// A letter.
    Letters,
}

/// The words of a text, in its order.
#[derive(Clone, Debug, Default)]
pub struct Words {
    words: Vec<Word>,
    n_by_kind: [u64; 3],
    chars_by_kind: [u64; 3],
    hashes: OnceCell<Vec<u64>>,
}

impl Word {
    /// The word in its text.
    pub fn of<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start as usize..(self.start + self.len) as usize).unwrap_or_default()
    }
}

impl Words {
    /// All words, punctuation included.
    pub fn all(&self) -> &[Word] {
        &self.words
    }

    /// Number of words.
    pub fn len(&self) -> u64 {
        self.words.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Words with a letter.
    pub fn n_with_letter(&self) -> u64 {
        self.n_by_kind[Kind::Letters as usize]
    }

    /// Words with a letter or digit.
    pub fn n_with_letter_or_digit(&self) -> u64 {
        self.n_with_letter() + self.n_by_kind[Kind::Digits as usize]
    }

    /// Characters of the words with a letter or digit.
    pub fn chars_with_letter_or_digit(&self) -> u64 {
        self.chars_by_kind[Kind::Letters as usize] + self.chars_by_kind[Kind::Digits as usize]
    }

    /// XXH3-64 of each word's bytes. `text` is the text that was split.
    pub fn hashes(&self, text: &str) -> &[u64] {
        self.hashes.get_or_init(|| self.words.iter().map(|word| xxh3_64(word.of(text).as_bytes())).collect())
    }

    /// Forgets the words and takes those of `text`.
    pub(super) fn split(&mut self, text: &str) {
        self.words.clear();
        (self.n_by_kind, self.chars_by_kind) = ([0; 3], [0; 3]);
        self.hashes.take();
        // The dot or hyphen that the previous word was a run of; anything else ends the run.
        let mut run: Option<char> = None;
        for (start, word) in text.split_word_bound_indices() {
            let mut chars = word.chars();
            let first = chars.next().unwrap_or(' ');
            if first.is_whitespace() {
                run = None;
                continue;
            }
            let runs = matches!(first, '.' | '-') && chars.next().is_none();
            if runs && run == Some(first) {
                if let Some(last) = self.words.last_mut() {
                    last.len += 1;
                }
                continue;
            }
            run = runs.then_some(first);
            self.push(start, word);
        }
    }

    fn push(&mut self, start: usize, word: &str) {
        let (mut n_chars, mut kind) = (0, Kind::Symbols);
        for c in word.chars() {
            n_chars += 1;
            if c.is_alphabetic() {
                kind = Kind::Letters;
            } else if c.is_numeric() {
                kind = kind.max(Kind::Digits);
            }
        }
        self.words.push(Word { start: start as u32, len: word.len() as u32, kind });
        self.n_by_kind[kind as usize] += 1;
        self.chars_by_kind[kind as usize] += n_chars;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        let mut words = Words::default();
        words.split(text);
        words
    }

    #[test]
    fn words_are_counted_by_kind() {
        // The, cat, ,, and, the, 12, dogs, . and the run of hyphens.
        let words = words("The cat, and the 12 dogs.\n----");
        assert_eq!((words.len(), words.n_with_letter(), words.n_with_letter_or_digit()), (9, 5, 6));
        assert_eq!(words.chars_with_letter_or_digit(), 3 + 3 + 3 + 3 + 2 + 4);
    }

    #[test]
    fn only_runs_of_dots_and_hyphens_are_one_word() {
        let check = |text: &str, expected: &[&str]| {
            let words = words(text);
            let found: Vec<&str> = words.all().iter().map(|word| word.of(text)).collect();
            assert_eq!(found, expected, "{text:?}");
            let hashes: Vec<u64> = expected.iter().map(|word| xxh3_64(word.as_bytes())).collect();
            assert_eq!(words.hashes(text), hashes);
        };
        check("....", &["...."]);
        check("---- --", &["----", "--"]);
        check(".-.-", &[".", "-", ".", "-"]);
        check("====", &["=", "=", "=", "="]);
        check("11 é11", &["11", "é11"]);
        check("", &[]);
    }

    #[test]
    fn nothing_of_the_text_before_is_left() {
        let mut words = words("one two 3 four");
        words.hashes("one two 3 four");
        words.split("five");
        assert_eq!((words.len(), words.n_with_letter_or_digit()), (1, 1));
        assert_eq!(words.hashes("five"), [xxh3_64(b"five")]);
    }
}
