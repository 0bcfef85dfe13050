//! The profiles of datatrove 0.10.1 (Apache-2.0; `utils/text.py`, `pipeline/dedup/minhash.py`), bit for bit: the text is simplified,
//! split as spaCy's English tokenizer splits it, shingles are hashes of words joined by spaces, and the
//! permutations wrap modulo 2^64 before they are reduced modulo 2^61 - 1.

use pulp::{Arch, WithSimd};
use sha1::{Digest, Sha1};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use xxhash_rust::xxh64::xxh64;

use super::constants::{A, B};
use crate::spacy;

/// 2^61 - 1, a Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;
/// Shingles that one pass over the permutations takes together.
const LANES: usize = 4;

/// Hash of a shingle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// XXH64 with seed 0, datatrove's default.
    Xxh64,
    /// The first 8 bytes of SHA-1, little-endian, as for FineWeb.
    Sha1,
}

/// Shingles and signatures of datatrove's profiles.
pub struct Datatrove {
    ngram: usize,
    function: HashFunction,
    /// Simplified text, then its words with one space between them.
    simple: String,
    words: String,
    /// Where each word ends in `words`.
    ends: Vec<usize>,
    xs: Vec<u64>,
    minima: [u64; A.len()],
    arch: Arch,
}

impl Datatrove {
    /// For shingles of `ngram` words.
    pub fn new(ngram: usize, function: HashFunction) -> Datatrove {
        Datatrove {
            ngram,
            function,
            simple: String::new(),
            words: String::new(),
            ends: Vec::new(),
            xs: Vec::new(),
            minima: [0; A.len()],
            arch: Arch::new(),
        }
    }

    /// Appends the hashes of the shingles of a text.
    pub fn shingles(&mut self, text: &str, out: &mut Vec<u64>) {
        simplify(text, &mut self.simple);
        self.words.clear();
        self.ends.clear();
        let (words, ends) = (&mut self.words, &mut self.ends);
        for chunk in self.simple.split(' ').filter(|chunk| !chunk.is_empty()) {
            spacy::english().split(chunk, &mut |word| {
                if !words.is_empty() {
                    words.push(' ');
                }
                words.push_str(word);
                ends.push(words.len());
            });
        }
        let mut start = 0;
        for i in self.ngram..=self.ends.len() {
            let shingle = &self.words.as_bytes()[start..self.ends[i - 1]];
            out.push(self.function.hash(shingle));
            start = self.ends[i - self.ngram] + 1;
        }
    }

    /// The lowest value under each permutation, for at least one shingle.
    pub fn signature(&mut self, shingles: &[u64]) -> &[u64] {
        self.xs.clear();
        self.xs.extend_from_slice(shingles);
        // A repeated value changes no minimum, so the last group is filled up with one.
        if let Some(&last) = shingles.last() {
            self.xs.resize(shingles.len().next_multiple_of(LANES), last);
        }
        self.minima.fill(u64::MAX);
        self.arch.dispatch(Minima { xs: &self.xs, minima: &mut self.minima });
        &self.minima
    }
}

impl HashFunction {
    fn hash(self, shingle: &[u8]) -> u64 {
        match self {
            HashFunction::Xxh64 => xxh64(shingle, 0),
            HashFunction::Sha1 => {
                let digest = Sha1::digest(shingle);
                let mut first = [0; 8];
                first.copy_from_slice(&digest[..8]);
                u64::from_le_bytes(first)
            }
        }
    }
}

struct Minima<'a> {
    xs: &'a [u64],
    minima: &'a mut [u64; A.len()],
}

impl WithSimd for Minima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        for group in self.xs.chunks_exact(LANES) {
            for ((minimum, a), b) in self.minima.iter_mut().zip(&A).zip(&B) {
                let mut least = *minimum;
                for x in group {
                    let y = x.wrapping_mul(*a).wrapping_add(*b);
                    let folded = (y & PRIME) + (y >> 61);
                    // At most PRIME + 7, so subtracting once reduces it; a wrapped difference is the larger one.
                    least = least.min(folded.min(folded.wrapping_sub(PRIME)));
                }
                *minimum = least;
            }
        }
    }
}

