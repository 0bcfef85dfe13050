//! Words as decontamination compares them: runs of letters and digits without their case. Punctuation, white space and line
//! breaks only separate, so a text that was wrapped anew has the same words. Characters count in their form of compatibility
//! (NFKC), and HTML character references as the characters they represent. In writing without spaces each character is a word.

use std::ops::Range;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The words of a text, as 64-bit hashes with their places. The buffers live over many texts.
#[derive(Clone, Debug, Default)]
pub struct Words {
    hashes: Vec<u64>,
    places: Vec<(u32, u32)>,
}

/// The letters and digits of ASCII in lower case, 0 for all else.
const ASCII: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Offset and multiplier of FNV-1a; what follows it mixes the high bits into the low ones.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Role of a character beyond ASCII in a word.
enum Kind {
    Part,
    Alone,
    /// Invisible, such as a soft hyphen: the word continues.
    Ignored,
    Separator,
}

fn kind(c: char) -> Kind {
    let code = u32::from(c);
    // Thai, Lao, Burmese, Khmer, kana, ideographs: no spaces between words.
    let alone = matches!(code,
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff);
    match c.general_category_group() {
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark | GeneralCategoryGroup::Number => {
            if alone {
                Kind::Alone
            } else {
                Kind::Part
            }
        }
        _ if c.general_category() == unicode_properties::GeneralCategory::Format => Kind::Ignored,
        _ => Kind::Separator,
    }
}

/// A character reference of HTML at the start of a text, such as `&eacute;` or `&#233;`.
fn entity(text: &str) -> Option<&str> {
    /// The longest name, `&CounterClockwiseContourIntegral;`, has 33.
    const MAX_BYTES: usize = 34;
    let bytes = text.as_bytes();
    let end =
        bytes.iter().take(MAX_BYTES).skip(1).position(|b| !b.is_ascii_alphanumeric() && *b != b'#')? + 1;
    (bytes[end] == b';' && end > 2).then(|| &text[..=end])
}

/// Whether a character may be another form of others: full-width letters, ligatures, superscripts. Most are not.
fn may_be_compatible(c: char) -> bool {
    let code = u32::from(c);
    let may_be = matches!(code, 0xa0..=0xbe | 0x132..=0x149 | 0x17f | 0x1c4..=0x1f3 | 0x2000..=0x33ff | 0xf900..=0xffff | 0x1d400..=0x1f2ff);
    may_be && is_nfkc_quick(std::iter::once(c)) != IsNormalized::Yes
}

fn finish(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

impl Words {
    /// Replaces the content by the words of `text`, which is shorter than 4 GiB.
    pub fn split(&mut self, text: &str) {
        self.hashes.clear();
        self.places.clear();
        let bytes = text.as_bytes();
        let mut word: Option<(usize, u64)> = None;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if byte < 128 && byte != b'&' {
                let letter = ASCII[usize::from(byte)];
                if letter == 0 {
                    self.end(word.take(), at);
                } else {
                    let (start, hash) = word.unwrap_or((at, START));
                    word = Some((start, (hash ^ u64::from(letter)).wrapping_mul(PRIME)));
                }
                at += 1;
                continue;
            }
            if byte == b'&' {
                let next = at + entity(&text[at..]).map_or(1, str::len);
                // Anything else stays unchanged.
                let decoded = html_escape::decode_html_entities(&text[at..next]);
                if decoded.len() == next - at {
                    self.end(word.take(), at);
                    at += 1;
                    continue;
                }
                decoded.nfkc().for_each(|c| self.take(c, at..next, &mut word));
                at = next;
                continue;
            }
            // `at` is always the first byte of a character.
            let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) else { break };
            let next = at + c.len_utf8();
            if may_be_compatible(c) {
                std::iter::once(c).nfkc().for_each(|c| self.take(c, at..next, &mut word));
            } else {
                self.take(c, at..next, &mut word);
            }
            at = next;
        }
        self.end(word, bytes.len());
    }

    /// Adds a character that represents some bytes of the text.
    fn take(&mut self, c: char, place: Range<usize>, word: &mut Option<(usize, u64)>) {
        // One character of the text may be for several here: then a word ends with it, not before it.
        let end = |word: &(usize, u64)| if word.0 == place.start { place.end } else { place.start };
        match kind(c) {
            Kind::Part => {
                let (start, hash) = word.unwrap_or((place.start, START));
                *word = Some((start, add(hash, c)));
            }
            Kind::Alone => {
                let before = word.take();
                self.end(before, before.as_ref().map_or(place.start, end));
                self.end(Some((place.start, add(START, c))), place.end);
            }
            Kind::Ignored => {}
            Kind::Separator => {
                let before = word.take();
                self.end(before, before.as_ref().map_or(place.start, end));
            }
        }
    }

    fn end(&mut self, word: Option<(usize, u64)>, end: usize) {
        if let Some((start, hash)) = word {
            self.hashes.push(finish(hash));
            self.places.push((start as u32, end as u32));
        }
    }

    /// Hashes of the words, in order.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// First byte of each word and the byte after it.
    pub fn places(&self) -> &[(u32, u32)] {
        &self.places
    }
}

