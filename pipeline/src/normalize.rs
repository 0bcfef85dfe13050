//! One form for every text, before anything looks at it: Unicode NFC, `\n` line ends, no control
//! characters. Filters, hashes and the tokenizer all see this form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::strict_toml::Section;

/// The recipe's `[normalize]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NormalizeConfig {
    /// Unicode normalisation form.
    pub unicode: Unicode,
}

impl Section for NormalizeConfig {}

/// Unicode normalisation form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unicode {
    /// Canonical composition (UAX #15): `e` + combining acute becomes `é`.
    #[default]
    Nfc,
    /// Code points stay as they are.
    None,
}

/// Brings a text into the one form.
///
/// `\r\n`, `\r` and U+0085 become `\n`; other characters of category Cc are removed except tab
/// and `\n`; a byte order mark at the start is removed.
pub fn normalize(text: &str, config: NormalizeConfig) -> Cow<'_, str> {
    // Composition comes last: a control character may stand between two characters that compose.
    let clean = strip_controls(text.strip_prefix('\u{feff}').unwrap_or(text));
    match config.unicode {
        Unicode::Nfc if is_nfc_quick(clean.chars()) != IsNormalized::Yes => Cow::Owned(clean.nfc().collect()),
        _ => clean,
    }
}

fn strip_controls(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // The `\n` of `\r\n` comes next and is kept.
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\u{85}' => clean.push('\n'),
            '\n' | '\t' => clean.push(c),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
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
    fn unicode_none_leaves_code_points() {
        let config = NormalizeConfig { unicode: Unicode::None };
        assert_eq!(normalize("e\u{301}\r\n", config), "e\u{301}\n");
    }
}
