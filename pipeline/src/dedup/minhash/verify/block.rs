//! Documents that later ones are compared with. Few are compared one by one. Many are found through an index of
//! their rarest shingles: two sets that share a given part of their shingles share one already among the first
//! few of each, in any common order (Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", 2007). So the index
//! saves comparisons and misses nothing.

use std::collections::HashMap;

use super::{Similarity, VerifyParams, is_one_family};
use crate::dedup::minhash::signature;
use crate::dedup::rows::CandidateRow;

/// Documents of a connected set from which the block has an index.
pub(super) const INDEXED_FROM: usize = 64;
/// Documents whose shingles are counted for the order of the index.
pub(super) const SAMPLED: usize = 512;

/// How often a shingle occurs in a sample. Only looked up, never iterated.
#[derive(Default)]
pub(super) struct Frequencies(HashMap<u64, u32>);

impl Frequencies {
    pub(super) fn add(&mut self, set: &[u64]) {
        set.iter().for_each(|shingle| *self.0.entry(*shingle).or_default() += 1);
    }

    fn of(&self, shingle: u64) -> u32 {
        self.0.get(&shingle).copied().unwrap_or(0)
    }
}

/// Question about two documents.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    similarity: Option<Similarity>,
    variant_copy: f64,
}

impl Rule {
    pub(super) fn new(params: &VerifyParams) -> Rule {
        Rule { similarity: params.similarity, variant_copy: params.variant_copy }
    }

    /// Least share of a document's own shingles that a match of either kind shares.
    fn least_share(self) -> f64 {
        match self.similarity {
            Some(Similarity::Jaccard(least) | Similarity::Containment(least)) => least.min(self.variant_copy),
            None => 0.0,
        }
    }

    /// How many of the first shingles of a set of `n` are enough to find every match.
    fn n_probes(self, n: usize) -> usize {
        // Rounded down a little, so that no rounding of the product asks for too few.
        let shared = (self.least_share() * n as f64 - 1e-6).ceil().max(1.0) as usize;
        n + 1 - shared.min(n)
    }

    /// How many of a set of `n` have to be in the index: a contained page may be found by any of them.
    fn n_indexed(self, n: usize) -> usize {
        match self.similarity {
            Some(Similarity::Containment(_)) => n,
            _ => self.n_probes(n),
        }
    }
}

/// A document that asks.
pub(super) struct Candidate<'a> {
    /// Its position in the connected set.
    pub(super) position: usize,
    pub(super) row: &'a CandidateRow,
    pub(super) set: &'a [u64],
}

/// A document of the block that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Its position in the connected set.
    pub(super) position: usize,
    /// Shingles that both share.
    pub(super) overlap: usize,
}

/// The first matches of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) near_duplicate: Option<Match>,
    pub(super) variant_copy: Option<Match>,
}

struct Entry {
    position: usize,
    row: CandidateRow,
    set: Vec<u64>,
}

pub(super) struct Block<'a> {
    rule: Rule,
    entries: Vec<Entry>,
    n_bytes: u64,
    frequencies: Option<&'a Frequencies>,
    /// Entries by shingle, ascending.
    index: HashMap<u64, Vec<u32>>,
}

impl<'a> Block<'a> {
    pub(super) fn new(rule: Rule, n_documents: usize, frequencies: Option<&'a Frequencies>) -> Block<'a> {
        let entries = Vec::with_capacity(n_documents.min(INDEXED_FROM));
        Block { rule, entries, n_bytes: 0, frequencies, index: HashMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// About the bytes that a document takes: its set, and its part of the index.
    pub(super) fn cost(&self, set: &[u64]) -> u64 {
        let indexed = if self.frequencies.is_some() { self.rule.n_indexed(set.len()) * 48 } else { 0 };
        (size_of::<Entry>() + set.len() * 8 + indexed) as u64
    }

    pub(super) fn push(&mut self, position: usize, row: &CandidateRow, set: Vec<u64>) {
        self.n_bytes += self.cost(&set);
        if self.frequencies.is_some() && !set.is_empty() {
            let number = self.entries.len() as u32;
            for shingle in self.rarest(&set, self.rule.n_indexed(set.len())) {
                self.index.entry(shingle).or_default().push(number);
            }
        }
        self.entries.push(Entry { position, row: *row, set });
    }

    /// The `n` first shingles of a set, rare ones first.
    fn rarest(&self, set: &[u64], n: usize) -> Vec<u64> {
        let frequency = |shingle| self.frequencies.map_or(0, |frequencies| frequencies.of(shingle));
        let mut ordered: Vec<(u32, u64)> = set.iter().map(|&shingle| (frequency(shingle), shingle)).collect();
        if n < ordered.len() {
            ordered.select_nth_unstable(n);
            ordered.truncate(n);
        }
        ordered.into_iter().map(|(_, shingle)| shingle).collect()
    }

    /// Entries that may match, in order of rank.
    fn possible(&self, candidate: &Candidate<'_>) -> Vec<u32> {
        if self.frequencies.is_none() {
            return (0..self.entries.len() as u32).collect();
        }
        let probes = match candidate.set.len() {
            0 => Vec::new(),
            n => self.rarest(candidate.set, self.rule.n_probes(n)),
        };
        let mut numbers: Vec<u32> =
            probes.iter().filter_map(|probe| self.index.get(probe)).flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The matches with the lowest rank.
    pub(super) fn first_match(&mut self, candidate: &Candidate<'_>) -> Found {
        let mut found = Found::default();
        for number in self.possible(candidate) {
            match self.compare(number, candidate) {
                Some((hit, false)) => {
                    found.near_duplicate = Some(hit);
                    break;
                }
                Some((hit, true)) => {
                    found.variant_copy.get_or_insert(hit);
                }
                None => {}
            }
        }
        found
    }

    /// Positions of all near-duplicates; the first variant copy goes to `copy`.
    pub(super) fn all_matches(&mut self, candidate: &Candidate<'_>, copy: &mut Option<Match>) -> Vec<usize> {
        let mut positions = Vec::new();
        for number in self.possible(candidate) {
            match self.compare(number, candidate) {
                Some((hit, false)) => positions.push(hit.position),
                Some((hit, true)) => {
                    copy.get_or_insert(hit);
                }
                None => {}
            }
        }
        positions
    }

    /// A match, and whether it is one of the same family.
    fn compare(&self, number: u32, candidate: &Candidate<'_>) -> Option<(Match, bool)> {
        let entry = self.entries.get(number as usize)?;
        let is_family = is_one_family(&entry.row, candidate.row);
        let (n, kept_n) = (candidate.set.len(), entry.set.len());
        let Some(similarity) = self.rule.similarity else {
            return (!is_family).then_some((Match { position: entry.position, overlap: 0 }, false));
        };
        let holds = |overlap| match is_family {
            true => {
                entry.row.variant != candidate.row.variant
                    && signature::jaccard(overlap, n, kept_n) >= self.rule.variant_copy
            }
            false => similarity.holds(overlap, n, kept_n),
        };
        // Nothing can share more than the smaller of the two has.
        if !holds(n.min(kept_n)) {
            return None;
        }
        let overlap = signature::overlap(candidate.set, &entry.set);
        holds(overlap).then_some((Match { position: entry.position, overlap }, is_family))
    }
}
