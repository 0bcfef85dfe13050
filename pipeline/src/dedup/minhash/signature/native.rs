//! The native profile. Words are maximal runs of letters, digits and underscores in lower case; a character of a script that is
//! written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar) is a word. A word is a 64-bit polynomial hash, a shingle
//! a rolling hash over the hashes of its words, so a text is read once and no shingle is ever a string.
//!
//! A permutation is `a x + b` modulo 2^32 with odd `a` on the upper half of the shingle's hash. The map is one-to-one; that
//! its minima agree as often as theory says is measured by `agreement_is_the_jaccard_index` and
//! `bands_follow_the_s_curve`. Two shingles of one pair of documents collide in 32 bits so seldom (n^2 / 2^33) that it cannot be
//! seen; candidates are verified with 64 bits anyway.

use pulp::{Arch, WithSimd};

/// Multiplier of the polynomial of a word; odd, from the golden ratio (Knuth, TAOCP 3, section 6.4).
const WORD_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Multiplier of the rolling hash; odd, from the fraction of the square root of 2.
const ROLL_FACTOR: u64 = 0x6a09_e667_f3bc_c909;
/// Shingles that one pass over the permutations takes together.
const LANES: usize = 8;

/// Shingles and signatures of the native profile.
pub struct Native {
    ngram: usize,
    /// `ROLL_FACTOR` to the power `ngram`: what the oldest word has been multiplied with when it leaves.
    last_factor: u64,
    words: Vec<u64>,
    a: Vec<u32>,
    b: Vec<u32>,
    xs: Vec<u32>,
    minima: Vec<u32>,
    arch: Arch,
}

impl Native {
    /// For shingles of `ngram` words and `n_values` permutations drawn from `seed`.
    pub fn new(ngram: usize, n_values: usize, seed: u64) -> Native {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_add(WORD_FACTOR);
            mix(state)
        };
        let a = (0..n_values).map(|_| (draw() >> 32) as u32 | 1).collect();
        let b = (0..n_values).map(|_| (draw() >> 32) as u32).collect();
        Native {
            ngram,
            last_factor: (0..ngram).fold(1, |power, _| u64::wrapping_mul(power, ROLL_FACTOR)),
            words: Vec::new(),
            a,
            b,
            xs: Vec::new(),
            minima: vec![0; n_values],
            arch: Arch::new(),
        }
    }

    /// Appends the hashes of the shingles of a text.
    pub fn shingles(&mut self, text: &str, out: &mut Vec<u64>) {
        self.words.clear();
        hash_words(text, &mut self.words);
        let Some(first) = self.words.get(..self.ngram) else { return };
        let mut roll =
            first.iter().fold(0u64, |roll, word| roll.wrapping_mul(ROLL_FACTOR).wrapping_add(*word));
        out.push(mix(roll));
        out.extend(self.words.iter().zip(&self.words[self.ngram..]).map(|(leaves, enters)| {
            let leaves = leaves.wrapping_mul(self.last_factor);
            roll = roll.wrapping_mul(ROLL_FACTOR).wrapping_add(*enters).wrapping_sub(leaves);
            mix(roll)
        }));
    }

    /// The lowest value under each permutation, for at least one shingle.
    pub fn signature(&mut self, shingles: &[u64]) -> &[u32] {
        self.xs.clear();
        self.xs.extend(shingles.iter().map(|hash| (hash >> 32) as u32));
        // A repeated value changes no minimum, so the last group is filled up with one.
        if let Some(&last) = self.xs.last() {
            self.xs.resize(self.xs.len().next_multiple_of(LANES), last);
        }
        self.minima.fill(u32::MAX);
        self.arch.dispatch(Minima { xs: &self.xs, a: &self.a, b: &self.b, minima: &mut self.minima });
        &self.minima
    }
}

/// The loop over shingles and permutations, compiled for the widest vectors of the processor.
struct Minima<'a> {
    xs: &'a [u32],
    a: &'a [u32],
    b: &'a [u32],
    minima: &'a mut [u32],
}

