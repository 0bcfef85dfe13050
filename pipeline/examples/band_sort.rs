//! Measures the external sort on band rows: makes pseudo-random rows, sorts them within a memory
//! limit, reads the groups, and prints one line of JSON. `scripts/bench/band-sort.sh` runs it.
//!
//! One row in eight repeats the key of an earlier one, as near-duplicates do.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use moe_data::recipe::ByteSize;
use moe_data::tables::rows::BandRow;
use moe_data::tables::sort::Sorter;
use moe_data::watch::Watch;
use xxhash_rust::xxh3::Xxh3;

#[derive(Parser)]
struct Args {
    /// Rows of 16 bytes.
    #[arg(long)]
    rows: u64,
    /// Memory limit.
    #[arg(long)]
    memory: ByteSize,
    /// An empty folder for the runs; it takes 16 bytes a row.
    #[arg(long)]
    folder: PathBuf,
}

/// A bijection of 64 bits that scatters (splitmix64, Steele et al. 2014).
fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn main() -> moe_data::Result<()> {
    let args = Args::parse();
    let start = Instant::now();
    let mut sorter = Sorter::new(&args.folder.join("runs"), args.memory.0, &Watch::idle())?;
    for document in 0..args.rows {
        let key = scatter(if document % 8 == 7 { document / 2 } else { document });
        sorter.push(BandRow { key, document })?;
    }
    let pushed = start.elapsed().as_secs_f64();
    let (mut n_groups, mut n_rows, mut digest) = (0u64, 0u64, Xxh3::new());
    let mut groups = sorter.finish()?.groups(|row| row.key);
    while let Some(mut group) = groups.next_group()? {
        n_groups += 1;
        while let Some(row) = group.next_row()? {
            n_rows += 1;
            digest.update(&row.document.to_le_bytes());
        }
    }
    let all = start.elapsed().as_secs_f64();
    assert_eq!(n_rows, args.rows, "rows were lost");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
    let line = serde_json::json!({
        "rows": n_rows, "groups": n_groups, "digest": format!("{:016x}", digest.digest()),
        "runs_s": pushed, "merge_s": all - pushed, "all_s": all,
        "rows_per_s": (n_rows as f64 / all) as u64, "mb_per_s": (n_rows * 16) as f64 / all / 1e6, "peak": peak,
    });
    println!("{line}");
    Ok(())
}
