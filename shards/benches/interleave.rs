//! The interleaving rule by number of pools: `mix` applies it for every sample of a plan, and a random access
//! repeats it for up to 256 of them.
//!
//! ```text
//! cargo bench -p moe-shards --bench interleave
//! ```

mod support;

use moe_shards::interleave::Interleaver;
use support::timing::Table;

const STEPS: u64 = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::new("256 steps of the interleaving rule");
    for (name, k) in [("2 pools", 2u64), ("8 pools", 8), ("50 pools", 50)] {
        let quotas: Vec<u64> = (1..=k).map(|i| 1_000_000_000 / i).collect();
        let rule = Interleaver::new(&quotas)?;
        table.row(name, 0, || {
            let mut counts = vec![0; quotas.len()];
            (0..STEPS).map(|t| rule.next(t, &mut counts)).sum::<moe_shards::Result<usize>>()
        })?;
    }
    Ok(())
}
