//! A stretch of the rows of sorted runs, so that several tasks share one merge.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// One of equal stretches of all keys, which are hashes: those with certain first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// Its number, from 0.
    index: u32,
    /// The first bits of a key that count.
    bits: u32,
}

/// Small corpora have few parts, and a machine has several cores.
const MIN_RANGES: usize = 4;
/// More would read too little of each run.
const MAX_RANGES: usize = 1024;

impl KeyRange {
    /// The ranges for a corpus of so many parts, in ascending order: about as many.
    pub fn all(n_parts: usize) -> impl ExactSizeIterator<Item = KeyRange> {
        let bits = n_parts.clamp(MIN_RANGES, MAX_RANGES).next_power_of_two().ilog2();
        (0..1 << bits).map(move |index| KeyRange { index, bits })
    }

    /// Its number, from 0.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Whether a key comes before the range, is in it, or comes after it.
    pub fn side(self, key: u64) -> Ordering {
        (key >> (64 - self.bits)).cmp(&u64::from(self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_one_range_and_ranges_ascend() {
        for (n_parts, n_ranges) in [(0, 4), (1, 4), (5, 8), (16, 16), (1000, 1024), (1 << 20, 1024)] {
            let ranges: Vec<KeyRange> = KeyRange::all(n_parts).collect();
            assert_eq!(ranges.len(), n_ranges);
            for key in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
                // The key comes after the ranges before its own.
                let sides: Vec<Ordering> = ranges.iter().rev().map(|range| range.side(key)).collect();
                assert!(sides.is_sorted() && sides.iter().filter(|side| side.is_eq()).count() == 1, "{key}");
            }
        }
    }
}
