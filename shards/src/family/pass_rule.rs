//! What a pass shows of each family, and in which order.

use serde::{Deserialize, Serialize};

use super::{FamilyTable, PoolDocs};
use crate::error::Result;
use crate::permute::{Permutation, Purpose, stream_key};
use crate::variant::TextRule;

/// How the passes of a pool differ in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Windows of families in the same order in every pass, families shuffled again inside them: a family
    /// comes back after almost a whole pass, between other neighbors.
    #[default]
    Gap,
    /// Every pass in the order of the first.
    Fixed,
    /// The sequences of the first pass, shuffled again inside each window.
    Reshuffle,
    /// One window: families shuffled again over the whole pass, with no guaranteed gap between two
    /// appearances.
    Documents,
}

impl Order {
    /// Whether it is the default.
    pub fn is_gap(&self) -> bool {
        *self == Order::Gap
    }

    /// The pass whose permutation applies.
    fn pass(self, pass: u32, purpose: Purpose) -> u32 {
        match (self, purpose) {
            (Order::Fixed, _) => 0,
            (Order::Reshuffle, purpose) if purpose != Purpose::Bins => 0,
            _ => pass,
        }
    }
}

/// What determines the documents of a pass, in addition to the families themselves.
#[derive(Clone, Debug)]
pub struct PassRule {
    seed: u64,
    pool: u64,
    texts: TextRule,
    max_uses: Option<u32>,
    order: Order,
    variant_order: Permutation,
}

impl PassRule {
    /// The rule of a pool: `pool` is the XXH3-64 of its name. With `max_uses` a family rests in the passes
    /// that would show a text more often than that.
    pub fn new(
        seed: u64,
        pool: u64,
        texts: TextRule,
        max_uses: Option<u32>,
        order: Order,
        table: &FamilyTable,
    ) -> PassRule {
        let key = stream_key(seed, pool, 0, 0, Purpose::Variant);
        PassRule {
            seed,
            pool,
            texts,
            max_uses,
            order,
            variant_order: Permutation::new(table.n_with_variants(), key),
        }
    }

    /// Key of a window's permutation.
    pub fn key(&self, pass: u32, window: usize, purpose: Purpose) -> u64 {
        let pass = self.order.pass(pass, purpose);
        stream_key(self.seed, self.pool, u64::from(pass), window as u64, purpose)
    }

