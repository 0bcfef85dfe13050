//! The index of the evaluation texts: their words, the weight of each word, and where every
//! seed (a run of [`SEED_WORDS`] words) occurs.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use super::Settings;
use super::words::Words;

/// Words of a seed: a match starts where this many consecutive words of a document and an evaluation text are equal.
pub const SEED_WORDS: usize = 5;

/// A seed in more places than this starts no match, unless its text has no rarer one: it is boilerplate.
const COMMON_SEED: u32 = 64;

/// Multiplier of the rolling hash; odd.
const BASE: u64 = 0x9e6c_63d0_676a_9a99;

/// Fixed point of the weights of words.
const WEIGHT_ONE: f64 = 1024.0;

/// Position of a text in the index.
pub type TextId = u32;

/// An evaluation text: one field of one record of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalText {
    /// Position of the benchmark.
    pub benchmark: u16,
    /// Position of the record among those of its benchmark, from 0.
    pub record: u64,
    /// Position of the field among those of its benchmark.
    pub field: u16,
    /// Other texts with the same words, represented by this one.
    pub n_copies: u64,
    /// Weight of all its words.
    weight: u64,
    start: u32,
    end: u32,
}

/// Fate of the texts of one benchmark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BenchmarkCounts {
    /// Texts that were added.
    pub texts: u64,
    /// Texts with fewer words than [`Settings::min_words`], which are not looked for.
    pub too_short: u64,
    /// Texts with the same words as an earlier one.
    pub copies: u64,
}

/// Collects evaluation texts.
pub struct IndexBuilder {
    settings: Settings,
    splitter: Words,
    texts: Vec<EvalText>,
    words: Vec<u64>,
    /// By the hash of their words; only ever asked, never listed.
    known: HashMap<u128, TextId>,
    counts: Vec<BenchmarkCounts>,
}

impl IndexBuilder {
    /// An empty one.
    pub fn new(settings: Settings) -> IndexBuilder {
        IndexBuilder {
            settings,
            splitter: Words::default(),
            texts: Vec::new(),
            words: Vec::new(),
            known: HashMap::new(),
            counts: Vec::new(),
        }
    }

    /// Adds a text; `None` if it is too short, else the text that represents it.
    pub fn add(&mut self, benchmark: u16, record: u64, field: u16, text: &str) -> Option<TextId> {
        if self.counts.len() <= usize::from(benchmark) {
            self.counts.resize(usize::from(benchmark) + 1, BenchmarkCounts::default());
        }
        let counts = &mut self.counts[usize::from(benchmark)];
        counts.texts += 1;
        self.splitter.split(text);
        let hashes = self.splitter.hashes();
        if hashes.len() < self.settings.min_words.max(SEED_WORDS as u32) as usize {
            counts.too_short += 1;
            return None;
        }
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        let next = self.texts.len() as TextId;
        let id = *self.known.entry(xxh3_128(&bytes)).or_insert(next);
        if id != next {
            counts.copies += 1;
            self.texts[id as usize].n_copies += 1;
            return Some(id);
        }
        let start = self.words.len() as u32;
        self.words.extend_from_slice(hashes);
        let end = self.words.len() as u32;
        self.texts.push(EvalText { benchmark, record, field, n_copies: 0, weight: 0, start, end });
        Some(id)
    }

    /// Weighs the words and finds the seeds.
    pub fn finish(self) -> Index {
        let IndexBuilder { settings, mut texts, words, counts, .. } = self;
        let weights = weights(&words, &mut texts);
        let postings = postings(&words, &texts, settings.ngram);
        Index { seeds: Seeds::new(postings), settings, texts, words, weights, counts }
    }
}

/// Inverse document frequency of each word at each place, `ln(1 + texts / texts with the word)`, in units of 1/1024. The
/// documents are the evaluation texts, not those of the corpus: then a new file of the corpus changes no
/// verdict about another one.
fn weights(words: &[u64], texts: &mut [EvalText]) -> Vec<u16> {
    let mut frequency: HashMap<u64, u32> = HashMap::new();
    let mut distinct = Vec::new();
    for text in &*texts {
        distinct.clear();
        distinct.extend_from_slice(&words[text.start as usize..text.end as usize]);
        distinct.sort_unstable();
        distinct.dedup();
        distinct.iter().for_each(|word| *frequency.entry(*word).or_default() += 1);
    }
    let n_texts = texts.len() as f64;
    let weight = |word| {
        let n = frequency.get(word).copied().unwrap_or(1);
        // At most ln(2^32) * 1024 < 2^16.
        ((1.0 + n_texts / f64::from(n)).ln() * WEIGHT_ONE).round() as u16
    };
    let weights: Vec<u16> = words.iter().map(weight).collect();
    for text in texts {
        text.weight = weights[text.start as usize..text.end as usize].iter().map(|w| u64::from(*w)).sum();
    }
    weights
}

