//! Reads a plan as a trainer would, for comparisons with other loaders: one JSON object on standard output.
//!
//! ```text
//! cargo bench -p moe-shards --bench read_plan -- --plan DIR --samples 100000 [--export FILE]
//! ```
//!
//! `--export` writes the samples instead, as little-endian u32 without header, for the other loaders.

mod support;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use moe_shards::Plan;
use moe_shards::permute::mix64;
use support::option;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(option("--plan").ok_or("give --plan DIR")?);
    let plan = Plan::open(&dir)?;
    let n = match option("--samples") {
        Some(n) => n.parse::<u64>()?.min(plan.len()),
        None => plan.len(),
    };
    if let Some(path) = option("--export") {
        let mut file = BufWriter::new(File::create(path)?);
        for t in 0..n {
            let tokens = plan.sample(t)?.tokens;
            file.write_all(&tokens.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
        }
        return Ok(file.flush()?);
    }
    let rate = |order: &mut dyn Iterator<Item = u64>| -> moe_shards::Result<f64> {
        let started = Instant::now();
        let mut sum = 0u64;
        for t in order {
            sum += plan.sample(t)?.tokens.into_iter().map(u64::from).sum::<u64>();
        }
        std::hint::black_box(sum);
        Ok(n as f64 / started.elapsed().as_secs_f64())
    };
    let scattered = |i: u64| ((u128::from(mix64(i + 1)) * u128::from(n)) >> 64) as u64;
    // The first reading brings the tokens into the page cache.
    rate(&mut (0..n))?;
    let in_order = rate(&mut (0..n))?;
    let random = rate(&mut (0..n).map(scattered))?;
    let mut resumes: Vec<f64> = (0..11)
        .map(|_| {
            let started = Instant::now();
            Plan::open(&dir)?.sample(n / 2)?;
            Ok(started.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<moe_shards::Result<_>>()?;
    resumes.sort_by(f64::total_cmp);
    println!(
        "{{\"samples\": {n}, \"seq_len\": {}, \"in_order_per_s\": {in_order:.0}, \"random_per_s\": {random:.0}, \"resume_ms\": {:.2}}}",
        plan.seq_len(),
        resumes[resumes.len() / 2],
    );
    Ok(())
}
