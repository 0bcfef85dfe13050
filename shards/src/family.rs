//! Families: all texts of one thing. A pass shows each family once; this table says which texts a
//! family has, in the order of the family ids, which is random because they are hashes.

use crate::error::{Error, Result};
use crate::ids::FamilyId;
use crate::manifest::Manifest;
use crate::permute::{Permutation, Purpose, mix64, stream_key};
use crate::reader::{Shard, Tokens};
use crate::variant::OriginalShare;

/// The documents of a pool: its shards one after the other, numbered from 0.
#[derive(Debug)]
pub struct PoolDocs {
    shards: Vec<Shard>,
    /// Position of each shard in the manifest.
    manifest_shards: Vec<u32>,
    /// First document of each shard, and the end.
    bases: Vec<u32>,
}

impl PoolDocs {
    /// The shards of a pool with their positions in the manifest.
    ///
    /// # Errors
    /// More than 2^32 - 1 documents.
    pub fn new(shards: Vec<(u32, Shard)>) -> Result<PoolDocs> {
        let mut bases = vec![0u32];
        for (_, shard) in &shards {
            let next = bases[bases.len() - 1].checked_add(shard.n_docs());
            let too_many =
                || Error::Quota("a pool holds at most 2^32 - 1 documents: split the source".to_owned());
            bases.push(next.ok_or_else(too_many)?);
        }
        let (manifest_shards, shards) = shards.into_iter().unzip();
        Ok(PoolDocs { shards, manifest_shards, bases })
    }

    /// Documents.
    pub fn len(&self) -> u32 {
        self.bases[self.shards.len()]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shard, its position in the manifest, and the document's number in it.
    ///
    /// # Errors
    /// No such document.
    pub fn locate(&self, doc: u32) -> Result<(&Shard, u32, u32)> {
        if doc >= self.len() {
            let (index, len) = (u64::from(doc), u64::from(self.len()));
            return Err(Error::OutOfRange {
                path: Manifest::FILE.into(),
                what: "document of the pool",
                index,
                len,
            });
        }
        let i = self.bases.partition_point(|&base| base <= doc) - 1;
        Ok((&self.shards[i], self.manifest_shards[i], doc - self.bases[i]))
    }

    /// Tokens of a document.
    ///
    /// # Errors
    /// No such document, or a damaged shard.
    pub fn tokens(&self, doc: u32) -> Result<Tokens<'_>> {
        let (shard, _, local) = self.locate(doc)?;
        shard.tokens(local)
    }

    /// Length of a document in tokens, EOD included.
    ///
    /// # Errors
    /// No such document, a damaged shard, or a document of 2^32 tokens.
    pub fn n_tokens(&self, doc: u32) -> Result<u32> {
        let (shard, _, local) = self.locate(doc)?;
        let (_, len) = shard.span(local)?;
        u32::try_from(len).map_err(|_| {
            Error::Quota(format!("document {doc} has {len} tokens, at most 2^32 - 1 are possible"))
        })
    }

    /// All shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }
}

/// Which families are kept for validation: a fixed share, chosen by hash, so that the choice survives
/// new data and never splits a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdout {
    /// Held-out families per million.
    pub ppm: u32,
    /// The plan's seed.
    pub seed: u64,
}

impl Holdout {
    /// Whether the family is held out.
    pub fn contains(self, family: FamilyId) -> bool {
        let draw = mix64(family.0 ^ stream_key(self.seed, 0, 0, 0, Purpose::Holdout));
        u128::from(draw) * 1_000_000 < u128::from(self.ppm) << 64
    }
}

/// Families of a pool in ascending order of their ids, each with its texts in the order of the variants.
#[derive(Debug, Default)]
pub struct FamilyTable {
    ids: Vec<FamilyId>,
    /// First text of each family in `texts`, and the end.
    starts: Vec<u32>,
    /// Documents of the pool.
    texts: Vec<u32>,
    /// Number of each family among those with variants; equal to the next one's if it has none.
    variant_ranks: Vec<u32>,
    n_without_original: u64,
}

