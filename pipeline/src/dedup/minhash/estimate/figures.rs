//! How much MinHash finds, estimated: a sample of documents is compared with all documents by brute force, and each
//! pair that is alike is looked up among the candidates.
//!
//! A [`Sample`] is an inverted index over the shingles of the sampled texts, so the Jaccard index of a text with
//! every sampled one costs one look-up a shingle and is exact. An [`Estimate`] sets the share of candidates at each
//! similarity next to the S-curve `1 - (1 - J^rows)^bands` that theory promises.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::dedup::minhash::signature::{SketchConfig, Sketcher};

mod table;

pub use self::table::{Bin, Estimate};

/// Pairs below this Jaccard index are not counted. With 14 bands of 8 rows such a pair becomes a candidate with a
/// probability of less than 1.4e-7.
pub const FLOOR: f64 = 0.1;

/// Place of a document in the seeded order that samples are taken from: the sample is the documents with the lowest ranks.
pub fn rank(document_id: u64, seed: u64) -> u64 {
    xxh3_64_with_seed(&document_id.to_le_bytes(), seed)
}

/// Shingles are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Two documents that share shingles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Number of the sampled document.
    pub sampled: u64,
    /// Number of the other one.
    pub other: u64,
    /// Shingles in both.
    pub overlap: u32,
    /// Shingles in either.
    pub union: u32,
    /// Whether the two share a band key.
    pub is_candidate: bool,
}

impl Pair {
    /// Jaccard index of the two sets of shingles.
    pub fn jaccard(&self) -> f64 {
        f64::from(self.overlap) / f64::from(self.union.max(1))
    }
}

struct Sampled {
    number: u64,
    n_shingles: u32,
    keys: Vec<u64>,
}

/// The sampled documents. Immutable once made, so threads share it.
#[derive(Default)]
pub struct Sample {
    documents: Vec<Sampled>,
    /// The last posting of each shingle, in `postings`.
    last: HashMap<u64, usize, BuildHasherDefault<Identity>>,
    /// Most shingles are in one document, so lists of documents would be an allocation for each.
    postings: Vec<Posting>,
}

/// A document that has a shingle.
struct Posting {
    place: u32,
    /// The posting of the same shingle before this one, of another document.
    previous: Option<usize>,
}

impl Sample {
    /// Adds a document by its set of shingles and the key of each band. One without shingles is left out: it is
    /// like nothing.
    pub fn push(&mut self, number: u64, set: &[u64], keys: Vec<u64>) {
        if set.is_empty() {
            return;
        }
        let place = self.documents.len() as u32;
        for shingle in set {
            let previous = self.last.insert(*shingle, self.postings.len());
            self.postings.push(Posting { place, previous });
        }
        self.documents.push(Sampled { number, n_shingles: set.len() as u32, keys });
    }

    /// Places of the documents that have a shingle.
    fn with(&self, shingle: u64) -> impl Iterator<Item = u32> {
        let at = |posting: usize| &self.postings[posting];
        let last = self.last.get(&shingle).copied().map(at);
        iter::successors(last, move |posting| posting.previous.map(at)).map(|posting| posting.place)
    }

    /// Documents in the sample that have shingles.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there do not count.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}

/// Compares one text after the other with a sample, with buffers of its own.
pub struct Comparer<'a> {
    sample: &'a Sample,
    sketcher: Sketcher,
    overlaps: Vec<u32>,
    touched: Vec<u32>,
    keys: Vec<u64>,
}

