//! Writes a synthetic build, for benchmarks of `moe-data mix` and of readers:
//!
//! ```text
//! cargo bench -p moe-shards --bench synthetic_build -- --out DIR --docs 10000000 [--tokens]
//! ```
//!
//! Without `--tokens` the token files are holes.

mod support;

use std::path::Path;

use support::synthetic::{self, Synthetic};
use support::{flag, option};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = option("--out").ok_or("give --out DIR")?;
    let docs = option("--docs").ok_or("give --docs NUMBER")?.parse()?;
    let manifest = synthetic::write(Path::new(&out), Synthetic { docs, tokens: flag("--tokens") })?;
    let (docs, tokens) =
        manifest.shards.iter().fold((0, 0), |(d, t), shard| (d + shard.n_docs, t + shard.n_tokens));
    let index: u64 = manifest.shards.iter().map(|shard| shard.mdx_bytes).sum();
    println!("{} shards, {docs} documents, {tokens} tokens, {index} bytes of index", manifest.shards.len());
    Ok(())
}
