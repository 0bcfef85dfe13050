//! Times that a trainer waits for: opening a plan, a sample anywhere, samples in order; and a plain read of
//! the same mapped tokens for comparison, over the plan in the folder `--plan`. `scripts/bench/mix-read.sh`
//! makes one and calls this:
//!
//! ```text
//! cargo bench -p moe-shards --bench samples -- --plan DIR
//! ```

mod support;

use std::path::{Path, PathBuf};

use moe_shards::Plan;
use moe_shards::permute::mix64;
use support::option;
use support::timing::{self, Table};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = option("--plan").map(PathBuf::from).ok_or("give --plan DIR, a folder with a plan")?;
    opening(&dir)?;
    sampling(&dir)
}

/// Sample numbers in random order, the same in every run.
fn scattered(n: u64) -> impl Iterator<Item = u64> {
    (0u64..).map(move |i| ((u128::from(mix64(i + 1)) * u128::from(n)) >> 64) as u64)
}

fn opening(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let len = Plan::open(dir)?.len();
    let mut table = Table::new("opening the plan and the first sample");
    for (name, t) in [("at the start", 0), ("at half", len / 2), ("at the end", len - 1)] {
        table.row(name, 0, || Plan::open(dir)?.sample(t))?;
    }
    Ok(())
}

fn sampling(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let plan = Plan::open(dir)?;
    let width = if plan.manifest().tokenizer.vocab_size < 65_500 { 2 } else { 4 };
    let bytes = plan.seq_len() * width;
    println!("{} samples of {} tokens, {width} bytes each\n", plan.len(), plan.seq_len());

    // Everything measured is in the page cache, as far as memory allows.
    for t in 0..plan.len() {
        plan.sample(t)?;
    }
    let mut table = Table::new("one sample");
    let mut t = scattered(plan.len());
    table.row("locate a random t", 0, || plan.locate(t.next().unwrap_or(0)))?;
    table.row("sample at a random t", bytes, || plan.sample(t.next().unwrap_or(0)))?;
    let mut t = (0..plan.len()).cycle();
    table.row("samples in order", bytes, || plan.sample(t.next().unwrap_or(0)))?;
    // As many tokens as a sample has, in order, without plan or index.
    let shards = plan.pools().iter().flat_map(|pool| pool.docs().shards());
    let shard = shards.max_by_key(|shard| shard.n_tokens()).ok_or("the plan has no shards")?;
    let mut chunks = shard.token_bytes().chunks_exact(bytes).cycle();
    table.row("plain read of mapped tokens as u32", bytes, || -> moe_shards::Result<Vec<u32>> {
        let chunk = chunks.next().unwrap_or_default();
        Ok(match width {
            2 => chunk.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            _ => chunk.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        })
    })?;
    table.row("plain copy of mapped tokens", bytes, || -> moe_shards::Result<Vec<u8>> {
        Ok(chunks.next().unwrap_or_default().to_vec())
    })?;
    timing::two_threads("samples in order, two threads", bytes, plan.len(), |t| plan.sample(t).map(drop))?;
    Ok(())
}
