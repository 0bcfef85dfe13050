//! Which text of a family a pass shows, in closed form. Either the texts take turns, each once before any is
//! repeated, or originals have an exact share, or each pass shows all texts.
//!
//! With original share `X` and a family's rank `h` among the `n` families that have variants, the
//! line `p X + h / n` crosses an integer exactly in the passes that show the original
//! (Bresenham's rule). So every pass has a share `X` of originals to within one family, every family has
//! `floor` or `ceil` of `P X` originals in `P` passes, and the variants rotate between them.

use serde::{Deserialize, Serialize};

use crate::ids::FamilyId;
use crate::permute::mix64;

/// The rule for which text of a family a pass shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// The share of originals.
    #[default]
    Share,
    /// Each text of a family is shown once before any of them is shown again.
    EachOnce,
}

impl Turns {
    /// Whether this is the share of originals.
    pub fn is_share(&self) -> bool {
        *self == Turns::Share
    }
}

/// How a pass shows a family that has several texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One of its texts, as a separate document.
    #[default]
    Separate,
    /// All of its texts, one after the other, as one document (stitched rephrasings, arXiv 2603.18534).
    Stitched,
}

impl Layout {
    /// Whether each text is a separate document.
    pub fn is_separate(&self) -> bool {
        *self == Layout::Separate
    }
}

/// Which text of its family a pass shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextRule {
    /// A share of originals, between which the other texts rotate.
    Share(OriginalShare),
    /// All texts rotate. A family begins with the text of its rank, so that each pass shows all kinds.
    EachOnce,
    /// Every pass shows all texts, each time beginning with another one.
    All,
}

impl TextRule {
    /// The rule of a pool.
    pub fn new(layout: Layout, turns: Turns, [num, den]: [u64; 2]) -> TextRule {
        match (layout, turns) {
            (Layout::Stitched, _) => TextRule::All,
            (Layout::Separate, Turns::EachOnce) => TextRule::EachOnce,
            (Layout::Separate, Turns::Share) => TextRule::Share(OriginalShare { num, den }),
        }
    }

    /// The text that a pass shows, or begins with (0 = the family's first text, its original), and how many
    /// earlier passes showed it; `rank` is that of the family among the `n` that have variants.
    pub fn text_and_uses(
        self,
        pass: u32,
        rank: u64,
        n: u64,
        family: FamilyId,
        n_variants: u64,
    ) -> (u64, u64) {
        match self {
            TextRule::Share(share) => share.text_and_uses(pass, rank, n, family, n_variants),
            TextRule::EachOnce => {
                let n_texts = n_variants + 1;
                ((rank + u64::from(pass)) % n_texts, u64::from(pass) / n_texts)
            }
            TextRule::All => ((rank + u64::from(pass)) % (n_variants + 1), u64::from(pass)),
        }
    }
}

/// Share of originals among the families that have variants: `num / den`, in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalShare {
    /// Numerator, at most the denominator.
    pub num: u64,
    /// Denominator, at least 1.
    pub den: u64,
}

impl OriginalShare {
    /// Originals that a family of rank `rank` of `n` shows in passes `0..pass`.
    fn before(self, pass: u32, rank: u64, n: u64) -> u64 {
        let (num, den, n) = (u128::from(self.num), u128::from(self.den.max(1)), u128::from(n.max(1)));
        ((u128::from(pass) * num * n + u128::from(rank) * den) / (den * n)) as u64
    }

    /// Number of the text that a pass shows: 0 = the family's first text (its original),
    /// `1..=n_variants` = one of the others.
    pub fn text(self, pass: u32, rank: u64, n: u64, family: FamilyId, n_variants: u64) -> u64 {
        self.text_and_uses(pass, rank, n, family, n_variants).0
    }

    /// The text that a pass shows, and how many earlier passes showed it.
    pub fn text_and_uses(
        self,
        pass: u32,
        rank: u64,
        n: u64,
        family: FamilyId,
        n_variants: u64,
    ) -> (u64, u64) {
        if n_variants == 0 {
            return (0, u64::from(pass));
        }
        let before = self.before(pass, rank, n);
        if self.before(pass + 1, rank, n) > before {
            return (0, before);
        }
        let earlier_variants = u64::from(pass) - before;
        // The variants rotate, so this one comes back every `n_variants` times.
        (1 + (mix64(family.0) % n_variants + earlier_variants) % n_variants, earlier_variants / n_variants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: OriginalShare = OriginalShare { num: 1, den: 2 };

    #[test]
    fn two_families_alternate_in_opposite_phase() {
        let texts = |rank| -> Vec<u64> { (0..4).map(|p| HALF.text(p, rank, 2, FamilyId(5), 1)).collect() };
        assert_eq!(texts(0), [1, 0, 1, 0]); // 0, 1/2, 1, 3/2, 2: crosses in passes 1 and 3
        assert_eq!(texts(1), [0, 1, 0, 1]); // 1/2, 1, 3/2, 2, 5/2
    }

    #[test]
    fn shares_are_exact_to_one_family_and_variants_rotate() {
        for (num, den, n) in [(1, 2, 1001u64), (1, 3, 500), (3, 4, 97), (0, 1, 10), (1, 1, 10), (7, 10, 4096)]
        {
            let share = OriginalShare { num, den };
            let mut shown = vec![[0u32; 4]; n as usize];
            for pass in 0..12 {
                let mut originals = 0;
                for rank in 0..n {
                    let (text, uses) = share.text_and_uses(pass, rank, n, FamilyId(rank * 31), 3);
                    assert_eq!(u64::from(shown[rank as usize][text as usize]), uses);
                    shown[rank as usize][text as usize] += 1;
                    originals += u64::from(text == 0);
                }
                let deviation = (originals * den).abs_diff(num * n);
                assert!(deviation < den, "share {num}/{den}, pass {pass}: {originals} of {n}");
            }
            for family in shown {
                let exact = 12.0 * num as f64 / den as f64;
                assert!((f64::from(family[0]) - exact).abs() < 1.0);
                let (min, max) = (family[1..].iter().min().unwrap(), family[1..].iter().max().unwrap());
                assert!(max - min <= 1, "all variants are used before one repeats: {family:?}");
            }
        }
    }

    #[test]
    fn each_text_is_shown_once_before_any_is_shown_again() {
        for n_variants in 0..5u64 {
            for rank in 0..12 {
                let mut shown = vec![0u64; n_variants as usize + 1];
                for pass in 0..3 * (n_variants as u32 + 1) {
                    let (text, uses) =
                        TextRule::EachOnce.text_and_uses(pass, rank, 12, FamilyId(rank * 7), n_variants);
                    assert_eq!(shown[text as usize], uses);
                    shown[text as usize] += 1;
                    assert!(shown.iter().max().unwrap() - shown.iter().min().unwrap() <= 1, "{shown:?}");
                }
                assert!(shown.iter().all(|&n| n == 3), "{shown:?}");
            }
            // A pass shows as many originals as any other text of families of one size.
            let first = |rank| TextRule::EachOnce.text_and_uses(0, rank, 60, FamilyId(rank), n_variants).0;
            assert_eq!((0..60).filter(|&rank| first(rank) == 0).count() as u64, 60 / (n_variants + 1));
        }
    }

    #[test]
    fn a_family_without_variants_shows_its_original() {
        assert!((0..9).all(|pass| HALF.text(pass, 0, 1, FamilyId(1), 0) == 0));
    }
}