impl<'a> Comparer<'a> {
    /// For a sample made with the same `config`.
    pub fn new(config: &SketchConfig, sample: &'a Sample) -> Comparer<'a> {
        let (overlaps, sketcher) = (vec![0; sample.len()], Sketcher::new(config));
        Comparer { sample, sketcher, overlaps, touched: Vec::new(), keys: Vec::new() }
    }

    /// Appends the pairs of a text with sampled ones at or above [`FLOOR`]. A pair of two sampled documents
    /// comes out once, with the lower number as the sampled one.
    pub fn compare(&mut self, number: u64, text: &str, pairs: &mut Vec<Pair>) {
        let set = self.sketcher.set(text);
        let n_shingles = set.len() as u32;
        for place in set.iter().flat_map(|shingle| self.sample.with(*shingle)) {
            let overlap = &mut self.overlaps[place as usize];
            if *overlap == 0 {
                self.touched.push(place);
            }
            *overlap += 1;
        }
        self.touched.sort_unstable();
        self.keys.clear();
        let is_sampled =
            self.touched.iter().any(|place| self.sample.documents[*place as usize].number == number);
        for place in self.touched.drain(..) {
            let sampled = &self.sample.documents[place as usize];
            let overlap = std::mem::take(&mut self.overlaps[place as usize]);
            let union = sampled.n_shingles + n_shingles - overlap;
            let is_counted = !is_sampled || sampled.number < number;
            if !is_counted || f64::from(overlap) < FLOOR * f64::from(union) {
                continue;
            }
            if self.keys.is_empty() {
                self.sketcher.keys(text, &mut self.keys);
            }
            let is_candidate = sampled.keys.iter().zip(&self.keys).any(|(a, b)| a == b);
            pairs.push(Pair { sampled: sampled.number, other: number, overlap, union, is_candidate });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::minhash::signature::{Profile, jaccard, overlap};

    const CONFIG: SketchConfig =
        SketchConfig { profile: Profile::Native, ngram: 2, bands: 14, rows: 8, seed: 1 };

    fn sample<'a>(texts: impl IntoIterator<Item = (u64, &'a str)>) -> Sample {
        let mut sketcher = Sketcher::new(&CONFIG);
        let mut sample = Sample::default();
        for (number, text) in texts {
            let set = sketcher.set(text).to_vec();
            let mut keys = Vec::new();
            sketcher.keys(text, &mut keys);
            sample.push(number, &set, keys);
        }
        sample
    }

    fn compared(sample: &Sample, texts: &[&str]) -> Vec<Pair> {
        let mut comparer = Comparer::new(&CONFIG, sample);
        let mut pairs = Vec::new();
        texts.iter().zip(0..).for_each(|(text, number)| comparer.compare(number, text, &mut pairs));
        pairs
    }

    #[test]
    fn overlaps_are_those_of_the_sets() {
        let texts = ["a b c d e", "a b c d e", "a b c x y", "q r s t", "one"];
        let sample = sample([(0, texts[0]), (4, texts[4])]);
        assert_eq!(sample.len(), 1);
        let pairs = compared(&sample, &texts);
        // {ab bc cd de} is in text 1 as a whole; text 2 shares ab and bc and has cx and xy of its own.
        let found: Vec<_> = pairs.iter().map(|p| (p.sampled, p.other, p.overlap, p.union)).collect();
        assert_eq!(found, [(0, 1, 4, 4), (0, 2, 2, 6)]);
        assert!(pairs[0].is_candidate);
    }

    #[test]
    fn a_pair_within_the_sample_counts_once() {
        let texts = ["a b c", "a b c", "a b c"];
        let sample = sample([(0, texts[0]), (2, texts[2])]);
        let found: Vec<_> = compared(&sample, &texts).iter().map(|p| (p.sampled, p.other)).collect();
        assert_eq!(found, [(0, 1), (2, 1), (0, 2)]);
    }

    #[test]
    fn brute_force_agrees_with_sets_on_real_text() {
        let text = include_str!("../../../../../datasets/README.md");
        let words: Vec<&str> = text.split_whitespace().collect();
        // Windows that overlap less and less.
        let texts: Vec<String> = (0..12).map(|i| words[i * i / 2..i * i / 2 + 60].join(" ")).collect();
        let sample = sample([(3, texts[3].as_str())]);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut sketcher = Sketcher::new(&CONFIG);
        let sets: Vec<Vec<u64>> = texts.iter().map(|text| sketcher.set(text).to_vec()).collect();
        let pairs = compared(&sample, &texts);
        for (number, set) in sets.iter().enumerate().filter(|(number, _)| *number != 3) {
            let exact = jaccard(overlap(&sets[3], set), sets[3].len(), set.len());
            let found = pairs.iter().find(|pair| pair.other == number as u64).map_or(0.0, Pair::jaccard);
            assert_eq!(found, if exact >= FLOOR { exact } else { 0.0 }, "{number}");
        }
        assert!(pairs.len() > 5);
    }

    #[test]
    fn ranks_scatter_and_follow_the_seed() {
        assert_ne!(rank(1, 1), rank(2, 1));
        assert_ne!(rank(1, 1), rank(1, 2));
    }
}
