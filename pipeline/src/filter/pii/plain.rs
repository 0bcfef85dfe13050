//! A text in which the rules see only ASCII and letters: a no-break space is a space, a full-width digit a digit,
//! and a curly quote or an ideograph next to a number is not part of it.

use std::borrow::Cow;

/// Placeholder for a letter or digit beyond ASCII, which binds to its neighbors.
const LETTER: char = 'é';
/// Placeholder for anything else, which no rule looks for.
const OTHER: char = '\u{1}';

/// A text and the original positions of its bytes.
pub(super) struct Plain<'t> {
    pub text: Cow<'t, str>,
    /// After each changed character: the position here, and in the original text.
    places: Vec<(usize, usize)>,
}

impl<'t> Plain<'t> {
    pub fn of(text: &'t str) -> Plain<'t> {
        if text.is_ascii() {
            return Plain { text: Cow::Borrowed(text), places: Vec::new() };
        }
        let (mut plain, mut places) = (String::with_capacity(text.len()), Vec::new());
        let mut start = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| !c.is_ascii()) {
            plain.push_str(&text[start..at]);
            plain.push(plain_char(c));
            start = at + c.len_utf8();
            places.push((plain.len(), start));
        }
        plain.push_str(&text[start..]);
        Plain { text: Cow::Owned(plain), places }
    }

    /// Original position of a boundary between two characters.
    pub fn original(&self, at: usize) -> usize {
        match self.places.partition_point(|(here, _)| *here <= at).checked_sub(1) {
            None => at,
            Some(last) => self.places[last].1 + (at - self.places[last].0),
        }
    }
}

fn plain_char(c: char) -> char {
    match c {
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => ' ',
        '\u{2010}'..='\u{2013}' | '\u{2212}' => '-',
        // Full-width forms of ASCII.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(OTHER),
        _ if c.is_numeric() => LETTER,
        // Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, ideographs, Hangul with its particles.
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => OTHER,
        _ if c.is_alphabetic() => LETTER,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_text_as_it_was() {
        let text = "a\u{a0}é“１２”漢b";
        let plain = Plain::of(text);
        assert_eq!(plain.text, "a é\u{1}12\u{1}\u{1}b");
        for (here, there) in
            [(0, 0), (1, 1), (2, 3), (4, 5), (5, 8), (6, 11), (7, 14), (8, 17), (9, 20), (10, 21)]
        {
            assert_eq!(plain.original(here), there, "{here}");
        }
        assert_eq!(Plain::of("abc").original(2), 2);
    }
}
