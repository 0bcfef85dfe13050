//! The words of a text, split once for all rules.
//!
//! Words of UAX #29 (`split_word_bounds`) include punctuation but not white space, with one change: a run
//! of dots or of hyphens is one word. The rules of datatrove are defined on the words of spaCy's English
//! tokenizer (`crate::spacy`); other programs use white space or UAX #29.

use std::cell::OnceCell;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use crate::spacy;

/// A word by its position in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// First byte. A normalized text has less than 2^32 of them.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// Characters.
    pub n_chars: u32,
    /// What it consists of.
    pub kind: Kind,
}

/// What a word consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing but [`is_punctuation`].
    Symbols,
    /// Something else, such as a digit, but no letters.
    Other,
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
    #[inline]
    pub fn of<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start as usize..(self.start + self.len) as usize).unwrap_or_default()
    }
}

impl Words {
    /// All words, punctuation included.
    #[inline]
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

    /// Characters of all words.
    pub fn n_chars(&self) -> u64 {
        self.chars_by_kind.iter().sum()
    }

    /// Words with a letter.
    pub fn n_with_letter(&self) -> u64 {
        self.n_by_kind[Kind::Letters as usize]
    }

    /// Words that are not only punctuation.
    pub fn n_non_symbol(&self) -> u64 {
        self.n_with_letter() + self.n_by_kind[Kind::Other as usize]
    }

    /// Characters of words that are not only punctuation.
    pub fn chars_non_symbol(&self) -> u64 {
        self.chars_by_kind[Kind::Letters as usize] + self.chars_by_kind[Kind::Other as usize]
    }

    /// XXH3-64 of each word's bytes. `text` is the text that was split.
    pub fn hashes(&self, text: &str) -> &[u64] {
        self.hashes.get_or_init(|| {
            let mut hashes = Vec::with_capacity(self.words.len());
            hashes.extend(self.words.iter().map(|word| xxh3_64(word.of(text).as_bytes())));
            hashes
        })
    }

    fn clear(&mut self) {
        self.words.clear();
        (self.n_by_kind, self.chars_by_kind) = ([0; 3], [0; 3]);
        self.hashes.take();
    }

    /// Replaces the words by those of spaCy.
    pub(super) fn split_as_spacy(&mut self, text: &str) {
        self.clear();
        spacy::english().words(text, &mut |word| self.push_part(text, word));
    }

