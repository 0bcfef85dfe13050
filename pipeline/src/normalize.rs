//! One form for every text before anything else sees it: Unicode NFC, `\n` line ends, no control
//! characters. Filters, hashes and the tokenizer all see this form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::strict_toml::{Docs, Section, documented};

documented! {
    /// The recipe's `[normalize]`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct NormalizeConfig {
        /// Unicode normalization form.
        pub unicode: Unicode,
    }
}

impl Section for NormalizeConfig {
    fn docs() -> Docs {
        NormalizeConfig::DOCS
    }
}

/// Unicode normalization form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unicode {
    /// Canonical composition (UAX #15): `e` + combining acute becomes `é`.
    #[default]
    Nfc,
    /// Code points stay as they are.
    None,
}

/// Normalizes a text.
///
/// Everything that ends a line or a page becomes `\n`: `\r\n`, `\r`, vertical tab, form feed, the separators U+001C to
/// U+001E, U+0085, U+2028 and U+2029. The unit separator U+001F becomes a blank. Other characters of category Cc are
/// removed except tab and `\n`, and so are byte order marks at the start of a line, left by concatenated files.
pub fn normalize(text: &str, config: NormalizeConfig) -> Cow<'_, str> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    let found = look(text);
    // Composition comes last: a control character may separate two characters that compose.
    let clean = if found.controls { Cow::Owned(strip_controls(text)) } else { Cow::Borrowed(text) };
    match config.unicode {
        Unicode::Nfc if found.may_compose && is_nfc_quick(clean.chars()) != IsNormalized::Yes => {
            Cow::Owned(clean.nfc().collect())
        }
        _ => clean,
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// What a text may need.
struct Found {
    /// Controls other than tab and `\n`, line separators that are not controls, and byte order marks.
    controls: bool,
    /// Characters that NFC may change.
    may_compose: bool,
}

/// Scans a text once; blocks of plain ASCII, the bulk of most texts, are skipped without decoding.
fn look(text: &str) -> Found {
    const BLOCK: usize = 32;
    let mut found = Found { controls: false, may_compose: false };
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + BLOCK);
        let is_plain = |b: u8| (0x20..0x7f).contains(&b) | (b == b'\n') | (b == b'\t');
        if bytes[at..end].iter().fold(true, |all, &b| all & is_plain(b)) {
            at = end;
            continue;
        }
        // `at` is always the start of a character.
        for c in text[at..].chars() {
            found.controls |= c.is_control() && c != '\n' && c != '\t'
                || matches!(c, '\u{2028}' | '\u{2029}' | BYTE_ORDER_MARK);
            found.may_compose |= !stays_in_nfc(c);
            at += c.len_utf8();
            if at >= end {
                break;
            }
        }
    }
    found
}

/// Whether a character can stand anywhere in a text in NFC: it does not
/// decompose, has combining class 0, and composes with nothing before it. Large ranges only.
fn stays_in_nfc(c: char) -> bool {
    matches!(c,
        '\0'..='\u{2ff}' | '\u{400}'..='\u{482}' | '\u{5d0}'..='\u{5ea}' | '\u{2002}'..='\u{206f}'
        | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

fn strip_controls(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // The `\n` of `\r\n` comes next and is kept.
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                clean.push('\n')
            }
            '\u{1f}' => clean.push(' '),
            BYTE_ORDER_MARK if clean.is_empty() || clean.ends_with('\n') => {}
            '\n' | '\t' => clean.push(c),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &str, expected: &str) {
        let once = normalize(input, NormalizeConfig::default());
        assert_eq!(once, expected, "{input:?}");
        assert_eq!(normalize(&once, NormalizeConfig::default()), expected, "twice {input:?}");
    }

    #[test]
    fn one_form() {
        check("plain\ttext\n", "plain\ttext\n");
        check("\u{feff}bom", "bom");
        check("a\r\nb\rc\u{85}d", "a\nb\nc\nd");
        check("nul\0bell\u{7}del\u{7f}c1\u{9f}.", "nulbelldelc1.");
        check("e\u{301}", "é");
        check("e\0\u{301}", "é");
        check("\r\r\n", "\n\n");
    }

    #[test]
    fn separators_of_lines_and_pages_join_no_words() {
        check("page\u{c}Next", "page\nNext");
        check("a\u{b}b\u{1c}c\u{1d}d\u{1e}e\u{2028}f\u{2029}g", "a\nb\nc\nd\ne\nf\ng");
        check("a\u{1f}b", "a b");
    }

    #[test]
    fn marks_of_joined_files_are_removed() {
        check("one\n\u{feff}two\r\n\0\u{feff}\u{feff}three", "one\ntwo\nthree");
        check("\u{feff}\u{feff}a", "a");
        // Inside a line it is a word joiner.
        check("a\u{feff}b", "a\u{feff}b");
    }

    #[test]
    fn characters_that_stay_are_those_the_tables_call_normal() {
        for c in ('\0'..=char::MAX).filter(|&c| stays_in_nfc(c)) {
            assert_eq!(is_nfc_quick(std::iter::once(c)), IsNormalized::Yes, "{c:?}");
            assert_eq!(unicode_normalization::char::canonical_combining_class(c), 0, "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_look_changes_no_text(text in "([ -~]{0,40}|[\0-\u{a0}]{0,3}|\\PC{0,5}|[e\u{301}\u{1100}\u{1161}가]{0,4}){0,6}") {
            let clean = strip_controls(text.trim_start_matches(BYTE_ORDER_MARK));
            let expected: String = clean.nfc().collect();
            prop_assert_eq!(normalize(&text, NormalizeConfig::default()), expected);
        }
    }

    #[test]
    fn unicode_none_leaves_code_points() {
        let config = NormalizeConfig { unicode: Unicode::None };
        assert_eq!(normalize("e\u{301}\r\n", config), "e\u{301}\n");
    }
}