/// A seed of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Posting {
    key: u64,
    text: TextId,
    position: u32,
}

/// The seeds that find texts, sorted.
fn postings(words: &[u64], texts: &[EvalText], ngram: u32) -> Vec<Posting> {
    let mut all = Vec::with_capacity(words.len());
    for (id, text) in texts.iter().enumerate() {
        let words = &words[text.start as usize..text.end as usize];
        for_each_seed(words, |position, key| {
            all.push(Posting { key, text: id as TextId, position: position as u32 });
        });
    }
    all.sort_unstable();
    // How often each seed occurs, and for each text its rarest one.
    let mut n_same = Vec::with_capacity(all.len());
    let mut rarest = vec![(u32::MAX, 0); texts.len()];
    for same in all.chunk_by(|a, b| a.key == b.key) {
        let n = same.len() as u32;
        for posting in same {
            n_same.push(n);
            let best = &mut rarest[posting.text as usize];
            *best = (*best).min((n, posting.position));
        }
    }
    let is_wanted = |(posting, n): &(Posting, u32)| {
        let text = &texts[posting.text as usize];
        // An exact match holds all seeds, so that one of them finds it.
        let by_all = text.end - text.start >= ngram;
        (by_all && *n <= COMMON_SEED) || rarest[posting.text as usize].1 == posting.position
    };
    all.into_iter().zip(n_same).filter(is_wanted).map(|(posting, _)| posting).collect()
}

