//! A variant that is nearly its original, or nearly another variant, is not a new view of the family.

use crate::dedup::minhash::signature::{self, Profile, SketchConfig, Sketcher};

/// Default limit of [`super::gates::VARIANT_RULE`].
pub const DEFAULT_LIMIT: f64 = 0.7;

/// Words in a shingle. Deduplication uses five, with which changing a tenth of the words leaves half of the shingles.
const NGRAM: u32 = 3;

/// Sets of shingles of the texts of one family.
pub struct Views {
    sketcher: Sketcher,
    sets: Vec<Vec<u64>>,
}

impl Views {
    /// Starts with the original.
    pub fn new(original: &str) -> Views {
        let config = SketchConfig { profile: Profile::Native, ngram: NGRAM, bands: 1, rows: 1, seed: 1 };
        let mut views = Views { sketcher: Sketcher::new(&config), sets: Vec::new() };
        views.add(original);
        views
    }

    /// Greatest Jaccard index of a text's shingles with those of any text so far.
    pub fn nearest(&mut self, text: &str) -> f64 {
        let set = self.sketcher.set(text);
        let index =
            |other: &Vec<u64>| signature::jaccard(signature::overlap(set, other), set.len(), other.len());
        self.sets.iter().map(index).fold(0.0, f64::max)
    }

    /// Adds a text that was accepted.
    pub fn add(&mut self, text: &str) {
        let set = self.sketcher.set(text).to_vec();
        self.sets.push(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_view_counts() {
        let mut views = Views::new("a b c d e");
        // Shingles abc bcd cde against abc bcd cdx: 2 of 4.
        assert_eq!(views.nearest("a b c d x"), 0.5);
        assert_eq!(views.nearest("a b c d e"), 1.0);
        assert_eq!(views.nearest("p q r s"), 0.0);
        views.add("p q r s");
        assert_eq!(views.nearest("p q r s"), 1.0);
    }
}