/// datatrove's `PUNCTUATION` beyond ASCII; C1 controls are in it, too.
const PUNCTUATION: &str = "—”：％１〈（、━【「」，】；“《„’∶´．–？！～«〉》）。…►»";
const DECIMAL_SEPARATORS: &str = ".,،٫⎖⎗⎘";

fn is_punctuation(c: char) -> bool {
    match c {
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        // All ASCII punctuation.
        '!'..='/' | ':'..='@' | '['..='`' | '{'..='~' => true,
        _ => c > '\u{9f}' && PUNCTUATION.contains(c),
    }
}

fn is_digit(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_digit(),
        false => c.is_numeric() && c.general_category() == GeneralCategory::DecimalNumber,
    }
}

/// `simplify_text`: lower case, numbers to 0, punctuation to spaces, one space between words, no nonspacing marks.
fn simplify(text: &str, out: &mut String) {
    let lower = text.to_lowercase();
    out.clear();
    let mut chars = lower.chars().peekable();
    let mut has_space = false;
    let mut is_ascii = true;
    while let Some(c) = chars.next() {
        let c = match is_digit(c) {
            true => {
                skip_number(&mut chars);
                '0'
            }
            false => c,
        };
        if c == ' ' || c.is_whitespace() || is_punctuation(c) {
            has_space = true;
            continue;
        }
        if has_space && !out.is_empty() {
            out.push(' ');
        }
        has_space = false;
        is_ascii &= c.is_ascii();
        out.push(c);
    }
    if !is_ascii {
        let marked = std::mem::take(out);
        let is_kept = |c: &char| c.is_ascii() || c.general_category() != GeneralCategory::NonspacingMark;
        out.extend(marked.nfd().filter(is_kept));
    }
}

/// The rest of `\p{Nd}+([.,،٫⎖⎗⎘]\p{Nd}+)?` after its first digit.
fn skip_number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| is_digit(*c)).is_some() {}
    let mut ahead = chars.clone();
    let has_fraction = ahead.next_if(|c| DECIMAL_SEPARATORS.contains(*c)).is_some();
    if has_fraction && ahead.next_if(|c| is_digit(*c)).is_some() {
        while ahead.next_if(|c| is_digit(*c)).is_some() {}
        *chars = ahead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_simple(text: &str, expected: &str) {
        let mut out = "left over".to_owned();
        simplify(text, &mut out);
        assert_eq!(out, expected, "{text:?}");
    }

    #[test]
    fn texts_are_simplified() {
        check_simple(
            "The Quick brown fox, jumps over 12,345.67 lazy dogs — naïve café! Ünïcode “quotes” it's Monday; don't stop.",
            "the quick brown fox jumps over 0 0 lazy dogs naive cafe unicode quotes it s monday don t stop",
        );
        check_simple("", "");
        check_simple(" .. ", "");
        // 1,234.5 is 1,234 and then `.5`; a separator without a digit after it is punctuation.
        check_simple("1,234.5 7. x2y", "0 0 0 x0y");
        check_simple("٣٫١٤ １２", "0 0");
        check_simple("a\u{85}b\u{a0}c\u{1f}d\u{200b}e", "a b c d\u{200b}e");
        check_simple("İstanbul ΣΑΣ", "istanbul σας");
        check_simple("가", "\u{1100}\u{1161}");
    }

    fn shingles(words: &str, function: HashFunction) -> Vec<u64> {
        let mut out = Vec::new();
        Datatrove::new(5, function).shingles(words, &mut out);
        out
    }

    const FOX: &str = "the quick brown fox jumps over the lazy dog";

    /// From datatrove 0.10.1 itself.
    #[test]
    fn shingles_are_hashes_of_words_with_single_spaces() {
        let expected = [
            7_797_000_677_988_824_208,
            4_793_414_983_259_776_074,
            7_369_512_836_458_661_087,
            13_961_012_810_162_701_268,
            15_736_776_954_345_750_141,
        ];
        assert_eq!(shingles(FOX, HashFunction::Xxh64), expected);
    }
}