impl FamilyTable {
    /// The families of `docs` for which `keep` holds.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn build(docs: &PoolDocs, keep: impl Fn(FamilyId) -> bool) -> Result<FamilyTable> {
        let mut rows = Vec::with_capacity(docs.len() as usize);
        for (shard, base) in docs.shards.iter().zip(&docs.bases) {
            for local in 0..shard.n_docs() {
                let meta = shard.meta(local)?;
                if keep(meta.family) {
                    rows.push((meta.family, meta.variant, base + local));
                }
            }
        }
        rows.sort_unstable();
        let mut table = FamilyTable::default();
        let mut with_variants = 0;
        for family in rows.chunk_by(|a, b| a.0 == b.0) {
            table.ids.push(family[0].0);
            table.starts.push(table.texts.len() as u32);
            table.texts.extend(family.iter().map(|row| row.2));
            table.variant_ranks.push(with_variants);
            with_variants += u32::from(family.len() > 1);
            table.n_without_original += u64::from(family[0].1 != 0);
        }
        table.starts.push(table.texts.len() as u32);
        table.variant_ranks.push(with_variants);
        Ok(table)
    }

    /// Families.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Families with more than one text.
    pub fn n_with_variants(&self) -> u64 {
        self.variant_ranks.last().map_or(0, |&n| u64::from(n))
    }

    /// Families that lack variant 0; their first text stands in for the original.
    pub fn n_without_original(&self) -> u64 {
        self.n_without_original
    }

    /// Id of family `i`.
    pub fn id(&self, i: usize) -> FamilyId {
        self.ids[i]
    }

    /// Documents of family `i`, the original first.
    pub fn texts(&self, i: usize) -> &[u32] {
        &self.texts[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
}

/// What decides the documents of a pass, beside the families themselves.
#[derive(Clone, Debug)]
pub struct PassRule {
    seed: u64,
    pool: u64,
    share: OriginalShare,
    variant_order: Permutation,
}

impl PassRule {
    /// The rule of a pool: `pool` is the XXH3-64 of its name.
    pub fn new(seed: u64, pool: u64, share: OriginalShare, table: &FamilyTable) -> PassRule {
        let key = stream_key(seed, pool, 0, 0, Purpose::Variant);
        PassRule { seed, pool, share, variant_order: Permutation::new(table.n_with_variants(), key) }
    }

    /// Key of a window's permutation.
    pub fn key(&self, pass: u32, window: usize, purpose: Purpose) -> u64 {
        stream_key(self.seed, self.pool, u64::from(pass), window as u64, purpose)
    }

    /// Document that family `i` shows in a pass.
    pub fn document(&self, table: &FamilyTable, i: usize, pass: u32) -> u32 {
        let texts = table.texts(i);
        if texts.len() == 1 {
            return texts[0];
        }
        let rank = self.variant_order.forward(u64::from(table.variant_ranks[i]));
        let n_variants = texts.len() as u64 - 1;
        texts[self.share.text(pass, rank, self.variant_order.len(), table.id(i), n_variants) as usize]
    }

    /// Documents of families `families` (a window) in the order in which the pass shows them.
    pub fn documents(
        &self,
        table: &FamilyTable,
        families: std::ops::Range<u64>,
        pass: u32,
        window: usize,
    ) -> Vec<u32> {
        let n = families.end - families.start;
        let order = Permutation::new(n, self.key(pass, window, Purpose::Families));
        (0..n).map(|i| self.document(table, (families.start + order.forward(i)) as usize, pass)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_held_out_share_is_near_the_wish_and_depends_on_the_seed() {
        let count =
            |ppm, seed| (0..100_000).filter(|&i| Holdout { ppm, seed }.contains(FamilyId(mix64(i)))).count();
        assert_eq!(count(0, 1), 0);
        assert_eq!(count(1_000_000, 1), 100_000);
        let held = count(50_000, 1);
        assert!((4_700..5_300).contains(&held), "{held}"); // 5,000 with standard deviation 69
        let both = |i| {
            Holdout { ppm: 50_000, seed: 1 }.contains(FamilyId(i))
                && Holdout { ppm: 50_000, seed: 2 }.contains(FamilyId(i))
        };
        assert!((0..100_000).filter(|&i| both(mix64(i))).count() < 400);
    }
}