/// Calls `see` with the position and the key of each run of [`SEED_WORDS`] words.
#[inline]
pub(super) fn for_each_seed(words: &[u64], mut see: impl FnMut(usize, u64)) {
    const TOP: u64 = BASE.wrapping_pow(SEED_WORDS as u32 - 1);
    let Some((first, rest)) = words.split_at_checked(SEED_WORDS - 1) else { return };
    let mut rolling = first.iter().fold(0u64, |sum, word| sum.wrapping_mul(BASE).wrapping_add(*word));
    for (position, (enters, leaves)) in rest.iter().zip(words).enumerate() {
        rolling = rolling.wrapping_mul(BASE).wrapping_add(*enters);
        // High bits of a polynomial depend on all words, low ones on the low bits alone.
        let mixed = (rolling ^ (rolling >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        see(position, mixed ^ (mixed >> 32));
        rolling = rolling.wrapping_sub(leaves.wrapping_mul(TOP));
    }
}

/// A table from seeds to places. Most seeds of a document are in no evaluation text; a bit map of sixteen bits a
/// seed shows that with one cache access.
#[derive(Clone, Debug)]
struct Seeds {
    filter: Vec<u64>,
    filter_shift: u32,
    /// Sorted, each once.
    keys: Vec<u64>,
    /// Where the postings of a key start; one more at the end.
    starts: Vec<u32>,
    places: Vec<(TextId, u32)>,
    /// Where the keys with the same first bits start; one more at the end.
    jumps: Vec<u32>,
    jump_shift: u32,
}

impl Seeds {
    fn new(postings: Vec<Posting>) -> Seeds {
        let mut seeds = Seeds {
            filter: Vec::new(),
            filter_shift: 0,
            keys: Vec::new(),
            starts: Vec::new(),
            places: Vec::with_capacity(postings.len()),
            jumps: Vec::new(),
            jump_shift: 0,
        };
        for same in postings.chunk_by(|a, b| a.key == b.key) {
            seeds.keys.push(same[0].key);
            seeds.starts.push(seeds.places.len() as u32);
            seeds.places.extend(same.iter().map(|posting| (posting.text, posting.position)));
        }
        seeds.starts.push(seeds.places.len() as u32);
        let n_bits = (seeds.keys.len() * 16).next_power_of_two().max(64);
        seeds.filter = vec![0; n_bits / 64];
        seeds.filter_shift = u64::BITS - n_bits.trailing_zeros();
        for key in &seeds.keys {
            let bit = key >> seeds.filter_shift;
            seeds.filter[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        let n_jumps = seeds.keys.len().next_power_of_two().max(2);
        seeds.jump_shift = u64::BITS - n_jumps.trailing_zeros();
        seeds.jumps = (0..=n_jumps as u64)
            .map(|first| seeds.keys.partition_point(|key| key >> seeds.jump_shift < first) as u32)
            .collect();
        seeds
    }

    #[inline]
    fn find(&self, key: u64) -> &[(TextId, u32)] {
        let bit = key >> self.filter_shift;
        if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return &[];
        }
        let jump = (key >> self.jump_shift) as usize;
        let (first, end) = (self.jumps[jump] as usize, self.jumps[jump + 1] as usize);
        match self.keys[first..end].iter().position(|other| *other == key) {
            Some(at) => &self.places[self.starts[first + at] as usize..self.starts[first + at + 1] as usize],
            None => &[],
        }
    }
}

/// All evaluation texts, ready to be looked for.
#[derive(Clone, Debug)]
pub struct Index {
    settings: Settings,
    texts: Vec<EvalText>,
    words: Vec<u64>,
    weights: Vec<u16>,
    seeds: Seeds,
    counts: Vec<BenchmarkCounts>,
}

impl Index {
    /// How to look.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The texts that are looked for.
    pub fn texts(&self) -> &[EvalText] {
        &self.texts
    }

    /// Fate of the texts of each benchmark.
    pub fn counts(&self) -> &[BenchmarkCounts] {
        &self.counts
    }

    /// Hashes of the words of a text.
    pub fn words(&self, text: TextId) -> &[u64] {
        let text = &self.texts[text as usize];
        &self.words[text.start as usize..text.end as usize]
    }

    /// Weights of the words of a text, and their sum.
    pub(super) fn weights(&self, text: TextId) -> (&[u16], u64) {
        let text = &self.texts[text as usize];
        (&self.weights[text.start as usize..text.end as usize], text.weight)
    }

    /// Places of a seed: texts and positions in them.
    #[inline]
    pub(super) fn places(&self, key: u64) -> &[(TextId, u32)] {
        self.seeds.find(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_depends_on_its_words_and_their_order_alone() {
        let seeds = |words: &[u64]| {
            let mut seeds = Vec::new();
            for_each_seed(words, |position, key| seeds.push((position, key)));
            seeds
        };
        let words: Vec<u64> = (1..=7).map(|i: u64| i.wrapping_mul(0x1234_5678_9abc_def1)).collect();
        let all = seeds(&words);
        assert_eq!(all.len(), 3);
        assert_eq!(seeds(&words[2..])[0].1, all[2].1);
        let mut other = words.clone();
        other.swap(2, 3);
        assert!(seeds(&other).iter().zip(&all).all(|(a, b)| a.1 != b.1));
        assert!(seeds(&words[..4]).is_empty());
    }

    #[test]
    fn equal_texts_count_once_and_short_ones_not_at_all() {
        let mut builder = IndexBuilder::new(Settings::default());
        let text = "one two three four five six";
        assert_eq!(builder.add(0, 0, 0, text), Some(0));
        assert_eq!(builder.add(0, 1, 0, "four words are few"), None);
        assert_eq!(builder.add(1, 0, 0, "One, two: three; four, five -- SIX!"), Some(0));
        assert_eq!(builder.add(1, 1, 0, "one two three four five seven"), Some(1));
        let index = builder.finish();
        let counts = |texts, too_short, copies| BenchmarkCounts { texts, too_short, copies };
        assert_eq!(index.counts(), [counts(2, 1, 0), counts(2, 0, 1)]);
        assert_eq!((index.texts().len(), index.texts()[0].n_copies), (2, 1));
        // `one` is in both texts, `six` in one of them: ln(1 + 2/2) and ln(1 + 2/1).
        let (weights, sum) = index.weights(0);
        assert_eq!((weights[0], weights[5]), (710, 1125));
        assert_eq!(sum, 5 * 710 + 1125);
    }
}
