//! Putting a plan in place: which of the existing files are ours, and their list.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::{PackRef, PlanLock};

use super::effective_tokens::{PoolTokens, WorthFile};
use super::folder::{MIXTURE_FILE, WORTH_FILE, packs};
use crate::error::{Error, Result};
use crate::json;
use crate::listing::{Entry, Listing, Maker};

/// The files of a plan with the same name in every folder.
const NAMES: [&str; 3] = [MIXTURE_FILE, WORTH_FILE, PlanLock::FILE];

const HEADER: &str = "# The mixture of plan.lock, resolved by `moe-data mix`.\n";

/// The list of our files.
fn open(out: &Path) -> Result<Listing> {
    let has_header =
        |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(HEADER.trim_end()));
    let mut earlier = Vec::new();
    if PlanLock::read(out).is_ok() {
        earlier.push(PlanLock::FILE.to_owned());
    }
    if has_header(&out.join(MIXTURE_FILE)) {
        earlier.push(MIXTURE_FILE.to_owned());
    }
    if matches!(WorthFile::read(out), Ok(Some(_))) {
        earlier.push(WORTH_FILE.to_owned());
    }
    Listing::open(out, Maker::Mix, earlier)
}

/// Refuses to replace files that are not ours, before any work.
///
/// # Errors
/// [`Error::Usage`] naming a conflicting one.
pub(super) fn check(out: &Path) -> Result<()> {
    let listing = open(out)?;
    NAMES.into_iter().try_for_each(|name| listing.check(name))
}

/// Puts the plan in place; returns whether it was new.
///
/// # Errors
/// A write fails.
pub(super) fn install(out: &Path, lock: &PlanLock, resolved: &str, worth: &[PoolTokens]) -> Result<bool> {
    let mixture = format!("{HEADER}{resolved}");
    let worth = json::canonical(&WorthFile { plan: lock.id, pools: worth.to_vec() });
    let beside = [(MIXTURE_FILE, mixture.as_bytes()), (WORTH_FILE, &worth)];
    let files = files(out, lock, beside.map(|(name, bytes)| (name, Entry::of(bytes))))?;
    let mut listing = open(out)?;
    let is_old = PlanLock::read(out).is_ok_and(|old| old == *lock);
    if is_old && *listing.files() == files {
        return Ok(false);
    }
    listing.claim(NAMES.map(str::to_owned))?;
    for (name, bytes) in beside {
        moe_shards::atomic::write_file(&out.join(name), bytes)?;
    }
    lock.write(out)?;
    list(listing, &files)?;
    Ok(!is_old)
}

/// Updates the list to the plan in place, in case a command was killed after writing `plan.lock`.
///
/// # Errors
/// A file of the plan is missing, or a write fails.
pub(super) fn finish(out: &Path, lock: &PlanLock) -> Result<()> {
    let listing = open(out)?;
    let mut beside = Vec::new();
    for name in [MIXTURE_FILE, WORTH_FILE] {
        let path = out.join(name);
        match listing.files().get(name) {
            Some(Some(entry)) => beside.push((name, *entry)),
            Some(None) if path.exists() => beside.push((name, Entry::of_file(&path)?)),
            _ => {}
        }
    }
    let files = files(out, lock, beside)?;
    match *listing.files() == files {
        true => Ok(()),
        false => list(listing, &files),
    }
}

/// The files of a plan, as in a list.
fn files(
    out: &Path,
    lock: &PlanLock,
    beside: impl IntoIterator<Item = (&'static str, Entry)>,
) -> Result<BTreeMap<String, Option<Entry>>> {
    let mut files = BTreeMap::from([(PlanLock::FILE.to_owned(), Some(Entry::of(&lock.to_bytes()?)))]);
    files.extend(beside.into_iter().map(|(name, entry)| (name.to_owned(), Some(entry))));
    for PackRef { file, blake3 } in packs(lock) {
        let path = out.join(file);
        let bytes = std::fs::metadata(&path).map_err(Error::io(&path, "read"))?.len();
        files.insert(file.clone(), Some(Entry { bytes, blake3: *blake3 }));
    }
    Ok(files)
}

/// Removes what the plan no longer has, and writes the list.
fn list(mut listing: Listing, files: &BTreeMap<String, Option<Entry>>) -> Result<()> {
    listing.remove(|name| files.contains_key(name))?;
    for (name, entry) in files {
        entry.iter().for_each(|entry| listing.note(name, *entry));
    }
    listing.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_takes_only_the_place_of_our_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let mut lock: PlanLock = serde_json::from_value(serde_json::json!({
            "version": 1, "seed": 1, "holdout_ppm": 0, "manifest": moe_shards::Hash::default(),
            "pools": [], "phases": [], "id": moe_shards::Hash::default(),
        }))
        .unwrap();
        lock.seal().unwrap();
        write(MIXTURE_FILE, "my own plan");
        assert!(check(dir.path()).unwrap_err().to_string().contains("plan.toml is in the way"));
        write(MIXTURE_FILE, HEADER);
        check(dir.path()).unwrap();
        assert!(install(dir.path(), &lock, "", &[]).unwrap());
        assert!(!install(dir.path(), &lock, "", &[]).unwrap());
        // As after a kill between plan.lock and the list.
        let path = Listing::path(dir.path(), Maker::Mix);
        let whole = std::fs::read(&path).unwrap();
        open(dir.path()).unwrap().claim(NAMES.map(str::to_owned)).unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), whole);
        finish(dir.path(), &lock).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}
