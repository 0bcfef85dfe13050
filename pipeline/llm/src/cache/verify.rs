//! A check of every byte of a cache.

use std::collections::HashSet;
use std::path::Path;

use moe_shards::Hash;
use serde::Serialize;

use super::plain::Plain;
use super::{Cache, POISON_FILE, POISON_HEADER, half, line};
use crate::error::Result;

/// What a check of a whole cache found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Completions that can be read.
    pub completions: u64,
    /// Bytes of their lines.
    pub line_bytes: u64,
    /// Identity of the set of completions, see [`Cache::digest`].
    pub digest: Hash,
    /// Everything that is wrong, with file and place; empty when all is well.
    pub problems: Vec<String>,
}

impl Cache {
    /// Reads all of a cache and compares lines, checksums and tables with each other.
    ///
    /// # Errors
    /// The folder or a file cannot be read or decompressed at all.
    pub fn verify(dir: &Path) -> Result<Verified> {
        let cache = Cache::open_read_only(dir)?;
        let (mut problems, mut line_bytes) = (Vec::new(), 0);
        let mut found = HashSet::new();
        cache.lines(|path, place, line| {
            line_bytes += line.len() as u64 + 1;
            match line::completion(line) {
                Some((key, _)) => match cache.index.get(&half(&key)) {
                    Some(noted) if *noted == place => drop(found.insert(half(&key))),
                    // A second answer, which is ignored.
                    Some(_) => {}
                    None => problems.push(format!("{}: {key} is not in the table of keys", path.display())),
                },
                None => problems.push(format!(
                    "{}: the line at byte {} of its text is not as it was written",
                    path.display(),
                    place.at
                )),
            }
            Ok(())
        })?;
        let missing = cache.index.len() - found.len();
        if missing > 0 {
            problems.push(format!("{}: {missing} keys of the tables have no readable line", dir.display()));
        }
        let poison_list = dir.join(POISON_FILE);
        if poison_list.exists() {
            let damaged = Plain::open(&poison_list, POISON_HEADER)?.1.damaged;
            if damaged > 0 {
                problems
                    .push(format!("{}: {damaged} lines are not as they were written", poison_list.display()));
            }
        }
        let torn = cache.opened().torn_bytes;
        if torn > 0 {
            problems.push(format!("{}: {torn} bytes of unfinished lines", dir.display()));
        }
        let digest = cache.digest()?;
        Ok(Verified { completions: found.len() as u64, line_bytes, digest, problems })
    }
}
