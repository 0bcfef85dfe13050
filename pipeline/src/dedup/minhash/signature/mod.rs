//! MinHash: which documents are likely to share most of their word n-grams (Broder, "On the resemblance and
//! containment of documents", 1997), as pure functions of a text.
//!
//! A text becomes words, every `ngram` consecutive words become a shingle (a 64-bit hash), and the lowest values
//! of the shingles under `bands * rows` permutations are the signature. Two texts agree in one value with a
//! probability equal to the Jaccard index of their sets of shingles. The values of a band are
//! hashed to its key; documents that share a key are candidates, with probability `1 - (1 - J^rows)^bands`
//! (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4).
//!
//! What a word and a permutation are is the [`Profile`]'s choice: [`native`] is the fast one, [`datatrove`] gives
//! the signatures of the Python package of that name.

mod constants;
pub mod datatrove;
pub mod native;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::datatrove::{Datatrove, HashFunction};
use self::native::Native;

/// Words, shingles and permutations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Ours: lower-cased runs of letters and digits, rolling hash, 32-bit permutations.
    #[default]
    Native,
    /// The signatures of datatrove 0.10.1 with its defaults (XXH64).
    Datatrove,
    /// The same with SHA-1, as FineWeb was made.
    FinewebV1,
}

/// Everything that decides the keys of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchConfig {
    /// Words, shingles and permutations.
    pub profile: Profile,
    /// Words of a shingle.
    pub ngram: u32,
    /// Bands.
    pub bands: u32,
    /// Values of a band.
    pub rows: u32,
    /// Seed of the permutations.
    pub seed: u64,
}

/// Makes sets of shingles and band keys, one text after the other, with buffers of its own.
pub struct Sketcher {
    rows: usize,
    shingles: Vec<u64>,
    kind: Kind,
}

enum Kind {
    Native(Native),
    Datatrove(Box<Datatrove>),
}

impl Sketcher {
    /// A sketcher; for the profiles of datatrove `bands * rows` is 112 and the seed 1, which the recipe checks.
    pub fn new(config: &SketchConfig) -> Sketcher {
        let n_values = (config.bands * config.rows) as usize;
        let ngram = config.ngram as usize;
        let datatrove = |function| Kind::Datatrove(Box::new(Datatrove::new(ngram, function)));
        let kind = match config.profile {
            Profile::Native => Kind::Native(Native::new(ngram, n_values, config.seed)),
            Profile::Datatrove => datatrove(HashFunction::Xxh64),
            Profile::FinewebV1 => datatrove(HashFunction::Sha1),
        };
        Sketcher { rows: config.rows as usize, shingles: Vec::new(), kind }
    }

    /// Hashes of the shingles in the order of the text, repeated ones too. A text of fewer words than a shingle
    /// has none.
    pub fn shingles(&mut self, text: &str) -> &[u64] {
        self.shingles.clear();
        match &mut self.kind {
            Kind::Native(native) => native.shingles(text, &mut self.shingles),
            Kind::Datatrove(datatrove) => datatrove.shingles(text, &mut self.shingles),
        }
        &self.shingles
    }

    /// The set of shingles: ascending, each once.
    pub fn set(&mut self, text: &str) -> &[u64] {
        self.shingles(text);
        self.shingles.sort_unstable();
        self.shingles.dedup();
        &self.shingles
    }

    /// Appends the key of each band; appends nothing and returns false when the text has no shingle.
    pub fn keys(&mut self, text: &str, keys: &mut Vec<u64>) -> bool {
        if self.shingles(text).is_empty() {
            return false;
        }
        let rows = self.rows;
        match &mut self.kind {
            Kind::Native(native) => {
                let values = native.signature(&self.shingles);
                keys.extend(
                    values.chunks_exact(rows).zip(0..).map(|(band, i)| key(band, u32::to_le_bytes, i)),
                );
            }
            Kind::Datatrove(datatrove) => {
                let values = datatrove.signature(&self.shingles);
                keys.extend(
                    values.chunks_exact(rows).zip(0..).map(|(band, i)| key(band, u64::to_le_bytes, i)),
                );
            }
        }
        true
    }

    /// The values of datatrove's signature; `None` in the native profile or without shingles.
    pub fn datatrove_signature(&mut self, text: &str) -> Option<&[u64]> {
        self.shingles(text);
        match &mut self.kind {
            Kind::Datatrove(datatrove) if !self.shingles.is_empty() => {
                Some(datatrove.signature(&self.shingles))
            }
            _ => None,
        }
    }
}

/// XXH3-64 of the little-endian values of a band, seeded with its number, so that one table holds all bands.
fn key<T: Copy, const N: usize>(band: &[T], bytes_of: fn(T) -> [u8; N], number: u64) -> u64 {
    let mut bytes = [0; 64 * 8];
    // The recipe allows 64 rows.
    let n_bytes = band.len() * N;
    for (place, value) in bytes.chunks_exact_mut(N).zip(band) {
        place.copy_from_slice(&bytes_of(*value));
    }
    xxh3_64_with_seed(&bytes[..n_bytes], number)
}

/// Values that two ascending sets share.
pub fn overlap(a: &[u64], b: &[u64]) -> usize {
    let (mut i, mut j, mut n) = (0, 0, 0);
    // Without branches on the comparison, which the processor could not predict.
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        n += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    n
}

/// `|A and B| / |A or B|` from the sizes of two sets and of what they share; 0 when both are empty.
pub fn jaccard(overlap: usize, a: usize, b: usize) -> f64 {
    match a + b - overlap {
        0 => 0.0,
        union => overlap as f64 / union as f64,
    }
}

/// Probability that two documents of this Jaccard index share at least one band key.
pub fn candidate_probability(jaccard: f64, bands: u32, rows: u32) -> f64 {
    1.0 - (1.0 - jaccard.powi(rows as i32)).powi(bands as i32)
}

#[cfg(test)]
mod tests;
