//! A running hash of everything a run has read: two runs with the same value saw the same tokens
//! in the same order.

use moe_shards::{Hash, Sample};

/// `h_(t+1) = blake3(h_t || t || tokens of sample t)`; small enough to be stored in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataDigest(Hash);

impl DataDigest {
    /// The digest before the first sample.
    pub fn new() -> Self {
        Self(Hash::of(b"moe-train data sequence v1"))
    }

    /// Continues from a digest stored in a checkpoint.
    pub fn resume(hash: Hash) -> Self {
        Self(hash)
    }

    /// The digest after sample `t`.
    pub fn then(self, t: u64, sample: &Sample) -> Self {
        let mut bytes = Vec::with_capacity(40 + 4 * sample.tokens.len());
        bytes.extend(self.0.0);
        bytes.extend(t.to_le_bytes());
        bytes.extend(sample.tokens.iter().flat_map(|token| token.to_le_bytes()));
        Self(Hash::of(&bytes))
    }

    /// The value.
    pub fn hash(self) -> Hash {
        self.0
    }
}

impl Default for DataDigest {
    fn default() -> Self {
        Self::new()
    }
}
