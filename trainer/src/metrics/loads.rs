//! Loads of experts gathered by source and pass: whether experts specialize.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::Batch;
use crate::model::moe::RouterStats;

/// Choices of each expert of one router, by where samples come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupLoads {
    /// By pool number.
    pub sources: BTreeMap<u16, Vec<u64>>,
    /// By pass over the pool, from 0.
    pub passes: BTreeMap<u32, Vec<u64>>,
}

impl GroupLoads {
    /// Adds a router's choices for a batch.
    pub fn add(&mut self, batch: &Batch, stats: &RouterStats) {
        for (id, load) in batch.ids.iter().zip(stats.by_sample()) {
            add(self.sources.entry(id.pool).or_default(), load);
            add(self.passes.entry(id.pass).or_default(), load);
        }
    }
}

fn add(sums: &mut Vec<u64>, load: &[u64]) {
    sums.resize(load.len(), 0);
    sums.iter_mut().zip(load).for_each(|(sum, n)| *sum += n);
}

/// The fraction of each expert, to four digits.
pub fn shares(load: &[u64]) -> Vec<f64> {
    let total = load.iter().sum::<u64>().max(1) as f64;
    load.iter().map(|&n| (n as f64 / total * 1e4).round() / 1e4).collect()
}

/// The mutual information of group and expert in nats, `sum_ge p(g, e) ln(p(g, e) / (p(g) p(e)))`: 0 where
/// all groups go to the same experts, and at most the entropy of either.
pub fn information<'a>(groups: impl Iterator<Item = &'a Vec<u64>> + Clone) -> f64 {
    let mut experts: Vec<u64> = Vec::new();
    groups.clone().for_each(|load| add(&mut experts, load));
    let all = experts.iter().sum::<u64>().max(1) as f64;
    let of_group = |load: &Vec<u64>| -> f64 {
        let group = load.iter().sum::<u64>() as f64;
        let made = load.iter().zip(&experts).filter(|(n, _)| **n > 0);
        made.map(|(&n, &expert)| n as f64 / all * (n as f64 * all / (group * expert as f64)).ln()).sum()
    };
    // Rounding may leave a negative number.
    groups.map(of_group).sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_by_hand() {
        let of = |groups: &[Vec<u64>]| information(groups.iter());
        // Each source has its own expert: ln 2. Both the same, regardless of their sizes: 0.
        assert!((of(&[vec![6, 0], vec![0, 6]]) - 2f64.ln()).abs() < 1e-12);
        assert!(of(&[vec![3, 1], vec![30, 10]]) < 1e-12);
        // p = (3, 1; 1, 3) / 8: 2 * 3/8 ln(3/2) + 2 * 1/8 ln(1/2).
        let expected = 0.75 * 1.5f64.ln() - 0.25 * 2f64.ln();
        assert!((of(&[vec![3, 1], vec![1, 3]]) - expected).abs() < 1e-12);
        assert_eq!((of(&[]), of(&[vec![0, 0]])), (0.0, 0.0));
        assert_eq!(shares(&[1, 2, 0]), [0.3333, 0.6667, 0.0]);
    }
}
