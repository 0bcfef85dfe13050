//! Keyed permutations of `0..n` without a table in memory: random access and invertible, so that a
//! shuffled position is a function of (key, i) and nothing has to be saved to resume.
//!
//! Up to [`TABLE_MAX`] elements a Fisher-Yates table is built (a Feistel network over a tiny domain is
//! visibly biased); above, an alternating Feistel network on `2h` bits with cycle walking
//! (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, section 3). The
//! construction is part of the plan format: `docs/plan-format.md` gives test vectors.

use xxhash_rust::xxh3::xxh3_64;

/// Largest `n` that is permuted through a table.
pub const TABLE_MAX: u64 = 4096;
const ROUNDS: usize = 6;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection in which every output
/// bit depends on every input bit.
pub fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The purpose of a key: equal coordinates with another purpose give an unrelated key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Order of the families in a window.
    Families = 1,
    /// Order of the bins in a window.
    Bins = 2,
    /// Order of the pieces in a bin.
    Pieces = 3,
    /// Rank of a family in the variant rule.
    Variant = 4,
    /// Choice of held-out families.
    Holdout = 5,
    /// Rank of a family among those that a proxy plan keeps.
    Proxy = 6,
}

/// Key of a stream: XXH3-64 of the five words in little-endian order.
pub fn stream_key(seed: u64, pool: u64, pass: u64, window: u64, purpose: Purpose) -> u64 {
    let mut bytes = [0; 40];
    for (slot, word) in bytes.chunks_exact_mut(8).zip([seed, pool, pass, window, purpose as u64]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(&bytes)
}

/// A permutation of `0..n`.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Table { forward: Vec<u16>, inverse: Vec<u16> },
    Feistel { keys: [u64; ROUNDS], half_bits: u32, mask: u64 },
}

impl Permutation {
    /// The permutation of `0..n` that `key` chooses.
    pub fn new(n: u64, key: u64) -> Permutation {
        Permutation { n, kind: if n <= TABLE_MAX { shuffled_table(n, key) } else { feistel(n, key) } }
    }

    /// Elements.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Whether there is nothing to permute.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Where element `i` goes. About 25 ns above [`TABLE_MAX`], 1 ns below.
    ///
    /// # Panics
    /// `i` is not below `n`.
    pub fn forward(&self, i: u64) -> u64 {
        assert!(i < self.n, "position {i} of a permutation of {}", self.n);
        match &self.kind {
            Kind::Table { forward, .. } => u64::from(forward[i as usize]),
            Kind::Feistel { keys, half_bits, mask } => self.walk(i, |x| {
                let (mut l, mut r) = (x >> half_bits, x & mask);
                for key in keys {
                    (l, r) = (r, (l ^ mix64(r ^ key)) & mask);
                }
                (l << half_bits) | r
            }),
        }
    }

    /// Which element goes to `i`: `inverse(forward(i)) == i`.
    ///
    /// # Panics
    /// `i` is not below `n`.
    pub fn inverse(&self, i: u64) -> u64 {
        assert!(i < self.n, "position {i} of a permutation of {}", self.n);
        match &self.kind {
            Kind::Table { inverse, .. } => u64::from(inverse[i as usize]),
            Kind::Feistel { keys, half_bits, mask } => self.walk(i, |x| {
                let (mut l, mut r) = (x >> half_bits, x & mask);
                for key in keys.iter().rev() {
                    (l, r) = ((r ^ mix64(l ^ key)) & mask, l);
                }
                (l << half_bits) | r
            }),
        }
    }

    /// Applies the cipher until the value is in the domain; expected below four times, since the
    /// cipher's domain is at most four times `n`.
    fn walk(&self, mut x: u64, cipher: impl Fn(u64) -> u64) -> u64 {
        loop {
            x = cipher(x);
            if x < self.n {
                return x;
            }
        }
    }
}

fn shuffled_table(n: u64, key: u64) -> Kind {
    let mut forward: Vec<u16> = (0..n as u16).collect();
    let mut counter = 0u64;
    for i in (1..n).rev() {
        let j = below(i + 1, key, &mut counter);
        forward.swap(i as usize, j as usize);
    }
    let mut inverse = vec![0; n as usize];
    for (i, &to) in forward.iter().enumerate() {
        inverse[usize::from(to)] = i as u16;
    }
    Kind::Table { forward, inverse }
}

