//! Connected sets of documents: a forest of 8 bytes a document in a memory-mapped file (Tarjan, "Efficiency
//! of a good but not linear set union algorithm", 1975). The root of a set is its lowest number, whatever the order
//! of the unions, so the result does not depend on the order of the edges.

use std::path::Path;

use moe_shards::ScratchNumbers;

use crate::error::Result;

/// Set in a root that has members besides itself.
const HAS_MEMBERS: u64 = 1 << 63;

/// Sets of the numbers `0..len`.
pub struct UnionFind {
    /// 0 for a root alone, [`HAS_MEMBERS`] for another root, else the parent plus 1: a new file is all zeros.
    links: ScratchNumbers,
}

impl UnionFind {
    /// `len` sets of one number each, in a scratch file at `path`.
    ///
    /// # Errors
    /// The file cannot be made or mapped.
    pub fn new(path: &Path, len: u64) -> Result<UnionFind> {
        Ok(UnionFind { links: ScratchNumbers::create(path, len)? })
    }

    /// Lowest number of the set of `x`, below `len`; shortens the way there.
    pub fn root(&mut self, mut x: u64) -> u64 {
        while let Some(parent) = self.parent(x) {
            let Some(grandparent) = self.parent(parent) else { return parent };
            self.links.set(x, grandparent + 1);
            x = grandparent;
        }
        x
    }

    /// Joins the sets of `a` and `b`.
    pub fn union(&mut self, a: u64, b: u64) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.links.set(a.max(b), a.min(b) + 1);
            self.links.set(a.min(b), HAS_MEMBERS);
        }
    }

    /// The root of the set of `x` when there is any other number in it.
    pub fn root_of_several(&mut self, x: u64) -> Option<u64> {
        let root = self.root(x);
        (self.links.get(root) == HAS_MEMBERS).then_some(root)
    }

    fn parent(&self, x: u64) -> Option<u64> {
        match self.links.get(x) {
            0 | HAS_MEMBERS => None,
            parent => Some(parent - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn roots_are_the_lowest_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let mut sets = UnionFind::new(&dir.path().join("links"), 8).unwrap();
        for (a, b) in [(5, 3), (7, 5), (1, 2), (3, 3)] {
            sets.union(a, b);
        }
        let roots: Vec<u64> = (0..8).map(|x| sets.root(x)).collect();
        assert_eq!(roots, [0, 1, 1, 3, 4, 3, 6, 3]);
        let several: Vec<Option<u64>> = (0..8).map(|x| sets.root_of_several(x)).collect();
        assert_eq!(several, [None, Some(1), Some(1), Some(3), None, Some(3), None, Some(3)]);
    }

    proptest! {
        #[test]
        fn the_order_of_edges_changes_nothing(edges in prop::collection::vec((0u64..40, 0u64..40), 0..60), seed: u64) {
            let dir = tempfile::tempdir().unwrap();
            let roots = |name: &str, edges: &[(u64, u64)]| {
                let mut sets = UnionFind::new(&dir.path().join(name), 40).unwrap();
                edges.iter().for_each(|(a, b)| sets.union(*a, *b));
                (0..40).map(|x| (sets.root(x), sets.root_of_several(x).is_some())).collect::<Vec<_>>()
            };
            let expected = roots("a", &edges);
            let mut shuffled: Vec<(u64, u64)> = edges.iter().map(|(a, b)| (*b, *a)).collect();
            shuffled.sort_by_key(|(a, b)| (a ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b);
            prop_assert_eq!(roots("b", &shuffled), expected.clone());
            // By the definition: spread the lowest number along the edges until nothing changes.
            let mut least: Vec<u64> = (0..40).collect();
            for _ in 0..40 {
                for (a, b) in &edges {
                    let low = least[*a as usize].min(least[*b as usize]);
                    (least[*a as usize], least[*b as usize]) = (low, low);
                }
            }
            prop_assert_eq!(expected.iter().map(|(root, _)| *root).collect::<Vec<_>>(), least);
        }
    }
}
