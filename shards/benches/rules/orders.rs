//! Orders in which several epochs show the same documents, written from their definitions.

use moe_shards::permute::{Permutation, Purpose, stream_key};

use crate::interleavings::shuffle;

/// Windows of a pass, `moe-data mix`'s default.
const WINDOWS: u64 = 16;

/// An order and where its definition is.
pub struct Order {
    pub name: &'static str,
    pub source: &'static str,
    /// The documents `0..n` over `epochs` epochs, in the order in which they are shown.
    pub run: fn(n: u32, epochs: u32) -> Vec<u32>,
}

/// All orders, ours first.
pub const ORDERS: [Order; 4] = [
    Order {
        name: "Windows (moe-data)",
        source: "`docs/plan-format.md`: 16 windows in the same order every pass, shuffled inside",
        run: windows,
    },
    Order {
        name: "A shuffle for each epoch",
        source: "PyTorch `DistributedSampler.set_epoch`, OLMoE (arXiv 2409.02060)",
        run: reshuffled,
    },
    Order {
        name: "All epochs in one shuffle (Megatron)",
        source: "Megatron-LM, `_build_document_index` in `gpt_dataset.py`: documents times epochs, shuffled together",
        run: globally_shuffled,
    },
    Order {
        name: "The same order every epoch",
        source: "nanotron `Nanoset`; levanter's `RESTART_STRATEGY`",
        run: repeated,
    },
];

fn windows(n: u32, epochs: u32) -> Vec<u32> {
    let n = u64::from(n);
    let mut order = Vec::new();
    for pass in 0..epochs {
        for window in 0..WINDOWS {
            let (start, end) = (n * window / WINDOWS, n * (window + 1) / WINDOWS);
            let key = stream_key(1, 1, u64::from(pass), window, Purpose::Families);
            let permutation = Permutation::new(end - start, key);
            order.extend((0..end - start).map(|i| (start + permutation.forward(i)) as u32));
        }
    }
    order
}

fn reshuffled(n: u32, epochs: u32) -> Vec<u32> {
    let epoch = |seed| {
        let mut documents: Vec<u32> = (0..n).collect();
        shuffle(&mut documents, u64::from(seed));
        documents
    };
    (0..epochs).flat_map(epoch).collect()
}

fn globally_shuffled(n: u32, epochs: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..epochs).flat_map(|_| 0..n).collect();
    shuffle(&mut order, 99);
    order
}

fn repeated(n: u32, epochs: u32) -> Vec<u32> {
    let first = reshuffled(n, 1);
    (0..epochs).flat_map(|_| first.iter().copied()).collect()
}

/// Distances between consecutive appearances of a document, as fractions of an epoch, ascending.
pub fn gaps(n: u32, order: &[u32]) -> Vec<f64> {
    let mut last = vec![None; n as usize];
    let mut gaps = Vec::new();
    for (t, &document) in order.iter().enumerate() {
        if let Some(before) = last[document as usize].replace(t) {
            gaps.push((t - before) as f64 / f64::from(n));
        }
    }
    gaps.sort_by(f64::total_cmp);
    gaps
}

/// Fraction of the documents among the first `n` appearances.
pub fn seen_after_one_epoch(n: u32, order: &[u32]) -> f64 {
    let mut seen = vec![false; n as usize];
    order[..n as usize].iter().for_each(|&document| seen[document as usize] = true);
    seen.iter().filter(|&&s| s).count() as f64 / f64::from(n)
}

/// Share of the neighbors of the first epoch that are neighbors, in the same order, in the second too.
pub fn repeated_neighbours(n: u32, order: &[u32]) -> f64 {
    let epoch = |e: usize| &order[e * n as usize..(e + 1) * n as usize];
    let mut follower = vec![u32::MAX; n as usize];
    epoch(0).windows(2).for_each(|pair| follower[pair[0] as usize] = pair[1]);
    let kept = epoch(1).windows(2).filter(|pair| follower[pair[0] as usize] == pair[1]).count();
    kept as f64 / f64::from(n - 1)
}