    /// Replaces the words by those of UAX #29.
    pub(super) fn split(&mut self, text: &str) {
        self.clear();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            // ASCII white space ends a word on both sides, so the text between can be split on its own.
            if is_ascii_space(bytes[at]) {
                at += 1;
                continue;
            }
            let end =
                at + bytes[at..].iter().position(|byte| is_ascii_space(*byte)).unwrap_or(bytes.len() - at);
            if bytes[at..end].is_ascii() {
                self.split_ascii(bytes, at, end);
            } else {
                // With the space before it, since a combining mark at the start belongs to it.
                let start = if at > 0 && matches!(bytes[at - 1], b' ' | b'\t') { at - 1 } else { at };
                self.split_unicode(&text[start..end], start);
            }
            at = end;
        }
    }

    /// Replaces the words by those between white space.
    pub(super) fn split_at_spaces(&mut self, text: &str) {
        self.clear();
        text.split_whitespace().for_each(|word| self.push_part(text, word));
    }

    /// `word` is a part of `text`.
    fn push_part(&mut self, text: &str, word: &str) {
        self.push(word.as_ptr() as usize - text.as_ptr() as usize, word);
    }

    /// Replaces the words by these, which are stretches of `text` in order.
    pub fn set<'w>(&mut self, text: &str, words: impl IntoIterator<Item = &'w str>) -> Result<(), String> {
        self.clear();
        let mut from = 0;
        for word in words {
            let found =
                text[from..].find(word).ok_or_else(|| format!("the word {word:?} is not in the text"))?;
            let start = from + found;
            from = start + word.len();
            self.push(start, &text[start..from]);
        }
        Ok(())
    }

    /// The rules of UAX #29 for characters of ASCII other than white space.
    fn split_ascii(&mut self, bytes: &[u8], mut at: usize, end: usize) {
        while at < end {
            let start = at;
            let class = CLASSES[bytes[at] as usize];
            if class == Class::Other {
                // A run of dots or hyphens is one word.
                at += 1;
                if matches!(bytes[start], b'.' | b'-') {
                    while at < end && bytes[at] == bytes[start] {
                        at += 1;
                    }
                }
                self.add(start, at - start, at - start, Kind::Symbols);
                continue;
            }
            let mut last = class;
            let mut kind = kind_of(class);
            at += 1;
            while at < end {
                let class = CLASSES[bytes[at] as usize];
                if class != Class::Other {
                    // Letters, digits and underscores stay together (WB5, WB8 to WB10, WB13a, WB13b).
                    (last, kind) = (class, kind.max(kind_of(class)));
                    at += 1;
                    continue;
                }
                // One mark between two letters or two digits (WB6, WB7, WB11, WB12).
                let joins = match bytes[at] {
                    b'.' | b'\'' => last != Class::Underscore,
                    b':' => last == Class::Letter,
                    b',' | b';' => last == Class::Digit,
                    _ => false,
                };
                let next = bytes.get(at + 1).filter(|_| at + 1 < end).map(|byte| CLASSES[*byte as usize]);
                if !joins || next != Some(last) {
                    break;
                }
                at += 2;
            }
            self.add(start, at - start, at - start, kind);
        }
    }

    /// `offset` is where `text` starts in the whole text.
    fn split_unicode(&mut self, text: &str, offset: usize) {
        // The dot or hyphen whose run the previous word was; anything else ends the run.
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
                    last.n_chars += 1;
                    self.chars_by_kind[Kind::Symbols as usize] += 1;
                }
                continue;
            }
            run = runs.then_some(first);
            self.push(offset + start, word);
        }
    }

    fn push(&mut self, start: usize, word: &str) {
        let (mut n_chars, mut kind) = (0, Kind::Symbols);
        for c in word.chars() {
            n_chars += 1;
            if kind < Kind::Letters {
                kind = kind.max(kind_of_char(c));
            }
        }
        self.add(start, word.len(), n_chars, kind);
    }

    fn add(&mut self, start: usize, len: usize, n_chars: usize, kind: Kind) {
        self.words.push(Word { start: start as u32, len: len as u32, n_chars: n_chars as u32, kind });
        self.n_by_kind[kind as usize] += 1;
        self.chars_by_kind[kind as usize] += n_chars as u64;
    }
}

/// White space of ASCII.
fn is_ascii_space(byte: u8) -> bool {
    byte == b' ' || (b'\t'..=b'\r').contains(&byte)
}

/// A character of ASCII in UAX #29.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Underscore,
    Other,
}

const CLASSES: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut i = 0;
    while i < 128 {
        let byte = i as u8;
        if byte.is_ascii_alphabetic() {
            classes[i] = Class::Letter;
        } else if byte.is_ascii_digit() {
            classes[i] = Class::Digit;
        } else if byte == b'_' {
            classes[i] = Class::Underscore;
        }
        i += 1;
    }
    classes
};

fn kind_of(class: Class) -> Kind {
    match class {
        Class::Letter => Kind::Letters,
        Class::Digit => Kind::Other,
        Class::Underscore | Class::Other => Kind::Symbols,
    }
}

fn kind_of_char(c: char) -> Kind {
    if c.is_ascii_alphabetic() {
        Kind::Letters
    } else if is_punctuation(c) {
        Kind::Symbols
    } else if !c.is_ascii() && c.general_category_group() == GeneralCategoryGroup::Letter {
        Kind::Letters
    } else {
        Kind::Other
    }
}

