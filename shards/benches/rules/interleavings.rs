//! Rules that choose the source of each sample, written from their definitions. Each gives the source of step
//! `t` (from 0) for quotas that sum to the number of steps.

use moe_shards::interleave::Interleaver;
use moe_shards::permute::mix64;

/// Levanter's default block.
const BLOCK: usize = 2048;

/// A rule and where its definition is.
pub struct Rule {
    pub name: &'static str,
    pub source: &'static str,
    /// Sources in the order in which the rule shows them.
    pub run: fn(&[u64]) -> Vec<usize>,
}

/// All rules, ours first.
pub const RULES: [Rule; 6] = [
    Rule {
        name: "Tijdeman (moe-data)",
        source: "R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32, 1980",
        run: tijdeman,
    },
    Rule {
        name: "Greedy error (Megatron)",
        source: "Megatron-LM, `build_blending_indices` in `megatron/core/datasets/helpers.cpp`",
        run: greedy_error,
    },
    Rule {
        name: "Smooth weighted round robin (nmoe)",
        source: "nginx's upstream balancing (2012); nmoe, `mixture.py`",
        run: smooth_round_robin,
    },
    Rule {
        name: "Nested floors (grain)",
        source: "grain, `_counts_per_dataset` of `MapDataset.mix`; here with the exact quotas, which grain rounds first",
        run: nested_floors,
    },
    Rule {
        name: "Shuffled blocks (levanter)",
        source: "levanter, `MixtureDataset`: fixed counts in blocks of 2,048, shuffled inside; counts by largest remainder",
        run: shuffled_blocks,
    },
    Rule {
        name: "Independent draws",
        source: "`random.choices`: levanter before its blocks, Hugging Face `interleave_datasets` with probabilities",
        run: independent,
    },
];

fn total(quotas: &[u64]) -> u64 {
    quotas.iter().sum()
}

fn tijdeman(quotas: &[u64]) -> Vec<usize> {
    let rule = Interleaver::new(quotas).expect("quotas of a benchmark are small");
    let mut counts = vec![0; quotas.len()];
    (0..rule.total()).map(|t| rule.next(t, &mut counts).expect("the counts are the rule's own")).collect()
}

/// The source with the largest `w_i max(t, 1) - x_i`, the first of equals.
fn greedy_error(quotas: &[u64]) -> Vec<usize> {
    let n = total(quotas) as f64;
    let mut counts = vec![0u64; quotas.len()];
    let next = |t| {
        let step = f64::max(t as f64, 1.0);
        let error = |i: usize, counts: &[u64]| quotas[i] as f64 / n * step - counts[i] as f64;
        let mut best = 0;
        for i in 1..quotas.len() {
            if error(i, &counts) > error(best, &counts) {
                best = i;
            }
        }
        counts[best] += 1;
        best
    };
    (0..total(quotas)).map(next).collect()
}

/// Every source gains its weight; the one with the most is chosen and pays the sum of the weights.
fn smooth_round_robin(quotas: &[u64]) -> Vec<usize> {
    let n = total(quotas) as i64;
    let mut credit = vec![0i64; quotas.len()];
    let next = |_| {
        let mut best = 0;
        for i in 0..quotas.len() {
            credit[i] += quotas[i] as i64;
            if credit[i] > credit[best] {
                best = i;
            }
        }
        credit[best] -= n;
        best
    };
    (0..n).map(next).collect()
}

/// Source 0 has `ceil(t q_0 / N)` of the first `t`; the rest is shared among the others in the same way.
fn nested_floors(quotas: &[u64]) -> Vec<usize> {
    let counts_after = |mut t: u64| -> Vec<u64> {
        let mut remaining = total(quotas);
        let share = |&q: &u64| {
            let rest = (u128::from(t) * u128::from(remaining - q) / u128::from(remaining)) as u64;
            let count = t - rest;
            remaining -= q;
            t = rest;
            count
        };
        quotas.iter().map(share).collect()
    };
    let mut before = vec![0; quotas.len()];
    let next = |t| {
        let after = counts_after(t + 1);
        let chosen =
            after.iter().zip(&before).position(|(a, b)| a > b).expect("one count grows at every step");
        before = after;
        chosen
    };
    (0..total(quotas)).map(next).collect()
}

fn shuffled_blocks(quotas: &[u64]) -> Vec<usize> {
    let n = total(quotas);
    let exact = |i: usize| quotas[i] as u128 * BLOCK as u128;
    let mut counts: Vec<usize> = (0..quotas.len()).map(|i| (exact(i) / u128::from(n)) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..quotas.len()).collect();
    by_remainder.sort_by_key(|&i| std::cmp::Reverse(exact(i) % u128::from(n)));
    let missing = BLOCK - counts.iter().sum::<usize>();
    by_remainder[..missing].iter().for_each(|&i| counts[i] += 1);
    let mut order = Vec::new();
    for block in 0..n.div_ceil(BLOCK as u64) {
        let mut sources: Vec<usize> =
            counts.iter().enumerate().flat_map(|(i, &count)| std::iter::repeat_n(i, count)).collect();
        shuffle(&mut sources, block);
        order.extend(sources);
    }
    order.truncate(n as usize);
    order
}

fn independent(quotas: &[u64]) -> Vec<usize> {
    let n = total(quotas);
    let draw = |t| {
        let mut at = ((u128::from(mix64(t ^ mix64(7))) * u128::from(n)) >> 64) as u64;
        let mut source = 0;
        while at >= quotas[source] {
            at -= quotas[source];
            source += 1;
        }
        source
    };
    (0..n).map(draw).collect()
}

/// Fisher-Yates, with a counter-based generator.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        let draw = mix64(mix64(seed.wrapping_add(1)).wrapping_add(i as u64));
        items.swap(i, ((u128::from(draw) * (i as u128 + 1)) >> 64) as usize);
    }
}

/// Quotas in proportion to `weights` that sum to `steps`, by largest remainder.
pub fn quotas(weights: &[f64], steps: u64) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| steps as f64 * w / sum).collect();
    let mut quotas: Vec<u64> = exact.iter().map(|&q| q as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let missing = (steps - total(&quotas)) as usize;
    order[..missing].iter().for_each(|&i| quotas[i] += 1);
    quotas
}

/// Largest `|x_i - t q_i / N|` over all sources, after each step the largest so far.
pub fn worst_so_far(quotas: &[u64], order: &[usize]) -> Vec<f64> {
    let n = i128::from(total(quotas));
    let mut counts = vec![0i128; quotas.len()];
    let mut worst = 0;
    let after = |(t, &source): (usize, &usize)| {
        counts[source] += 1;
        for (&x, &q) in counts.iter().zip(quotas) {
            worst = worst.max((x * n - (t as i128 + 1) * i128::from(q)).abs());
        }
        worst as f64 / n as f64
    };
    order.iter().enumerate().map(after).collect()
}

/// Largest distance of a rank's slice of a batch from its share of each source, over all batches and ranks.
pub fn worst_slice(quotas: &[u64], order: &[usize], batch: usize, world: usize, strided: bool) -> f64 {
    let n = total(quotas) as f64;
    let slice = batch / world;
    let mut worst = 0f64;
    for batch in order.chunks_exact(batch) {
        for rank in 0..world {
            let mut counts = vec![0u64; quotas.len()];
            for j in 0..slice {
                counts[batch[if strided { j * world + rank } else { rank * slice + j }]] += 1;
            }
            for (&x, &q) in counts.iter().zip(quotas) {
                worst = worst.max((x as f64 - slice as f64 * q as f64 / n).abs());
            }
        }
    }
    worst
}