impl WithSimd for Minima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        for group in self.xs.chunks_exact(LANES) {
            for ((minimum, a), b) in self.minima.iter_mut().zip(self.a).zip(self.b) {
                let mut least = *minimum;
                for x in group {
                    least = least.min(x.wrapping_mul(*a).wrapping_add(*b));
                }
                *minimum = least;
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What an ASCII byte is: 0 ends a word, anything else is the byte in lower case.
const ASCII: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'_' {
            table[byte] = b.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Appends the hash of each word.
fn hash_words(text: &str, words: &mut Vec<u64>) {
    // 0 is "in no word": a word's hash starts from 1, and only a product of 2^-64 probability returns to 0.
    let mut hash = 0u64;
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte < 128 {
            at += 1;
            match ASCII[usize::from(byte)] {
                0 => end_word(&mut hash, words),
                lower => add(&mut hash, u32::from(lower)),
            }
            continue;
        }
        let Some(c) = text[at..].chars().next() else { break };
        at += c.len_utf8();
        if is_written_without_spaces(c) {
            end_word(&mut hash, words);
            add(&mut hash, u32::from(c));
            end_word(&mut hash, words);
        } else if c.is_alphanumeric() {
            c.to_lowercase().for_each(|lower| add(&mut hash, u32::from(lower)));
        } else {
            end_word(&mut hash, words);
        }
    }
    end_word(&mut hash, words);
}

#[inline(always)]
fn add(hash: &mut u64, c: u32) {
    *hash = (*hash | u64::from(*hash == 0)).wrapping_mul(WORD_FACTOR).wrapping_add(u64::from(c));
}

#[inline(always)]
fn end_word(hash: &mut u64, words: &mut Vec<u64>) {
    if *hash != 0 {
        words.push(mix(*hash));
        *hash = 0;
    }
}

fn is_written_without_spaces(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff            // Thai, Lao
        | 0x1000..=0x109f          // Myanmar
        | 0x1780..=0x17ff          // Khmer
        | 0x3005..=0x3007 | 0x3040..=0x30ff   // iteration marks, kana
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff // Han
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<u64> {
        let mut words = Vec::new();
        hash_words(text, &mut words);
        words
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(words("The  cat-flap, no_2!"), words("the cat flap no_2"));
        assert_eq!(words("").len(), 0);
        assert_eq!(words(" .,- ").len(), 0);
        assert_eq!(words("ÉCOLE naïve").len(), 2);
        assert_eq!(words("École"), words("éCOLE"));
        assert_eq!(words("漢字とABC"), words("漢 字 と abc"));
        let all: std::collections::BTreeSet<u64> =
            words("a b aa ab ba bb 0 00 000 é e").into_iter().collect();
        assert_eq!(all.len(), 11);
    }

    #[test]
    fn the_rolling_hash_forgets_words_that_have_left() {
        let mut native = Native::new(3, 8, 1);
        let shingles = |native: &mut Native, text| {
            let mut out = Vec::new();
            native.shingles(text, &mut out);
            out
        };
        let long = shingles(&mut native, "x y a b c d y z");
        assert_eq!(long.len(), 6);
        assert_eq!(shingles(&mut native, "a b c"), long[2..3]);
        assert_eq!(shingles(&mut native, "b c d"), long[3..4]);
        assert_ne!(shingles(&mut native, "c b a"), long[2..3]);
        assert!(shingles(&mut native, "a b").is_empty());
    }

    #[test]
    fn signatures_are_the_minima_of_each_permutation() {
        let mut native = Native::new(1, 112, 7);
        let shingles: Vec<u64> = (0..29).map(mix).collect();
        let expected: Vec<u32> = native
            .a
            .iter()
            .zip(&native.b)
            .map(|(a, b)| {
                let values = shingles.iter().map(|x| ((x >> 32) as u32).wrapping_mul(*a).wrapping_add(*b));
                values.min().unwrap()
            })
            .collect();
        assert_eq!(native.signature(&shingles), expected);
    }
}
