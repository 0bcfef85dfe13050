//! Queries of finished plans, answered through [`moe_shards::Plan`] alone, like a trainer:
//! where a document is shown, how two plans differ, and whether a plan keeps its promises.

pub mod diff;
pub mod occurrences;
pub mod replay;

use moe_shards::{PassLock, Plan, PoolLock, SampleId, Shard};

/// Position of a pass among those that the plan records of its pool.
fn pass_index(pool: &PoolLock, pass: u32) -> usize {
    // A pool that continues another one continues its count of passes.
    pass.saturating_sub(pool.first_pass()) as usize
}

/// Window of a pass that holds a bin, by the pool's record of its passes.
fn window_of(plan: &Plan, id: SampleId) -> Option<usize> {
    let pool = plan.lock().pools.get(usize::from(id.pool))?;
    let mut end = 0;
    pool.passes.get(pass_index(pool, id.pass))?.bins_per_window.iter().position(|bins| {
        end += bins;
        id.bin < end
    })
}

/// Position of a bin in the stream of its pool: the passes one after another.
fn stream_position(pool: &PoolLock, id: SampleId) -> u64 {
    pool.passes.iter().take(pass_index(pool, id.pass)).map(PassLock::n_bins).sum::<u64>() + id.bin
}

/// The open shard with this number in the manifest.
fn shard_of(plan: &Plan, pool: u16, number: u32) -> Option<&Shard> {
    let name = &plan.manifest().shards.get(number as usize)?.name;
    let at = plan.lock().pools.get(usize::from(pool))?.shards.iter().position(|shard| shard.name == *name)?;
    plan.pools().get(usize::from(pool))?.docs().shards().get(at)
}
