//! `work/finished.json`: describes the last finished build of a folder.

use std::fs;
use std::path::Path;

use moe_shards::{Hash, Manifest, atomic};
use serde::{Deserialize, Serialize};

use super::Results;
use crate::error::{Error, Result};
use crate::json;
use crate::ledger::Ledger;
use crate::listing::{Entry, Listing, Maker};
use crate::prepare::Prepared;
use crate::tables::parts::{self, Parts};
use crate::tables::{clear_work, remove_dry_run};

/// Its path below the output folder.
pub(super) const FINISHED: &str = "work/finished.json";

/// Description of the last finished build, in the work folder.
#[derive(Serialize, Deserialize)]
struct Finished {
    fingerprint: Hash,
    /// Digest of the manifest; null for a text-only build, which has none.
    manifest: Option<Hash>,
    /// Digest of `work/parts.json`; versions that exported no texts did not write it.
    #[serde(default)]
    parts: Option<Hash>,
}

/// Deletes work that no build needs any more, and records that this one is finished.
pub(super) fn finish(
    out: &Path,
    prepared: &Prepared,
    manifest: Option<Hash>,
    results: &Results,
) -> Result<()> {
    let work = out.join("work");
    remove_dry_run(&work)?;
    clear_work(&work, &results.used.iter().cloned().collect())?;
    let parts = Some(Hash::of_file(&work.join(parts::FILE))?);
    let finished = Finished { fingerprint: prepared.fingerprint(), manifest, parts };
    Ok(atomic::write_file(&out.join(FINISHED), &json::canonical(&finished))?)
}

fn finished(out: &Path) -> Option<Finished> {
    fs::read(out.join(FINISHED)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// Whether the folder holds exactly the build of this fingerprint. Looks at names and sizes only;
/// `moe-data verify` reads everything.
pub fn is_finished(out: &Path, fingerprint: Hash) -> bool {
    let is_it = |finished: &Finished| finished.fingerprint == fingerprint && finished.parts.is_some();
    let Some(finished) = finished(out).filter(is_it) else {
        return false;
    };
    let has_manifest = match finished.manifest {
        None => !out.join(Manifest::FILE).exists(),
        Some(expected) => {
            Manifest::read(out).and_then(|manifest| manifest.hash()).is_ok_and(|hash| hash == expected)
        }
    };
    // From a version without lists: the files are linked again, and the list is made.
    let Ok(Some(listing)) = Listing::read(out, Maker::Build) else { return false };
    let is_there = |(name, entry): (&String, &Option<Entry>)| {
        entry.is_some_and(|entry| fs::metadata(out.join(name)).is_ok_and(|data| data.len() == entry.bytes))
    };
    has_manifest && listing.files().iter().all(is_there) && Ledger::read(out).is_ok()
}

/// Whether the folder holds a finished text-only build.
pub fn is_text(out: &Path) -> bool {
    finished(out).is_some_and(|finished| finished.manifest.is_none())
}

/// Where the tables of a finished build are, for commands that read its texts.
///
/// # Errors
/// There is no finished build, or another one has started since.
pub fn finished_parts(out: &Path) -> Result<Parts> {
    let work = out.join("work");
    let usage = |message: &str| Error::Usage(format!("{} {message}", out.display()));
    let Some(finished) = finished(out).filter(|_| work.join(parts::FILE).exists()) else {
        return Err(usage(
            "is not a finished build with its work folder; run moe-data build first (texts are taken from the work folder)",
        ));
    };
    let digest = Hash::of_file(&work.join(parts::FILE))?;
    match finished.parts {
        Some(parts) if parts == digest => Parts::read(&work),
        Some(_) => Err(usage("has a build that was stopped; run moe-data build again to finish it")),
        None => Err(usage("is of a version that exported no texts; run moe-data build again")),
    }
}
