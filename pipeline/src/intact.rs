//! Checks that shards are as they were written, before commands pass tokens on.

use std::path::Path;

use moe_shards::{Manifest, Shard, ShardInfo};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::watch::Watch;

/// Opens a shard of the manifest and compares its index with the manifest's digest.
///
/// # Errors
/// It is missing or damaged.
pub fn open(out: &Path, info: &ShardInfo) -> Result<Shard> {
    let shard = Shard::open(&Manifest::mdx_path(out, &info.name))?;
    shard.verify_index(info.mdx_blake3)?;
    Ok(shard)
}

/// Opens all shards of the manifest.
///
/// # Errors
/// One of them is missing or damaged.
pub fn open_all(out: &Path, manifest: &Manifest) -> Result<Vec<Shard>> {
    manifest.shards.iter().map(|info| open(out, info)).collect()
}

/// Reads the tokens of shards on all cores and compares them with their digests; `watch` advances by their bytes.
///
/// # Errors
/// The first damage found, with shard and, if known, document; a request to stop.
pub fn check<'a>(shards: impl IntoIterator<Item = &'a Shard>, watch: &Watch) -> Result<()> {
    let shards: Vec<&Shard> = shards.into_iter().collect();
    shards.into_par_iter().try_for_each(|shard| {
        match shard.verify_tokens(&mut |n_bytes| watch.advance(n_bytes).is_ok())? {
            true => Ok(()),
            false => Err(Error::Interrupted),
        }
    })
}