    /// Documents that family `i` shows in a pass, in this order; none when it rests.
    pub fn shown<'a>(
        &self,
        table: &'a FamilyTable,
        i: usize,
        pass: u32,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let (docs, uses) = self.turn(table, i, pass);
        let shows = self.max_uses.is_none_or(|max| uses < u64::from(max));
        docs.take(if shows { usize::MAX } else { 0 })
    }

    /// Documents of family `i` whose turn it is in a pass, and how many earlier passes showed them.
    pub fn turn<'a>(
        &self,
        table: &'a FamilyTable,
        i: usize,
        pass: u32,
    ) -> (impl Iterator<Item = u32> + use<'a>, u64) {
        let texts = table.texts(i);
        let (first, uses) = match texts.len() {
            1 => (0, u64::from(pass)),
            n => {
                let rank = self.variant_order.forward(u64::from(table.variant_ranks[i]));
                let n_ranks = self.variant_order.len();
                self.texts.text_and_uses(pass, rank, n_ranks, table.id(i), n as u64 - 1)
            }
        };
        let n = if self.texts == TextRule::All { texts.len() } else { 1 };
        let (before, from) = texts.split_at(first as usize);
        (from.iter().chain(before).copied().take(n), uses)
    }

    /// A pass from which on every family of `table` rests, so that no later pass shows anything; `None` if
    /// there is none.
    pub fn end(&self, table: &FamilyTable) -> Option<u32> {
        if table.is_empty() {
            return Some(0);
        }
        let max = u128::from(self.max_uses?);
        let most_texts = (0..table.len()).map(|i| table.texts(i).len()).max().unwrap_or(1) as u128;
        let share = match self.texts {
            TextRule::Share(share) => share,
            // Whenever it is the first text's turn, all texts have been shown equally often.
            TextRule::EachOnce => return Some(u32::try_from(most_texts * max).unwrap_or(u32::MAX)),
            TextRule::All => return self.max_uses,
        };
        let (num, den) = (u128::from(share.num), u128::from(share.den.max(1)));
        let others = den.saturating_sub(num);
        // Passes `0..p` show at least `p num / den - 1` originals and `p others / den - 1` other texts, which
        // rotate, and a text whose turn never comes shows nothing anyway.
        let passes =
            |uses: u128, share: u128| ((uses + 1) * den).checked_div(share).map_or(0, |passes| passes + 1);
        let alone = if self.variant_order.len() < table.len() as u64 { max } else { 0 };
        let with_variants = match most_texts {
            1 => 0,
            n => passes(max, num).max(passes((n - 1) * max, others)),
        };
        Some(u32::try_from(alone.max(with_variants)).unwrap_or(u32::MAX))
    }

    /// Documents of families `families` (a window) with their tokens, in the order in which the pass shows
    /// them. Each is also given to `each`, in the order of the families. Texts of a stitched family are
    /// neighbors.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn documents(
        &self,
        table: &FamilyTable,
        docs: &PoolDocs,
        families: std::ops::Range<u64>,
        pass: u32,
        window: usize,
        mut each: impl FnMut(u32, u32) -> Result<()>,
    ) -> Result<Vec<(u32, u32)>> {
        let n = families.end - families.start;
        let order = Permutation::new(n, self.key(pass, window, Purpose::Families));
        if self.texts == TextRule::All {
            for doc in families.clone().flat_map(|i| self.shown(table, i as usize, pass)) {
                each(doc, docs.n_tokens(doc)?)?;
            }
            let in_order = (0..n)
                .flat_map(|place| self.shown(table, (families.start + order.forward(place)) as usize, pass));
            return in_order.map(|doc| Ok((doc, docs.n_tokens(doc)?))).collect();
        }
        let mut shown = vec![(0, 0); n as usize];
        // Table and shards are read in order and the places looked up, not the other way around: a window of
        // places fits into the processor's cache, the pool does not.
        for i in 0..n {
            let Some(doc) = self.shown(table, (families.start + i) as usize, pass).next() else { continue };
            let len = docs.n_tokens(doc)?;
            each(doc, len)?;
            shown[order.inverse(i) as usize] = (doc, len);
        }
        // No document is empty, so these are the places of families that rest.
        shown.retain(|&(_, len)| len > 0);
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::FamilyId;
    use crate::permute::mix64;
    use crate::variant::OriginalShare;

    /// No family shows anything from the end on, which is not far after the last pass that does.
    #[test]
    fn passes_end_where_every_text_rests() {
        for (n_texts, num, den, max) in [
            (1, 1, 2, 2),
            (2, 1, 2, 1),
            (4, 1, 3, 2),
            (3, 0, 1, 2),
            (3, 1, 1, 3),
            (2, 1, 50, 1),
            (5, 9, 10, 4),
        ] {
            let mut table =
                FamilyTable { starts: vec![0], variant_ranks: Vec::new(), ..FamilyTable::default() };
            for i in 0..7u32 {
                // One family in two has variants.
                let texts = if i % 2 == 0 { n_texts } else { 1 };
                table.ids.push(FamilyId(mix64(u64::from(i))));
                table.variant_ranks.push(if n_texts > 1 { i.div_ceil(2) } else { 0 });
                table.texts.extend(table.texts.len() as u32..table.texts.len() as u32 + texts);
                table.starts.push(table.texts.len() as u32);
            }
            table.variant_ranks.push(if n_texts > 1 { 4 } else { 0 });
            let share = TextRule::Share(OriginalShare { num, den });
            for texts in [share, TextRule::EachOnce, TextRule::All] {
                let rule = PassRule::new(1, 2, texts, Some(max), Order::Gap, &table);
                let end = rule.end(&table).unwrap();
                let shows = |pass| (0..table.len()).any(|i| rule.shown(&table, i, pass).next().is_some());
                assert!((end..end + 300).all(|pass| !shows(pass)), "{n_texts} {texts:?} {max}: {end}");
                let last = (0..end).rev().find(|&pass| shows(pass)).unwrap();
                let rare = (den / num.max(1)).max(den / (den - num).max(1)).max(4);
                assert!(u64::from(end - last) <= 2 * rare + 4, "{n_texts} {texts:?}: {last} {end}");
                assert!(texts == share || last + 1 == end, "no text is left out: {last} {end}");
            }
            let free = PassRule::new(1, 2, share, None, Order::Gap, &table);
            assert_eq!(free.end(&table), None);
            assert_eq!(free.end(&FamilyTable::default()), Some(0));
        }
    }

    /// Which passes repeat the permutation of which others.
    #[test]
    fn orders_differ_in_what_they_reshuffle() {
        let table = FamilyTable { starts: vec![0], variant_ranks: vec![0], ..FamilyTable::default() };
        let share = TextRule::Share(OriginalShare { num: 1, den: 2 });
        for (order, families, bins) in [
            (Order::Gap, true, true),
            (Order::Documents, true, true),
            (Order::Reshuffle, false, true),
            (Order::Fixed, false, false),
        ] {
            let rule = PassRule::new(1, 2, share, None, order, &table);
            let differs = |purpose| rule.key(0, 3, purpose) != rule.key(5, 3, purpose);
            assert_eq!((differs(Purpose::Families), differs(Purpose::Pieces)), (families, families));
            assert_eq!(differs(Purpose::Bins), bins, "{order:?}");
            assert_ne!(rule.key(0, 3, Purpose::Bins), rule.key(0, 4, Purpose::Bins));
        }
    }
}