fn add(hash: u64, c: char) -> u64 {
    c.to_lowercase().fold(hash, |hash, c| (hash ^ u64::from(c)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Words::default();
        words.split(text);
        assert_eq!(words.hashes().len(), words.places().len());
        words.places().iter().map(|(start, end)| text[*start as usize..*end as usize].to_owned()).collect()
    }

    fn hashes(text: &str) -> Vec<u64> {
        let mut words = Words::default();
        words.split(text);
        words.hashes
    }

    #[test]
    fn letters_and_digits_make_words() {
        assert_eq!(words("Janet's 16 eggs,\n\tat $2.50!"), ["Janet", "s", "16", "eggs", "at", "2", "50"]);
        assert_eq!(words("größe naïve—e\u{301}te"), ["größe", "naïve", "e\u{301}te"]);
        assert_eq!(words("中文 ok"), ["中", "文", "ok"]);
        assert_eq!(words(" \n"), [""; 0]);
    }

    #[test]
    fn case_punctuation_and_wrapping_do_not_count() {
        let plain = hashes("how much does she make every day");
        assert_eq!(hashes("How MUCH \"does\"\nshe   make -- every\r\n  day?"), plain);
        assert_eq!(hashes("how mu\u{ad}ch does she make every day"), plain);
        assert_ne!(hashes("how much does she makes every day"), plain);
        assert_eq!(hashes("GRÖẞE"), hashes("größe"));
    }

    #[test]
    fn other_forms_of_characters_do_not_count() {
        let plain = hashes("cafe\u{301} AT T costs 12 of file x2 it s");
        for text in [
            "caf&eacute; AT&amp;T costs &#49;&#x32; of file x2 it&#39;s",
            "caf\u{e9} \u{ff21}\u{ff34} T costs \u{ff11}\u{ff12} of \u{fb01}le x\u{b2} it&rsquo;s",
        ] {
            // The text with a combining mark is not composed here, as the normalized ones of a build are.
            assert_eq!(hashes(text)[1..], plain[1..], "{text}");
        }
        assert_eq!(words("R&D; a &amp; b&nosuch; &#;"), ["R", "D", "a", "b", "nosuch"]);
        // Places are those of the whole character.
        assert_eq!(words("a \u{bd} b"), ["a", "\u{bd}", "\u{bd}", "b"]);
        assert_eq!(words("&eacute;t&eacute;"), ["&eacute;t&eacute;"]);
    }

    #[test]
    fn different_words_have_different_hashes() {
        let mut all: Vec<u64> = (0..100_000).map(|i| hashes(&format!("w{i}"))[0]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 100_000);
    }
}
