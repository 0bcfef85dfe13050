//! Families: all texts of the same thing. A pass shows each family once; this table says which texts a
//! family has, in the order of the family ids, which is random because they are hashes.

mod pass_rule;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

pub use self::pass_rule::{Order, PassRule};
use crate::error::{Error, Result};
use crate::format::DocumentMeta;
use crate::ids::FamilyId;
use crate::manifest::Manifest;
use crate::permute::{Permutation, Purpose, mix64, stream_key};
use crate::reader::{Shard, Tokens};
use crate::selection::{Selection, ShardSelection};

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
                || Error::Quota("a pool has at most 2^32 - 1 documents: split the source".to_owned());
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
        let i = self.shard_of(doc);
        Ok((&self.shards[i], self.manifest_shards[i], doc - self.bases[i]))
    }

    /// The shard that holds document `doc`, which exists.
    fn shard_of(&self, doc: u32) -> usize {
        self.bases.partition_point(|&base| base <= doc) - 1
    }

    /// Record of a document.
    ///
    /// # Errors
    /// No such document.
    pub fn meta(&self, doc: u32) -> Result<DocumentMeta> {
        let (shard, _, local) = self.locate(doc)?;
        shard.meta(local)
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
            Error::Quota(format!("document {doc} has {len} tokens, at most 2^32 - 1 are supported"))
        })
    }

    /// Targets in the loss of the tokens `offset..offset + len` of a document.
    ///
    /// # Errors
    /// No such document, or a damaged shard.
    pub fn trained_targets(&self, doc: u32, offset: u32, len: u32) -> Result<u64> {
        let (shard, _, local) = self.locate(doc)?;
        shard.trained_targets(local, offset, len)
    }

    /// Targets of a whole document.
    ///
    /// # Errors
    /// As [`PoolDocs::trained_targets`].
    pub fn trained_tokens(&self, doc: u32) -> Result<u64> {
        self.trained_targets(doc, 0, u32::MAX)
    }

    /// All shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }
}

/// Which families are kept for validation: a fixed fraction, chosen by hash, so that the choice survives new
/// data and never splits a family.
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
        u128::from(self.draw(family)) * 1_000_000 < u128::from(self.ppm) << 64
    }

    /// The smallest `ppm` with which the family is held out.
    pub fn least_ppm(self, family: FamilyId) -> u32 {
        // Below a million, since the draw is below 2^64.
        ((u128::from(self.draw(family)) * 1_000_000) >> 64) as u32 + 1
    }

    fn draw(self, family: FamilyId) -> u64 {
        mix64(family.0 ^ stream_key(self.seed, 0, 0, 0, Purpose::Holdout))
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
    /// The families of `docs` for which `keep` is true and whose first text fits the selection.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn build(
        docs: &PoolDocs,
        selection: Option<&Selection>,
        keep: impl Fn(FamilyId) -> bool,
    ) -> Result<FamilyTable> {
        let by_shard: Option<Vec<ShardSelection>> =
            selection.map(|selection| docs.shards.iter().map(|shard| selection.in_shard(shard)).collect());
        let takes = |shard: usize, doc: u32| match &by_shard {
            None => Ok(true),
            Some(by_shard) => {
                docs.shards[shard].meta(doc - docs.bases[shard]).map(|meta| by_shard[shard].takes(&meta))
            }
        };
        // Shards are sorted by family: merging them needs no copy of the rows.
        let mut heads = BinaryHeap::new();
        let mut shards: Vec<_> =
            docs.shards.iter().zip(&docs.bases).map(|(s, &base)| Rows::new(s, base)).collect();
        for (i, rows) in shards.iter_mut().enumerate() {
            heads.extend(rows.next_kept(&keep)?.map(|row| Reverse((row, i))));
        }
        let n_docs = docs.len() as usize;
        let mut table = FamilyTable { texts: Vec::with_capacity(n_docs), ..FamilyTable::default() };
        let mut with_variants = 0;
        // The family of the last row, and whether its first text fits.
        let mut current = (None, false);
        while let Some(mut head) = heads.peek_mut() {
            let Reverse(((family, variant, doc), i)) = *head;
            // The next row of this shard is often again the smallest: then the heap stays as it is.
            match shards[i].next_kept(&keep)? {
                Some(row) => *head = Reverse((row, i)),
                None => {
                    PeekMut::pop(head);
                }
            }
            if current.0 != Some(family) {
                current = (Some(family), takes(i, doc)?);
                if !current.1 {
                    continue;
                }
                with_variants += u32::from(table.ends_with_variants());
                table.ids.push(family);
                table.starts.push(table.texts.len() as u32);
                table.variant_ranks.push(with_variants);
                table.n_without_original += u64::from(variant != 0);
            }
            if current.1 {
                table.texts.push(doc);
            }
        }
        with_variants += u32::from(table.ends_with_variants());
        table.starts.push(table.texts.len() as u32);
        table.variant_ranks.push(with_variants);
        Ok(table)
    }

    /// The families whose place in `order` is below `keep`, renumbered: a subset of every larger one.
    ///
    /// # Panics
    /// `order` is not a permutation of the families.
    pub fn first_of(&self, order: &Permutation, keep: u64) -> FamilyTable {
        let mut table = FamilyTable::default();
        let mut with_variants = 0;
        for i in (0..self.len()).filter(|&i| order.forward(i as u64) < keep) {
            let texts = self.texts(i);
            table.ids.push(self.ids[i]);
            table.starts.push(table.texts.len() as u32);
            table.texts.extend(texts);
            table.variant_ranks.push(with_variants);
            with_variants += u32::from(texts.len() > 1);
        }
        table.starts.push(table.texts.len() as u32);
        table.variant_ranks.push(with_variants);
        table
    }

    /// Whether the last family, while the table is built, has more than one text.
    fn ends_with_variants(&self) -> bool {
        self.starts.last().is_some_and(|&start| self.texts.len() - start as usize > 1)
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

/// The documents of a shard as (family, variant, document of the pool), which ascend.
struct Rows<'a> {
    shard: &'a Shard,
    base: u32,
    next: u32,
    last: (FamilyId, u8),
}

impl Rows<'_> {
    fn new(shard: &Shard, base: u32) -> Rows<'_> {
        Rows { shard, base, next: 0, last: (FamilyId(0), 0) }
    }

    fn next_kept(&mut self, keep: &impl Fn(FamilyId) -> bool) -> Result<Option<(FamilyId, u8, u32)>> {
        while self.next < self.shard.n_docs() {
            let local = self.next;
            self.next += 1;
            let meta = self.shard.meta(local)?;
            let row = (meta.family, meta.variant);
            if row < self.last {
                let name = |(family, variant): (FamilyId, u8)| format!("{family} variant {variant}");
                let (previous, next) = (name(self.last), name(row));
                return Err(Error::Order { path: self.shard.path().to_owned(), previous, next });
            }
            self.last = row;
            if keep(meta.family) {
                return Ok(Some((meta.family, meta.variant, self.base + local)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_held_out_share_is_near_the_requested_one_and_depends_on_the_seed() {
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
        for family in (0..500).map(|i| FamilyId(mix64(i))) {
            let least = Holdout { ppm: 0, seed: 1 }.least_ppm(family);
            assert!(Holdout { ppm: least, seed: 1 }.contains(family));
            assert!(!Holdout { ppm: least - 1, seed: 1 }.contains(family));
        }
    }
}