/// Whether a character is in datatrove's `PUNCTUATION_SET` (`utils/text.py`, version 0.10.1): all symbols of ASCII, control
/// characters but tab and line end, and these marks, among them by mistake the full-width one.
pub fn is_punctuation(c: char) -> bool {
    match c {
        '\t' | '\n' | ' ' => false,
        '\0'..='\u{9f}' => !c.is_ascii_alphanumeric(),
        _ => matches!(
            c,
            '«' | '´'
                | '»'
                | '–'
                | '—'
                | '’'
                | '“'
                | '”'
                | '„'
                | '…'
                | '∶'
                | '━'
                | '►'
                | '、'
                | '。'
                | '〈'
                ..='」'
                    | '【'
                    | '】'
                    | '！'
                    | '％'
                    | '（'
                    | '）'
                    | '，'
                    | '．'
                    | '１'
                    | '：'
                    | '；'
                    | '？'
                    | '～'
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Words {
        let mut words = Words::default();
        words.split(text);
        words
    }

    /// The definition, without the shortcut for ASCII.
    fn slow(text: &str) -> Words {
        let mut words = Words::default();
        words.split_unicode(text, 0);
        words
    }

    #[test]
    fn words_are_counted_by_kind() {
        // The, cat, ,, and, the, 12, dogs, . and the run of hyphens.
        let words = words("The cat, and the 12 dogs.\n----");
        assert_eq!((words.len(), words.n_with_letter(), words.n_non_symbol()), (9, 5, 6));
        assert_eq!((words.chars_non_symbol(), words.n_chars()), (3 + 3 + 3 + 3 + 2 + 4, 24));
    }

    #[test]
    fn kinds_are_those_of_datatrove() {
        let check = |word: &str, expected: Kind| {
            let mut words = Words::default();
            words.split_at_spaces(word);
            assert_eq!(words.all().iter().map(|word| word.kind).collect::<Vec<_>>(), [expected], "{word}");
        };
        for word in ["#", "_", "…", "１", "«.»", "〈》", "\u{7f}"] {
            check(word, Kind::Symbols);
        }
        // A Roman numeral is alphabetic but not a letter.
        for word in ["€", "12", "‘", "Ⅳ", "２", "😀", "ा"] {
            check(word, Kind::Other);
        }
        for word in ["a", "é1", "語", "#x", "ʰ"] {
            check(word, Kind::Letters);
        }
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
        check("é....", &["é", "...."]);
        check(
            "don't 3.14 a.b.c x:y 1,000;2 a_1 'q' e.g.",
            &["don't", "3.14", "a.b.c", "x:y", "1,000;2", "a_1", "'", "q", "'", "e.g", "."],
        );
        check("", &[]);
    }

    #[test]
    fn nothing_of_the_text_before_is_left() {
        let mut words = words("one two 3 four");
        words.hashes("one two 3 four");
        words.split("five");
        assert_eq!((words.len(), words.n_non_symbol()), (1, 1));
        assert_eq!(words.hashes("five"), [xxh3_64(b"five")]);
    }

    #[test]
    fn words_from_elsewhere_are_found_in_their_order() {
        let mut words = Words::default();
        words.set("a b a", ["a", "a"]).unwrap();
        assert_eq!(words.all().iter().map(|word| word.start).collect::<Vec<_>>(), [0, 4]);
        assert!(words.set("a b a", ["b", "b"]).is_err());
    }

    proptest! {
        #[test]
        fn the_short_cut_for_ascii_splits_as_the_definition(text in "([ab1_.,:;' \\-\"=é語\u{301}\u{a0}\t\n]|[ -~]){0,40}") {
            let (fast, slow) = (words(&text), slow(&text));
            prop_assert_eq!(fast.all(), slow.all());
            prop_assert_eq!((fast.n_by_kind, fast.chars_by_kind), (slow.n_by_kind, slow.chars_by_kind));
        }
    }
}
