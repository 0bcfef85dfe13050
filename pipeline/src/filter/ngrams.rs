//! Counts of n-grams of words and of other repeated pieces, in tables that the next text reuses.
//!
//! What is called for every word is `#[inline]`, so that rules inline it wherever they are compiled.
//!
//! Pieces are compared by 64-bit hashes: two different ones in a text collide with a probability
//! of about n^2 / 2^65, one in 10^11 for ten thousand of them.

/// 2^61 - 1, a Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;
/// Base of the polynomial; any number without structure below [`PRIME`].
const BASE: u64 = 0x1234_5678_9abc_def1 % PRIME;
/// Powers of the base that are kept.
const N_POWERS: usize = 256;

/// Counts keys in the order of their first appearance.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    /// Position in `entries` and 1; 0 is free.
    slots: Vec<u32>,
    entries: Vec<Entry>,
}

/// A key with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: u64,
    /// Number given with the key's first occurrence.
    pub first: u32,
    /// How often it came.
    pub count: u32,
}

impl Counter {
    /// Forgets everything and makes room for `n` keys.
    pub fn start(&mut self, n: usize) {
        let n_slots = (2 * n).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(n_slots, 0);
        self.entries.clear();
    }

    /// Counts a key that has the number `at`, and returns how often it occurred before.
    #[inline]
    pub fn add(&mut self, key: u64, at: u32) -> u32 {
        let mask = self.slots.len() - 1;
        // The high bits of a product depend on all bits of the key.
        let mut slot = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => {
                    self.entries.push(Entry { key, first: at, count: 1 });
                    self.slots[slot] = self.entries.len() as u32;
                    return 0;
                }
                place => {
                    let entry = &mut self.entries[place as usize - 1];
                    if entry.key == key {
                        entry.count += 1;
                        return entry.count - 1;
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    /// How often a key came.
    #[inline]
    pub fn count(&self, key: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let mut slot = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.slots[slot] != 0 {
            let entry = &self.entries[self.slots[slot] as usize - 1];
            if entry.key == key {
                return entry.count;
            }
            slot = (slot + 1) & mask;
        }
        0
    }

    /// All keys, in the order of their first appearance.
    #[inline]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Words as numbers, giving the hash and length of any n-gram in constant time.
#[derive(Clone, Debug, Default)]
pub struct Grams {
    /// Hash of each word.
    words: Vec<u64>,
    /// Of the first `i` words, written without spaces: polynomial, bytes and characters.
    prefixes: Vec<u64>,
    bytes: Vec<u32>,
    chars: Vec<u32>,
    powers: Vec<u64>,
}

impl Grams {
    /// Forgets the words.
    pub fn start(&mut self) {
        if self.powers.is_empty() {
            self.powers
                .extend(std::iter::successors(Some(1), |power| Some(multiply(*power, BASE))).take(N_POWERS));
        }
        self.words.clear();
        for of_first in [&mut self.bytes, &mut self.chars] {
            of_first.clear();
            of_first.push(0);
        }
        self.prefixes.clear();
        self.prefixes.push(0);
    }

    /// Appends a word of `n_chars` characters with its hash.
    #[inline]
    pub fn push(&mut self, word: &str, n_chars: u32, hash: u64) {
        self.words.push(hash);
        // Byte by byte from the word alone, so that the words of a text are hashed side by side; a NUL counts too.
        let polynomial = word.bytes().fold(0, |sum, byte| multiply_add(sum, BASE, u64::from(byte) + 1));
        let last = self.words.len() - 1;
        let power = self.power(word.len());
        self.prefixes.push(multiply_add(self.prefixes[last], power, polynomial));
        self.bytes.push(self.bytes[last] + word.len() as u32);
        self.chars.push(self.chars[last] + n_chars);
    }

    /// Words.
    #[inline]
    pub fn n_words(&self) -> usize {
        self.words.len()
    }

    /// Characters of the `n` words from number `at` on, without spaces.
    #[inline]
    pub fn chars(&self, at: usize, n: usize) -> u64 {
        u64::from(self.chars[at + n] - self.chars[at])
    }

    /// Hash of the sequence of `n` words from number `at` on.
    #[inline]
    pub fn sequence(&self, at: usize, n: usize) -> u64 {
        self.words[at..at + n]
            .iter()
            .fold(n as u64, |sum, word| (sum.rotate_left(29) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd))
    }

    /// Hash of the characters of the `n` words from number `at` on, wherever words end among them.
    #[inline]
    pub fn joined(&self, at: usize, n: usize) -> u64 {
        let power = self.power((self.bytes[at + n] - self.bytes[at]) as usize);
        let before = multiply(self.prefixes[at], power);
        (self.prefixes[at + n] + PRIME - before) % PRIME
    }

    fn power(&self, n: usize) -> u64 {
        match self.powers.get(n) {
            Some(power) => *power,
            None => {
                let half = self.power(n / 2);
                multiply(multiply(half, half), self.powers[n % 2])
            }
        }
    }
}

fn multiply(a: u64, b: u64) -> u64 {
    multiply_add(a, b, 0)
}

/// `a * b + c` modulo [`PRIME`], for `a`, `b` and `c` below it.
#[inline]
fn multiply_add(a: u64, b: u64, c: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) + u128::from(c);
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn grams(words: &[&str]) -> Grams {
        let mut grams = Grams::default();
        grams.start();
        for word in words {
            grams.push(word, word.chars().count() as u32, xxh3_64(word.as_bytes()));
        }
        grams
    }

    #[test]
    fn keys_are_counted_in_the_order_of_their_first_appearance() {
        let mut counter = Counter::default();
        counter.start(5);
        let before: Vec<u32> =
            [7, 0, 7, u64::MAX, 7].iter().zip(0..).map(|(key, at)| counter.add(*key, at)).collect();
        assert_eq!(before, [0, 0, 1, 0, 2]);
        let entry = |key, first, count| Entry { key, first, count };
        assert_eq!(counter.entries(), [entry(7, 0, 3), entry(0, 1, 1), entry(u64::MAX, 3, 1)]);
        assert_eq!([7, 1].map(|key| counter.count(key)), [3, 0]);
        counter.start(1);
        assert_eq!((counter.add(7, 0), counter.entries().len()), (0, 1));
    }

    #[test]
    fn joined_words_are_equal_wherever_they_end_and_sequences_are_not() {
        let grams = grams(&["ab", "c", "é", "a", "bc", "é"]);
        assert_eq!(grams.joined(0, 3), grams.joined(3, 3));
        assert_ne!(grams.sequence(0, 3), grams.sequence(3, 3));
        assert_ne!(grams.joined(0, 2), grams.joined(1, 2));
        assert_eq!((grams.chars(0, 3), grams.chars(3, 2), grams.n_words()), (4, 3, 6));
    }

    proptest! {
        #[test]
        fn hashes_are_equal_exactly_where_the_characters_are(words in prop::collection::vec("[ab]{1,3}", 1..60), n in 1usize..5) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let grams = grams(&words);
            let last = words.len().saturating_sub(n);
            for a in 0..last {
                for b in 0..last {
                    let [x, y] = [a, b].map(|at| &words[at..at + n]);
                    prop_assert_eq!(grams.joined(a, n) == grams.joined(b, n), x.concat() == y.concat());
                    prop_assert_eq!(grams.sequence(a, n) == grams.sequence(b, n), x == y);
                }
            }
        }

        #[test]
        fn long_words_have_the_same_hash_in_one_piece_and_in_many(word in "[a-c]{1000,1010}") {
            let pieces: Vec<&str> = word.as_bytes().chunks(7).filter_map(|piece| std::str::from_utf8(piece).ok()).collect();
            let (one, many) = (grams(&[&word]), grams(&pieces));
            prop_assert_eq!(one.joined(0, 1), many.joined(0, pieces.len()));
        }
    }
}
