//! A digest of a set that does not depend on the order of its elements.
//!
//! LtHash16 (Bellare and Micciancio 1997, section 5; Lewi et al. 2019, "Securing Update Propagation with
//! Homomorphic Hashing"): each element is stretched to 1,024 numbers of 16 bits, and the digest of a set is
//! their sum, number by number. Here the stretching is BLAKE3's output of any length, and the sum is hashed
//! once more to 32 bytes. A plain sum or XOR of digests would have the same order independence but is easily
//! forged.

use moe_shards::Hash;

const LANES: usize = 1024;

/// The digest of a set under construction; 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct SetDigest {
    lanes: Box<[u16; LANES]>,
    n: u64,
}

impl Default for SetDigest {
    fn default() -> SetDigest {
        SetDigest { lanes: Box::new([0; LANES]), n: 0 }
    }
}

impl SetDigest {
    /// Adds an element. The caller ensures that none is added twice.
    pub fn add(&mut self, element: &[u8]) {
        let mut bytes = [0; 2 * LANES];
        blake3::Hasher::new().update(element).finalize_xof().fill(&mut bytes);
        for (lane, pair) in self.lanes.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = lane.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]));
        }
        self.n += 1;
    }

    /// Elements so far.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The digest: BLAKE3 of the sums, little-endian, and the number of elements as 8 bytes.
    pub fn finish(&self) -> Hash {
        let mut bytes: Vec<u8> = self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        bytes.extend(self.n.to_le_bytes());
        Hash::of(&bytes)
    }
}

impl std::fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetDigest({}, {} elements)", self.finish().short(), self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(elements: &[&str]) -> Hash {
        let mut digest = SetDigest::default();
        elements.iter().for_each(|element| digest.add(element.as_bytes()));
        digest.finish()
    }

    #[test]
    fn order_does_not_matter_and_elements_do() {
        assert_eq!(digest(&["a", "b", "c"]), digest(&["c", "a", "b"]));
        let others = [digest(&[]), digest(&["a"]), digest(&["a", "b"]), digest(&["a", "b", "d"])];
        assert!(!others.contains(&digest(&["a", "b", "c"])));
        assert_ne!(digest(&["ab"]), digest(&["a", "b"]));
    }
}