/// Unbiased draw from `0..bound` (Lemire, "Fast Random Integer Generation in an Interval", 2019).
fn below(bound: u64, key: u64, counter: &mut u64) -> u64 {
    loop {
        *counter += 1;
        let draw = mix64(key.wrapping_add(GOLDEN.wrapping_mul(*counter)));
        let product = u128::from(draw) * u128::from(bound);
        if product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

fn feistel(n: u64, key: u64) -> Kind {
    // `n - 1`, not `n`: the width must fit the largest element.
    let bits = u64::BITS - (n - 1).leading_zeros();
    let half_bits = bits.div_ceil(2);
    let mut keys = [0; ROUNDS];
    let mut previous = key;
    for (i, slot) in keys.iter_mut().enumerate() {
        previous = mix64(previous.wrapping_add(GOLDEN.wrapping_mul(i as u64 + 1)));
        *slot = previous;
    }
    Kind::Feistel { keys, half_bits, mask: (1 << half_bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bijective(n: u64, key: u64) {
        let permutation = Permutation::new(n, key);
        let mut seen = vec![false; n as usize];
        for i in 0..n {
            let to = permutation.forward(i);
            assert!(!std::mem::replace(&mut seen[to as usize], true), "n {n}: {to} twice");
            assert_eq!(permutation.inverse(to), i, "n {n}");
        }
    }

    #[test]
    fn bijective_at_every_small_size_and_at_edges() {
        (0..600).for_each(|n| check_bijective(n, 1));
        for k in 12..19 {
            for n in [(1 << k) - 1, 1 << k, (1 << k) + 1] {
                check_bijective(n, k);
            }
        }
        check_bijective(1_048_577, 9);
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(mix64(1), 0x5692_161d_100b_05e5);
        let key = stream_key(1, 2, 3, 4, Purpose::Bins);
        let head = |n| -> Vec<u64> { (0..6).map(|i| Permutation::new(n, key).forward(i)).collect() };
        // Printed in docs/plan-format.md; a change breaks every existing plan.
        assert_eq!(key, 18_233_134_582_624_816_994);
        assert_eq!(head(10), [9, 1, 6, 3, 2, 5]);
        assert_eq!(head(5000), [815, 209, 3507, 4755, 1472, 322]);
        assert_eq!(
            head(1 << 40),
            [295769168647, 79702135833, 216957771775, 387245732412, 1081990079692, 541596004868]
        );
    }

    /// A weak round function shows first in the lowest bit and in the distances of neighbors.
    #[test]
    fn neighbours_are_unrelated() {
        for n in [5_000, 1 << 20, 1_000_000, (1 << 20) + 1] {
            let permutation = Permutation::new(n, 77);
            let draws: Vec<u64> = (0..100_000.min(n)).map(|i| permutation.forward(i)).collect();
            let pairs = draws.len() as f64 - 1.0;
            let same = draws.windows(2).filter(|w| w[0] % 2 == w[1] % 2).count() as f64 / pairs;
            assert!((same - 0.5).abs() < 0.025, "n {n}: {same} of neighbours have equal parity");
            let mut cells = [0f64; 100];
            draws.windows(2).for_each(|w| cells[((w[1] + n - w[0]) % n * 100 / n) as usize] += 1.0);
            let mean = pairs / 100.0;
            let chi2: f64 = cells.iter().map(|c| (c - mean).powi(2) / mean).sum();
            // 99 degrees of freedom: mean 99, standard deviation 14; five deviations either side.
            assert!((30.0..170.0).contains(&chi2), "n {n}: chi2 {chi2}");
        }
    }

    /// At the sizes around a power of two, where published permutations fail: values are spread evenly over
    /// the domain, and values some steps apart are unrelated in their lowest and highest bits.
    #[test]
    fn edge_sizes_are_even_and_unrelated_at_every_lag() {
        for k in [13u32, 16, 20, 24] {
            for n in [(1u64 << k) - 1, 1 << k, (1 << k) + 1] {
                let permutation = Permutation::new(n, u64::from(k) * 1000 + n);
                let draws: Vec<u64> = (0..n.min(50_000)).map(|i| permutation.forward(i)).collect();
                let mut cells = [0f64; 100];
                draws.iter().for_each(|draw| cells[(draw * 100 / n) as usize] += 1.0);
                let mean = draws.len() as f64 / 100.0;
                let chi2: f64 = cells.iter().map(|c| (c - mean).powi(2) / mean).sum();
                // 99 degrees of freedom. Draws without repetition are more even than independent ones: no
                // lower bound.
                assert!(chi2 < 170.0, "n {n}: chi2 {chi2}");
                for lag in [1, 2, 3, 4, 7, 8, 16, 64, 256, 1024] {
                    let pairs = draws.len() - lag;
                    let agree = |bit: &dyn Fn(u64) -> bool| {
                        let same =
                            draws.iter().zip(&draws[lag..]).filter(|(a, b)| bit(**a) == bit(**b)).count();
                        same as f64 / pairs as f64
                    };
                    // Five standard deviations of the share of equal bits among independent pairs.
                    let slack = 2.5 / (pairs as f64).sqrt();
                    for share in [agree(&|x| x % 2 == 1), agree(&|x| x >= n / 2)] {
                        assert!((share - 0.5).abs() < slack, "n {n}, lag {lag}: {share}");
                    }
                }
            }
        }
    }

    /// Five elements: all 120 orders, evenly.
    #[test]
    fn small_tables_are_unbiased() {
        let mut counts = std::collections::BTreeMap::<Vec<u64>, f64>::new();
        for key in 0..60_000u64 {
            let permutation = Permutation::new(5, mix64(key));
            *counts.entry((0..5).map(|i| permutation.forward(i)).collect()).or_default() += 1.0;
        }
        assert_eq!(counts.len(), 120);
        let chi2: f64 = counts.values().map(|c| (c - 500.0).powi(2) / 500.0).sum();
        assert!((50.0..200.0).contains(&chi2), "chi2 {chi2} on 119 degrees of freedom");
    }
}
