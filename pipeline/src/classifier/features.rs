//! What the classifier sees in a text: its words and pairs of neighbors, hashed into buckets.
//!
//! A word is a run of letters, digits and other characters beyond ASCII, or a single sign. Letters of ASCII lose
//! their case, and all digits are alike: a classifier that learns years and prices memorizes its training set. White space
//! only separates, so line breaks do not count.

/// How texts become buckets; part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// 1: words; 2: pairs of neighbors too.
    pub word_ngrams: u32,
    /// There are `2^bucket_bits` buckets.
    pub bucket_bits: u32,
}

/// Range of [`Features::bucket_bits`].
pub const BUCKET_BITS: std::ops::RangeInclusive<u32> = 8..=26;

const SEPARATOR: u8 = 0;
const SIGN: u8 = 1;

/// For each byte, the byte that replaces it in a word, or what it does instead.
const BYTES: [u8; 256] = {
    let mut table = [SIGN; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b <= b' ' || b == 0x7f {
            table[byte] = SEPARATOR;
        } else if b.is_ascii_digit() {
            table[byte] = b'0';
        } else if b.is_ascii_alphabetic() {
            table[byte] = b.to_ascii_lowercase();
        } else if b >= 128 {
            table[byte] = b;
        }
        byte += 1;
    }
    table
};

/// Offset and multiplier of FNV-1a.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

#[inline]
fn mix(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

impl Features {
    /// Calls `see` with the bucket of each word and pair of a text, in their order, as often as they occur.
    #[inline]
    pub fn for_each(&self, text: &str, mut see: impl FnMut(u32)) {
        let shift = u64::BITS - self.bucket_bits;
        let pairs = self.word_ngrams > 1;
        let mut last: Option<u64> = None;
        let mut end = |hash: u64| {
            let word = mix(hash);
            see((word >> shift) as u32);
            if pairs {
                if let Some(last) = last {
                    see((mix(last.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ word) >> shift) as u32);
                }
                last = Some(word);
            }
        };
        let mut word: Option<u64> = None;
        for &byte in text.as_bytes() {
            match BYTES[usize::from(byte)] {
                SEPARATOR => {
                    if let Some(hash) = word.take() {
                        end(hash);
                    }
                }
                SIGN => {
                    if let Some(hash) = word.take() {
                        end(hash);
                    }
                    end((START ^ u64::from(byte)).wrapping_mul(PRIME));
                }
                letter => {
                    word = Some((word.unwrap_or(START) ^ u64::from(letter)).wrapping_mul(PRIME));
                }
            }
        }
        if let Some(hash) = word {
            end(hash);
        }
    }

    /// All buckets of a text.
    pub fn of(&self, text: &str) -> Vec<u32> {
        let mut buckets = Vec::new();
        self.for_each(text, |bucket| buckets.push(bucket));
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_signs_and_pairs() {
        let words = Features { word_ngrams: 1, bucket_bits: 26 };
        let pairs = Features { word_ngrams: 2, bucket_bits: 26 };
        // The, cat, (, 12, ), over, naïve
        let text = "The cat (12)\nover naïve";
        assert_eq!((words.of(text).len(), pairs.of(text).len()), (7, 13));
        assert_eq!(words.of("the CAT\t( 99 ) Over naïve"), words.of(text));
        assert_ne!(words.of("naive"), words.of("naïve"));
        assert_eq!(words.of(" \n"), [0; 0]);
        // A pair depends on its order.
        let (ab, ba) = (pairs.of("a b"), pairs.of("b a"));
        assert_eq!((ab[0], ab[1]), (ba[1], ba[0]));
        assert_ne!(ab[2], ba[2]);
    }

    #[test]
    fn buckets_are_used_evenly() {
        let features = Features { word_ngrams: 1, bucket_bits: 8 };
        let mut counts = [0u32; 256];
        for i in 0..25_600 {
            features.for_each(
                &format!("w{}", char::from(b'a' + (i % 26) as u8).to_string().repeat(i / 26 + 1)),
                |b| {
                    counts[b as usize] += 1;
                },
            );
        }
        // 100 each on average; five standard deviations are 50.
        assert!(counts.iter().all(|n| (50..=150).contains(n)), "{counts:?}");
    }
}
